"""The model stages with small random networks of the real classes, held against transformers."""
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from annotation_models import chat, detector, segmenter
from annotation_standin import FAST, config, folder_of, jpeg, photos, run
from mmengine.config import Config
from PIL import Image

from simpleseg_mm.annotation.stages import (DescribeByChat, GroundingDetect, Sample, SamSegment,
                                     SelectBoxes, VerifyDescriptions)
from simpleseg_mm.annotation.grounding import get_grounder
from simpleseg_mm.annotation.pipeline import Plan
from simpleseg_mm.polygon import rle_to_mask

LABELS = ['person', 'a dog', 'traffic lights', 'Red. car']


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp('models')
    return dict(detect=detector(root / 'detect'), describe=chat(root / 'chat'),
                **{name: segmenter(root / name, name) for name in ('sam', 'sam2', 'sam3')})


def sample(seed: int = 0, size=(80, 60)) -> Sample:
    made = Sample(f's{seed}', jpeg(seed, size=size))
    made.width, made.height = size
    return made


def real_stages(models, segment='sam') -> dict:
    """Every model stage, with thresholds that let random networks through."""
    return dict(
        detect=dict(type='GroundingDetect', pretrained=models['detect'], labels=LABELS,
                    threshold=0.0, batch_size=2),
        select=dict(type='SelectBoxes', min_score=0, min_side=2, max_share=1.1, max_objects=3),
        segment=dict(type='SamSegment', pretrained=models[segment], batch_size=3),
        clean=dict(type='CleanMasks', min_area=1, min_score=-9, min_box_iou=0, max_sides=4,
                   max_iou=1.1),
        polygon=dict(type='WritePolygons', codec=FAST, min_iou=0),
        describe=dict(type='DescribeByChat', pretrained=models['describe'], dtype='float32',
                      max_new_tokens=8),
        verify=dict(type='VerifyDescriptions', pretrained=models['detect'], min_iou=0,
                    min_score=0))


@pytest.mark.parametrize('segment', ['sam', 'sam2', 'sam3'])
def test_photos_end_to_end(models, real_data, tmp_path, segment):
    images = photos(real_data, tmp_path / 'images', 4)
    cfg = config(dict(type='ReadFolder', root=str(images)), **real_stages(models, segment))
    found = run(cfg, tmp_path / 'run')
    counts = found['counts']
    assert found['quarantined'] == 0 and counts['images']['entered'] == 4
    assert counts['objects']['entered'] == 4 * 12  # every query
    assert counts['objects']['written'] > 0 and counts['descriptions']['entered'] > 0
    assert set(found['images_per_second']) == {'read', 'image', *real_stages(models)}
    again = run(dict(cfg, order=cfg['order']), tmp_path / 'again')
    assert again['counts'] == counts


def test_the_detector_against_transformers(models):
    from transformers.models.grounding_dino import processing_grounding_dino as official
    grounder = get_grounder(models['detect'], 'float32', 'cpu')
    images = [sample(0).image, sample(1, (90, 50)).image]
    prompt = 'person. a dog. traffic lights.'
    inputs = {**grounder.tokenizer([prompt] * 2, return_tensors='pt'),
              **grounder.image_processor(images=images, return_tensors='pt')}
    with torch.inference_mode():
        output = grounder.model(**inputs)
    processor = official.GroundingDinoProcessor.__new__(official.GroundingDinoProcessor)
    processor.tokenizer = grounder.tokenizer
    processor.batch_decode = grounder.tokenizer.batch_decode
    expected = processor.post_process_grounded_object_detection(
        output, inputs['input_ids'], threshold=-1, target_sizes=[im.shape[:2] for im in images])
    found = grounder(images, [LABELS[:3]] * 2)
    tokens = grounder.tokenizer.convert_ids_to_tokens(inputs['input_ids'][0])
    assert tokens == ['[CLS]', 'person', '.', 'a', 'dog', '.', 'traffic', 'light', '##s', '.',
                      '[SEP]']
    probabilities = output.logits.sigmoid().numpy()
    for number, (boxes, scores) in enumerate(found):
        np.testing.assert_allclose(boxes, expected[number]['boxes'].numpy(), atol=1e-3)
        by_hand = np.stack([probabilities[number][:, part].max(1)
                            for part in ([1], [3, 4], [6, 7, 8])], 1)
        np.testing.assert_allclose(scores, by_hand, atol=1e-6)


