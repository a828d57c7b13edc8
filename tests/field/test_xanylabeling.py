"""X-AnyLabeling's files: LabelMe's with all corners of rectangles, and turned boxes."""
from pathlib import Path

import pytest
from own_sets import SQUARE, areas, labelme, own, shape

MORE = dict(flags=None, description=None, difficult=False, attributes={}, kie_linking=[])
TURNED = [50, 5, 60, 10, 55, 20, 45, 15]  # 125 pixels


@pytest.mark.parametrize('kind, points, area', [
    ('rectangle', SQUARE, 600), ('rectangle', [40, 30, 10, 30, 10, 10, 40, 10], 600),
    ('rectangle', [10, 10, 40, 30], 600), ('rectangle', TURNED, 125), ('rotation', TURNED, 125),
    ('quadrilateral', TURNED, 125), ('polygon', SQUARE, 600)])
def test_shapes(tmp_path: Path, kind, points, area):
    """X-AnyLabeling #1262, #219, #397."""
    more = dict(MORE, direction=0.46) if kind == 'rotation' else MORE
    report, samples = own(labelme(tmp_path / 'set', [shape(points, 'van', kind, **more)],
                                  version='3.3.0'), tmp_path / 'out')
    assert list(areas(samples).values()) == [pytest.approx(area, abs=8)] * 3
    assert not report['left_out']


@pytest.mark.parametrize('kind', ['cuboid', 'line', 'point', 'linestrip', 'future'])
def test_shapes_without_an_area_are_counted(tmp_path: Path, kind):
    report, samples = own(labelme(tmp_path / 'set', [
        shape(SQUARE, **MORE), shape(TURNED, 'van', kind, **MORE)]), tmp_path / 'out')
    assert {text for _, text in samples} == {'car'}
    assert report['left_out']['annotation'] == {f'shape of type {kind}, which has no area': 3}


def test_backslashes_of_windows(tmp_path: Path):
    """X-AnyLabeling #700."""
    folder = labelme(tmp_path / 'set', [shape(SQUARE, **MORE)])
    for file in folder.glob('*.json'):
        text = file.read_text().replace('"imagePath": "', '"imagePath": "..\\\\photos\\\\')
        file.write_text(text)
    _, samples = own(folder, tmp_path / 'out')
    assert len(samples) == 3
