"""A second look as users meet it: model, inferencer, command, server, files, a test."""
import json

import numpy as np
import pytest
import torch
from endpoint_standin import endpoint, picture_of
from PIL import Image
from test_second_look import disc
from test_models_simpleseg import sample

from simpleseg_mm import cli
from simpleseg_mm.apis import SimpleSegInferencer
from simpleseg_mm.client import EndpointInferencer
from simpleseg_mm.evaluation import OutputHealthMetric
from simpleseg_mm.evaluation.offline import attach_row
from simpleseg_mm.evaluation.text_dump import TextDump, read_text_rows
from simpleseg_mm.export.vectors import to_geojson
from simpleseg_mm.models.consensus import Consensus
from simpleseg_mm.polygon import codec_of, mask_iou
from simpleseg_mm.samples import answer_of
from simpleseg_mm.second_look import LISTS_UNSEEN, SecondLook
from simpleseg_mm.structures import Generated
from simpleseg_mm.visualization.painter import QueryPainter

pytestmark = pytest.mark.usefixtures('one_thread')
CODEC = codec_of('int100/default')
SIZE = (600, 800)
TRUTH = disc(SIZE, 407, 303, 14)
OTHER = disc(SIZE, 107, 103, 11)
PICTURE = np.where((TRUTH | OTHER)[..., None], np.uint8(0), np.uint8(255)).repeat(3, 2)


def dark(picture: np.ndarray) -> np.ndarray:
    """(h, w) bool."""
    return picture.mean(axis=2) < 128


class Oracle:
    """Writes what it sees: the dark pixels, in the steps of its grammar."""

    def __init__(self, says=lambda mask, number: CODEC.encode(mask)) -> None:
        self.says, self.pictures, self.prompts = says, [], []

    def written(self, image, prompt) -> Generated:
        picture = image.permute(1, 2, 0).numpy()
        text = self.says(dark(picture), len(self.pictures))
        self.pictures.append(picture)
        self.prompts.append(prompt)
        return Generated(text, 7, True, (1, 2), (0.0, -1.0))

    def stream(self, asked, batch_size=None, on_tokens=None, **options):
        for number, (image, prompt, _) in enumerate(asked):
            answer = self.written(image, prompt)
            if on_tokens is not None:
                on_tokens(number, answer.token_ids)
            yield answer

    def groups(self, asked, more, batch_size=None, on_tokens=None, **options):
        for number, (image, prompt, _) in enumerate(asked):
            answers = []
            while (count := more(number, answers)) > 0:
                answers += [self.written(image, prompt) for _ in range(count)]
            yield answers


@pytest.fixture(scope='module')
def inferencer():
    return SimpleSegInferencer(device='cpu', show_progress=False)


@pytest.fixture
def model(inferencer, monkeypatch):
    """The model of the inferencer, which an oracle answers; its looks and votes are set back."""
    model, oracle = inferencer.model, Oracle()
    monkeypatch.setattr(model, 'answer_stream', oracle.stream)
    monkeypatch.setattr(model, 'group_stream', oracle.groups)
    monkeypatch.setattr(model, 'second_look', SecondLook())
    monkeypatch.setattr(model, 'consensus', None)
    model.oracle = oracle
    yield model
    del model.oracle


def asked(number=0, task='text2mask', **more):
    one = sample([('Outline the disc.', '[]')], SIZE, 'int100/default')
    one.set_metainfo(dict(task=task, img_id=number, text='disc', **more))
    return one


def tensor(picture):
    return torch.from_numpy(picture).permute(2, 0, 1)


ONE = np.where(TRUTH[..., None], np.uint8(0), np.uint8(255)).repeat(3, 2)
EMPTY = np.full((*SIZE, 3), 255, np.uint8)
LARGE = np.where(disc(SIZE, 400, 300, 250)[..., None], np.uint8(0), np.uint8(255)).repeat(3, 2)


# --- the model ----------------------------------------------------------------------------------
def test_small_answers_get_finer(model):
    """One of three is small; the crop is asked about by the same words, and enlarged."""
    samples = [asked(k) for k in range(3)]
    model.predict([tensor(one) for one in (ONE, EMPTY, LARGE)], samples)
    look, = samples[0].pred_looks
    assert look['accepted'] and [len(answer_of(one).looks) for one in samples] == [1, 0, 0]
    assert model.oracle.prompts == ['Outline the disc.'] * 4
    assert max(model.oracle.pictures[3].shape) == 448
    first = CODEC.encode(TRUTH)
    assert samples[0].pred_text == first and samples[0].pred_num_tokens == 14
    assert [one.pred_num_tokens for one in samples[1:]] == [7, 7]
    found = samples[0].pred_instances.masks[0].numpy()
    assert (found == answer_of(samples[0]).mask).all()
    assert mask_iou(found, TRUTH) > 0.95
    assert samples[0].pred_confidence == samples[1].pred_confidence


