"""Editing on the page in a real browser: a photo of 4000 x 3000 pixels with 60 objects, on a desk
and on a phone.

SIMPLESEG_SCREENSHOTS=FOLDER keeps pictures of the page; those of docs/ are made so.
"""
import math
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
from browser_page import Page, chromium, close
from PIL import Image, ImageDraw, ImageFilter
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from serving_standin import ScriptedInferencer, serving
from test_serving_refine import CASES

from simpleseg_mm.serving.edited import read_objects
from simpleseg_mm.taught import Taught

pytestmark = pytest.mark.slow
SIZE = 4000, 3000
PHONE = dict(width=390, height=844, deviceScaleFactor=1, mobile=True)
# All changes go through the store, as those of the page's own modules do.
COMMIT = '''
const [objects, selected, done] = arguments;
import('/static/store.js').then((store) => {
  const made = objects.map((fields) => store.makeObject(fields));
  store.commit(store.state.current, {objects: made, selected: made[selected]?.id ?? null});
  done(made.length);
});'''
DOCUMENT = '''
const [done] = arguments;
import('/static/store.js').then(({state}) => done([...state.documents.values()].find(
  ({key}) => key === state.current).objects));'''


class Photo(Page):
    """The page with a large photo."""
    size = SIZE

    def fill(self, objects: list, selected: int | None = None) -> None:
        self.driver.execute_async_script(COMMIT, objects, selected)
        self.settle()

    def objects(self) -> list:
        """Of the document that is shown."""
        return self.driver.execute_async_script(DOCUMENT)

    @property
    def selected(self) -> dict | None:
        shown, = [row.get_attribute('data-object') for row in self.all('#objects li.selected')] \
            or [None]
        return next((one for one in self.objects() if one['id'] == shown), None)

    @property
    def scale(self) -> float:
        """Screen pixels a pixel of the picture."""
        return self.driver.execute_script(
            "return document.getElementById('picture').getBoundingClientRect().width") / SIZE[0]

    def frame(self, selector: str) -> tuple:
        """x, y, width, height on the screen."""
        return tuple(self.driver.execute_script(
            'const r = document.querySelector(arguments[0]).getBoundingClientRect();'
            'return [r.x, r.y, r.width, r.height]', selector))

    @property
    def near(self) -> float:
        """Pixels of the picture that the pointer may be off: it goes by those of the screen."""
        return 0.75 / self.scale

    def seen_at(self, x: float, y: float) -> tuple:
        """Where a point of the picture is on the screen."""
        left, top, *_ = self.frame('#picture')
        return left + x * self.scale, top + y * self.scale

    def key(self, *keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(*keys)

    def press(self, *keys: str) -> None:
        """Keys at the picture."""
        self.id('stage').send_keys(*keys)
        self.settle()

    def tab(self, name: str) -> None:
        """Bring a panel to the front, where they are tabs."""
        for button in self.all('#tabs button'):
            if button.text == name:
                button.click()

    def settle(self) -> None:
        """Let the page draw."""
        self.driver.execute_async_script(
            'const [done] = arguments; setTimeout(() => requestAnimationFrame(done), 200)')

    def wheel(self, x: float, y: float, by: int, times: int = 1) -> None:
        origin = ScrollOrigin.from_viewport(*map(round, self.seen_at(x, y)))
        actions = ActionChains(self.driver, duration=16)
        for _ in range(times):
            actions.scroll_from_origin(origin, 0, by)
        actions.perform()
        self.settle()

    def path(self, points, button: int = 0) -> None:
        """Drag along points of the screen, in one go."""
        actions = ActionChains(self.driver, duration=16)
        pointer = actions.w3c_actions.pointer_action
        for number, (x, y) in enumerate(points):
            pointer.move_to_location(round(x), round(y))
            if number == 0:
                pointer.pointer_down(button=button)
        pointer.pointer_up(button=button)
        actions.perform()
        self.settle()

    def click(self, x: float, y: float) -> None:
        self.at(x, y).click().perform()
        self.settle()


def star(x: float, y: float, r: float, vertices: int = 120) -> list:
    """An outline with nine waves."""
    angles = [2 * math.pi * k / vertices for k in range(vertices)]
    return [[round(x + r * (1 + 0.15 * math.sin(9 * a)) * math.cos(a), 2),
             round(y + r * (1 + 0.15 * math.sin(9 * a)) * math.sin(a), 2)] for a in angles]


def rectangle(x1, y1, x2, y2) -> list:
    return [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]


def an_object(ring: list, label: str = 'cup', **fields) -> dict:
    return dict(label=label, polygons=[dict(outer=ring, holes=[])], **fields)


def sixty() -> list:
    return [an_object(star(230 + 440 * (k % 9), 220 + 430 * (k // 9), 170),
                      ['cup', 'plate', 'spoon'][k % 3], color=f'hsl({k * 137 % 360} 75% 40%)')
            for k in range(60)]


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp('photos') / 'photo.jpg'
    rng = np.random.default_rng(0)
    image = Image.effect_noise((500, 375), 12).resize(SIZE, Image.Resampling.BICUBIC)
    image = Image.merge('RGB', [image.point(lambda v, k=k: v + k) for k in (70, 55, 30)])
    draw = ImageDraw.Draw(image)
    for k in range(60):
        x, y = 230 + 440 * (k % 9), 220 + 430 * (k // 9)
        for r, more in ((160, 0), (110, 25), (100, 12)):  # a plate
            draw.ellipse((x - r, y - r, x + r, y + r),
                         fill=tuple((rng.integers(150, 230, 3) + more).tolist()))
    image.filter(ImageFilter.GaussianBlur(2)).save(path, quality=92)
    return path


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    downloads = tmp_path_factory.mktemp('downloads')
    with chromium(downloads) as driver:
        driver.set_script_timeout(60)
        yield driver, downloads


@pytest.fixture(scope='module')
def server():
    with serving(ScriptedInferencer(pause=0.05)) as found:
        yield found


@contextmanager
def phone(driver):
    """A screen of a phone."""
    driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', PHONE)
    try:
        yield
    finally:
        driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


@pytest.fixture(params=['desk', 'phone'])
def width(request, browser):
    """The screens that a test is run on."""
    with phone(browser[0]) if request.param == 'phone' else nullcontext():
        yield request.param


@pytest.fixture
def page(browser, server, photo):
    page = Photo(browser[0], server[0], browser[1], photo)
    yield page
    errors = [row['message'] for row in page.driver.get_log('browser')
              if row['level'] == 'SEVERE' and 'favicon' not in row['message']]
    assert errors == []


def test_zoom_and_pan(width, page):
    fitting = page.scale
    frame = page.frame('#stage')
    assert page.frame('#picture')[2] <= frame[2] and page.frame('#picture')[3] <= frame[3]
    before = page.seen_at(1000, 750)
    page.wheel(1000, 750, -120, 6)
    assert page.scale > 2 * fitting  # round the pointer
    assert all(abs(a - b) < 2 for a, b in zip(page.seen_at(1000, 750), before))
    for way in ('space', 'middle', 'hand', 'edit'):
        start = page.seen_at(1000, 750)
        middle = frame[0] + frame[2] / 2, frame[1] + frame[3] / 2
        path = [middle, (middle[0] + 30, middle[1] + 20), (middle[0] + 60, middle[1] + 40)]
        if way == 'space':
            ActionChains(page.driver).key_down(Keys.SPACE).perform()
        if way == 'hand':
            page.press('m')
        page.path(path, button=1 if way == 'middle' else 0)
        if way == 'space':
            ActionChains(page.driver).key_up(Keys.SPACE).perform()
        page.press('e')
        now = page.seen_at(1000, 750)
        assert abs(now[0] - start[0] - 60) < 2 and abs(now[1] - start[1] - 40) < 2, way
    start = page.seen_at(0, 0)
    page.press(Keys.ARROW_RIGHT)
    assert page.seen_at(0, 0)[0] < start[0] - 50
    scale = page.scale
    page.press('+')
    assert page.scale == pytest.approx(1.3 * scale, rel=0.01)
    page.press('-')
    page.press('-')
    assert page.scale == pytest.approx(scale / 1.3, rel=0.01)
    page.id('zoom-in').click()
    assert page.scale == pytest.approx(scale, rel=0.01)
    page.press('0')
    assert page.scale == pytest.approx(fitting)
    page.press('-', '-', '-', '-', '-', '-', '-', '-', '-')
    assert page.scale >= fitting / 2.01  # and no smaller
    page.press('+' * 60)
    assert page.scale <= 64
    for _ in range(30):  # it cannot be lost
        page.id('stage').send_keys(Keys.ARROW_LEFT, Keys.ARROW_UP)
    page.settle()
    left, top, *_ = page.frame('#picture')
    assert left < frame[0] + frame[2] and top < frame[1] + frame[3]
    page.id('fit').click()
    assert page.scale == pytest.approx(fitting)
    page.id('expression').send_keys('+-0')  # they are letters there
    assert page.scale == pytest.approx(fitting)


def test_draw_parts_and_holes(width, page):
    page.press('d')
    corners = rectangle(400, 400, 2000, 1600)
    for x, y in corners:
        page.click(x, y)
    page.click(2200, 2200)
    page.press(Keys.BACKSPACE)  # the last point back
    assert page.id('drawing').is_displayed()
    page.press(Keys.ENTER)
    one, = page.objects()
    assert close(one['polygons'][0]['outer'], corners, page.near)
    assert one['actions'] == dict(clicks=0, moved=0, added=0, removed=0, drawn=4)
    assert one['edited'] and one['score'] is None and one['origin'] is None
    page.press('h')  # a hole: the first vertex closes it
    for x, y in [*rectangle(800, 800, 1200, 1200), (800, 800)]:
        page.click(x, y)
    page.press('a')  # a part: a double click closes it
    for x, y in rectangle(2600, 400, 3200, 1000)[:3]:
        page.click(x, y)
    page.at(2600, 1000).double_click().perform()
    one, = page.objects()
    assert [len(part['holes']) for part in one['polygons']] == [1, 0]
    assert close(one['polygons'][1]['outer'], rectangle(2600, 400, 3200, 1000), page.near)
    page.press('h')  # a hole over the border is cut out by the server
    for x, y in rectangle(1800, 1400, 2200, 1800):
        page.click(x, y)
    page.press(Keys.ENTER)
    page.until(lambda: 'Taken from' in page.status)
    one, = page.objects()
    assert close(one['polygons'][0]['outer'], [[400, 400], [2000, 400], [2000, 1400],
                                               [1800, 1400], [1800, 1600], [400, 1600]],
                 page.near)
    assert len(one['polygons'][0]['holes']) == 1 and one['actions']['drawn'] == 16
    page.press('d')  # one stroke
    page.path([page.seen_at(x, y) for x, y in star(3000, 2200, 500, 60)])
    assert len(page.objects()) == 2
    ring = page.objects()[1]['polygons'][0]['outer']
    area = abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, ring[1:] + ring[:1]))) / 2
    assert 15 < len(ring) <= 62 and abs(area / (math.pi * 500 ** 2) - 1) < 0.1
    page.click(100, 100)
    page.click(300, 100)
    page.press(Keys.CONTROL, 'z')  # of a drawing: the last point
    page.press(Keys.ESCAPE)
    page.press(Keys.ESCAPE)
    assert not page.id('drawing').is_displayed() and len(page.objects()) == 2
    page.press('h')
    page.click(500, 500)
    assert 'Select the object' in page.status  # none is
    page.press('d')
    page.click(100, 100)
    page.press(Keys.ENTER)
    assert 'at least three points' in page.status
    page.press(Keys.ESCAPE)
    for _ in range(5):
        page.press(Keys.CONTROL, 'z')
    assert page.objects() == []
    page.press(Keys.CONTROL, Keys.SHIFT, 'z')
    assert len(page.objects()) == 1

    page.tab('Ask')
    page.driver.find_element(By.TAG_NAME, 'summary').click()  # and by numbers
    page.id('numbers').send_keys('3000, 2500, 3500, 2500, 3500, 2900')
    page.id('ask-numbers').click()
    assert page.objects()[-1]['polygons'][0]['outer'] == [[3000, 2500], [3500, 2500],
                                                          [3500, 2900]]


def test_select_below_move_lock_hide_delete(width, page):
    page.fill([an_object(rectangle(500, 500, 2000, 2000), 'below'),
               an_object(rectangle(1000, 1000, 1800, 1800), 'above'),
               an_object(rectangle(2500, 500, 3500, 1500), 'far')])
    labels = []
    for _ in range(3):
        page.click(1500, 1500)
        labels.append(page.selected['label'])
    assert labels == ['above', 'below', 'above']
    page.click(300, 2600)
    assert page.selected is None
    page.click(3000, 1000)
    page.path([page.seen_at(x, 1000) for x in (3000, 3100, 3200)])
    far = page.selected
    assert close(far['polygons'][0]['outer'], rectangle(2700, 500, 3700, 1500),
                 2 * page.near)
    assert far['edited'] and far['actions']['moved'] == 1
    page.press(Keys.ALT, Keys.SHIFT, Keys.ARROW_DOWN)
    moved = page.selected['polygons'][0]['outer']
    assert [b[1] - a[1] for a, b in zip(far['polygons'][0]['outer'], moved)] == [10] * 4
    for _ in range(2):  # no further than the picture
        page.path([page.seen_at(x, 900) for x in (3200, 3400, 3900)])
    assert max(x for x, _ in page.selected['polygons'][0]['outer']) == 4000

    page.press('l')
    assert page.selected['locked'] and not page.all('.vertex')
    before = page.objects()
    page.path([page.seen_at(x, 1000) for x in (3500, 3300, 3200)])
    page.press(Keys.ALT, Keys.ARROW_DOWN)
    page.press(Keys.DELETE)
    assert page.objects() == before and 'locked' in page.status
    page.click(3500, 1000)
    assert page.selected is None  # clicks pass through
    page.tab('Objects')
    assert not page.all('#objects li')[2].find_element(
        By.CSS_SELECTOR, '[aria-label^=Remove]').is_enabled()
    page.all('#objects button[aria-label^=Unlock]')[0].click()
    page.click(3500, 1000)
    assert page.selected['label'] == 'far' and len(page.all('.vertex')) == 4
    page.press('o')
    assert len(page.all('.shape')) == 1
    page.click(1500, 1500)
    assert page.selected is None  # what is hidden is not touched
    page.press('o')
    assert len(page.all('.shape')) == 3
    page.click(1500, 1500)
    page.press('v')
    assert page.selected['hidden'] and len(page.all('.shape')) == 2
    page.press('v')
    page.press(Keys.DELETE)
    assert [one['label'] for one in page.objects()] == ['below', 'far']
    page.press(Keys.CONTROL, 'z')
    assert [one['label'] for one in page.objects()] == ['below', 'above', 'far']
    # deleting vertices does not go on with the object
    page.click(1500, 1500)
    page.all('.vertex')[3].send_keys(Keys.DELETE)
    page.key(Keys.DELETE)  # of a triangle the ring, and so the object
    assert len(page.objects()) == 2
    page.press(Keys.CONTROL, 'z')
    assert page.driver.execute_script('return document.activeElement.tagName') != 'BODY'


def test_classes(width, page):
    page.fill([an_object(rectangle(500 * k, 500, 500 * k + 400, 900), label)
               for k, label in enumerate(['cup', 'cup', '<b>&"\'', 'plate'])])
    page.tab('Classes')
    names = [one.text for one in page.all('#classes .name')]
    assert names == ['cup', '<b>&"\'', 'plate'] and not page.all('#classes b')
    page.click(1700, 700)
    page.press('1')
    assert [one['label'] for one in page.objects()] == ['cup', 'cup', '<b>&"\'', 'cup']
    page.id('class-name').send_keys('knife 1', Keys.ENTER)  # the 1 is the field's
    names = [one.text for one in page.all('#classes .name')]
    assert names == ['cup', 'knife 1', '<b>&"\'']  # what was typed or chosen comes first
    page.press(Keys.ESCAPE)  # nothing is selected: what is drawn next
    page.press('2')
    page.press('d')
    for x, y in rectangle(500, 1500, 900, 1900):
        page.click(x, y)
    page.press(Keys.ENTER)
    assert page.objects()[-1]['label'] == 'knife 1'
    page.press('p')
    page.press(Keys.ESCAPE)
    page.click(2000, 2300)  # what is clicked, too
    page.until(lambda: len(page.all('#objects li')) == 6)
    assert page.objects()[-1]['label'] == 'knife 1'
    assert page.objects()[-1]['actions']['clicks'] == 1
    page.driver.find_element(By.CSS_SELECTOR, '[aria-label="Rename the class cup"]').click()
    page.key('mug' + Keys.ENTER)
    assert [one['label'] for one in page.objects()] == ['mug', 'mug', '<b>&"\'', 'mug',
                                                        'knife 1', 'knife 1']
    assert '3 objects' in page.status
    page.press(Keys.CONTROL, 'z')  # one step
    assert [one['label'] for one in page.objects()][:4] == ['cup', 'cup', '<b>&"\'', 'cup']
    assert page.driver.find_element(By.CSS_SELECTOR, 'datalist').get_property('options')


def test_clicks_that_add_and_take_away(width, page, server):
    """The model's answer to a point is the square (800, 600) to (2400, 2100)."""
    ring = [[2000.11, 1500.22], [3200, 1500], [3200, 2700], [2000, 2700]]
    page.fill([an_object(ring, 'cup', score=0.5)])
    page.press('i')
    page.click(1000, 1000)
    assert 'Select the object' in page.status and len(page.objects()) == 1
    page.press('e')
    page.click(2600, 2300)
    page.press('i')
    page.click(1000, 1000)
    page.until(lambda: page.status.startswith('Added to cup'))
    point = server[1].seen[-1][1].point
    assert all(abs(value - 1000) < page.near for value in point)
    one, = page.objects()
    outer = one['polygons'][0]['outer']
    assert [3200, 1500] in outer and [800, 600] in outer and len(outer) == 8
    assert one['actions']['clicks'] == 1 and one['edited'] and one['score'] is None
    page.click(1000, 1000)
    page.until(lambda: 'has all of that' in page.status)
    page.press('x')
    page.click(1000, 1000)
    page.until(lambda: page.status.startswith('Taken from cup'))
    outer = page.objects()[0]['polygons'][0]['outer']
    assert close(outer, [[2400, 1500.15], [3200, 1500], [3200, 2700], [2000, 2700],
                         [2000.04, 2100], [2400, 2100]], 0.1)
    assert page.objects()[0]['actions']['clicks'] == 2
    page.press(Keys.CONTROL, 'z')
    page.press(Keys.CONTROL, 'z')
    assert page.objects()[0]['polygons'][0]['outer'] == ring
    page.fill([an_object(rectangle(1000, 1000, 2000, 2000))], 0)
    page.click(1000, 1000)
    page.until(lambda: 'Nothing of the object would be left' in page.status)
    assert len(page.objects()) == 1


def test_off_where_points_were_not_taught(browser, photo):
    with serving(ScriptedInferencer(taught=Taught(prompts=('text', )))) as (url, _):
        page = Photo(browser[0], url, browser[1], photo)
        for value in ('point', 'box', 'add', 'cut'):
            control = page.driver.find_element(By.CSS_SELECTOR, f'input[value={value}]')
            assert not control.is_enabled()
            assert 'not taught' in control.find_element(By.XPATH, '..').get_attribute('title')
        assert not page.id('everything').is_enabled()
        page.press('i')
        assert 'this model was not taught points' in page.status
        assert 'simpleseg serve' in page.id('untaught').text
    with serving(ScriptedInferencer(taught=Taught(prompts=('everything', )))) as (url, _):
        page = Photo(browser[0], url, browser[1], photo)
        assert page.id('everything').is_enabled()


def test_what_is_filled_is_what_is_exported(page):
    """Pixel by pixel, outlines that cross themselves included."""
    rng = np.random.default_rng(1)
    cases = [*CASES, *([dict(outer=rng.uniform(0, 100, (rng.integers(3, 10), 2)).round(2).tolist(),
                             holes=[rng.uniform(0, 100, (5, 2)).round(2).tolist()
                                    for _ in range(rng.integers(0, 3))])
                        for _ in range(rng.integers(1, 4))] for _ in range(30))]
    page.fill([dict(label=str(k), polygons=case) for k, case in enumerate(cases)])
    seen = page.driver.execute_script('''
        return [...document.querySelectorAll('.shape')].map((path) => {
          const found = [], point = path.ownerSVGElement.createSVGPoint();
          for (const [right, down] of [[0.502, 0.499], [0.499, 0.502], [0.499, 0.499]]) {
            for (let y = 0; y < 100; y += 1) for (let x = 0; x < 100; x += 1) {
              point.x = x + right;
              point.y = y + down;
              found.push(path.isPointInFill(point) ? 1 : 0);
            }
          }
          return found.join('');
        });''')
    assert len(seen) == len(cases)
    exported = read_objects('x', (100, 100), [dict(label='x', polygons=one) for one in cases])
    for case, bits, result in zip(cases, seen, exported):
        shown = np.array(list(bits), np.uint8).reshape(3, 100, 100).astype(bool)
        assert not (shown != result.mask).all(axis=0).any(), case  # but centres on a border


CHANGES = '''
window.made = 0;
window.watch?.disconnect();
window.watch = new MutationObserver((all) => { for (const {addedNodes} of all)
  window.made += addedNodes.length; });
window.watch.observe(document.querySelector(arguments[0]), {childList: true, subtree: true});
'''
FRAMES = '''
window.gaps = [];
let last = performance.now();
window.recording = true;
(function step(now) {
  if (!window.recording) return;
  window.gaps.push(now - last);
  last = now;
  requestAnimationFrame(step);
})(last);'''


def frames(page, name: str, action) -> None:
    """Print how far frames lie apart while something is done."""
    page.driver.execute_script(FRAMES)
    action()
    gaps = np.array(page.driver.execute_script('window.recording = false; return window.gaps')[2:])
    print(f'{name}: {len(gaps)} frames, median {np.median(gaps):.0f} ms, '
          f'longest {gaps.max():.0f} ms, {(gaps > 100).sum()} over 100 ms')


def test_sixty_objects_on_a_large_photo(width, page):
    """The figures are printed (-s); what is asserted is that nothing is drawn anew."""
    page.settle()
    page.press('0')
    page.fill(sixty(), 30)
    assert len(page.all('.shape')) == 60 and len(page.all('.vertex')) == 120
    x, y, w, h = page.frame('.vertex:nth-child(6)')
    drag = [(x + w / 2 + 40 * math.sin(k / 8), y + h / 2 + 30 * (1 - math.cos(k / 8)))
            for k in range(60)]
    page.driver.execute_script(CHANGES, '#overlay')
    before = page.objects()
    frames(page, f'{width}: a vertex is dragged', lambda: page.path(drag))
    # handles between vertices that have come apart are new, all else is as it was
    assert page.driver.execute_script('return window.made') <= 6
    after = page.objects()
    assert [one for one, was in zip(after, before) if one != was] == [after[30]]
    assert after[30]['actions']['moved'] == 1
    left, top, wide, high = page.frame('#stage')
    middle = left + wide / 2, top + high / 2
    pan = [(middle[0] + 100 * math.sin(k / 6), middle[1] + 60 * math.sin(k / 4))
           for k in range(60)]
    frames(page, f'{width}: panned', lambda: page.path(pan, button=1))
    frames(page, f'{width}: zoomed in', lambda: page.wheel(2000, 1500, -60, 25))
    frames(page, f'{width}: panned', lambda: page.path(pan, button=1))
    frames(page, f'{width}: zoomed out', lambda: page.wheel(2000, 1500, 60, 25))
    page.keep(f'page_edit_{width}')


def test_thousands_of_objects(page):
    page.fill([an_object(star(20 + 49 * (k % 80), 20 + 75 * (k // 80), 18, 12), f'label {k % 40}')
               for k in range(3000)], 2000)
    assert len(page.all('.shape')) == 3000
    selected = page.driver.find_element(By.CSS_SELECTOR, '#objects li.selected')
    top, height = page.frame('#objects')[1::2]
    assert top <= selected.rect['y'] <= top + height  # it was scrolled to
    page.driver.execute_script(CHANGES, '#objects')
    page.press('l')
    assert page.driver.execute_script('return window.made') <= 20  # one row is made
    frames(page, '3000 objects panned', lambda: page.path(
        [(300 + 3 * k, 300 + k) for k in range(60)], button=1))
    page.fill([an_object(star(2000, 1500, 1400, 20000))], 0)
    assert 50 < len(page.all('.vertex')) <= 800  # those that lie apart on the screen
    page.wheel(3400, 1500, -120, 12)
    assert 5 < len(page.all('.vertex')) <= 800


# --- a phone ------------------------------------------------------------------------------------
def touch(page, *steps) -> None:
    """Touch: a list of fingers' (x, y) a step; then all are lifted."""
    def send(kind, points):
        page.driver.execute_cdp_cmd('Input.dispatchTouchEvent', dict(type=kind, touchPoints=[
            dict(x=x, y=y, id=number) for number, (x, y) in enumerate(points)]))
    for number, points in enumerate(steps):
        grown = number == 0 or len(points) > len(steps[number - 1])
        send('touchStart' if grown else 'touchMove', points)
    send('touchEnd', [])
    page.settle()


def test_a_phone(browser, server, photo):
    with phone(browser[0]):
        by_fingers(Photo(browser[0], server[0], browser[1], photo))


def by_fingers(page):
    driver = page.driver
    driver.execute_cdp_cmd('Emulation.setTouchEmulationEnabled', dict(enabled=True,
                                                                      maxTouchPoints=5))
    try:
        page.settle()
        page.id('fit').click()
        page.fill(sixty()[:12])
        inside = [page.frame(f'#{name}') for name in ('stage', 'tools', 'status', 'tabs', 'turn')]
        assert all(0 <= y and y + high <= 844 and high > 15 for _, y, _, high in inside)
        assert driver.execute_script('return document.scrollingElement.scrollHeight') <= 844
        for tab, reached in (('Ask', 'expression'), ('Objects', 'objects'),
                             ('Classes', 'class-name'), ('Pictures', 'pictures'),
                             ('Files', 'format')):
            page.tab(tab)
            x, y, wide, high = page.frame(f'#{reached}')
            assert page.id(reached).is_displayed() and 0 <= x and x + wide <= 390
            assert y >= 0 and y + 40 <= 844, tab
            small = driver.execute_script('''
                return [...document.querySelectorAll('button, #tools label, aside input, select')]
                  .map((one) => [one.id || one.textContent || one.value, one.type,
                    one.getBoundingClientRect()])
                  .filter(([, type, {width, height}]) => width && (width < 40 || height < 40)
                    && !['checkbox', 'radio'].includes(type)).map(([name]) => name);''')
            assert small == [], tab
        page.tab('Objects')
        touch(page, [page.seen_at(230, 220)])  # a tap selects
        assert page.selected['polygons'] == page.objects()[0]['polygons']
        page.keep('page_phone')
        before, place = page.scale, page.seen_at(2000, 1500)
        x, y = place
        touch(page, [(x - 20, y)], [(x - 20, y), (x + 20, y)], [(x - 40, y), (x + 40, y)],
              [(x - 80, y), (x + 80, y)])  # two fingers zoom
        assert page.scale == pytest.approx(4 * before, rel=0.1)
        assert all(abs(a - b) < 8 for a, b in zip(page.seen_at(2000, 1500), place))
        start, objects = page.seen_at(0, 0), page.objects()
        touch(page, [(x - 20, y)], [(x - 20, y), (x + 20, y)], [(x + 10, y), (x + 50, y)])
        assert abs(page.seen_at(0, 0)[0] - start[0] - 30) < 8
        assert page.objects() == objects  # and nothing was moved
        page.id('fit').click()
        page.tool('draw')
        line = [page.seen_at(*point) for point in star(1500, 2000, 600, 40)]
        touch(page, *[[point] for point in line])
        assert len(page.objects()) == 13
        page.tool('point')
        touch(page, [page.seen_at(3000, 2000)], [page.seen_at(2600, 2000)])  # a drag asks nothing
        assert len(page.objects()) == 13
        touch(page, [page.seen_at(3000, 2000)])
        page.until(lambda: len(page.objects()) == 14)
        assert page.objects()[13]['actions']['clicks'] == 1
    finally:
        driver.execute_cdp_cmd('Emulation.setTouchEmulationEnabled', dict(enabled=False))


def test_keys_are_in_the_help_and_fields_keep_theirs(page):
    page.press('d')
    help_text = page.driver.execute_script("return document.getElementById('keys').textContent")
    for key in ('D', 'Ctrl+Z', 'Delete', '1 to 9', 'Escape', '+', 'Enter', 'Alt+'):
        assert key in help_text
    page.press('e')
    page.fill([an_object(rectangle(500, 500, 900, 900))], 0)
    field = page.id('expression')
    field.send_keys('ab', Keys.CONTROL, 'z', Keys.NULL)
    assert len(page.objects()) == 1 and field.get_attribute('value') != 'ab'
    field.send_keys('x', Keys.DELETE, Keys.BACKSPACE, 'd', Keys.ARROW_LEFT)
    assert len(page.objects()) == 1
    assert page.driver.find_element(By.CSS_SELECTOR, 'input[value=edit]').is_selected()


def test_clicks_with_the_packaged_model(browser, tmp_path):
    """The picture of the docs: nano outlines two objects by a click each, into one."""
    from simpleseg_mm.apis import SimpleSegInferencer
    try:
        inferencer = SimpleSegInferencer(show_progress=False)
    except FileNotFoundError as error:
        pytest.skip(f'no model that writes outlines: {error}')
    with serving(inferencer, name='nano') as (url, _):
        page = Photo(browser[0], url, browser[1])
        page.size = 224, 224
        page.id('example').click()
        page.until(lambda: page.status.startswith('example.jpg: '))
        page.tool('point')
        page.at(114, 60).click().perform()
        page.until(lambda: len(page.all('#objects li')) == 1)
        page.tool('add')
        page.at(17, 57).click().perform()
        page.until(lambda: 'Added to' in page.status)
        one, = page.objects()
        assert one['actions']['clicks'] == 2 and [len(part['holes']) for part in
                                                  one['polygons']] == [1, 1]  # two rings
        page.tool('edit')
        page.settle()
        page.keep('page_clicks')
