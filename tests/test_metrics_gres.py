"""gRefCOCO's figures and promptable segmenters' mIoU: values worked out by hand, and mmdet's."""
import numpy as np
import pytest
from mmdet.evaluation import RefSegMetric
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import DefaultScope
from test_metrics_evaluator import make_sample, rect, run

from simpleseg_mm.evaluation import GRESMetric, OutputHealthMetric, PromptedMaskMetric, RESMetric

SIZE = (480, 480)  # ReLA's own: its resizing changes nothing


@pytest.fixture(autouse=True)
def default_scope():
    with DefaultScope.overwrite_default_scope('simpleseg_mm'):
        yield


def region(*boxes):
    mask = np.zeros(SIZE, bool)
    for box in boxes:
        mask |= rect(*box, SIZE)
    return mask


def query(number, truths, answer, text=None):
    """A query: boxes of its objects, and of the answer's rings."""
    sample = make_sample(region(*truths), region(*answer), img_id=number, text=text)
    sample.set_metainfo(dict(instances=[
        dict(bbox=list(box), bbox_label=0, ignore_flag=0, mask=[]) for box in truths]))
    return sample


LEFT, RIGHT, BELOW = (0, 0, 100, 100), (200, 0, 300, 100), (0, 200, 100, 260)  # 10000, 10000, 6000
WIDE = (0, 0, 200, 100)  # 20000 pixels, half of them LEFT

CASES = {  # (objects, answer, text) of each query; figures in percent
    'all absent, all said so': (
        [([], [], None)] * 3, {'gIoU': 100, 'N-acc': 100}),
    'all absent, all missed': (  # I 0, U 10000 + 20000
        [([], [LEFT], None), ([], [WIDE], None)], {'cIoU': 0, 'gIoU': 0, 'N-acc': 0}),
    'all present, all denied': (
        [([LEFT], [], None), ([LEFT, RIGHT], [], None)],
        {'cIoU': 0, 'gIoU': 0, 'Pr@0.7': 0, 'Pr@0.8': 0, 'Pr@0.9': 0, 'gIoU_single': 0,
         'gIoU_several': 0}),
    'a false object beside a right answer': (  # I 10000; U 10000 + 10000; IoU 1 and 0
        [([LEFT], [LEFT], None), ([], [RIGHT], None)],
        {'cIoU': 50, 'gIoU': 50, 'Pr@0.7': 100, 'Pr@0.8': 100, 'Pr@0.9': 100, 'N-acc': 0,
         'T-acc': 100, 'gIoU_single': 100}),
    'several objects, one missed': (  # I 20000, U 26000
        [([LEFT, RIGHT, BELOW], [LEFT, RIGHT], None)],
        {'cIoU': 1000 / 13, 'gIoU': 1000 / 13, 'Pr@0.7': 100, 'Pr@0.8': 0, 'Pr@0.9': 0,
         'gIoU_several': 1000 / 13}),
    'everything at once': (
        # I: 20000 + 0 + 10000 + 0 + 0; U: 20000 + 10000 + 20000 + 0 + 6000; IoU 1, 0, .5, 1, 0
        [([LEFT, RIGHT], [LEFT, RIGHT], None), ([LEFT], [], None), ([LEFT], [WIDE], None),
         ([], [], None), ([], [BELOW], None)],
        {'cIoU': 100 * 30000 / 56000, 'gIoU': 50, 'Pr@0.7': 100 / 3, 'Pr@0.8': 100 / 3,
         'Pr@0.9': 100 / 3, 'N-acc': 50, 'T-acc': 200 / 3, 'gIoU_single': 25,
         'gIoU_several': 100}),
    'words are no empty answer': (  # the present one was not denied: T-acc counts it
        [([], [], 'there is none'), ([LEFT], [], 'there it is'), ([], [], '[]')],
        {'cIoU': 0, 'gIoU': 100 / 3, 'Pr@0.7': 0, 'Pr@0.8': 0, 'Pr@0.9': 0, 'N-acc': 50,
         'T-acc': 100, 'gIoU_single': 0}),
}


@pytest.mark.parametrize('name', CASES)
def test_gres_by_hand(name):
    queries, expected = CASES[name]
    samples = [query(k, *parts) for k, parts in enumerate(queries)]
    figures = run(GRESMetric(), samples)
    assert figures == pytest.approx({f'gres/{key}': value for key, value in expected.items()})
    assert run(GRESMetric(), samples[::-1]) == figures


