"""Pictures: what is drawn where, text that never breaks them, sheets, curves, the test hook."""
import json
import sys
import types
from collections import OrderedDict
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.logging import MMLogger
from mmengine.registry import VISUALIZERS, DefaultScope
from mmengine.structures import InstanceData
from PIL import Image

from simpleseg_mm.engine.hooks.visualization_hook import PredictionVisualizationHook
from simpleseg_mm.polygon import PolygonCodec
from simpleseg_mm.visualization import curves
from simpleseg_mm.visualization import (SimpleSegVisualizer, contact_sheet, draw, plot_curves,
                                        read_scalars, write_image)

CODEC = PolygonCodec(grammar='int1000', tokens=None)
GREY = np.full((60, 80, 3), 128, np.uint8)
TRUTH = np.zeros((60, 80), bool)
TRUTH[10:30, 10:40] = True
WRONG = np.zeros((60, 80), bool)
WRONG[40:55, 50:70] = True


@pytest.fixture(scope='module')
def visualizer():
    return SimpleSegVisualizer()


def make_sample(text=None, mask=WRONG, task='text2mask', **meta):
    sample = DetDataSample(metainfo={**dict(
        img_id=3, ori_shape=(60, 80), task=task, prompt='Outline it.', answer=CODEC.encode(TRUTH),
        codec=CODEC.spec, gt_masks=BitmapMasks(TRUTH[None].astype(np.uint8), 60, 80),
        pred_text=CODEC.encode(mask) if text is None else text, pred_num_tokens=12,
        pred_finished=True), **meta})
    sample.pred_instances = InstanceData(masks=torch.from_numpy(mask)[None])
    return sample


def near(picture, color, scale=7, reach=60):
    """Where the photo's part of a picture has about this colour, at the photo's size."""
    area = picture[:60 * scale, :80 * scale].astype(int)
    close = (np.abs(area - np.array(color)).sum(axis=-1) < reach).reshape(60, scale, 80, scale)
    return close.any(axis=(1, 3))


@pytest.mark.parametrize('size, side, scale', [((60, 80), 560, 7), ((84, 84), 560, 7),
                                               ((480, 640), 560, 1), ((1, 1), 560, 560),
                                               ((300, 200), 560, 2)])
def test_small_images_are_enlarged(size, side, scale):
    image, found = draw.fit(np.zeros((*size, 3), np.uint8), side)
    assert found == scale and image.shape == (size[0] * scale, size[1] * scale, 3)


def test_large_images_are_reduced(visualizer):
    image, scale = draw.fit(np.zeros((3000, 4000, 3), np.uint8))
    assert image.shape == (1200, 1600, 3) and scale == 0.4
    masks = BitmapMasks(np.kron(TRUTH, np.ones((50, 50), np.uint8))[None], 3000, 4000)
    big = make_sample(ori_shape=(3000, 4000), gt_masks=masks)
    picture = visualizer.draw_query(np.full((3000, 4000, 3), 128, np.uint8), big, draw_pred=False)
    drawn = np.argwhere(np.abs(picture[:1200].astype(int) - draw.TRUTH).sum(-1) < 60)
    assert picture.shape[1] == 1600
    assert np.abs(drawn.min(0) - [200, 200]).max() < 4   # the mask's corner, (500, 500) of 4,000
    with pytest.raises(ValueError, match='side must be'):
        SimpleSegVisualizer(side=560, largest=500)


def test_truth_and_prediction_are_where_they_should_be(visualizer):
    picture = visualizer.draw_query(GREY, make_sample())
    truth, prediction = near(picture, draw.TRUTH), near(picture, draw.PREDICTION)
    tinted = near(picture, 0.65 * 128 + 0.35 * np.array(draw.PREDICTION), reach=12)
    # The dashes lie on the border of the true mask and on nothing else.
    assert truth.any() and not truth[12:28, 12:38].any() and not truth[33:].any()
    assert truth[9:31, 9:41].sum() == truth.sum()
    assert prediction[38:57, 48:72].sum() == prediction.sum() > 0
    assert tinted[42:53, 52:68].all() and not tinted[:38].any()
    assert picture.shape[0] > 60 * 7 and picture.shape[1] == 80 * 7     # a caption underneath


def test_what_is_not_asked_for_is_not_drawn(visualizer):
    only_truth = visualizer.draw_query(GREY, make_sample(), draw_pred=False)
    only_prediction = visualizer.draw_query(GREY, make_sample(), draw_gt=False)
    assert near(only_truth, draw.TRUTH).any() and not near(only_truth, draw.PREDICTION).any()
    assert near(only_prediction, draw.PREDICTION).any()
    assert not near(only_prediction, draw.TRUTH).any()
    assert np.array_equal(visualizer.draw_query(GREY), draw.fit(GREY)[0])
    assert (GREY == 128).all()                                          # the photo is not touched


