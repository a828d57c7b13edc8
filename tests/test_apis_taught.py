"""What a model is warned about: pictures and prompts that its training has not shown it."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from simpleseg_mm.apis import SimpleSegInferencer, loading
from simpleseg_mm.apis.taught import taught_by
from simpleseg_mm.datasets.refshapes import draw_scene
from simpleseg_mm.scenes import is_scene
from simpleseg_mm.structures import Prompt
from simpleseg_mm.taught import Taught

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / 'configs/simpleseg'
rng = np.random.default_rng(0)
SCENE = draw_scene(rng, 112)[0]
#: pictures that are no scenes: white, noise, a grey photo's gradients, a product on white
OTHERS = [np.full((90, 120, 3), 255, np.uint8),
          rng.integers(0, 256, (90, 120, 3), np.uint8),
          np.repeat(np.add.outer(np.arange(90), np.arange(120))[..., None] % 256, 3, 2)
          .astype(np.uint8)]
OTHERS.append(np.full((120, 120, 3), 250, np.uint8))
OTHERS[-1][20:100, 30:90] = (121, 95, 70)


@pytest.mark.parametrize('size', [64, 112, 224, 500])
def test_scenes_are_told_from_other_pictures(size):
    scenes = [draw_scene(np.random.default_rng([k, size]), size)[0] for k in range(30)]
    assert all(map(is_scene, scenes))
    assert not any(map(is_scene, OTHERS))


def test_real_photos_are_no_scenes(real_data):
    from simpleseg_mm.files import load_image
    photos = sorted((real_data / 'coco_photos/images').glob('*.jpg'))
    assert len(photos) > 100 and not any(is_scene(load_image(path)) for path in photos)


@pytest.mark.parametrize('config, sets, prompts', [
    ('nano_sft_refshapes.py', ('refshapes', ), ('text', )),
    ('nano_gspo_refshapes.py', ('refshapes', ), ('text', )),
    ('nano_sft_refshapes-prompts.py', ('refshapes', ), ('box', 'point', 'text')),
    ('qwen25vl_sft_refcoco.py', ('refcoco', ), None),
    ('released_qwen25vl_refcoco.py', (), ()),
])
def test_what_a_config_teaches(config, sets, prompts):
    taught = taught_by(Config.fromfile(CONFIGS / config))
    assert taught.sets == sets
    assert prompts is None or taught.prompts == prompts
    assert taught_by(dict(taught=taught.to_dict())) == taught


@pytest.mark.parametrize('loader', [
    None, 3, dict(), dict(dataset=[]), dict(dataset=dict(type=3)), dict(dataset=dict(type=None)),
    dict(dataset=dict(datasets=3)), dict(dataset=dict(type='A', sources=[3], query=[1])),
    dict(dataset=dict(type='A', sources='a', query=dict(tasks=3)))])
def test_a_malformed_config_tells_nothing_wrong(loader):
    taught = taught_by(dict(train_dataloader=loader, model=None))
    assert taught.sets in ((), ('A', ), ('3', ))


def test_joined_sets_and_the_packaged_folder():
    joined = dict(type='JoinedDataset', datasets=[
        dict(type='CocoQueryDataset', name='mine',
             query=dict(tasks=dict(text2mask=1, box2mask=0))),
        dict(type='RefShapesDataset', query=dict(
            tasks=dict(point2mask=1, text2box=1, text2masks=1))),
        dict(type='RefShapesDataset', targets='picture', query=dict(tasks=dict(image2objects=1)))])
    assert taught_by(dict(train_dataloader=dict(dataset=joined))) == Taught(
        ('mine', 'refshapes'), ('all', 'everything', 'point', 'text'))
    assert taught_by(loading.resolve(None, None)[0]) == Taught(
        ('refshapes', ), ('box', 'point', 'text'))


@pytest.mark.parametrize('taught, picture, prompt, words', [
    (Taught(), OTHERS[1], dict(point=(1, 1)), []),
    (Taught(('refcoco', ), ('text', )), OTHERS[1], dict(text='a'), []),
    (Taught(('refshapes', 'mine'), ()), OTHERS[1], dict(text='a'), []),
    (Taught(('refshapes', ), ('text', )), SCENE, dict(text='a'), []),
    (Taught(('refshapes', ), ('text', )), OTHERS[0], dict(text='a'), ['this picture is none']),
    (Taught(('refcoco', ), ('text', )), SCENE, dict(point=(1, 1)), ['expressions, not points']),
    (Taught(('refcoco', ), ('text', )), SCENE, dict(text='a', all=True),
     ['expressions, not questions for all instances']),
    (Taught(('refcoco', ), ('all', 'text')), SCENE, dict(text='a', all=True), []),
    (Taught(('refcoco', ), ('everything', )), SCENE, dict(everything=True), []),
    (Taught(('refcoco', ), ('text', )), SCENE, dict(everything=True),
     ['expressions, not questions for all objects with their names']),
    (Taught(('refcoco', ), ('all', )), SCENE, dict(text='a'),
     ['questions for all instances, not expressions']),
    (Taught(('refshapes', ), ('text', 'point')), OTHERS[2], dict(box=(0, 0, 1, 1)),
     ['this picture is none', 'expressions and points, not boxes']),
])
def test_doubts(taught, picture, prompt, words):
    found = taught.doubts(picture, Prompt(**prompt))
    assert len(found) == len(words) and all(map(str.__contains__, found, words))


def test_an_answer_carries_its_warnings():
    inferencer = SimpleSegInferencer(device='cpu', show_progress=False,
                                     cfg_options={'model.generation.max_new_tokens': 4})
    scene, other = inferencer.segment([SCENE, OTHERS[1]], ['red circle', dict(point=(5, 5))])[::2]
    assert scene.warnings == () and 'scenes of RefShapes' in other.warnings[0]
    assert other.to_dict()['warnings'] == list(other.warnings)
    row = inferencer(OTHERS[1], 'red circle')['predictions'][0]
    assert len(row['warnings']) == 1


def test_the_command_warns_once(tmp_path):
    for name, picture in dict(a=OTHERS[1], b=OTHERS[0], scene=SCENE).items():
        Image.fromarray(picture).save(tmp_path / f'{name}.png')
    done = subprocess.run(
        [sys.executable, '-m', 'simpleseg_mm.cli', 'segment', str(tmp_path), 'red circle',
         '--out-dir', str(tmp_path / 'out')], capture_output=True, text=True)
    warnings = [line for line in done.stderr.splitlines() if line.startswith('warning:')]
    assert done.returncode == 0 and len(warnings) == 1
    assert 'a.png and 1 more: this model has learnt the generated scenes' in warnings[0]
    assert 'SimpleSeg-Qwen2.5-VL' in warnings[0]
