"""A random fault at a random place: what is read is used or left out, and no other truth changes.
"""
import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_sets import SMALL, SQUARE, coco, labelme, picture, shape

from simpleseg_mm.annotation.own_account import Account
from simpleseg_mm.annotation.own_coco import read_coco_set
from simpleseg_mm.annotation.own_data import Choices, convert
from simpleseg_mm.annotation.own_files import read_own
from simpleseg_mm.annotation.own_formats import Reading
from simpleseg_mm.polygon import segmentation_to_mask

GONE = object()
VALUES = [GONE, None, '', 'x', '1', 0, -1, 2, 1e400, float('nan'), 10**30, True, [], [[]], [0],
          {}, dict(size=[48, 64]), dict(size=[48, 64], counts=[3072]), [[1, 2, 3, 4]],
          [[900, 900, 910, 900, 910, 910]], [SQUARE[:7]], [[SMALL]], 'nowhere.png', '../0.png',
          [1, 2], [[1, 2], [3, 'x'], [5, 6]], '\0', 'a' * 400, '0.png', '__ignore__']
CHECKS = dict(deadline=None, derandomize=True, max_examples=40, database=None,
              suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def faults(draw, table: int, outline: int):
    """Where to go down, by number of the entry at each level, and what to put there.

    Half of the faults are in the ``table`` of annotations, half of these in the ``outline``.
    """
    any_entry = st.integers(0, 11)
    steps = [draw(st.just(table) | any_entry), draw(any_entry),
             draw(st.just(outline) | any_entry), draw(any_entry)]
    return steps[:draw(st.sampled_from([2, 3, 3, 3, 4]))], draw(st.integers(0, len(VALUES) - 1))


def spoil(content, steps: list[int], value):
    """A copy of a file's content with a value put somewhere, and the path to it."""
    content = copy.deepcopy(content)
    place, path = content, []
    for number, step in enumerate(steps):
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = keys[step % len(keys)]
        path.append(key)
        inner = place[key]
        if number == len(steps) - 1 or not isinstance(inner, dict | list) or not inner:
            if value is GONE:
                del place[key]
            else:
                place[key] = copy.deepcopy(value)
            break
        place = inner
    return content, path


def truth(out) -> dict:
    """``{(picture's name, text): mask}`` of a written set."""
    found: dict = {}
    for split in ('train', 'val'):
        content = json.loads((out / f'annotations/{split}.json').read_text())
        images = {row['id']: row for row in content['images']}
        for row in images.values():
            for text in row.get('absent_phrases', []):
                assert (row['file_name'], text) not in found
                found[row['file_name'], text] = None
        for row in content['annotations']:
            image = images[row['image_id']]
            mask = segmentation_to_mask(row['segmentation'], image['height'], image['width'])
            assert mask.any()
            for text in row['phrase']:
                key = image['file_name'], text
                found[key] = mask | found[key] if key in found else mask
    return found


def converted(read, out, **choices) -> dict | str:
    """The truth of a set, or the line that says why there is none."""
    account = Account()
    try:
        done = convert(out, [read(account)], Choices(**choices, share=0.4), account)
    except (ValueError, FileNotFoundError) as error:
        assert str(error).strip()
        return str(error)
    report = account.report()  # asserts that read = used + left out, for each kind
    found = truth(out)
    assert len(found) == report['used']['query']
    assert sum(done.report[split]['images'] for split in ('train', 'val')) == \
        report['used']['picture']
    return found


def check_others(before: dict, after: dict | str, touched: set, changed: set) -> None:
    """Queries vanish on ``touched`` pictures alone, and mean something else on ``changed``."""
    if isinstance(after, str):
        return
    for key, mask in after.items():
        if key[0] in changed or mask is None:
            continue
        assert key in before and before[key] is not None and (mask == before[key]).all(), key
    lost = {key[0] for key in before.keys() - after.keys() if before[key] is not None}
    assert lost <= touched


@pytest.fixture(scope='module')
def coco_set(tmp_path_factory):
    root = tmp_path_factory.mktemp('coco')
    content = coco(root, count=5, objects=2)
    content['categories'] = [dict(id=1, name='car'), dict(id=2, name='dog')]
    for row in content['annotations']:
        row.update(category_id=1 + row['image_id'] % 2, phrase=['a thing'] if row['id'] % 3 else
                   ['a thing', f'thing {row["id"]}'])
    return root, content


@pytest.mark.parametrize('choices', [dict(ask='category', absent=1), dict(ask='both')])
@settings(**CHECKS)
@given(fault=faults(0, 6))
def test_coco(coco_set, tmp_path, choices, fault):
    root, content = coco_set

    def reader(one):
        return lambda account: read_coco_set(root / 'coco.json', one, Reading(), account)

    before = converted(reader(content), tmp_path / 'out', **choices)
    spoilt, path = spoil(content, fault[0], VALUES[fault[1]])
    touched = {f'{k}.png' for k in range(5)}
    if len(path) > 1 and path[0] in ('images', 'annotations'):
        record = content[path[0]][path[1]]
        numbers = {record.get('image_id', record['id'])}
        if path[-1] in ('image_id', 'id', 'file_name'):  # the records of two pictures
            numbers = {k for k in range(5)}
        touched = {f'{k}.png' for k in numbers}
    lost = path[-1] == 'segmentation' and VALUES[fault[1]] != [[SMALL]]  # never half a truth
    check_others(before, converted(reader(spoilt), tmp_path / 'out', **choices), touched,
                 set() if lost else touched)


@pytest.fixture(scope='module')
def labelme_set(tmp_path_factory):
    root = labelme(tmp_path_factory.mktemp('labelme'), [
        shape(SQUARE, description='a car\nthe left car'), shape(SMALL, group_id=3),
        shape([2, 32, 20, 32, 20, 46, 2, 46], group_id=3, description='two parts'),
        shape([30, 35, 50, 45], 'dog', 'rectangle')], count=4)
    picture(root / 'elsewhere/9.png', 9)
    return root


@pytest.mark.parametrize('choices', [dict(ask='category', absent=1), dict(ask='both')])
@settings(**CHECKS)
@given(number=st.integers(0, 3), fault=faults(5, 4))
def test_labelme(labelme_set, tmp_path, choices, number, fault):
    file = labelme_set / f'{number}.json'
    text = file.read_text()

    def read(account):
        return read_own(labelme_set, Reading(), account)

    before = converted(read, tmp_path / 'out', **choices)
    spoilt, path = spoil(json.loads(text), fault[0], VALUES[fault[1]])
    touched = {f'{number}.png'} if path[-1] != 'imagePath' else {f'{k}.png' for k in range(4)}
    try:
        file.write_text(json.dumps(spoilt))
        after = converted(read, tmp_path / 'out', **choices)
    finally:
        file.write_text(text)
    lost = path[-1] in ('points', 'shape_type') and VALUES[fault[1]] not in (None, '', GONE)
    check_others(before, after, touched, set() if lost else touched)