def test_vertices_are_drawn_in_order_with_a_marked_start():
    canvas = np.zeros((200, 200, 3), np.uint8)
    ring = np.array([[20., 20.], [20., 160.], [160., 160.], [160., 20.]])
    draw.draw_vertices(canvas, ring)
    red = [int(canvas[int(y), int(x), 1]) for x, y in ring]             # green falls to red
    assert red == sorted(red, reverse=True) and len(set(red)) == 4
    assert tuple(canvas[20, 26]) == (255, 255, 255)                     # the rim of the first
    assert canvas[40, 20].sum() > 600 and canvas[20, 40].sum() == 0     # the arrow points down


@pytest.mark.parametrize('task, text, inside', [
    ('text2box', '[625,667,875,917]', (slice(40, 55), slice(50, 70))),
    ('text2point', '[750,800]', (slice(44, 53), slice(55, 66))),
    ('text2extreme', '[750,800]', (slice(44, 53), slice(55, 66))),
    ('point2mask', None, None), ('box2mask', None, None)])
def test_boxes_and_points(visualizer, task, text, inside):
    prompt = {'point2mask': 'What is at [125,834]?', 'box2mask': 'What is in [80,750,190,950]?'}
    sample = make_sample(text, task=task, answer='[125,167,500,500]' if text else '[]',
                         prompt=prompt.get(task, 'Where is it?'))
    picture = visualizer.draw_query(GREY, sample)
    if inside is None:
        given = near(picture, draw.GIVEN_COLOR)
        assert given.any() and given[44:58, 5:17].sum() == given.sum()
    else:
        assert near(picture, draw.PREDICTION)[inside].any()


@pytest.mark.parametrize('text', [
    '', '[]', 'no idea', '[[[1,1],[2', '[[[nan,1e308],[3,4],[5,6]]]', 'x' * 10 ** 6,
    '[' * 5000, '[[[1,1],[1,1]]]', '\n\t\0 é 多边形', '[[[' + '[1,2],' * 5000])
def test_any_text_gives_a_picture(visualizer, text):
    for task in ('text2mask', 'text2box', 'text2point'):
        picture = visualizer.draw_query(GREY, make_sample(text, np.zeros_like(WRONG), task=task))
        assert picture.shape[1] == 560 and picture.shape[0] < 60 * 7 + 250


def test_a_sample_without_text_shows_its_mask(visualizer):
    sample = make_sample()
    for key in ('pred_text', 'codec', 'task', 'prompt', 'answer'):
        sample.pop(key)
    assert near(visualizer.draw_query(GREY, sample), draw.PREDICTION)[40, 50:70].any()
    del sample.pred_instances
    assert not near(visualizer.draw_query(GREY, sample), draw.PREDICTION).any()


def test_side_by_side():
    visualizer = SimpleSegVisualizer('side', layout='side_by_side')
    picture = visualizer.draw_query(GREY, make_sample())
    assert picture.shape[1] > 2 * 560
    green, pink = ((np.abs(picture[45:400].astype(int) - color).sum(-1) < 60).any(0)
                   for color in (draw.TRUTH, draw.PREDICTION))
    assert green[:570].any() and not green[575:].any()
    assert pink[575:].any() and not pink[:570].any()
    with pytest.raises(ValueError, match="overlay.*got 'below'"):
        SimpleSegVisualizer('below', layout='below')


def test_wrapping():
    text = '[[[' + '],['.join(f'{i},{i}' for i in range(100, 400)) + ']]]'
    lines = draw.wrap(text, 40, 3)
    assert len(lines) == 3 and all(len(line) <= 40 for line in lines)
    assert lines[0].startswith('[[[100,100],') and lines[-1].endswith('399,399]]]')
    assert '…' in ''.join(lines)
    assert lines[0].endswith('],')                         # broken behind a vertex
    assert draw.wrap('', 40, 3) == ['']
    assert draw.wrap('a b', 40, 3) == ['a b']
    assert draw.wrap('x' * 100, 40, 3) == ['x' * 40, 'x' * 40, 'x' * 20]


