"""Documentation: what a page shows runs as it stands there.

Every block of Python and shell is run, page by page, in a fresh folder that looks like this
repository and holds what the page says the reader has (doc_pages.py: how blocks are marked).
"""
import contextlib
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny_families
from doc_pages import LIMIT, ROOT, SLOW_LIMIT, Block, read_page, run_page
from PIL import Image

from simpleseg_mm.datasets import refshapes
from simpleseg_mm.export import CORRECTIONS_FILE, to_corrections
from simpleseg_mm.serving.corrected import read_corrected

PAGES = {path.relative_to(ROOT).as_posix(): read_page(path.read_text(encoding='utf-8'), path.name)
         for path in [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md',
                      *sorted((ROOT / 'docs').glob('*.md')),
                      *sorted((ROOT / 'docs/tutorials').glob('*.md')),
                      *sorted((ROOT / 'configs').rglob('README.md'))]}
#: pages whose fast blocks take longest
LONG = {f'docs/{name}.md' for name in (
    'serving', 'inference', 'decoding', 'evaluation', 'tutorials/an_engine',
    'tutorials/annotate_pictures', 'tutorials/new_mllm')}
#: pages run in forks of one process that has loaded the libraries
SERVER = multiprocessing.get_context('forkserver')
SERVER.set_forkserver_preload([
    'doc_pages', 'matplotlib.pyplot', 'peft', 'simpleseg_mm.annotation', 'simpleseg_mm.apis',
    'simpleseg_mm.engine', 'simpleseg_mm.evaluation', 'simpleseg_mm.visualization',
    'transformers.models.qwen2_5_vl.modeling_qwen2_5_vl'])


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """A small set of RefShapes."""
    out = tmp_path_factory.mktemp('shapes')
    refshapes.generate(out, dict(train=12, val=3, test=3), seed=0)
    return out


def copy_photo(shapes, place):
    """A picture that is no scene of RefShapes: noise with soft edges."""
    place.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(place.name)).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC).save(place)


def copy_photos(shapes, place):
    for name in ('1.jpg', '2.jpg'):
        copy_photo(shapes, place / name)


def copy_scene(shapes, place):
    shutil.copy(shapes / 'images' / 'refshapes_train_0000000.jpg', place)


def copy_coco(shapes, place):
    """Annotations as COCO's, the pictures in ``photos/``."""
    shutil.copy(shapes / 'refshapes' / 'instances.json', place)
    shutil.copytree(shapes / 'images', place.parent / 'photos', dirs_exist_ok=True)


def write_labelme(shapes, place):
    for number in range(12):
        name = f'{number}.jpg'
        copy_photo(shapes, place / name)
        square = dict(label='dog', points=[[20, 20], [90, 20], [90, 80]], shape_type='polygon',
                      group_id=None, flags={}, description='the small dog')
        (place / f'{number}.json').write_text(json.dumps(dict(
            version='5.5.0', flags={}, shapes=[square], imagePath=name, imageData=None,
            imageHeight=240, imageWidth=320)))


def write_corrections(shapes, place):
    """What the page exports of a few scenes that are done."""
    content = json.loads((shapes / 'refshapes/instances.json').read_text())
    documents = []
    for image in content['images'][:12]:
        objects = []
        for one in content['annotations']:
            if one['image_id'] == image['id']:
                x, y, width, height = one['bbox']
                ring = [[x, y], [x, y + height], [x + width, y + height], [x + width, y]]
                text = f'{one["colour"]} shape {one["id"] % 10}'
                objects.append(dict(label=text, polygons=[dict(outer=ring, holes=[])],
                                    edited=True, actions=dict(moved=2), origin=dict(
                                        prompt=dict(text=text), polygons=[dict(outer=ring)])))
        documents.append(dict(name=image['file_name'], width=image['width'],
                              height=image['height'], objects=objects, done=True))
    (place / 'images').mkdir(parents=True)
    for one in documents:
        shutil.copy(shapes / 'images' / one['name'], place / 'images')
    content, _ = to_corrections(map(read_corrected, documents))
    (place / CORRECTIONS_FILE).write_text(json.dumps(content))


