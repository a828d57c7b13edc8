"""The page in a real browser: type, click, drag, undo, export.

Debian: chromium, chromium-driver.
"""
import os
import time

import pytest
from browser_page import By, Keys, Page, Select, WebDriverWait, chromium, close
from PIL import Image
from serving_standin import ScriptedInferencer, serving

from simpleseg_mm.taught import Taught

pytestmark = pytest.mark.slow
HTML = '<img src=x onerror="window.hurt=1">'
SQUARE = [[20, 20], [60, 20], [60, 70], [20, 70]]  # of 100 x 100


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    downloads = tmp_path_factory.mktemp('downloads')
    with chromium(downloads) as driver:
        yield driver, downloads


@pytest.fixture(scope='module')
def server():
    with serving(ScriptedInferencer(pause=0.15),
                 settings=dict(max_consensus=4, export_seconds=100.0)) as (url, inferencer):
        yield url, inferencer


@pytest.fixture
def page(browser, server, tmp_path):
    picture = tmp_path / 'scene.png'
    Image.new('RGB', (100, 100), (200, 210, 190)).save(picture)
    page = Page(browser[0], server[0], browser[1], picture)
    yield page
    errors = [row['message'] for row in page.driver.get_log('browser')
              if row['level'] == 'SEVERE' and 'favicon' not in row['message']]
    assert errors == []  # the content policy would be among them


def test_type_watch_drag_add_delete_undo_export(page):
    page.ask('slow')  # a vertex after the other
    counts = set()

    def watched() -> bool:
        counts.add(len(page.all('.draft-dot')))
        return len(page.all('#objects li')) == 1
    page.until(watched)
    assert len(counts - {0}) >= 3, counts
    (ring, ), = page.exported()
    assert close(ring, SQUARE, 0)

    page.drag((60, 70), (80, 90))
    moved = [[20, 20], [60, 20], [80, 90], [20, 70]]
    (ring, ), = page.exported()
    assert close(ring, moved) and not close(ring, SQUARE)
    page.drag((40, 20), (40, 5))  # the dot between two vertices
    (ring, ), = page.exported()
    assert close(ring, [[20, 20], [40, 5], [60, 20], [80, 90], [20, 70]])
    page.at(80, 90).double_click().perform()
    (ring, ), = page.exported()
    assert close(ring, [[20, 20], [40, 5], [60, 20], [20, 70]])

    body = page.driver.find_element(By.TAG_NAME, 'body')
    for _ in range(3):
        body.send_keys(Keys.CONTROL, 'z')
    (ring, ), = page.exported()
    assert close(ring, SQUARE, 0)
    page.id('redo').click()
    (ring, ), = page.exported()
    assert close(ring, moved)
    page.id('undo').click()
    page.id('undo').click()  # the object itself
    assert not page.all('#objects li') and not page.id('undo').is_enabled()


def test_keys_alone(page):
    page.outline('square')
    vertex = page.all('.vertex')[0]
    assert 'Vertex 1 of 4 at 20, 20' == vertex.get_attribute('aria-label')
    vertex.send_keys(Keys.ARROW_RIGHT)
    page.driver.switch_to.active_element.send_keys(Keys.SHIFT, Keys.ARROW_DOWN)
    (ring, ), = page.exported()
    assert close(ring, [[21, 30], *SQUARE[1:]], 0)
    page.all('.vertex')[2].send_keys(Keys.DELETE)
    (ring, ), = page.exported()
    assert close(ring, [[21, 30], [60, 20], [20, 70]], 0)
    page.all('.vertex')[0].send_keys(Keys.INSERT)
    (ring, ), = page.exported()
    assert len(ring) == 4
    page.id('numbers')
    page.driver.find_element(By.TAG_NAME, 'summary').click()
    page.id('numbers').send_keys('30, 40')
    page.id('ask-numbers').click()
    page.until(lambda: len(page.all('#objects li')) == 2)


def test_points_boxes_and_holes(page, server):
    page.tool('point')
    page.at(33, 44).click().perform()
    page.until(lambda: len(page.all('#objects li')) == 1)
    point = server[1].seen[-1][1].point
    assert abs(point[0] - 33) < 0.4 and abs(point[1] - 44) < 0.4
    page.tool('box')
    page.drag((80, 70), (10, 15))  # from any corner
    page.until(lambda: len(page.all('#objects li')) == 2)
    box = server[1].seen[-1][1].box
    assert all(abs(a - b) < 0.4 for a, b in zip(box, (10, 15, 80, 70)))
    page.tool('edit')
    page.outline('ring')
    rings = page.exported()
    assert [len(one) for one in rings] == [1, 1, 2]
    page.drag((40, 40), (45, 45))  # a vertex of the hole
    hole = page.exported()[2][1]
    assert close(hole, [[45, 45], [60, 40], [60, 60], [40, 60]])
    page.all('#objects li button[aria-label^=Remove]')[0].click()
    assert len(page.exported()) == 2


