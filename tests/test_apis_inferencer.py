"""The inferencer on the packaged nano: what is refused, what is asked, what comes back, loading.

nano's base writes boxes and points; where outlines are wanted, its answers are put in its mouth.
"""
import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from PIL import Image

from simpleseg_mm import cli
from simpleseg_mm.apis import ImageError, SimpleSegInferencer, loading
from simpleseg_mm.apis.taught import taught_by
from simpleseg_mm.asking import prompts_by_picture
from simpleseg_mm.commands.segment import lines_of
from simpleseg_mm.datasets.refshapes import generate
from simpleseg_mm.datasets.transforms import LoadImage
from simpleseg_mm.export import export
from simpleseg_mm.export.prepare import prepared
from simpleseg_mm.export.sets import to_coco
from simpleseg_mm.files import replace_json
from simpleseg_mm.structures import Generated
from simpleseg_mm.polygon import PolygonCodec, segmentation_to_mask
from simpleseg_mm.registry import DATASETS, INFERENCERS, TRANSFORMS
from simpleseg_mm.structures import Prompt, Segmentation

ROOT = Path(__file__).resolve().parent.parent
CONFIG = str(ROOT / 'configs/simpleseg/nano_sft_refshapes.py')
EXAMPLE = str(ROOT / 'simpleseg_mm/serving/static/example.jpg')  # a RefShapes scene
SCENE = np.full((60, 80, 3), 128, np.uint8)
RINGS = ('[[[10,10],[10,50],[60,50],[60,10]],[[20,20],[40,20],[40,40],[20,40]],'
         '[[80,80],[90,99],[99,80]]]')


@pytest.fixture(scope='module')
def inferencer():
    return SimpleSegInferencer(CONFIG, device='cpu', show_progress=False)


@pytest.fixture
def saying(inferencer, monkeypatch):
    """Lets the model say these texts, in turn."""
    def say(*texts):
        texts, asked = list(texts), []

        def answer_stream(queries, batch_size=None, **options):
            asked.append([prompt for _, prompt, _ in queries])
            return (Generated(texts.pop(0), 7, True, (1, ), (-0.1, -0.3)) for _ in asked[-1])

        monkeypatch.setattr(inferencer.model, 'answer_stream', answer_stream)
        return asked
    return say


# --- refused -------------------------------------------------------------------------------------
@pytest.mark.parametrize('prompt, message', [
    ('', "the expression is ''; say in words"),
    (' \n', 'say in words'), ('\u200b', 'say in words'),
    (dict(text=3), 'the expression is 3'),
    (dict(), 'one of text, point, box and everything; got none'),
    (dict(text='a', point=(1, 2)), r"got \['text', 'point'\]"),
    (dict(mask=[1]), 'a prompt is an expression'),
    ((3, 4), 'a prompt is an expression'),
    (3, 'a prompt is an expression'),
    (dict(point=(1, )), 'a point is 2 numbers'),
    (dict(point=(1, np.nan)), 'a point is 2 numbers'),
    (dict(point='ab'), 'a point is 2 numbers'),
    (dict(point=3), 'a point is 2 numbers'),
    (dict(box=(1, 2, 3)), 'a box is 4 numbers'),
    (dict(box=(30, 10, 20, 40)), r'the box \[30.0, 10.0, 20.0, 40.0\] has no or a negative size'),
    (dict(box=(10, 10, 10, 40)), 'no or a negative size'),
    (dict(all=True), 'one of text, point, box and everything; got none'),
    (dict(point=(1, 2), all=True), 'asked for in words, not by a point: give a text'),
    (dict(text='cups', all='yes'), "all is 'yes'; say True or False"),
    (dict(text='cups', all=1), 'all is 1; say True or False'),
    (dict(text='', all=True), 'say in words'), (dict(text='cups', every=True), 'a prompt is an'),
])
def test_prompts_that_are_none(prompt, message):
    with pytest.raises(ValueError, match=message):
        Prompt.of(prompt)


@pytest.mark.parametrize('prompt, message', [
    (dict(point=(81, 5)), r'the point \[81.0, 5.0\] is outside the picture, which is 80 x 60'),
    (dict(point=(5, -1)), 'outside the picture'),
    (dict(box=(90, 0, 99, 9)), 'outside the picture, which is 80 x 60'),
])
def test_prompts_outside_the_picture(inferencer, prompt, message):
    with pytest.raises(ValueError, match=message):
        inferencer.segment(SCENE, prompt)