def test_looks_are_those_of_their_own_sample(model):
    """Whatever is answered beside them, and in whatever batches."""
    pictures = [ONE, EMPTY, ONE[:, ::-1].copy(), LARGE, ONE[::-1].copy()]
    found = []
    for size in (1, 2, 5):
        samples = [asked(k) for k in range(5)]
        batches = [dict(inputs=list(map(tensor, pictures[k:k + size])),
                        data_samples=samples[k:k + size]) for k in range(0, 5, size)]
        assert [len(batch) for batch in model.predict_stream(batches)] == [
            len(batch['data_samples']) for batch in batches]
        found.append([(one.get('pred_looks'), answer_of(one).box.tolist()
                       if answer_of(one).rings else None) for one in samples])
    assert found[0] == found[1] == found[2]
    assert [bool(looks) for looks, _ in found[0]] == [True, False, True, False, True]


@pytest.mark.parametrize('says', ['', '[]', 'no', '[[[', '[[[9,9]]]', '[5,5,9,9]', '\ud800',
                                  '[[[1,1],[1,9],[9,9]]]', '[[[0,0],[0,100],[100,100],[100,0]]]'])
def test_whatever_is_said_of_the_crop(model, says):
    model.oracle.says = lambda mask, number: CODEC.encode(mask) if number == 0 else says
    one = asked()
    model.predict([tensor(ONE)], [one])
    assert [look['accepted'] for look in one.pred_looks] == [False]
    assert (one.pred_instances.masks[0].numpy() == CODEC.decode(one.pred_text, SIZE).mask).all()


def test_a_picture_that_was_resized_is_cut_where_the_answer_is(model):
    one = asked()
    model.predict([tensor(np.ascontiguousarray(ONE[::2, ::2]))], [one])
    assert one.pred_looks[0]['accepted']
    assert mask_iou(one.pred_instances.masks[0].numpy(), TRUTH) > 0.9


@pytest.mark.parametrize('size', [(1, 1), (1, 9), (2, 3)])
def test_tiny_pictures(model, size):
    one = asked()
    one.set_metainfo(dict(ori_shape=size))
    model.predict([tensor(np.zeros((*size, 3), np.uint8))], [one])
    assert 'pred_looks' not in one and one.pred_instances.masks.shape == (1, *size)


def test_a_crop_of_one_pixel(model):
    model.second_look = SecondLook(margin=0, zoom=1.1)
    codec, size = 'int1000/default', (8, 8)
    model.oracle.says = lambda mask, number: codec_of(codec).encode(mask)
    picture = np.full((*size, 3), 255, np.uint8)
    picture[3, 4] = 0
    one = asked()
    one.set_metainfo(dict(ori_shape=size, codec=codec))
    model.predict([tensor(picture)], [one])
    assert len(one.pred_looks) == 1 and one.pred_instances.masks.sum() == 1


@pytest.mark.parametrize('task', ['text2box', 'text2point', 'question'])
def test_other_tasks_are_answered_once(model, task):
    one = asked(task=task)
    model.predict([tensor(ONE)], [one])
    assert 'pred_looks' not in one and len(model.oracle.pictures) == 1


def test_instances_of_lists(model, monkeypatch):
    said = []
    monkeypatch.setattr('simpleseg_mm.models.simpleseg.print_log',
                        lambda text, *_: said.append(text))
    model.oracle.says = lambda mask, number: CODEC.encode_masks(
        [OTHER, TRUTH]) if number == 0 else CODEC.encode(mask)
    one = asked(task='text2masks')
    model.predict([tensor(PICTURE)], [one])
    assert 'pred_looks' not in one and said == [LISTS_UNSEEN]
    model.oracle.__init__(model.oracle.says)
    model.second_look = SecondLook(lists=True)
    model.predict([tensor(PICTURE)], [one])
    assert [look['instance'] for look in one.pred_looks] == [0, 1] and len(said) == 1
    assert all(look['accepted'] for look in one.pred_looks)
    for mask, truth in zip(one.pred_instances.masks.numpy(), (OTHER, TRUTH)):
        assert mask_iou(mask, truth) > 0.93
    assert 'all' not in model.oracle.prompts[1] and 'disc' in model.oracle.prompts[1]


def test_the_vote_first_then_the_look(model):
    """The crop is voted too; the confidence is that of the first vote."""
    model.consensus = Consensus(samples=2)
    one = asked()
    model.predict([tensor(ONE)], [one])
    answer = answer_of(one)
    assert len(model.oracle.pictures) == 6 and len(answer.voters) == 3
    assert answer.looks[0].accepted and answer.agreement == 1 and answer.num_tokens == 42
    assert mask_iou(answer.mask, TRUTH) > 0.95
    assert one.pred_instances.scores.tolist() == pytest.approx([answer.confidence])
    assert [len(widths) for widths in answer.spread] == [len(ring) for ring in answer.rings]


def test_those_who_watch_are_told_of_the_first_answer(model):
    told = []
    one = asked()
    model.predict([tensor(ONE)], [one], on_tokens=lambda row, ids: told.append((row, ids)))
    assert told == [(0, (1, 2)), (0, ())]


@pytest.mark.parametrize('settings, message', [
    (dict(zoom=0), 'zoom is 0'), (dict(look=1), "'look'"), (3, 'is 3')])