def test_all_objects_of_one_question(page, server):
    page.id('all').click()
    page.ask('slow two')
    seen = []

    def watched() -> bool:
        seen.append(page.driver.execute_script(
            "return [...document.querySelectorAll('.draft')].map(path => "
            "path.getAttribute('d').split('Z').length - 1)"))
        return len(page.all('#objects li')) == 2
    page.until(watched)
    assert [1] in seen  # the first is whole while the second is being written
    assert server[1].seen[-1][1].all
    assert page.status.startswith('slow two: 2 objects, 12 vertices in 0.1 s, confidence 0.50.')
    assert [one.text for one in page.all('#objects .score')] == ['0.50', '0.50']
    assert len(page.all('.shape')) == 2 and len(page.all('.vertex')) == 4  # of the first

    page.all('#objects button[aria-label^=Hide]')[0].click()
    assert len(page.all('.shape')) == 1 and not page.all('.vertex')
    page.all('#objects button[aria-label^=Show]')[0].click()
    page.drag((60, 70), (80, 90))
    assert [one.text for one in page.all('#objects .score')] == ['0.50']
    marks = page.export('coco')['annotations']
    assert [mark.get('score') for mark in marks] == [None, 0.5]
    assert [round(mark['area']) for mark in marks][1] == 80 * 80 - 20 * 20
    page.id('undo').click()
    assert [mark['score'] for mark in page.export('coco')['annotations']] == [0.5, 0.5]
    page.all('#objects button[aria-label^=Remove]')[1].click()
    assert [mark['bbox'] for mark in page.export('coco')['annotations']] == [[20, 20, 40, 50]]
    for _ in range(4):  # the removal, the two of hiding and showing, and all that was found
        page.id('undo').click()
    assert not page.all('#objects li')

    page.outline('many', 200)
    colors = {shape.get_attribute('fill') for shape in page.all('.shape')}
    assert len(colors) == 200 and '200 objects, 600 vertices' in page.status
    page.outline('twins', 3)
    assert '1 of 3 instances are the same as another one' in page.status
    page.outline('cut', 2)
    assert 'cut off after 2 instances' in page.status
    page.outline('square')  # one mask where a list was asked for
    assert '1 object, 4 vertices' in page.status and 'the list is not valid' in page.status
    page.ask('nothing')
    page.until(lambda: page.status == 'None found: the model sees no nothing.')
    page.ask('babble')
    page.until(lambda: 'I see no such thing' in page.status)
    assert len(page.all('#objects li')) == 206
    page.id('all').click()
    page.outline('square')
    assert not server[1].seen[-1][1].all


def test_votes_and_how_sure_a_vertex_is(page):
    Select(page.id('consensus')).select_by_value('4')
    page.outline('square')
    assert 'of 5 answers' in page.status and len(page.all('.spread')) == 4
    page.keep('page_vote')
    score, = page.all('#objects .score')
    assert 'the answers agree to 0.9' in score.get_attribute('title')
    page.drag((62, 70), (90, 90))  # the vote's outline is the one that was moved by two steps
    assert len(page.all('.spread')) == 3  # of the moved one it is not known
    page.drag((22, 45), (10, 45))  # the dot between two
    assert len(page.all('.vertex')) == 5 and len(page.all('.spread')) == 3
    feature, = page.export('geojson')['features']
    widths = dict(zip(map(tuple, feature['geometry']['coordinates'][0]),
                      feature['properties']['uncertainty'][0]))
    assert feature['properties']['confidence'] is None and len(widths) == 5
    assert {place: width for place, width in widths.items() if width is not None} == {
        (22, 20): 1.6, (22, 70): 1.6, (62, 20): 1.6}
    Select(page.id('consensus')).select_by_value('0')
    page.outline('square')
    assert 'answers' not in page.status and not page.all('.spread')


def test_what_the_model_was_not_taught_is_off(browser, tmp_path):
    picture = tmp_path / 'scene.png'
    Image.new('RGB', (100, 100)).save(picture)
    taught = Taught(prompts=('text', 'point'))
    with serving(ScriptedInferencer(taught=taught)) as (url, _):
        page = Page(browser[0], url, browser[1], picture)
        assert not page.id('all').is_enabled() and not page.id('consensus').is_displayed()
        assert page.id('untaught').text.startswith('Off, since this model was not taught it: '
                                                   'boxes, all objects at once, everything')
        assert 'simpleseg serve' in page.id('untaught').text  # the model that knows them
        assert not page.driver.find_element(By.CSS_SELECTOR, 'input[value=box]').is_enabled()
        page.tool('point')
        page.driver.find_element(By.TAG_NAME, 'summary').click()
        page.id('numbers').send_keys('30, 40, 50, 60')
        page.id('ask-numbers').click()
        assert page.status == 'This model was not taught boxes.'
        page.outline('square')
        assert '1 object' not in page.status
    with serving(ScriptedInferencer(taught=Taught(prompts=('all', )))) as (url, inferencer):
        page = Page(browser[0], url, browser[1], picture)  # of words it knows lists alone
        assert page.id('all').is_selected() and not page.id('all').is_enabled()
        assert 'it: one object by words, points, boxes,' in page.id('untaught').text
        page.outline('two', 2)
        assert inferencer.seen[-1][1].all
    with serving(ScriptedInferencer(taught=Taught(prompts=('point', )))) as (url, _):
        page = Page(browser[0], url, browser[1], picture)
        assert not page.id('expression').is_enabled() and not page.id('go').is_enabled()
        page.tool('point')
        page.at(33, 44).click().perform()
        page.until(lambda: len(page.all('#objects li')) == 1)


