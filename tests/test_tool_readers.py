"""Data sets of real photos through other tools' own code, both ways.

``make test-readers`` makes an environment that has them all; here a tool that is missing is passed
over.
"""
import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from tool_readers import (LAYOUTS, READ_BY, WRITTEN_BY, compared, lay_out, read_here, standing_in)

from simpleseg_mm.export import SETS, export_set

PHOTOS = dict(folder=2, absolute=2, relative=2, nested=6)
NEEDED = dict(pycocotools='pycocotools', datumaro='datumaro', supervision='supervision',
              ultralytics='ultralytics.data.dataset', labelme='labelme._label_file',
              label_studio_sdk='label_studio_sdk.converter', datasets='datasets',
              shapely='shapely', resvg_py='resvg_py')
#: of outlines along pixels' edges, the least IoU of an object: these readers fill a polygon with
#: its outline, half a pixel more all round; docs/inference.md has the figures
FILLED_WITH_OUTLINE = {('coco', 'supervision'): 0.5, ('labelme', 'labelme'): 0.5,
                       ('yolo', 'ultralytics'): 0.4, ('yolo', 'supervision'): 0.4}


@pytest.fixture(scope='module', params=LAYOUTS)
def photos(request, real_data, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    with standing_in(place):
        yield request.param, place, *lay_out(real_data, place, request.param,
                                             PHOTOS[request.param])


def need(tool: str):
    """Skip where a tool is not there. Imported late: some take seconds."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            pytest.importorskip(NEEDED[tool], reason=f'{tool}: make test-readers')
    except ImportError as error:  # of what it needs itself
        pytest.skip(f'{tool}: {error}; make test-readers')


def test_every_set_is_read_by_another_tool():
    assert {format for format, *_ in READ_BY} == set(SETS)


@pytest.mark.parametrize('exact', [False, True])
@pytest.mark.parametrize('format, tool, read, whole', READ_BY,
                         ids=[f'{format}-{tool}' for format, tool, *_ in READ_BY])
def test_what_other_tools_read(photos, format, tool, read, whole, exact):
    need(tool)
    _, place, results, truth = photos
    out = place / f'{format}-{exact}'
    if not out.exists():
        export_set(results, out, format, exact)
    found = read(out, truth)
    ious, more = compared(truth, found, whole)
    assert len(ious) > 5 and more == 0
    least = 1.0 if exact else FILLED_WITH_OUTLINE.get((format, tool), 1.0)
    assert min(ious) >= least, np.sort(ious)[:5]
    assert np.mean(ious) > 0.85


@pytest.mark.parametrize('format, tool, write, whole, keeps', WRITTEN_BY,
                         ids=[f'{format}-{tool}' for format, tool, *_ in WRITTEN_BY])
def test_what_we_read_of_other_tools(photos, format, tool, write, whole, keeps):
    layout, place, _, truth = photos
    if layout == 'nested' and not keeps:
        pytest.skip(f'{tool} writes all pictures to one folder, and refuses names that are the '
                    'same')
    need(tool)
    out = Path(place, f'theirs {format} {tool}')
    write(truth, place / 'in/pics', out)
    ious, more = compared(truth, read_here(out, truth), whole)
    if format in ('COCO (RLE)', 'CVAT', 'LabelMe', 'Label Studio'):
        assert min(ious) == 1.0 and more == 0
    else:  # polygons along the centres of pixels; masks in which a later object hides another
        assert np.mean(ious) > 0.8