def write_refs(shapes, place):
    """A set in RefCOCO's form, the pictures in ``images/`` beside it."""
    place.mkdir(parents=True)
    shutil.copy(shapes / 'refshapes' / 'instances.json', place)
    shutil.copytree(shapes / 'images', place.parent / 'images')
    refs = pickle.loads((shapes / 'refshapes' / 'refs(refshapes).p').read_bytes())
    (place / 'refs.json').write_text(json.dumps(refs))


def copy_run(shapes, place):
    """A run of nano, of two steps from the packaged nano_sft."""
    made = shapes.parent / f'{shapes.name}_run'
    if not made.exists():
        block, = read(
            '<!-- run with: data/refshapes -->\n```bash\n'
            'python tools/train.py configs/simpleseg/nano_sft_refshapes.py --work-dir run '
            '--cfg-options model.mllm.pretrained=simpleseg_mm://nano_sft train_cfg.max_iters=2 '
            'train_cfg.val_interval=2 default_hooks.logger.interval=1\n```')
        made.mkdir()
        code, output = run([block], make_folder(made, shapes, [block]), LIMIT)
        assert code == 0, output
    shutil.copytree(made / 'run', place)


def link_photos(shapes, place):
    """Some real references of RefCOCO."""
    if not os.environ.get('SIMPLESEG_DATA'):
        pytest.skip('set SIMPLESEG_DATA to a folder with refcoco_mini')
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(Path(os.environ['SIMPLESEG_DATA']).resolve() / place.name)


#: what a page may say that the reader has: name -> what makes it
GIVEN = {
    'data/refshapes': lambda shapes, place: shutil.copytree(shapes, place),
    'photo.jpg': copy_photo, 'a.jpg': copy_photo, 'b.jpg': copy_photo, 'photos/': copy_photos,
    'scene.jpg': copy_scene, 'coco.json': copy_coco, 'labelme_folder': write_labelme,
    'corrections': write_corrections, 'data/mine/mine': write_refs,
    'data/refcoco_mini': link_photos,
    'work_dirs/nano_sft_refshapes': copy_run,
    'work_dirs/tiny_internvl': lambda shapes, place: tiny_families.make('internvl', place),
}


def make_folder(folder, shapes, blocks):
    """A fresh clone, as a reader has it, and what the blocks say that there is."""
    for path in ROOT.iterdir():
        if path.name in ('benchmarks', 'demo', 'docs', 'simpleseg_mm', 'tests', 'tools',
                         'README.md', 'setup.cfg'):
            (folder / path.name).symlink_to(path)
    shutil.copytree(ROOT / 'configs', folder / 'configs')  # pages write configs of their own
    for name in dict.fromkeys(name for block in blocks for name in block.given):
        GIVEN[name](shapes, folder / name)
    return folder


def run(blocks, folder, limit, warm=True):
    """Run blocks in ``folder``; their exit code, None beyond ``limit`` seconds, and the output."""
    (folder / '.run').mkdir()
    log = folder / '.run' / 'log'
    log.touch()
    process = SERVER.Process(target=run_page, args=(
        blocks, folder, log, folder / '.run' if warm else None))
    process.start()
    try:
        process.join(limit)
        code = process.exitcode
    finally:  # what blocks have left running, too
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return code, log.read_text(errors='replace')


def read(text):
    blocks, faults = read_page(text, 'page.md')
    assert not faults
    return blocks


