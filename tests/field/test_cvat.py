"""COCO exports of CVAT: brush masks as crowds, a folder a subset, ids that are 0."""
import numpy as np
import pytest
from own_sets import SMALL, areas, coco, own, written

from simpleseg_mm.polygon import segmentation_to_mask

CROWD = 'crowd, which no point or box means (--crowds objects reads each as one object)'


def brushed(segmentation) -> dict:
    """Runs of a mask, as CVAT writes what was painted."""
    flat = segmentation_to_mask(segmentation, 48, 64).flatten('F').astype(int)
    cuts = np.flatnonzero(np.diff(flat)) + 1
    return dict(size=[48, 64], counts=np.diff([0, *cuts, len(flat)]).tolist())


def export(tmp_path, every: bool) -> dict:
    content = coco(tmp_path, objects=2, images='images/default')
    content['categories'].append(dict(id=2, name='dog'))
    for row in content['annotations'][1::2]:
        row['category_id'] = 2
    for row in content['annotations'] if every else content['annotations'][::2]:
        row.update(iscrowd=1, segmentation=brushed(row['segmentation']))
    return content


@pytest.mark.parametrize('crowds, prompts', [('auto', 3), ('groups', 3), ('objects', 6)])
def test_brush_masks(tmp_path, crowds, prompts):
    """cvat #7030: they are asked by category; as points and boxes where that is said."""
    path = written(export(tmp_path, False), tmp_path / 'annotations/instances_default.json')
    report, samples = own(path, tmp_path / 'out', crowds=crowds, prompts=True)
    assert areas(samples) == {(f'{k}.png', text): area for k in range(3)
                              for text, area in (('car', 600), ('dog', 225))}
    images = report['train']['images']
    assert report['used']['prompt'] == images * prompts // 3
    assert report['left_out'] == ({} if crowds == 'objects' else {'prompt': {CROWD: images}})
    assert any('crowd' in rule for rule in report['decided'])


def test_brush_masks_alone_name_the_option(tmp_path):
    path = written(export(tmp_path, True), tmp_path / 'annotations/instances_default.json')
    with pytest.raises(ValueError, match='--crowds objects'):
        own(path, tmp_path / 'out', prompts=True)
    report, samples = own(path, tmp_path / 'out', prompts=True, crowds='objects')
    assert len(samples) == 6 and report['used']['prompt'] == 2 * report['train']['images']


def test_text_and_truth_values_of_crowds(tmp_path):
    content = coco(tmp_path, objects=2)
    for row, value in zip(content['annotations'], ['1', '0', True, False, 1.0, None]):
        row['iscrowd'] = value
        if value in ('0', False, None):
            row['segmentation'] = [SMALL]
    report, _ = own(written(content, tmp_path / 'coco.json'), tmp_path / 'out')
    assert sum(count for rule, count in report['decided'].items() if 'crowd' in rule) == 3