def test_prompts_for_all():
    prompt = Prompt.of(dict(text='cups', all=True))
    one = Prompt('cups')
    assert prompt.task.name == 'text2masks' and prompt.within((5, 5)) == prompt != one
    assert prompt.to_dict() == dict(text='cups', all=True) and Prompt.of(
        prompt.to_dict()) == prompt
    assert one.to_dict() == dict(text='cups') and one.task.name == 'text2mask'


def test_prompts_for_everything():
    prompt = Prompt.of(dict(everything=True))
    assert prompt.task.name == 'image2objects' and prompt.within((5, 5)) == prompt
    assert (prompt.kind, prompt.value, prompt.many, str(prompt)) == ('image', None, True,
                                                                     'everything')
    assert prompt.to_dict() == dict(everything=True) == Prompt.of(prompt.to_dict()).to_dict()
    assert str(Prompt('cups')) == 'cups' and not Prompt('cups').many
    assert str(Prompt(point=(1, 2))) == '[1.0, 2.0]'


def test_everything_that_was_found_has_its_name(tmp_path):
    square, other = '[[[10,10],[50,10],[50,50],[10,50]]]', '[[[60,60],[90,60],[90,90],[60,90]]]'
    text = f'[["cup",{square}],["the\\n plate",{other}],["cup",[[[1,2]]]],["",{other}]]'
    answer = PolygonCodec(grammar='int100').decode(text, (60, 80), 'objects', num_tokens=9,
                                                   seconds=0.1, finished=True, confidence=0.5)
    result = Segmentation.of(answer, 'a.png', Prompt(everything=True))
    found = result.to_dict()
    assert found['classes'] == ['cup', 'the\n plate', ''] and found['labels'] == [0, 1, 2]
    assert [(one['instance'], one['name']) for one in found['polygons']] == [
        (0, 'cup'), (1, 'the\n plate'), (2, '')]
    assert [one.label for one in result.objects] == ['cup', 'the plate', 'cup', 'object']
    assert found['prompt'] == dict(everything=True) and json.dumps(found)
    coco = to_coco(prepared([result]))
    names = {one['id']: one['name'] for one in coco['categories']}
    assert [names[one['category_id']] for one in coco['annotations']] == ['cup', 'the plate',
                                                                          'object']
    first, *lines = lines_of(result)
    assert first.startswith('a.png  everything: 3 instances: ')
    assert [line.partition(': ')[2].partition(': ')[0] for line in lines] == [
        'cup', 'the plate', 'without a name']
    none = Segmentation.of(answer.codec.decode('[]', (60, 80), 'objects', num_tokens=1,
                                               seconds=0.1, finished=True), 'a.png',
                           Prompt(everything=True))
    assert none.to_dict()['classes'] == none.to_dict()['labels'] == []


def test_a_box_is_cut_to_the_picture():
    assert Prompt(box=(-5, 10, 300, 40)).within((60, 80)).box == (0, 10, 80, 40)


@pytest.mark.parametrize('prompts, message', [
    ([], 'no prompt'), ([['a']], '1 lists of prompts for 2 pictures'),
    ([['a'], 'b'], None), ([['a'], [3]], 'a prompt is an expression')])
def test_lists_of_prompts_that_do_not_fit(prompts, message):
    with pytest.raises(ValueError, match=message):
        prompts_by_picture(prompts, 2)


def test_lists_of_prompts():
    a, b, c = map(Prompt.of, 'abc')
    assert prompts_by_picture('a', 2) == [[a], [a]]
    assert prompts_by_picture(['a', b], 2) == [[a, b], [a, b]]
    assert prompts_by_picture([['a'], ['b', dict(text='c')]], 2) == [[a], [b, c]]


def test_other_bad_calls(inferencer, tmp_path):
    with pytest.raises(ValueError, match='say what to segment'):
        inferencer(SCENE)
    with pytest.raises(ValueError, match='batch_size is 0'):
        inferencer.segment(SCENE, 'a', batch_size=0)
    with pytest.raises(ValueError, match="on_error is 'ignore'"):
        inferencer.segment(SCENE, 'a', on_error='ignore')
    with pytest.raises(ValueError, match='no picture'):
        inferencer.segment([], 'a')
    with pytest.raises(ImageError, match='there is no picture'):
        inferencer.segment(str(tmp_path / 'none.png'), 'a')
    with pytest.raises(ImageError, match='picture 0 has shape'):
        inferencer.segment([SCENE[0, 0]], 'a')