def test_a_long_vocabulary_is_asked_in_parts(models, tmp_path):
    (tmp_path / 'labels.txt').write_text('\n'.join(LABELS * 3 + ['cat']))
    stage = GroundingDetect(models['detect'], str(tmp_path / 'labels.txt'), threshold=0)
    groups = stage.grounder.split(list(dict.fromkeys(stage.labels)))
    assert groups == [[*LABELS, 'cat']]
    groups = stage.grounder.split(['dog'] * 30)
    assert sum(groups, []) == ['dog'] * 30 and len(groups) > 2
    assert all(2 + 2 * len(group) <= stage.grounder.max_tokens for group in groups)
    stage.labels = [f'{a} {b}' for a in ('dog', 'cat', 'car') for b in ('red', 'left', 'on', 'a')]
    stage.name, first, other = 'detect', sample(0), sample(1)
    other.meta['tags'] = ['dog']
    stage.tags = 'tags'
    stage.process([first, other])
    assert len(first.objects) == 12 * len(stage.grounder.split(stage.labels)) > 12
    assert len(other.objects) == 12 and {o['category'] for o in other.objects} == {'dog'}


def test_images_without_labels(models):
    stage = GroundingDetect(models['detect'], tags='tags')
    stage.name, lone = 'detect', sample(0)
    stage.process([lone])
    assert lone.dropped == ('detect', 'no labels')
    with pytest.raises(ValueError, match='give labels'):
        GroundingDetect(models['detect'])


def test_a_detector_of_nan(models):
    stage = GroundingDetect(models['detect'], LABELS)
    stage.name, one = 'detect', sample(0)
    stage.grounder = lambda images, labels: [(np.full((5, 4), np.nan), np.full((5, 4), np.nan))
                                             for _ in images]
    stage.grounder.split = lambda labels: [labels]
    stage.process([one])
    select = SelectBoxes()
    select.name = 'select'
    select.process([one])
    assert one.counts['select', 'objects', 'box or score not finite'] == 5
    assert one.dropped == ('select', 'no box')


def test_sam_against_transformers(models):
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil
    stage = SamSegment(models['sam'], max_boxes=2)
    stage.name = 'segment'
    samples = [sample(0), sample(1, (50, 90)), sample(2)]
    boxes = [[[5, 5, 40, 50], [20, 10, 70, 55], [0, 0, 80, 60]], [[5, 5, 30, 80]], []]
    for one, own in zip(samples, boxes):
        one.propose([dict(box=box, score=0.9, category='dog') for box in own])
    stage.process(samples)
    processor = SamImageProcessorPil(size=dict(longest_edge=64),
                                     pad_size=dict(height=64, width=64))
    for one, own in zip(samples[:2], boxes):
        inputs = processor(images=one.image, return_tensors='pt')
        h, w = inputs['reshaped_input_sizes'][0].tolist()
        scale = np.array([w / one.width, h / one.height] * 2)
        with torch.inference_mode():
            output = stage.model(pixel_values=inputs['pixel_values'], multimask_output=False,
                                 input_boxes=torch.tensor(own * scale, dtype=torch.float32)[None])
        masks = processor.post_process_masks(output.pred_masks, inputs['original_sizes'],
                                             inputs['reshaped_input_sizes'])[0]
        for found, mask, score in zip(one.objects, masks, output.iou_scores[0]):
            assert (rle_to_mask(found['mask']) != mask[0].numpy()).mean() < 0.02
            assert found['mask_score'] == pytest.approx(float(score), abs=2e-3)


def test_sam2_on_a_whole_image_against_transformers(models):
    stage = SamSegment(models['sam2'])
    stage.name, one = 'segment', sample(0, (64, 64))
    one.propose([dict(box=[8, 8, 50, 40], score=0.9, category='dog')])
    stage.process([one])
    pixels = stage._pixels(one.image, (64, 64))[None]
    with torch.inference_mode():
        output = stage.model(pixel_values=pixels, input_boxes=torch.tensor([[[8., 8, 50, 40]]]),
                             multimask_output=False)
    full = torch.nn.functional.interpolate(output.pred_masks[0], (64, 64), mode='bilinear')
    assert (rle_to_mask(one.objects[0]['mask']) != (full[0, 0] > 0).numpy()).mean() < 0.01


