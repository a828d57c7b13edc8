"""Nothing that was done on the page is lost: reloads, servers that die, tabs, folders, batches."""
import socket
from pathlib import Path

import pytest
from browser_page import Keys, Page, WebDriverWait, chromium
from PIL import Image
from selenium.common.exceptions import NoAlertPresentException, TimeoutException
from serving_standin import serving

pytestmark = pytest.mark.slow
NAME = '<i>"Ä\\\'/,;\t名 ]]> &amp; {{x}}'
READ = """
const done = arguments[arguments.length - 1], request = indexedDB.open('simpleseg', 1);
request.onsuccess = () => {
  const all = request.result.transaction('documents').objectStore('documents').getAll();
  all.onsuccess = () => { request.result.close(); done(all.result); };
};"""
WRITE = """
const [key, fields, done] = arguments, request = indexedDB.open('simpleseg', 1);
request.onsuccess = () => {
  const unit = request.result.transaction('documents', 'readwrite');
  const store = unit.objectStore('documents'), old = store.get(key);
  old.onsuccess = () => store.put({...old.result, ...fields, rev: old.result.rev + 1});
  unit.oncomplete = () => { request.result.close(); done(); };
};"""
LEAVES = """
const event = new Event('beforeunload', {cancelable: true});
dispatchEvent(event);
return event.defaultPrevented;"""


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    downloads = tmp_path_factory.mktemp('downloads')
    with chromium(downloads) as driver:
        yield driver, downloads


@pytest.fixture
def quiet(browser):
    """Whether the browser logged errors besides those of servers that are away or refuse."""
    yield
    errors = [row['message'] for row in browser[0].get_log('browser') if row['level'] == 'SEVERE'
              and 'favicon' not in row['message'] and 'Failed to load' not in row['message']]
    assert errors == []


def free_port() -> int:
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


def pictures(folder: Path, *names: str, size=(100, 100)) -> list[Path]:
    """Pictures, each of another content."""
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise(size, 60).convert('RGB').save(path)
    return paths


class Keeping(Page):
    """The page, its list and what it keeps."""

    def until(self, condition) -> None:
        try:
            WebDriverWait(self.driver, 30, 0.05).until(lambda _: condition())
        except TimeoutException:
            raise AssertionError(f'{self.status!r}, {self.id("saved").text!r}, {self.rows()}, '
                                 f'{self.current()!r}, {self.here()}') from None

    def kept(self) -> dict[str, dict]:
        """Documents of the browser's store by name, once everything is saved."""
        self.until(lambda: self.id('saved').text in ('Saved.', ''))
        return {row['name']: row for row in self.driver.execute_async_script(READ)
                if not row.get('removed')}

    def labels(self) -> dict[str, list[str]]:
        return {name: [one['label'] for one in row['objects']]
                for name, row in self.kept().items()}

    def here(self) -> list[str]:
        """Labels of the shown picture."""
        return [one.get_attribute('title') or one.get_attribute('value')
                for one in self.all('#objects .name')]

    def rows(self) -> dict[str, str]:
        """The list: marks and numbers by name."""
        return dict(self.driver.execute_script(
            "return [...document.querySelectorAll('#pictures li')].map(row => ["
            "row.querySelector('.name').textContent, row.querySelector('.mark').textContent + "
            "row.querySelector('.count').textContent])"))

    def visit(self, name: str) -> None:
        self.driver.execute_script(
            "[...document.querySelectorAll('#pictures .name')].find("
            'one => one.textContent === arguments[0]).click()', name)
        self.until(lambda: self.current() == name and self.drawn())

    def current(self) -> str:
        return self.driver.execute_script(
            "return document.querySelector('#pictures [aria-current] .name')?.textContent ?? ''")

    def drawn(self) -> list[int]:
        """Size of the picture that is seen; none where none is."""
        return self.driver.execute_script(
            "const one = document.getElementById('picture');"
            'return one.hidden || !one.complete ? [] : [one.naturalWidth, one.naturalHeight]')

    def reload(self) -> None:
        self.driver.refresh()
        self.until(lambda: self.id('model').text)

    def close(self) -> None:
        """Leave, whatever is unsaved."""
        self.driver.get('about:blank')