def test_bad_pictures_can_be_skipped(inferencer, saying, tmp_path):
    (tmp_path / 'a.png').write_bytes(b'no')
    Image.fromarray(SCENE).save(tmp_path / 'b.png')
    saying(RINGS)
    found = inferencer.segment(tmp_path, [dict(point=(70, 50)), dict(point=(99, 99))],
                               on_error='skip')
    assert [one.image for one in found] == [str(tmp_path / 'b.png')] and found[0].index == 1
    assert ['a.png' in message or 'b.png: the point' in message
            for message in inferencer.errors] == [True, True]


# --- asked ---------------------------------------------------------------------------------------
def test_prompts_are_those_of_the_evaluation(inferencer, saying):
    asked = saying('[]', '[]', '[]')
    inferencer.segment(SCENE, ['red circle', dict(point=(40, 30)), dict(box=(8, 6, 40, 30))],
                       batch_size=2)
    assert asked == [
        ['Output the polygon coordinates of red circle in the image.',
         'Output the polygon coordinates of the object at point [50,50] in the image.'],
        ['Output the polygon coordinates of the stuff within the box region [10,10,50,50] in '
         'the image.']]


def test_it_is_what_a_test_does(inferencer, tmp_path):
    """The same picture and expression give the same sample through the dataset."""
    generate(tmp_path, dict(train=0, val=0, test=2))
    cfg = Config.fromfile(CONFIG)
    dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, data_root=str(tmp_path)))
    item = dataset[1]
    sample, = inferencer.model.predict([item['inputs']], [item['data_samples']])
    found, = inferencer.segment(sample.img_path, sample.text)
    assert found.text == sample.pred_text and found.codec == sample.codec
    assert found.num_tokens == sample.pred_num_tokens and 0 < found.confidence <= 1
    assert found.confidence == pytest.approx(sample.pred_confidence, abs=1e-5)
    assert np.array_equal(found.mask, sample.pred_instances.masks[0].numpy())


# --- what comes back -----------------------------------------------------------------------------
def test_typed_results(inferencer, saying):
    saying(f'Here: {RINGS}', '[]', 'I see nothing', '[[[10,10],[10,50]', '[10,10,50,50]')
    outline, nothing, words, cut, box = inferencer.segment(SCENE, list('abcde'))
    assert [len(part.holes) for part in outline.parts] == [1, 0]
    assert outline.valid and outline.confidence == pytest.approx(np.exp([-0.1, -0.3]).mean())
    expected = PolygonCodec(grammar='int100').decode(RINGS, (60, 80)).mask
    assert np.array_equal(outline.mask, expected) and outline.box.tolist() == [8, 6, 79, 59]
    assert outline.parts[0].outer.min(0).tolist() == [8, 6] and outline.size == (60, 80)
    assert nothing.says_nothing and not nothing.parts and nothing.box is None
    assert not words.valid and not words.says_nothing and not words.mask.any()
    assert not cut.parts and cut.finished and not cut.valid
    assert not box.mask.any() and box.box.round(3).tolist() == [8, 6, 40, 30]


def test_every_instance(inferencer, saying, tmp_path):
    other = '[[[80,80],[90,99],[99,80]]]'
    asked = saying(f'[{RINGS[:-1].partition(",[[80")[0]}],{other},[[[1,1],[2,2]]]]', '[]', other)
    found, nothing, one = inferencer.segment(SCENE, [dict(text=text, all=True) for text in 'abc'])
    assert asked[0] == ['Output the polygon coordinates of all a in the image.']
    assert [len(instance.parts) for instance in found.instances] == [1, 1, 0]
    assert np.array_equal(found.mask, found.instances[0].mask | found.instances[1].mask)
    row = found.to_dict()
    assert json.loads(json.dumps(row)) == row and row['prompt'] == dict(text='a', all=True)
    assert row['bboxes'] == [[8, 6, 48, 30], [64, 48, 79, 59]] and row['labels'] == [0, 0]
    assert row['scores'] == [found.confidence] * 2 and not row['valid']
    assert [segmentation_to_mask(rle, 60, 80).sum() for rle in row['masks']] == [
        instance.mask.sum() for instance in found.instances[:2]]
    assert [(polygon['instance'], len(polygon['holes'])) for polygon in row['polygons']] == [
        (0, 1), (1, 0)]
    assert nothing.instances == () and nothing.says_nothing and nothing.to_dict()['masks'] == []
    assert len(one.instances) == 1 and not one.valid  # one mask where a list was asked for
    assert found.warnings[-1].startswith('1 of 3 instances hold no pixel')
    assert 'the list is not valid' in one.warnings[-1]
    assert nothing.warnings == one.warnings[:-1] == found.warnings[:-2]
    assert row['agreements'] is None
    # each is an object of the files
    assert [one.parts[0].outer.tolist() for one in list(found.objects)[:2]] == [
        one.parts[0].outer.tolist() for one in found.instances[:2]]
    coco = json.loads(export([found, nothing], tmp_path, 'coco')[0].read_text())
    assert [note['bbox'] for note in coco['annotations']] == [[8, 6, 40, 24], [64, 48, 15, 11]]
    assert [len(coco[key]) for key in ('images', 'categories')] == [1, 2]