def test_contact_sheet():
    images = [np.full((10, 20, 3), 10, np.uint8), np.full((30, 10, 3), 20, np.uint8),
              np.full((5, 5, 3), 30, np.uint8)]
    sheet = contact_sheet(images, columns=2, gap=2)
    assert sheet.shape == (2 + 30 + 2 + 5 + 2, 2 + 20 + 2 + 10 + 2, 3)
    assert (sheet[2:12, 2:22] == 10).all() and (sheet[2:32, 24:34] == 20).all()
    assert (sheet[34:39, 2:7] == 30).all() and (sheet[12:34, 2:22] == 255).all()
    assert contact_sheet(images[:1], columns=9, gap=0).shape == (10, 20, 3)
    for wrong in (dict(images=[], columns=2), dict(images=images, columns=0)):
        with pytest.raises(ValueError, match='contact sheet needs images'):
            contact_sheet(**wrong)


def test_add_datasample_writes_or_hands_to_the_backends(tmp_path):
    with DefaultScope.overwrite_default_scope('simpleseg_mm'):
        visualizer = VISUALIZERS.build(dict(
            type='SimpleSegVisualizer', name='written', save_dir=str(tmp_path),
            vis_backends=[dict(type='LocalVisBackend')]))
    out = tmp_path / 'new' / 'a.png'
    visualizer.add_datasample('a', GREY, make_sample(), out_file=str(out))
    expected = visualizer.draw_query(GREY, make_sample())
    assert np.array_equal(cv2.imread(str(out))[..., ::-1], expected)
    assert not list(tmp_path.rglob('*a_7*'))
    visualizer.add_datasample('a', GREY, make_sample(), step=7)
    assert len(list(tmp_path.rglob('a_7.png'))) == 1
    with pytest.raises((ValueError, cv2.error)):
        write_image(GREY, tmp_path / 'a.nonsense')