def test_all_comes_back(browser, quiet, tmp_path):
    port = free_port()
    first, second = pictures(tmp_path / 'set', 'a/x.png', 'b/x.png')
    with serving(port=port) as (url, _):
        page = Keeping(browser[0], url, browser[1])
        page.id('folder').send_keys(str(tmp_path / 'set'))
        page.until(lambda: page.status == '2 pictures opened.')
        assert page.rows() == {'a/x.png': '', 'b/x.png': ''}  # one name in two folders
        page.outline('square')
        name = page.all('#objects .name')[0]
        name.send_keys(Keys.CONTROL, 'a')
        name.send_keys(NAME.replace('\t', ' '), Keys.ENTER)
        page.visit('b/x.png')
        page.outline('ring')
        page.outline('square')
        page.id('done').click()
        state = page.kept()
        assert page.labels() == {'a/x.png': [NAME.replace('\t', ' ')],
                                 'b/x.png': ['ring', 'square']}
        assert [row['key'] for row in state.values()] == [
            f'local:{row["digest"]}/{row["name"]}' for row in state.values()]
        assert {len(row['digest']) for row in state.values()} == {32}
        page.reload()
        page.until(lambda: page.current() == 'b/x.png' and page.drawn())
        assert page.here() == ['ring', 'square'] and page.id('done').is_selected()
        assert page.rows() == {'a/x.png': '1', 'b/x.png': '✓2'}
        assert page.kept() == state  # reading is no change
    page.visit('a/x.png')  # without a server, out of the browser's store
    assert page.drawn() == [100, 100] and page.here() == [NAME.replace('\t', ' ')]
    page.all('#objects .name')[0].click()
    page.drag((60, 70), (80, 90))
    page.ask('ring')
    page.until(lambda: 'does not answer' in page.status)
    with serving(port=port) as (url, inferencer):  # another one, which has no picture
        page.outline('ring')
        assert len(inferencer.seen) == 1
        ring = page.kept()['a/x.png']['objects'][0]['polygons'][0]['outer']
        assert sorted(round(x) for x, _ in ring) == [20, 20, 60, 80]
        page.reload()
        page.until(lambda: page.current() == 'a/x.png' and page.drawn())
        assert page.here() == [NAME.replace('\t', ' '), 'ring']
        page.id('folder').send_keys(str(tmp_path / 'set'))  # the same ones: no second entry
        page.until(lambda: page.status == '2 pictures opened.')
        assert page.rows() == {'a/x.png': '2', 'b/x.png': '✓2'}
        pictures(tmp_path / 'set', 'a/x.png')  # another picture of this name
        page.id('folder').send_keys(str(tmp_path / 'set'))
        page.until(lambda: len(page.all('#pictures li')) == 3 and page.drawn() and not page.here())
        page.visit('b/x.png')
        page.all('#pictures .name')[2].click()
        page.until(lambda: page.status.endswith(
            'Another picture of this name is in the list, with objects of its own.'))
        assert len({row['key'] for row in page.driver.execute_async_script(READ)}) == 3
    page.close()


def test_forms_that_browsers_do_not_show_alike(browser, quiet, tmp_path):
    """What is seen has the size of what the model sees, without the server, too."""
    port = free_port()
    picture = Image.effect_noise((80, 50), 60)
    exif = Image.Exif()
    exif[0x112] = 6
    picture.save(tmp_path / 'a.tif')
    picture.convert('I;16').save(tmp_path / 'b.png')
    picture.save(tmp_path / 'c.jpg', exif=exif)
    picture.save(tmp_path / 'd.png', exif=exif)
    picture.save(tmp_path / 'e.webp', exif=exif)
    picture.save(tmp_path / 'f.bmp')
    sizes = {name: [50, 80] if name in ('c.jpg', 'd.png', 'e.webp') else [80, 50]
             for name in ('a.tif', 'b.png', 'c.jpg', 'd.png', 'e.webp', 'f.bmp')}
    with serving(port=port) as (url, _):
        page = Keeping(browser[0], url, browser[1])
        page.id('folder').send_keys(str(tmp_path))
        page.until(lambda: page.status == '6 pictures opened.')
        for name, size in sizes.items():
            page.visit(name)
            page.until(lambda: page.drawn() == size)
        page.reload()
        page.until(page.drawn)
    for name, size in sizes.items():
        page.visit(name)
        assert page.drawn() == size
    page.close()


def test_removing_and_undo(browser, quiet, tmp_path):
    with serving() as (url, _):
        page = Keeping(browser[0], url, browser[1])
        page.open(*pictures(tmp_path, 'a.png', 'b.png', 'c.png'))
        page.visit('b.png')
        page.outline('square')
        page.outline('ring')
        remove = "[...document.querySelectorAll('#pictures li')].find(row => row.querySelector(" \
            "'.name').textContent === arguments[0]).querySelector('[aria-label^=Take]').click()"
        later = f'setTimeout(name => {{{remove.replace("arguments[0]", "name")}}}, 0, "b.png")'
        page.driver.execute_script(remove, 'c.png')  # has no objects: not asked
        assert list(page.rows()) == ['a.png', 'b.png']
        page.driver.execute_script(later)
        page.until(lambda: _alert(page))
        assert _alert(page).text == 'Remove b.png with its 2 objects from the list?'
        _alert(page).dismiss()
        assert page.here() == ['square', 'ring']
        page.driver.execute_script(later)
        page.until(lambda: _alert(page))
        _alert(page).accept()
        page.until(lambda: page.current() == 'a.png')
        assert sorted(page.kept()) == ['a.png']
        page.id('undo').click()
        page.until(lambda: page.current() == 'b.png' and page.drawn())
        assert page.here() == ['square', 'ring']
        page.id('undo').click()  # its own history is back, too
        assert page.here() == ['square']
        assert page.labels() == {'a.png': [], 'b.png': ['square']}
        page.id('restore').click()
        page.until(lambda: page.current() == 'c.png' and page.drawn())
        page.reload()
        page.until(lambda: page.drawn())
        assert list(page.rows()) == ['a.png', 'b.png', 'c.png']
    page.close()