def test_gres_equals_mmdet_where_both_are_defined():
    """cIoU and the mean IoU over present targets; mmdet gives 0 where nothing is meant and said,
    which is the difference of the two means."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(30):
        boxes = []
        for _ in range(int(rng.integers(0, 4))):
            x, y = rng.integers(0, 300, 2)
            boxes.append((x, y, x + int(rng.integers(10, 150)), y + int(rng.integers(10, 150))))
        answer = [] if rng.random() < 0.3 else [
            tuple(int(v) for v in np.array(box) + 10) for box in boxes] or [(5, 5, 60, 70)]
        samples.append(query(number, boxes, answer))
    present = [sample for sample in samples if sample.instances]
    right = sum(not s.instances and s.pred_text == '[]' for s in samples)
    assert 0 < right < len(samples) - len(present) and 10 < len(present) < 30
    for chosen, extra in ((present, 0), (samples, 100 * right / len(samples))):
        theirs = run(RefSegMetric(), chosen)
        ours = run(GRESMetric(), chosen)
        assert ours['gres/cIoU'] == pytest.approx(float(theirs['cIoU']), abs=1e-4)
        assert ours['gres/gIoU'] == pytest.approx(float(theirs['mIoU']) + extra, abs=1e-4)


def test_gres_takes_another_protocol_and_sets():
    samples = [query(0, [LEFT], [LEFT]), query(1, [], [], 'none')]
    figures = run(GRESMetric(protocol='text4seg', thresholds=[0.5], per_set=True), samples)
    assert figures['gres/N-acc'] == figures['gres/refcoco_val/N-acc'] == 100
    assert 'gres/Pr@0.5' in figures and 'gres/Pr@0.7' not in figures
    with pytest.raises(ValueError, match="unknown protocol 'gres'"):
        GRESMetric(protocol='gres')


def test_ignored_pixels_count_for_neither_mask():
    sample = query(0, [LEFT], [WIDE])
    assert run(RESMetric(boundary=False), [sample])['res/cIoU'] == 50
    ignored = region((100, 0, 150, 100))  # half of what is wrong
    sample.set_metainfo(dict(gt_ignore=BitmapMasks(ignored[None].astype(np.uint8), *SIZE)))
    assert run(RESMetric(boundary=False), [sample])['res/cIoU'] == pytest.approx(200 / 3)
    ignored = region((0, 0, 50, 100), (100, 0, 480, 480))  # and half of the target
    sample.set_metainfo(dict(gt_ignore=BitmapMasks(ignored[None].astype(np.uint8), *SIZE)))
    figures = run([RESMetric(boundary=False), GRESMetric()], [sample])
    assert figures['res/cIoU'] == figures['gres/gIoU'] == 100


def test_health_of_absent_targets():
    figures = run(OutputHealthMetric(), [query(0, [], []), query(1, [], [LEFT]),
                                         query(2, [], [], 'no'), query(3, [LEFT], [])])
    assert figures['health/false_object'] == pytest.approx(100 / 3)
    assert figures['health/empty'] == 100
    assert figures['health/valid_parse'] == 75  # '[]' is a whole answer
    assert 'health/false_object' not in run(OutputHealthMetric(), [query(0, [LEFT], [LEFT])])


def prompted(number, truth, answer, area, task='point2mask'):
    sample = query(number, [truth], [answer])
    sample.set_metainfo(dict(task=task))
    if area is not None:
        sample.instances[0]['area'] = area
    return sample


def test_prompted_masks_by_hand():
    samples = [prompted(0, LEFT, LEFT, 1023.9), prompted(1, LEFT, WIDE, 1024),
               prompted(2, LEFT, WIDE, 9215.5), prompted(3, LEFT, RIGHT, 9216),
               prompted(4, LEFT, LEFT, None),  # 10000 pixels: large
               prompted(5, LEFT, LEFT, 0.4)]
    figures = run(PromptedMaskMetric(), samples)
    assert figures == pytest.approx({
        'prompt/mIoU': 400 / 6, 'prompt/objects': 6, 'prompt/mIoU_small': 100,
        'prompt/mIoU_medium': 50, 'prompt/mIoU_large': 50})
    figures = run(PromptedMaskMetric(), samples[:2] + [prompted(6, LEFT, RIGHT, 50, 'box2mask')])
    assert figures['prompt/point/mIoU'] == 75 and figures['prompt/box/mIoU'] == 0
    assert figures['prompt/box/objects'] == 1 and figures['prompt/mIoU'] == 50
    with pytest.raises(ValueError, match="0 has the task 'text2box'; this metric scores"):
        run(PromptedMaskMetric(), [prompted(0, LEFT, LEFT, 5, 'text2box')])