def test_mmdet_like_dicts_and_files(inferencer, saying, tmp_path):
    Image.fromarray(SCENE).save(tmp_path / 'a.png')
    saying(RINGS, '[]', RINGS)
    out = inferencer([str(tmp_path / 'a.png'), SCENE], [['red', dict(point=(3, 4))], ['blue']],
                     return_vis=True, out_dir=str(tmp_path / 'out'))
    first, second, third = out['predictions']
    assert json.loads(json.dumps(first)) == first
    assert (first['labels'], first['prompt'], second['prompt']) == (
        [0], dict(text='red'), dict(point=[3, 4]))
    assert first['bboxes'] == [[8, 6, 79, 59]] and first['masks'][0]['size'] == [60, 80]
    assert first['scores'] == [first['confidence']] and second['scores'] == []
    assert [picture.ndim for picture in out['visualization']] == [3, 3, 3]
    names = ['00000001', 'a', 'a_1']
    assert sorted(p.stem for p in (tmp_path / 'out/vis').iterdir()) == names
    assert sorted(p.stem for p in (tmp_path / 'out/preds').iterdir()) == names
    assert json.loads((tmp_path / 'out/preds/00000001.json').read_text()) == third


def test_data_samples_and_no_files(inferencer, saying, tmp_path):
    saying(RINGS)
    out = inferencer(SCENE, 'a', return_datasamples=True, out_dir=str(tmp_path / 'out'),
                     no_save_vis=True, no_save_pred=True)
    assert out['predictions'][0].pred_text == RINGS and out['visualization'] is None
    assert not (tmp_path / 'out').exists()


def test_text_is_given_as_it_is_written(inferencer):
    seen = []
    found = inferencer.ask(SCENE, 'red circle', seen.append)
    assert seen[-1] == found.text and 1 < len(seen) <= found.num_tokens
    assert all(after.startswith(before) for before, after in zip(seen, seen[1:]))


def test_pictures_are_upright(inferencer, saying, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(SCENE).save(tmp_path / 'a.jpg', exif=exif)
    saying('[]')
    assert inferencer.segment(str(tmp_path / 'a.jpg'), 'a')[0].size == (80, 60)


# --- loading -------------------------------------------------------------------------------------
def test_it_is_registered():
    assert INFERENCERS.get('SimpleSegInferencer') is SimpleSegInferencer


@pytest.fixture(scope='module')
def checkpoint(inferencer, tmp_path_factory):
    """A trained one: nano with changed weights, and its config inside, as a run saves it."""
    path = tmp_path_factory.mktemp('run') / 'iter_3.pth'
    state = {name: value + 0.01 for name, value in inferencer.model.state_dict().items()}
    torch.save(dict(state_dict=state, meta={}, message_hub=dict(runtime_info=dict(
        cfg=Config.fromfile(CONFIG).pretty_text))), path)
    return str(path), state


def weights_of(inferencer):
    return inferencer.model.state_dict()


@pytest.mark.parametrize('arguments', [(CONFIG, 0), (None, 0), (0, None),
                                       ('nano_sft_refshapes', 0)])
def test_checkpoints(checkpoint, arguments):
    path, state = checkpoint
    given = [path if value == 0 else value for value in arguments]
    loaded = SimpleSegInferencer(*given, device='cpu', show_progress=False)
    assert all(torch.equal(value, state[name]) for name, value in weights_of(loaded).items())
    assert loaded.segment(SCENE, 'a')[0].codec == 'int100/default'


@TRANSFORMS.register_module()
class ReadMyPicture(LoadImage):
    """A user's own."""


@TRANSFORMS.register_module()
class LoadedTwice(BaseTransform):
    """No loader, whatever its name begins with."""

    def transform(self, results: dict) -> dict:
        return dict(results, img=np.repeat(results['img'], 2, axis=0))


def test_loaders_are_told_by_their_class():
    steps = [dict(type=kind) for kind in (
        'ReadMyPicture', 'LoadTargetMask', LoadImage, 'LoadAnnotations', 'LoadImageFromFile')]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(
        pipeline=[*steps, dict(type='LoadedTwice')],
        query=dict(type='FormatQuery', codec=dict(grammar='int100'))))))
    _, twice, _, _ = SimpleSegInferencer._init_pipeline(None, cfg).transforms
    assert isinstance(twice, LoadedTwice)