@pytest.mark.parametrize('text, fault', [
    ('```\nls\n```', 'page.md:1: no language behind ```'),
    ('```sh\nls\n```', 'page.md:1: sh behind ```'),
    ('Text\n\n    ls\n', 'page.md:3: an indented block'),
    ('<!-- not run: -->\n```bash\nls\n```', 'page.md:2: "not run" says no more'),
    ('<!-- not run:  . -->\n```bash\nls\n```', '"not run" says no more'),
    ('<!-- not run -->\n```bash\nls\n```', '<!-- not run --> is none of'),
    ('<!-- skip: needs a GPU -->\n```bash\nls\n```', 'is none of'),
    ('<!-- slow: -->\n```bash\nls\n```', '"slow" says no more'),
    ('<!-- not run: a -->\n<!-- not run: b -->\n```bash\nls\n```', 'two marks "not run"'),
    ('<!-- not run: a -->\n<!-- slow: b -->\n```bash\nls\n```', 'not run, and marked as'),
    ('<!-- not run: needs a GPU -->\n\nText\n\n```bash\nls\n```', 'page.md:1: no block stands'),
    ('<!-- not run: needs a GPU -->', 'page.md:1: no block stands below'),
    ('<!-- slow: a minute -->\n\n<details>\n\n```bash\nls\n```', 'page.md:1: no block stands'),
    ('<details>\n<!-- slow: -->\n\n```bash\nls\n```', '"slow" says no more'),
    ('<!-- slow: a minute -->\n```text\nls\n```', 'text is not run'),
    ('```python\nfor\n```', 'page.md:1: invalid syntax'),
    ('1. Item\n\n   ```bash\n   if true\n   ```', 'page.md:3: bash: line'),
    ('```json\n{"a": 1,}\n```', 'page.md:1: '),
    ('```xml\n<a><b></a>\n```', 'page.md:1: mismatched tag'),
])
def test_faults_of_a_page_are_named(text, fault):
    blocks, faults = read_page(text, 'page.md')
    assert len(faults) == 1 and fault in faults[0]


def test_a_block_in_a_fold_has_its_marks():
    first, second = read('<details>\n<summary>How</summary>\n\n```bash\nls\n```\n\n'
                         '<!-- slow: a minute -->\n```bash\nls\n```\n\n</details>\n')
    assert (first.marks, second.marks) == ({}, {'slow': 'a minute'})


def test_a_page_is_read():
    first, second, third = read(
        '# Page\n\n`my.py`:\n\n<!-- run with: photo.jpg, CONFIG=a.py -->\n'
        '<!-- slow: a minute -->\n```python\nopen("CONFIG")\n```\n\n'
        '- item\n\n  ```bash\n  ls\n  ls\n  ```\n\n```json\n{}\n{}\n```\n')
    assert (first.place, first.path, first.given, first.typed, first.marks['slow']) == (
        'page.md:7', 'my.py', ['photo.jpg'], 'open("a.py")\n', 'a minute')
    assert (second.place, second.path, second.text, second.is_run) == (
        'page.md:13', None, 'ls\nls\n', True)
    assert not third.is_run


@pytest.mark.parametrize('block, typed', [
    ('x CONFIG', 'x a.py\n'), ('x MY_CONFIG', 'x MY_CONFIG\n'), ('x CONFIGS', 'x CONFIGS\n'),
    ('x=CONFIG;y', 'x=a.py;y\n'), ('"CONFIG"', '"a.py"\n'), ('d/CONFIG', 'd/CONFIG\n'),
])
def test_only_whole_words_stand_for_others(block, typed):
    assert read(f'<!-- run with: CONFIG=a.py -->\n```bash\n{block}\n```')[0].typed == typed


@pytest.mark.parametrize('text, code', [
    ('```bash\ntrue\n```\n```python\na = 1\n```\n```python\nassert a == 1\n```', 0),
    ('```bash\nfalse\ntrue\n```', 1),
    ('```bash\nfalse | true\n```', 1),
    ('```bash\necho $THIS_IS_NOT_SET\n```', 1),
    ('```bash\nNAME=1\n```\n```bash\necho $NAME\n```', 1),
    ('```python\nassert False\n```', 1),
    ('```python\nraise SystemExit\n```', 1),
    ('`my_module.py`:\n\n```python\nvalue = 3\n```\n\n```python\nfrom my_module import value\n```',
     0),
    ('`simpleseg_mm/my.py`:\n\n```python\nvalue = 3\n```', 1),
    ("```python\n_base_ = './nano_sft_refshapes.py'\ntrain_cfg = dict(val_begin=4)\n```", 0),
    ("```python\n_base_ = './nano_sft_refshapes.py'\ntrain_cfg = dict(max_iter=3)\n```", 1),
    ("```python\n_base_ = './no_such_config.py'\n```", 1),
    ('<!-- background: answers until it is stopped -->\n```bash\n'
     'python -c "import time; print(\'http://here\', flush=True); time.sleep(99)"\n```', 1),
    ('<!-- background: answers until it is stopped -->\n```bash\n'
     'bash -c "trap \'exit 0\' INT; echo http://here; while true; do sleep 0.1; done"\n```', 0),
    ('<!-- background: answers until it is stopped -->\n```bash\ntrue\n```', 1),
    ('```bash\nsimpleseg --version\npython -c "import simpleseg_mm"\n```', 0),
])
def test_a_block_that_fails_is_seen(tmp_path, shapes, text, code):
    ended, output = run(read(text), make_folder(tmp_path, shapes, []), LIMIT)
    assert ended == code, output
    assert not (ROOT / 'simpleseg_mm' / 'my.py').exists()


