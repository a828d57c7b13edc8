"""COCO exports of Label Studio: pictures below images/, uploads, the turned view's outlines."""
import pytest
from own_sets import areas, coco, own, written


@pytest.mark.parametrize('name', ['images/{}', 'images\\{}',
                                  '../../label-studio/media/upload/4/{}', '/data/upload/4/{}',
                                  '/data/local-files/?d=photos/{}',
                                  '/data/local-files/?d={}', 'https://server/a%20b/{}?d={}',
                                  '/label-studio/data/media/upload/4/{}'])
@pytest.mark.parametrize('option', [None, 'images'])
def test_result_json_beside_its_images(tmp_path, name, option):
    """label-studio #7294: backslashes on Windows; archives keep the server's paths."""
    content = coco(tmp_path, name='3ab4f2c1-photo {}.png')
    for row in content['images']:
        file = row['file_name'].replace(' ', '%20') if '?d=' in name else row['file_name']
        row['file_name'] = name.format(file, file)
    content['info'] = dict(contributor='Label Studio')
    options = {} if option is None else dict(images=tmp_path / option)
    report, samples = own(written(content, tmp_path / 'result.json'), tmp_path / 'out', **options)
    assert areas(samples) == {(f'3ab4f2c1-photo {k}.png', 'car'): 600 for k in range(3)}
    assert not report['left_out']


def test_rectangles_are_boxes_alone(tmp_path):
    """A RectangleLabels task exports boxes with an empty segmentation."""
    content = coco(tmp_path)
    for row in content['annotations']:
        row['segmentation'] = []
    path = written(content, tmp_path / 'result.json')
    with pytest.raises(ValueError, match='--boxes take'):
        own(path, tmp_path / 'out')
    report, samples = own(path, tmp_path / 'out', boxes='take')
    assert set(areas(samples).values()) == {600} and len(samples) == 3