def test_a_checkpoint_that_does_not_fit(checkpoint, tmp_path):
    path, state = checkpoint
    short = {name: value for name, value in state.items() if 'visual' not in name}
    torch.save(dict(state_dict=short, meta={}), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='does not fit the model'):
        SimpleSegInferencer(CONFIG, str(tmp_path / 'a.pth'), device='cpu')
    with pytest.raises(ValueError, match='does not hold its config'):
        SimpleSegInferencer(weights=str(tmp_path / 'a.pth'))


@pytest.fixture(scope='module')
def exported(inferencer, tmp_path_factory):
    """What to_huggingface.py writes."""
    folder = tmp_path_factory.mktemp('hf')
    adapter = inferencer.model.mllm
    for part in (adapter.hf, adapter.encoder.tokenizer, adapter.family.image_processor):
        part.save_pretrained(folder)
    replace_json(folder / loading.NOTE, loading.note_of(inferencer.cfg))
    return folder


def test_an_exported_folder(exported, inferencer):
    loaded = SimpleSegInferencer(str(exported), device='cpu', show_progress=False)
    found, expected = (one.segment(SCENE, 'red circle')[0] for one in (loaded, inferencer))
    assert (found.text, found.codec) == (expected.text, 'int100/default')
    assert loaded.model.generation == inferencer.model.generation
    as_weights = SimpleSegInferencer(CONFIG, str(exported), device='cpu', show_progress=False)
    assert as_weights.cfg.model.mllm.pretrained == str(exported)


def test_a_folder_without_a_note_is_read_as_released(exported, tmp_path):
    for path in exported.iterdir():
        if path.name != loading.NOTE:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    cfg, weights = loading.resolve(str(tmp_path), None)
    assert weights is None and cfg.model.mllm.pretrained == str(tmp_path)
    query = loading.query_of(cfg)
    assert PolygonCodec(**query.codec).spec == 'fixed3/paper'
    assert cfg.model.mllm.type == 'QwenVL'


@pytest.mark.parametrize('content, message', [
    (dict(model_type='kimi_vl', auto_map={}), 'remote code, which is never run.*convert kimi-vl'),
    (dict(), 'no Hugging Face folder')])