def test_the_answer_to_one_object_does_not_depend_on_the_others(models):
    stage = DescribeByChat(models['describe'], dtype='float32', max_new_tokens=8, max_requests=3)
    picture = Image.open(io.BytesIO(jpeg(0)))
    alone = stage.ask([(picture, 'a red thing')])
    together = stage.ask([(picture, 'a red thing'), (picture, 'the large blue star on the left'),
                          (picture, 'x'), (picture, 'a red thing')])
    assert together[0] == alone[0] == together[3] and len(together) == 4
    assert stage.ask([]) == []


def test_verification_by_a_real_network(models):
    stage = VerifyDescriptions(models['detect'], min_iou=0, min_score=0)
    stage.name, one = 'verify', sample(0)
    boxes = [[10, 10, 50, 50], [0, 0, 30, 30], [20, 5, 80, 60]]
    one.propose([dict(box=box, score=1, category='dog', descriptions=[dict(text=text)])
                 for box, text in zip(boxes, ['the red dog', 'a car on the left. ' * 9, '?'])])
    stage.process([one])
    found = [d['iou'] for o in one.objects for d in o['descriptions']]
    assert len(found) + sum(one.counts.values()) == 3 and all(0 <= iou <= 1 for iou in found)


@pytest.mark.parametrize('box, score, reason', [
    ([10, 10, 50, 50], 0.9, None), ([10, 10, 50, 41], 0.9, 'grounded elsewhere'),
    ([10, 10, 50, 43], 0.9, None), ([10, 10, 50, 50], 0.1, 'not found again'),
    ([np.nan] * 4, 0.9, 'box or score not finite'),
    ([10, 10, 50, 50], np.nan, 'box or score not finite')])
def test_verification(models, box, score, reason):
    stage = VerifyDescriptions(models['detect'], min_iou=0.8)
    stage.name, one = 'verify', sample(0)
    texts = [dict(text='dog'), dict(text='dog')]
    one.propose([dict(box=[10, 10, 50, 50], score=1, category='dog', descriptions=texts)])
    stage.grounder = lambda images, labels: [
        (np.array([[0, 0, 9, 9], box], float), np.array([[0.05], [score]])) for _ in images]
    stage.grounder.split = lambda labels: [labels]
    stage.process([one])
    left = one.objects[0]['descriptions']
    if reason is None:
        assert [d['iou'] >= 0.8 for d in left] == [True, True]
    else:
        assert left == [] and one.counts == {('verify', 'descriptions', reason): 2}


@pytest.mark.parametrize('build, match', [
    (lambda m: GroundingDetect(m['sam'], ['dog']), 'is a sam'),
    (lambda m: SamSegment(m['detect']), 'is a grounding-dino'),
])
def test_the_wrong_kind_of_model(models, build, match):
    with pytest.raises(ValueError, match=match):
        build(models)


def test_the_shipped_configs():
    root = Path(__file__).resolve().parents[1] / 'configs/annotation'
    for name in ('grounding_dino_sam_qwen', 'mm_grounding_dino_sam2_endpoint', 'coco_oracle'):
        cfg = Config.fromfile(root / f'{name}.py')
        plan = Plan.from_config(cfg, 'work')
        assert list(plan.stages) == cfg.order
        json.dumps(plan.stages)


def test_a_folder_that_is_a_stage_away(tmp_path, models):
    """Tags beside the images are labels."""
    images = folder_of(tmp_path / 'images', 2, size=(80, 60))
    (images / '000.json').write_text(json.dumps(dict(tags=['dog'])))
    cfg = config(dict(type='ReadFolder', root=str(images)), detect=dict(
        type='GroundingDetect', pretrained=models['detect'], tags='tags', threshold=0))
    found = run(cfg, tmp_path / 'run')['counts']
    assert found['images']['dropped'] == {'detect: no labels': 1}