def test_the_hook_draws_every_nth_sample(tmp_path, visualizer):
    photo = tmp_path / 'photo.png'
    write_image(np.stack([GREY[..., 0], GREY[..., 0] // 2, GREY[..., 0] // 4], -1), photo)
    runner = SimpleNamespace(visualizer=visualizer)
    samples = [make_sample(img_id=i, img_path=str(photo)) for i in range(7)]
    hook = PredictionVisualizationHook(draw=True, interval=3, test_out_dir=str(tmp_path / 'out'))
    for _ in range(2):                                     # a second test starts anew
        hook.before_test(runner)
        for batch in (samples[:4], samples[4:]):
            hook.after_test_iter(runner, 0, outputs=batch)
    written = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert written == ['0.png', '3.png', '6.png']
    corner = cv2.imread(str(tmp_path / 'out' / '0.png'))[5, 5, ::-1]
    assert corner.tolist() == [128, 64, 32]                # RGB stays RGB
    PredictionVisualizationHook().after_test_iter(runner, 0, outputs=samples)   # draw=False
    with pytest.raises(ValueError, match='interval must be at least 1, got 0'):
        PredictionVisualizationHook(interval=0)


def write_scalars(folder, runs=('20260101_000000', ), offset=0.0):
    paths = []
    for run in runs:
        path = folder / run / 'vis_data' / 'scalars.json'
        path.parent.mkdir(parents=True)
        lines = [dict(loss=2.0 / step + offset, lr=0.1, step=step) for step in range(1, 60)]
        lines += [dict({'res/gIoU': 50.0, 'step': 59}), dict(loss=float('nan'), step=60)]
        path.write_text('\n'.join(map(json.dumps, lines)) + '\n{"loss": 1')
        paths.append(path)
    return paths


@pytest.mark.parametrize('paths, names', [
    (['a/1/vis_data/x.json', 'b/2/vis_data/x.json'], ['a', 'b']),
    (['a/1/vis_data/x.json', 'a/2/vis_data/x.json'], ['1', '2']),
    (['a/x.json', 'b/x.json'], ['a', 'b']),
])
def test_a_run_is_named_after_its_work_directory(paths, names):
    assert [curves._label(path, paths) for path in paths] == names


def test_curves(tmp_path):
    paths = write_scalars(tmp_path / 'sft') + write_scalars(tmp_path / 'gspo', offset=0.5)
    series = read_scalars(paths[0])
    assert series['res/gIoU'] == ([59], [50.0])
    assert series['loss'][0] == list(range(1, 60)) and series['loss'][1][0] == 2.0
    out = tmp_path / 'new' / 'curves.png'
    plot_curves(paths, out)
    image = cv2.imread(str(out))
    assert image.shape[1] > 1000 and image.std() > 5
    plot_curves(str(paths[0]), tmp_path / 'one.svg', names=['lr'])
    assert (tmp_path / 'one.svg').stat().st_size > 1000


def test_curves_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match='no scalars at .*nowhere.json'):
        plot_curves(tmp_path / 'nowhere.json', tmp_path / 'a.png')
    path, = write_scalars(tmp_path)
    with pytest.raises(ValueError, match=r"none of \['reward'\] is in \['loss', 'lr'"):
        plot_curves(path, tmp_path / 'a.png', names=['reward'])


@pytest.mark.parametrize('wanted', ['masks', 'boxes', 'points'])
def test_every_instance_is_drawn(visualizer, wanted):
    grammar, boxes = CODEC.grammar, [[10, 10, 40, 30], [50, 40, 70, 55]]
    text = dict(masks=CODEC.encode_masks([TRUTH, WRONG]), boxes=grammar.format_boxes(
        boxes, (60, 80)), points=grammar.format_points([[25, 20], [60, 47]], (60, 80)))[wanted]
    masks = BitmapMasks(np.stack([TRUTH, WRONG]).astype(np.uint8), 60, 80)
    sample = make_sample(text, TRUTH | WRONG, f'text2{wanted}', gt_masks=masks, answer=text)
    for drawn in (near(visualizer.draw_query(GREY, sample, draw_gt=False), draw.PREDICTION),
                  near(visualizer.draw_query(GREY, sample, draw_pred=False), draw.TRUTH)):
        assert drawn[8:33, 8:43].any() and drawn[38:58, 48:73].any()
        assert not drawn[:, 44:47].any()


def test_names_are_drawn(visualizer):
    objects = CODEC.encode_objects([TRUTH, WRONG], ['cup', 'a very long name of a plate' * 3])
    masks = CODEC.encode_masks([TRUTH, WRONG])
    named, plain = (visualizer.draw_query(
        GREY, make_sample(text, TRUTH | WRONG, task), draw_gt=False)
        for text, task in ((objects, 'image2objects'), (masks, 'text2masks')))
    height = 60 * named.shape[1] // 80  # of the picture, above the caption
    changed = (named[:height] != plain[:height]).any(-1)
    assert changed[:height // 2].any() and changed[height // 2:].any()


def test_it_is_said_how_many_instances_were_found(visualizer, monkeypatch):
    said = []
    monkeypatch.setattr(draw, 'add_caption', lambda picture, lines: said.extend(lines) or picture)
    masks = BitmapMasks(np.stack([TRUTH, WRONG]).astype(np.uint8), 60, 80)
    for text in (CODEC.encode_masks([TRUTH]), '[]', 'words'):
        visualizer.draw_query(GREY, make_sample(text, task='text2masks', gt_masks=masks))
    assert [word for line, _ in said for word in line.split(' · ') if 'instances' in word] == [
        '1 of 2 instances', '0 of 2 instances', '0 of 2 instances']


def test_mlflow_gets_names_that_it_takes(tmp_path, monkeypatch):
    """Of a picture it writes a file of this name, of the format that its ending says; of figures
    it takes all or none."""
    logged = []
    mlflow = types.ModuleType('mlflow')
    mlflow.MlflowException = RuntimeError
    for name in ('set_tracking_uri', 'create_experiment', 'set_experiment'):
        setattr(mlflow, name, lambda *args, **kwargs: None)
    mlflow.get_experiment_by_name = lambda name: None
    mlflow.log_image = lambda image, name: (
        Image.fromarray(image).save(tmp_path / name), logged.append(name))
    mlflow.log_metrics = lambda figures, step: logged.append((figures, step))
    monkeypatch.setitem(sys.modules, 'mlflow', mlflow)
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())  # the backend opens its files
    with DefaultScope.overwrite_default_scope('simpleseg_mm'):
        visualizer = SimpleSegVisualizer(save_dir=str(tmp_path), vis_backends=[
            dict(type='LocalVisBackend'), dict(type='MLflowVisBackend')])
    visualizer.add_scalars({'res/P@0.5': 60.0, 'res/gIoU': 50.5, 'iter': 4, 'none': None}, 4)
    assert logged.pop() == ({'res/P_0.5': 60.0, 'res/gIoU': 50.5, 'iter': 4}, 4)
    local = json.loads((tmp_path / 'vis_data/scalars.json').read_text())
    assert local['res/P@0.5'] == 60.0  # its own name elsewhere
    visualizer.add_image('sample_0', np.zeros((4, 6, 3), np.uint8), 7)
    assert logged == ['sample_0_7.png'] and (tmp_path / 'sample_0_7.png').is_file()
    assert (tmp_path / 'vis_data/vis_image/sample_0_7.png').is_file()