def test_folders_that_are_not_loaded(content, message, tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        loading.resolve(str(tmp_path), None)


def test_a_folder_of_another_family_without_a_note_was_not_taught_outlines(tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps(dict(model_type='llava')))
    cfg, weights = loading.resolve(str(tmp_path), None)
    assert weights is None and cfg.model.mllm.type == 'AutoVLM'
    assert cfg.model.mllm.pretrained == str(tmp_path) and 'max_pixels' not in cfg.model.mllm
    said, = taught_by(cfg).doubts(np.zeros((9, 9, 3), np.uint8), Prompt('a dog'))
    assert 'nothing says that these weights were taught outlines' in said
    assert taught_by(dict(taught=taught_by(cfg).to_dict())) == taught_by(cfg)


def test_hub_ids_and_unknown_names():
    cfg, _ = loading.resolve('sthui/SimpleSeg-Qwen2.5-VL', None)
    assert cfg.model.mllm.pretrained == 'sthui/SimpleSeg-Qwen2.5-VL'
    with pytest.raises(FileNotFoundError, match='no model nano_unknown: give a config file'):
        loading.resolve('nano_unknown', None)
    with pytest.raises(FileNotFoundError, match='no weights x.pth'):
        loading.resolve(CONFIG, 'x.pth')
    with pytest.raises(ValueError, match='query.codec'):
        loading.query_of(Config(dict(test_dataloader=dict(dataset=dict()))))


def test_remote_code_is_not_trusted_anywhere():
    """Whatever reads a folder goes through ``from_folder``, which turns it off."""
    sources = {path: ast.parse(path.read_text())
               for top in ('simpleseg_mm', 'tools', 'benchmarks', 'demo')
               for path in (ROOT / top).rglob('*.py')}
    for path, tree in sources.items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = getattr(call.func, 'attr', '')
            assert name != 'from_pretrained', f'{path}:{call.lineno}'
            for word in call.keywords:
                if word.arg == 'trust_remote_code':
                    assert ast.unparse(word.value) == 'False', f'{path}:{call.lineno}'


def test_without_arguments(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'work_dirs/quickstart/sft'
    folder.mkdir(parents=True)
    for name in ('iter_3.pth', 'best_res_gIoU_iter_2.pth'):
        (folder / name).write_bytes(Path(checkpoint[0]).read_bytes())
    cfg, weights = loading.resolve(None, None)  # the packaged model, whatever lies around
    assert weights is None and cfg.model.mllm.pretrained.endswith('zoo/nano_sft')
    assert set(cfg.taught.prompts) == {'text', 'point', 'box'}


# --- the command ---------------------------------------------------------------------------------
def test_the_command(tmp_path, capsys, monkeypatch, inferencer, saying):
    import simpleseg_mm.apis
    Image.fromarray(SCENE).save(tmp_path / 'a.png')
    monkeypatch.setattr(simpleseg_mm.apis, 'SimpleSegInferencer', lambda *args: inferencer)
    saying(RINGS, '[]')
    out = tmp_path / 'out'
    assert cli.main(['segment', str(tmp_path / 'a.png'), 'red circle', '--box', '1', '2', '30',
                     '40', '--out-dir', str(out)]) == 0
    assert {str(p.relative_to(out)) for p in out.rglob('*.*')} == {
        'vis/a.png', 'vis/a_1.png', 'preds/a.json', 'preds/a_1.json', 'a.svg', 'a.geojson'}
    said = capsys.readouterr().out
    assert 'red circle: ' in said and '2 part(s), 1 hole(s), confidence 0.82' in said
    assert 'no such object' in said
    saying(f'[{RINGS},{RINGS}]', '[]')
    assert cli.main(['segment', str(tmp_path / 'a.png'), 'cups', 'keys', '--all', '--out-dir',
                     str(out)]) == 0
    said = capsys.readouterr().out
    assert 'cups: 2 instances: ' in said and '4 part(s), 2 hole(s)' in said
    lines = [line for line in said.splitlines() if line.startswith('  ')]
    assert [line[:5] for line in lines] == ['  1: ', '  2: ']
    assert all(line.endswith('2 part(s), 1 hole(s), confidence 0.82') for line in lines)
    assert 'keys: no such object' in said
    assert (out / 'a.svg').read_text().count('<path') == 2


@pytest.mark.parametrize('arguments, message', [
    (['nothing.png'], 'say what to segment'),
    (['nothing.png', '--all', '--point', '1', '2'], '--all is about words'),
    (['nothing.png', 'a'], 'there is no picture nothing.png'),
    ([EXAMPLE, 'a', '--model', 'nano_unknown'], 'no model nano_unknown'),
    ([EXAMPLE, 'a', '--device', 'cuda:99'], 'no device cuda:99: PyTorch sees cpu'),
    ([EXAMPLE, 'a', '--device', 'gpu'], 'no device gpu'),
    ([EXAMPLE, ' '], 'say in words which object is meant'),
    ([EXAMPLE, '--box', '9', '9', '3', '3'], 'no or a negative size'),
])
def test_the_command_says_what_is_wrong(arguments, message, capsys):
    assert cli.main(['segment', *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('config', ['released_qwen25vl_refcoco', 'released_kimivl_refcoco'])
def test_released_weights_see_pictures_of_the_folder_s_bounds(config):
    mllm = Config.fromfile(str(ROOT / f'configs/simpleseg/{config}.py')).model.mllm
    assert mllm.get('min_pixels') is mllm.get('max_pixels') is None
