"""Files of sets with a random fault: an error of one line, or what was read adds up and no other
sample's truth changes; never another exception, and never a half truth."""
import copy
import json
import pickle
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from simpleseg_mm.datasets import (CocoQueryDataset, QuestionAnsweringDataset, ReasonSegDataset,
                                   RefCOCODataset)
from simpleseg_mm.datasets.verify import verify
from simpleseg_mm.polygon import mask_to_rle

ROOT = Path(__file__).resolve().parents[2]
H, W = 20, 30
IMAGES = 3
NAN, INF = float('nan'), float('inf')
QUERY = dict(codec=dict(grammar='int1000', tokens=40))


def square(k: int) -> list[int]:
    x, y = 1 + 9 * (k % 3), 2 + 9 * (k // 3)
    return [x, y, x + 6, y, x + 6, y + 6, x, y + 6]


def coco_tables(objects: int = 4) -> dict:
    """Three images with some objects each, of two of three categories, one of them an RLE."""
    annotations = []
    for image in range(IMAGES):
        for k in range(objects):
            x, y, *_ = square(k)
            mask = np.zeros((H, W), bool)
            mask[y:y + 6, x:x + 6] = True
            annotations.append(dict(
                id=10 * image + k, image_id=image, category_id=1 + k % 2, area=36, iscrowd=0,
                bbox=[x, y, 6, 6], segmentation=mask_to_rle(mask) if k == 2 else [square(k)],
                phrase=['thing', f'number {k}']))
    return dict(images=[dict(id=k, file_name=f'{k}.png', height=H, width=W)
                        for k in range(IMAGES)], annotations=annotations,
                categories=[dict(id=k, name=name) for k, name in enumerate(('a', 'b', 'c'), 1)])


def references(tables: dict, several: bool) -> list[dict]:
    return [dict(ref_id=k, ann_id=[one['id']] if several else one['id'],
                 image_id=one['image_id'], split='train' if k % 4 else 'val',
                 sentences=[dict(sent_id=2 * k + j, sent=f'thing {k} {j}') for j in range(2)])
            for k, one in enumerate(tables['annotations'])]


@pytest.fixture(scope='module')
def pictures(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('mutated')
    for name in ('images', 'mine', 'val'):
        (root / name).mkdir()
    for k in range(IMAGES):
        Image.new('RGB', (W, H), (80 * k, 0, 0)).save(root / f'images/{k}.png')
        Image.new('RGB', (W, H)).save(root / f'val/{k}.jpg')
    return root


# --- any mutation ------------------------------------------------------------------------------
_VALUES = (None, NAN, INF, -INF, 10**400, -1, 0, 1.5, True, '', 'x', '7', [], {}, [None], [[]],
           {'a': 1}, 2**64, -10**30, '1e999', '\0', 'a\nb', [1, 2, 3], 1e308)


def nodes(content, path=()):
    """Paths of all values in a value."""
    if path:
        yield path
    items = content.items() if isinstance(content, dict) else (
        enumerate(content) if isinstance(content, list) else ())
    for key, value in items:
        yield from nodes(value, (*path, key))


def at(content, path):
    for key in path:
        content = content[key]
    return content


def mutated(content, rng: random.Random):
    """A copy with one or two changes."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 2))):
        paths = list(nodes(content))
        if not paths:
            break
        path = rng.choice(paths)
        holder, key = at(content, path[:-1]), path[-1]
        change = rng.randrange(8)
        if change == 0:
            del holder[key]
        elif change == 1:
            holder[key] = [holder[key]]
        elif change == 2:
            holder[key] = str(holder[key])
        elif change == 3:
            other = rng.choice(paths)
            holder[key] = copy.deepcopy(at(content, other))
        elif change == 4 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif change == 5:
            for _ in range(300):
                holder[key] = [holder[key]]
        else:
            holder[key] = rng.choice(_VALUES)
    return content


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """Bytes as they are, or cut, flipped, marked, or in another encoding."""
    change = rng.randrange(12)
    if change == 0:
        return raw[:rng.randrange(len(raw) + 1)]
    if change == 1:
        raw = bytearray(raw)
        for _ in range(rng.randrange(1, 4)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        return bytes(raw)
    if change == 2:
        return b'\xef\xbb\xbf' + raw
    if change == 3:
        return raw.decode('latin-1').encode('utf-16')
    if change == 4:
        return raw.replace(b'\n', b'\r\n')
    return raw


def write(path: Path, content, rng: random.Random) -> None:
    if path.suffix == '.p':
        path.write_bytes(damaged(pickle.dumps(content, 2), rng))
    elif path.suffix == '.jsonl':
        path.write_bytes(damaged('\n'.join(map(json.dumps, content)).encode(), rng))
    else:
        path.write_bytes(damaged(json.dumps(content).encode(), rng))


def build(kind: str, root: Path, rng: random.Random):
    """A dataset of this kind with mutated files."""
    tables = coco_tables()
    options = dict(bad_samples=rng.choice(('skip', 'error')), test_mode=rng.random() < .5,
                   serialize_data=rng.random() < .5)
    source = [dict(name='mine', split='train', img_dir='images')]
    if kind == 'refs':
        refs, path = references(tables, rng.random() < .5), root / 'mine/refs(unc).json'
        for old in (root / 'mine').iterdir():
            old.unlink()
        if rng.random() < .4:
            path = path.with_suffix('.p')
        if rng.random() < .6:
            refs = mutated(refs, rng)
        else:
            tables = mutated(tables, rng)
        write(path, refs, rng)
        write(root / 'mine/instances.json', tables, rng)
        return lambda: RefCOCODataset(str(root), source, query=QUERY, **options)
    if kind in ('object', 'category', 'phrase'):
        write(root / 'coco.json', mutated(tables, rng), rng)
        query = QUERY | dict(tasks=dict(box2mask=1) if kind == 'object' else dict(text2mask=1))
        return lambda: CocoQueryDataset(
            str(root), 'coco.json', 'images', targets=kind, query=query,
            absent=1 if kind == 'category' else 0, **options)
    if kind == 'reasonseg':
        for k in range(IMAGES):
            record = dict(text=['what?', 'who?'], is_sentence=True, shapes=[
                dict(label='target', points=[[2, 2], [12, 2], [12, 9]]),
                dict(label='ignore', points=[[2, 2], [5, 2], [5, 5]])])
            write(root / f'val/{k}.json', record if k else mutated(record, rng),
                  rng if not k else random.Random(99))
        return lambda: ReasonSegDataset(str(root), 'val', query=QUERY, **options)
    rows = [dict(image=f'images/{k}.png', question='What?', kind='naming', answers=['x', 'y'])
            for k in range(IMAGES)] + [
        dict(image='images/0.png', question='Where?', kind='where', box=[1, 2, 9, 9]),
        dict(image='images/0.png', question='At {region}?', kind='at', region=[3, 4],
             answers=['x'])]
    write(root / 'q.jsonl', mutated(rows, rng), rng)
    del options['bad_samples'], options['serialize_data']
    return lambda: QuestionAnsweringDataset(
        str(root), 'q.jsonl', query=dict(codec=dict(grammar='int100')), **options)


KINDS = ('refs', 'refs', 'object', 'category', 'phrase', 'reasonseg', 'questions')


def check_one(number: int, root: Path) -> str:
    """One mutated set through its loader; says how it ended."""
    rng = random.Random(number)
    kind = rng.choice(KINDS)
    make = build(kind, root, rng)
    try:
        if kind == 'refs':
            verify(root, ['mine'], 'images', images=rng.random() >= .8, workers=1)
        dataset = make()
        assert len(dataset) + dataset.skipped.total() == dataset.read, (number, kind)
        for k in range(len(dataset)):
            dataset[k]
    except (ValueError, FileNotFoundError) as error:
        message = str(error)
        assert type(error) in (ValueError, FileNotFoundError), (number, kind, repr(error))
        assert message and '\n' not in message and len(message) < 1500, (number, kind, message)
        return type(error).__name__
    except Exception as error:
        raise AssertionError(f'number {number}, {kind}: {error!r:.300}') from error
    return 'counted' if dataset.skipped else 'read'


def run(numbers, root: Path) -> Counter:
    return Counter(check_one(number, root) for number in numbers)


@pytest.fixture(autouse=True)
def quiet(capsys):
    """verify lists its faults."""


def test_mutated_files_are_an_error_of_one_line_or_counted(pictures):
    ends = run(range(60), pictures)
    assert ends['ValueError'] > 12 and ends['counted'] > 4 and ends['read'] > 4, ends


@pytest.mark.slow
def test_ten_thousand_mutated_files(pictures):
    ends = run(range(1000, 11_000), pictures)
    assert ends.total() == 10_000 and min(ends['ValueError'], ends['counted']) > 1000, ends


# --- one fault, and the truth of all others ----------------------------------------------------
TWICE = object()  # the value of the record before
JUNK = dict(
    images=dict(id=[None, [], 1.5, TWICE, 'zz'], file_name=[None, 3, '', 'none.png', 'images'],
                height=[None, 0, 'x', INF, 10**400, -3, 99_999], width=[NAN, [], '']),
    annotations=dict(
        id=[None, {}, TWICE], image_id=[None, [], True], category_id=[None, [], 99, 'zz'],
        segmentation=[None, [], 'x', NAN, [[1, 2]], [[None] * 6], [[1, 1, 1.1, 1, 1.1, 1.1]],
                      dict(size=[3, 3], counts=[9]), dict(size=[H, W], counts=[5, 5]),
                      dict(size=[H, W], counts='00'), [[90, 90, 95, 90, 95, 95]],
                      [[1e9, 0, 9, 9, 9, 0]]],
        bbox=['x', [1], [0, 0, 0, 0], [NAN] * 4, [99, 99, 2, 2], [1e300, 1, 1, 1]],
        iscrowd=[7, 'x'], area=['x', -1], phrase=[3, [None], '', [' ']]),
    refs=dict(ref_id=[None, [], TWICE], ann_id=[None, 999, [], [0, 0], TWICE],
              image_id=[None, 99, []], split=[None, 3],
              sentences=[None, 'x', [None], [dict(sent=3, sent_id=1)]]))


def truths(dataset, kind: str) -> dict:
    found = {}
    for k in range(len(dataset)):
        try:
            sample = dataset[k]['data_samples']
        except ValueError as error:
            assert 'its annotations say' in str(error)  # a size that only the picture tells
            continue
        key = (sample.ref_id, sample.sent_id) if kind == 'refs' else (
            sample.ann_id[0] if kind == 'object' else (sample.image_id, sample.text))
        assert key not in found
        found[key] = sample.image_id, sample.gt_masks.masks[0].tobytes()
    return found


def load(kind: str, root: Path, tables: dict, refs: list):
    (root / 'mine/instances.json').write_text(json.dumps(tables))
    (root / 'mine/refs.json').write_text(json.dumps(refs))
    common = dict(bad_samples='skip', serialize_data=False, test_mode=True)
    if kind == 'refs':
        return RefCOCODataset(str(root), [dict(name='mine', split=['train', 'val'],
                                               img_dir='images')], query=QUERY, **common)
    query = QUERY | dict(tasks=dict(box2mask=1) if kind == 'object' else dict(text2mask=1))
    return CocoQueryDataset(str(root), 'mine/instances.json', 'images', targets=kind, query=query,
                            absent=1 if kind == 'category' else 0, **common)


@settings(max_examples=150, deadline=None, derandomize=True,
          suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_fault_takes_no_other_sample_and_changes_no_truth(pictures, data):
    root, draw = pictures, data.draw
    for old in (root / 'mine').iterdir():
        old.unlink()
    kind = draw(st.sampled_from(('refs', 'object', 'category', 'phrase')))
    tables = coco_tables(draw(st.integers(1, 5)))
    refs = references(tables, draw(st.booleans()))
    before = truths(load(kind, root, tables, refs), kind)
    table = draw(st.sampled_from(('images', 'annotations') + (('refs',) * (kind == 'refs'))))
    rows = refs if table == 'refs' else tables[table]
    row = draw(st.integers(1, len(rows) - 1))
    field = draw(st.sampled_from(sorted(JUNK[table])))
    if field in ('phrase', 'category_id') and kind in ('refs', 'object'):
        field = 'segmentation'
    value = draw(st.sampled_from(JUNK[table][field]))
    image_ids = {rows[row].get('image_id', rows[row]['id'] if table == 'images' else None)}
    keys = {rows[row]['id']} if table == 'annotations' else {rows[row].get('ref_id')}
    if value is TWICE:
        value = rows[row - 1][field]
        keys |= {rows[row - 1].get('ref_id', rows[row - 1].get('id'))}
        image_ids |= {rows[row - 1].get('image_id', rows[row - 1].get('id'))}
    rows[row][field] = value
    try:
        dataset = load(kind, root, tables, refs)
    except ValueError as error:
        assert '\n' not in str(error)
        fatal = table == 'annotations' and field == 'image_id' and kind in ('category', 'phrase')
        assert fatal or 'no sample is left' in str(error), str(error)
        return
    assert len(dataset) + dataset.skipped.total() == dataset.read
    after = truths(dataset, kind)
    for key, truth in after.items():
        if key in before:  # absent categories are drawn anew
            assert truth == before[key], (kind, table, field, value)
        else:
            assert kind == 'category' and not any(truth[1])
    lost = before.keys() - after.keys()
    if table == 'images' or kind in ('category', 'phrase'):
        assert {before[key][0] for key in lost} <= image_ids, (kind, table, field, value)
    elif kind == 'object':
        assert lost <= keys
    elif table == 'refs':
        assert {key[0] for key in lost} <= keys
    else:
        hit = {one['ref_id'] for one in refs if keys & set(np.atleast_1d(one['ann_id']).tolist())}
        assert {key[0] for key in lost} <= hit