def _alert(page):
    try:
        return page.driver.switch_to.alert
    except NoAlertPresentException:
        return None


def test_two_tabs(browser, quiet, tmp_path):
    with serving() as (url, _):
        page = Keeping(browser[0], url, browser[1])
        page.open(*pictures(tmp_path, 'a.png', 'b.png'))
        page.outline('square')
        page.kept()
        driver, first = page.driver, page.driver.current_window_handle
        driver.switch_to.new_window('tab')
        second = driver.current_window_handle
        driver.get(url)
        page.until(lambda: page.current() == 'a.png' and page.drawn())
        assert page.here() == ['square']
        page.outline('ring')
        page.kept()
        driver.switch_to.window(first)
        page.until(lambda: page.here() == ['square', 'ring'])
        page.id('undo').click()  # the other tab's change is a step here
        assert page.here() == ['square'] and page.labels()['a.png'] == ['square']
        driver.switch_to.window(second)
        page.until(lambda: page.here() == ['square'])
        page.visit('b.png')
        page.outline('square')  # of another picture: no conflict
        page.kept()
        driver.switch_to.window(first)
        page.outline('ring')
        assert page.labels() == {'a.png': ['square', 'ring'], 'b.png': ['square']}

        for mine, expected in ((True, ['square', 'ring', 'square']), (False, ['theirs'])):
            key, theirs = page.kept()['a.png']['key'], page.kept()['a.png']['objects'][:1]
            theirs[0]['label'] = 'theirs'  # written by a tab that could not tell
            driver.execute_async_script(WRITE, key, dict(objects=theirs))
            page.outline('square')
            page.until(lambda: page.id('choice').is_displayed())
            assert '1 objects there, 3 here' in page.id('choice-text').text
            page.reload()  # both are kept
            page.until(lambda: page.id('choice').is_displayed() and page.drawn())
            assert page.here() == ['square', 'ring', 'square']
            page.id('keep-mine' if mine else 'take-theirs').click()
            page.until(lambda: not page.id('choice').is_displayed() and page.here() == expected)
            assert page.labels()['a.png'] == expected
            page.id('undo').click()
            assert page.here() == (['theirs'] if mine else ['square', 'ring', 'square'])
            page.id('redo' if mine else 'undo').click()
            if mine:
                page.id('undo').click()
                page.id('redo').click()
                page.all('#objects [aria-label^=Remove]')[2].click()
                assert page.here() == ['square', 'ring']
            page.reload()
            page.until(page.drawn)
            assert not page.id('choice').is_displayed()
        driver.switch_to.window(second)
        driver.close()
        driver.switch_to.window(first)
    page.close()


def test_no_store_and_a_full_one(browser, quiet, tmp_path):
    scene, = pictures(tmp_path, 'a.png')
    driver = browser[0]
    with serving() as (url, _):
        for source in ('delete window.indexedDB; Object.defineProperty(window, "indexedDB", '
                       '{value: {open() { throw new DOMException("no", "SecurityError"); }}});',
                       'IDBFactory.prototype.open = () => { const request = {}; setTimeout(() => '
                       '{ request.error = new DOMException("no"); request.onerror(); }); '
                       'return request; };'):
            given = driver.execute_cdp_cmd('Page.addScriptToEvaluateOnNewDocument',
                                           dict(source=source))
            page = Keeping(driver, url, browser[1], scene)
            page.outline('square')
            page.until(lambda: 'This browser keeps nothing' in page.id('saved').text)
            assert page.driver.execute_script(LEAVES)
            page.close()
            driver.execute_cdp_cmd('Page.removeScriptToEvaluateOnNewDocument', given)
        page = Keeping(driver, url, browser[1], scene)
        assert page.kept() and not driver.execute_script(LEAVES)
        driver.execute_script("""
            const put = window.put = IDBObjectStore.prototype.put;
            IDBObjectStore.prototype.put = function(value) {
              const request = put.call(this, value);
              Object.defineProperty(this.transaction, 'error',
                                    {value: new DOMException('full', 'QuotaExceededError')});
              this.transaction.abort();
              return request;
            };""")
        page.outline('square')
        page.until(lambda: 'no room left' in page.id('saved').text)
        assert driver.execute_script(LEAVES)
        other, = pictures(tmp_path, 'b.png')
        page.open(other)
        page.until(page.drawn)
        page.visit('a.png')
        assert page.here() == ['square']
        driver.execute_script('IDBObjectStore.prototype.put = window.put')
        page.until(lambda: page.id('saved').text == 'Saved.')  # tried again by itself
        assert page.labels() == {'a.png': ['square'], 'b.png': []}
        assert not driver.execute_script(LEAVES)
    page.close()
