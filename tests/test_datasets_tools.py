"""The data tools as a user runs them: generate, convert, verify, browse."""
import json
from pathlib import Path

import pytest
from PIL import Image
from test_datasets_refcoco import build, make_set

ROOT = Path(__file__).resolve().parents[1]


GENERATE = 'dataset_converters/generate_refshapes.py'
REFCOCO = 'dataset_converters/refcoco.py'
BROWSE = 'analysis_tools/browse_dataset.py'


@pytest.fixture
def shapes(run, tmp_path) -> Path:
    code, card, _ = run(GENERATE, tmp_path, '--scenes-train', 6, '--scenes-val', 3,
                        '--scenes-test', 0, '--seed', 4, '--absent', 0.5)
    assert code == 0 and card['counts']['val']['images'] == 3 and card['seed'] == 4
    return tmp_path


def test_a_generated_set_verifies(run, shapes):
    code, report, _ = run(REFCOCO, 'verify', shapes)
    assert code == 0 and report['ok'] and report['faults'] == dict(counts=0, annotations=0,
                                                                   images=0)
    assert report['images_checked'] == 9


def test_verify_lists_what_is_wrong(run, shapes):
    images = sorted((shapes / 'images').iterdir())
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:-100])
    Image.new('RGB', (10, 10)).save(images[2])
    path = shapes / 'refshapes' / 'instances.json'
    instances = json.loads(path.read_text())
    first, second, third = instances['annotations'][:3]
    first['segmentation'] = [[0, 0, 1, 1]]
    second['segmentation']['counts'] = [224 * 224]
    third['segmentation'] = [[5, 5, 5.1, 5, 5.1, 5.1]]
    path.write_text(json.dumps(instances))
    card = shapes / 'refshapes' / 'card.json'
    card.write_text(card.read_text().replace('"sentences": ', '"sentences": 1'))
    code, report, out = run(REFCOCO, 'verify', shapes, '--bad-images', shapes / 'bad.txt')
    assert code == 1 and not report['ok']
    assert report['faults'] == dict(counts=3, annotations=3, images=3)
    for text in (f'missing image {images[0]}', f'broken image {images[1]}', 'has (h, w) (10, 10)',
                 'degenerate polygon of 4', 'the mask is empty', f'annotation {first["id"]}'):
        assert text in out
    assert (shapes / 'bad.txt').read_text().split() == [path.name for path in images[:3]]


def test_convert_and_load(run, tmp_path):
    make_set(tmp_path)
    before = [build(tmp_path).get_data_info(i) for i in range(8)]
    code, report, _ = run(REFCOCO, 'convert', tmp_path)
    target = tmp_path / 'refcoco' / 'refs(unc).json'
    assert code == 0 and report['converted'] == {str(target): 8}
    (tmp_path / 'refcoco' / 'refs(unc).p').unlink()
    assert [build(tmp_path).get_data_info(i) for i in range(8)] == before


def test_blank_sentences_are_counted_and_kept_by_a_conversion(run, tmp_path):
    def edit(refs, images, annotations):
        refs[0]['sentences'][1]['sent'] = ' \t'
    make_set(tmp_path, edit=edit)
    code, report, out = run(REFCOCO, 'verify', tmp_path)
    assert report['blank_sentences'] == 1 and 'a blank sentence asks nothing' in out
    assert not report['faults']['annotations']  # nobody can mend a published set
    assert run(REFCOCO, 'convert', tmp_path)[0] == 0
    written = json.loads((tmp_path / 'refcoco' / 'refs(unc).json').read_text())
    assert [len(ref['sentences']) for ref in written] == [2] * 8


@pytest.mark.parametrize('command, message', [
    (('verify',), 'holds no'), (('convert',), 'holds no'),
    (('verify', '--sets', 'refcoco:unc'), 'no folder')])
def test_an_empty_folder_is_one_line_and_exit_code_1(run, tmp_path, command, message):
    code, report, _ = run(REFCOCO, command[0], tmp_path, *command[1:])
    assert code == 1 and not report['ok'] and message in report['error']


def test_verify_compares_with_the_published_counts(run, real_data):
    code, report, out = run(REFCOCO, 'verify', real_data / 'refcoco_mini', '--img-dir', 'images')
    assert code == 1 and report['images_checked'] == 7
    assert report['faults'] == dict(counts=11, annotations=0, images=0)  # it is a small part
    assert report['sets']['refcoco:unc'] == dict(testB=[4, 14, 2], val=[5, 15, 1])
    assert 'expected (3811, 10834, 1500)' in out


@pytest.mark.parametrize('turns', [1, 3])
def test_browse(run, shapes, turns):
    out_dir = shapes / 'pictures'
    dataset = 'train_dataloader.dataset'
    tasks = ('text2mask', 'point2box', 'mask2text', 'text2point')
    code, report, _ = run(BROWSE, ROOT / 'configs/_base_/datasets/refshapes.py', '--num', 5,
                          '--out-dir', out_dir, '--side', 200, '--cfg-options',
                          f'{dataset}.data_root={shapes}', f'{dataset}.query.turns={turns}',
                          *(f'{dataset}.query.tasks.{task}=1.0' for task in tasks))
    assert code == 0 and report['samples'] == 5
    assert len(list(out_dir.glob('sample_*.png'))) == 5
    with Image.open(out_dir / 'contact_sheet.png') as sheet:
        assert sheet.width == 4 * 200 and len(sheet.getcolors(10**6)) > 1000


def test_browse_without_data_says_what_to_do(run, tmp_path):
    code, _, said = run(BROWSE, ROOT / 'configs/_base_/datasets/refcoco.py', '--cfg-options',
                        f'train_dataloader.dataset.data_root={tmp_path}')
    assert code == 2 and said.startswith('ERROR: refcoco: there is no folder')