def test_a_block_that_hangs_is_ended(tmp_path):
    assert run([Block('page.md:1', 'bash', 'sleep 99\n')], tmp_path, 1) == (
        None, '\n--- page.md:1\nsleep 99\n---\n')


def listed(page):
    """What the tables of contents of a page name."""
    return [line for block in PAGES[f'docs/{page}.md'][0] if block.language == '{toctree}'
            for line in block.text.split('\n') if line and not line.startswith(':')]


def test_every_page_stands_in_one_group_of_the_home_page():
    pages = [path.relative_to(ROOT / 'docs').with_suffix('').as_posix()
             for folder in ('docs', 'docs/tutorials')
             for path in (*(ROOT / folder).glob('*.md'), *(ROOT / folder).glob('*.ipynb'))]
    assert sorted(listed('index')) == sorted(set(pages) - {'index'})


def test_the_config_guide_names_every_piece():
    """And no other: rows of its table are a folder of configs/_base_ and pieces in it."""
    page = (ROOT / 'docs/config_guide.md').read_text(encoding='utf-8')
    base = ROOT / 'configs/_base_'
    named = [base / folder / f'{name}.py'
             for folder, names in re.findall(r'^\| `([.\w]+/)` \|([^|]*)\|', page, re.M)
             for name in re.findall(r'`(\w+)`', names)]
    assert sorted(named) == sorted(base.rglob('*.py'))


def test_the_list_of_recipes_names_every_config():
    """And no other; those of ablations/ are children of these."""
    folder = ROOT / 'configs/simpleseg'
    named = set(re.findall(r'`([\w.-]+\.py)`', (folder / 'README.md').read_text(encoding='utf-8')))
    ablations = {path.name for path in (folder / 'ablations').glob('*.py')}
    assert named - ablations == {path.name for path in folder.glob('*.py')}


def test_the_api_pages_are_of_modules_that_exist():
    names = listed('api')
    assert len(set(names)) == len(names) > 20
    for name in names:
        module = ROOT / name.removeprefix('_api/').removesuffix('/index')
        assert module.with_suffix('.py').is_file() or (module / '__init__.py').is_file(), name


@pytest.mark.parametrize('page', PAGES)
def test_blocks_say_what_they_are(page):
    blocks, faults = PAGES[page]
    unknown = [f'{block.place}: nothing makes {name}' for block in blocks for name in block.given
               if name not in GIVEN]
    assert not faults + unknown, '\n'.join(faults + unknown)


@pytest.mark.parametrize('page', [
    pytest.param(page, marks=[pytest.mark.slow] * (page in LONG))
    for page, (blocks, _) in PAGES.items()
    if any(block.is_run and 'slow' not in block.marks for block in blocks)])
def test_page(page, tmp_path, shapes):
    blocks = [block for block in PAGES[page][0] if block.is_run and 'slow' not in block.marks]
    code, output = run(blocks, make_folder(tmp_path, shapes, blocks), LIMIT)
    assert code == 0, f'{page}: exit code {code}\n{output[-6000:]}'


@pytest.mark.slow
@pytest.mark.parametrize('page', [
    page for page, (blocks, _) in PAGES.items()
    if any(block.is_run and 'slow' in block.marks for block in blocks)])
def test_slow_page(page, tmp_path, shapes):
    blocks = [block for block in PAGES[page][0] if block.is_run]
    code, output = run(blocks, make_folder(tmp_path, shapes, blocks), SLOW_LIMIT, warm=False)
    assert code == 0, f'{page}: exit code {code}\n{output[-6000:]}'