def test_html_is_shown_as_text(page):
    page.outline(HTML)
    name = page.all('#objects .name')[0]
    assert name.get_attribute('value') == HTML
    assert HTML in page.status and not page.all('aside img')
    assert page.driver.execute_script('return window.hurt') is None
    name.send_keys(Keys.CONTROL, 'a')  # clear() would be a change of its own, and draw anew
    name.send_keys('<i>&', Keys.ENTER)
    page.until(lambda: page.all('.shape title')[0].get_attribute('textContent') == '<i>&')
    page.outline('square')  # the first is no longer selected: its name is a button
    assert page.all('#objects .name')[0].text == '<i>&' and not page.all('aside i')
    page.ask('nothing')
    page.until(lambda: page.status == 'None found: the model sees no nothing.')
    page.ask('babble')
    page.until(lambda: 'I see no such thing' in page.status)
    page.ask('crash')
    page.until(lambda: 'the model failed' in page.status)


def test_escape_stops_and_bad_files_are_told(page, server, tmp_path):
    server[1].written.clear()
    page.ask('slow')
    page.until(lambda: page.all('.draft-dot'))
    page.id('expression').send_keys(Keys.ESCAPE)
    page.until(lambda: page.status == 'Stopped.')
    assert not page.all('.draft-dot') and not page.all('#objects li')
    page.outline('square')
    assert len(server[1].written[0]) < 35  # the rest was not written
    bad = tmp_path / 'bad.png'
    bad.write_text('not a picture')
    page.id('file').send_keys(str(bad))
    page.until(lambda: 'no picture' in page.status)
    assert len(page.all('#objects li')) == 1  # what was there stays
    page.driver.get_log('browser')  # the 400 is logged by the browser


def test_the_example_with_a_real_model(browser):
    """The packaged model, or the checkpoint SIMPLESEG_WEIGHTS, on the packaged picture."""
    from simpleseg_mm.apis import SimpleSegInferencer
    weights = os.environ.get('SIMPLESEG_WEIGHTS')
    try:
        inferencer = SimpleSegInferencer(weights=weights, show_progress=False)
    except FileNotFoundError as error:
        pytest.skip(f'no model that writes outlines: {error}')
    name = os.path.basename(weights or 'nano')
    with serving(inferencer, name=name) as (url, _):
        driver = browser[0]
        driver.get(url)
        driver.find_element(By.ID, 'example').click()
        WebDriverWait(driver, 60).until(
            lambda _: driver.find_element(By.ID, 'expression').get_attribute('value'))
        page = Page.__new__(Page)
        page.driver = driver
        if inferencer.taught.knows('text'):
            page.id('expression').send_keys(Keys.ENTER)
            WebDriverWait(driver, 60, 0.01).until(lambda _: len(page.all('.draft-dot')) > 3)
            page.keep('page_writing')
            page.until(lambda: len(page.all('#objects li')) == 1)
            time.sleep(0.2)
            assert len(page.all('.vertex')) >= 3
            page.keep('page')
            page.id('undo').click()
        if 'all' in inferencer.taught.prompts:
            if page.id('all').is_enabled():
                page.id('all').click()
            page.outline('rings', 2)
            page.keep('page_all')


@pytest.mark.parametrize('lacks', ['Array.prototype.at', 'window.BroadcastChannel', None])
def test_an_old_browser_is_told(browser, server, lacks):
    driver, (url, _) = browser[0], server
    script = None
    if lacks:
        script = driver.execute_cdp_cmd('Page.addScriptToEvaluateOnNewDocument',
                                        dict(source=f'delete {lacks};'))['identifier']
    try:
        driver.get(url)
        said = driver.find_elements(By.CSS_SELECTOR, 'body > [role=alert]')
        assert [('Firefox 90' in one.text) for one in said] == ([True] if lacks else [])
    finally:
        if script:
            driver.execute_cdp_cmd('Page.removeScriptToEvaluateOnNewDocument',
                                   dict(identifier=script))
        driver.get_log('browser')  # of a page without what it needs