def test_bad_settings_are_named_before_a_model_is_loaded(settings, message, monkeypatch):
    monkeypatch.setattr('simpleseg_mm.apis.inferencer.MODELS.build', None)
    with pytest.raises(ValueError, match=message):
        SimpleSegInferencer(second_look=settings, device='cpu')


# --- files --------------------------------------------------------------------------------------
def test_dumps_are_read_again_with_their_looks(model, tmp_path):
    one = asked(split='test', source='s', image_id=1, ref_id=1, sent_id=1)
    model.predict([tensor(ONE)], [one])
    dump = TextDump(str(tmp_path / 'a.jsonl'))
    dump.process({}, [one.to_dict()])
    dump.evaluate(1)
    row, = read_text_rows(tmp_path / 'a.jsonl')
    assert row['looks'] == one.pred_looks
    again = asked()
    attach_row(again, row)
    assert (again.pred_instances.masks == one.pred_instances.masks).all()
    row['looks'][0]['window'] = [5, 5, 1, 1]
    (tmp_path / 'b.jsonl').write_text(json.dumps(row))
    with pytest.raises(ValueError, match="line 1: 'looks' is .* a run writes them"):
        read_text_rows(tmp_path / 'b.jsonl')


def test_health_counts_looks(model):
    from mmdet.structures.mask import BitmapMasks
    samples = [asked(k, gt_masks=BitmapMasks(TRUTH[None].astype(np.uint8), *SIZE))
               for k in range(3)]
    model.oracle.says = lambda mask, number: '[]' if number == 4 else CODEC.encode(mask)
    model.predict([tensor(one) for one in (ONE, LARGE, ONE)], samples)
    metric = OutputHealthMetric()
    metric.process({}, [one.to_dict() for one in samples])
    figures = metric.evaluate(3)
    assert figures['health/looked_again'] == pytest.approx(200 / 3)
    assert figures['health/look_taken'] == pytest.approx(50)


# --- inferencers --------------------------------------------------------------------------------
def test_results_and_files(inferencer, model, tmp_path):
    result, = inferencer.write([PICTURE[:, 200:]], 'disc', str(tmp_path))
    assert result.looks[0].accepted and mask_iou(result.mask, TRUTH[:, 200:]) > 0.95
    row = json.loads(next((tmp_path / 'preds').iterdir()).read_text())
    assert row['looks'] == [look.to_dict() for look in result.looks]
    ring = to_geojson([result])['features'][0]['geometry']['coordinates'][0]
    assert {tuple(np.round(point, 6)) for point in ring} == {
        tuple(point) for point in result.parts[0].outer.round(6)}
    assert not result.warnings or LISTS_UNSEEN not in result.warnings


def test_lists_without_looks_say_so(inferencer, model):
    result, = inferencer.segment([PICTURE], dict(text='disc', all=True))
    assert LISTS_UNSEEN in result.warnings


def test_an_endpoint_looks_again(monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY', raising=False)
    with endpoint() as (url, standin):
        standin.says = lambda picture, question: CODEC.encode(dark(picture))
        client = EndpointInferencer(url, codec='int100/default', wait=0.001, retries=0,
                                    show_progress=False, second_look=True)
        result, = client.segment([ONE], 'disc')
        assert len(standin.asked) == 2 and result.looks[0].accepted
        assert mask_iou(result.mask, TRUTH) > 0.95
        assert max(picture_of(standin.asked[1]).shape) == 448
        assert [body['messages'][-1]['content'][1] for body in standin.asked[:1]] == [
            body['messages'][-1]['content'][1] for body in standin.asked[1:]]
        # a look that fails leaves the first answer
        standin.says = lambda picture, question: (
            CODEC.encode(dark(picture)) if picture.shape[0] == SIZE[0] else 1 / 0)
        result, = client.segment([ONE], 'disc')
        assert not result.looks and result.mask.any()
        assert sum('second look was not answered' in text for text in result.warnings) == 1


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY', raising=False)
    Image.fromarray(ONE).save(tmp_path / 'a.png')
    with endpoint() as (url, standin):
        standin.says = lambda picture, question: CODEC.encode(dark(picture))
        assert cli.main(['segment', str(tmp_path / 'a.png'), 'disc', '--second-look',
                         '--endpoint', url, '--codec', 'int100', '--out-dir',
                         str(tmp_path / 'out')]) == 0
    assert 'second look: 1 of 1 taken' in capsys.readouterr().out


def test_pictures_are_drawn_in_any_size(model):
    """Of a picture that was enlarged, as crops are, the outline lies on the object."""
    one = asked()
    model.predict([tensor(ONE)], [one])
    painter = QueryPainter(side=1, largest=4000)
    drawn = painter.draw_query(ONE, one, draw_gt=False)
    double = painter.draw_query(ONE.repeat(2, 0).repeat(2, 1), one, draw_gt=False)
    tinted = [np.ptp(picture[:SIZE[0] * k].astype(int), axis=2) > 60  # in colours
              for k, picture in ((1, drawn), (2, double))]
    boxes = [np.array([[v.min(), v.max()] for v in np.nonzero(mask)]) for mask in tinted]
    assert np.abs(boxes[0] * 2 - boxes[1]).max() <= 12
