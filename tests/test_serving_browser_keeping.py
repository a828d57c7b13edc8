"""Nothing that was done on the page is lost: reloads, servers that die, tabs, folders, batches."""
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser_page import By, Keys, Page, Select, WebDriverWait, chromium
from PIL import Image
from selenium.common.exceptions import NoAlertPresentException, TimeoutException
from serving_standin import ScriptedInferencer, serving

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
VISIT = """
const [name, done] = arguments, box = document.getElementById('pictures-box');
const frame = () => new Promise(next => requestAnimationFrame(() => requestAnimationFrame(next)));
const find = () => [...box.querySelectorAll('.name')].find(one => one.textContent === name);
(async () => {
  for (let y = 0; !find() && y < box.scrollHeight; y += box.clientHeight) {
    box.scrollTop = y;  // only rows that are seen are elements
    await frame();
  }
  const row = find();
  row?.click();
  done(Boolean(row));
})();"""
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

    def labels_now(self) -> list[int]:
        """Numbers of objects of the list, while things go on."""
        return [int(''.join(filter(str.isdigit, text)) or 0) for text in self.rows().values()]

    def here(self) -> list[str]:
        """Labels of the shown picture."""
        return self.driver.execute_script(
            "return [...document.querySelectorAll('#objects .name')].map("
            'one => one.title || one.value)')

    def rows(self) -> dict[str, str]:
        """The list: marks and numbers by name."""
        return dict(self.driver.execute_script(
            "return [...document.querySelectorAll('#pictures li')].map(row => ["
            "row.querySelector('.name').textContent, row.querySelector('.mark').textContent + "
            "row.querySelector('.count').textContent])"))

    def visit(self, name: str) -> None:
        assert self.driver.execute_async_script(VISIT, name), f'no {name} in the list'
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


@contextmanager
def killable(port: int, *folder: Path):
    """A server in a process of its own: functions that start and that kill it."""
    running = []

    def start() -> str:
        running.append(subprocess.Popen([sys.executable, Path(__file__).with_name(
            'serving_standin.py'), str(port), *map(str, folder)]))
        while True:
            assert running[-1].poll() is None, 'the server did not start'
            try:
                socket.create_connection(('127.0.0.1', port), 1).close()
                return f'http://127.0.0.1:{port}'
            except OSError:
                time.sleep(0.05)

    def kill() -> None:
        running[-1].send_signal(signal.SIGKILL)
        running[-1].wait()

    try:
        yield start, kill
    finally:
        kill()


def batch(page, labels: str, which: str = 'todo', all_of_each: bool = False) -> None:
    box = page.id('batch-labels')
    box.clear()
    box.send_keys(labels)
    Select(page.id('batch-which')).select_by_value(which)
    if page.id('batch-all').is_selected() != all_of_each:
        page.id('batch-all').click()
    page.id('batch-go').click()


def ended(page) -> bool:
    return not page.id('batch-stop').is_displayed()


def test_a_batch_and_its_review(browser, quiet, tmp_path):
    names = [f'{letter}.png' for letter in 'abcdef']
    for name, value in zip(names, (130, 80, 250, 40, 200, 99)):
        Image.new('RGB', (100, 100), (value, ) * 3).save(tmp_path / name)
    (tmp_path / 'g.png').write_text('not a picture')
    with serving(ScriptedInferencer(confidence=lambda picture: float(picture.mean() / 255)),
                 max_client=1) as (url, inferencer):  # most of four requests at a time: 429
        page = Keeping(browser[0], url, browser[1])
        page.id('folder').send_keys(str(tmp_path))
        page.until(lambda: page.status == '7 pictures opened.')
        page.visit('c.png')
        page.outline('ring')
        page.id('done').click()
        page.outline('babble', 0)
        inferencer.seen.clear()
        batch(page, 'square, nothing\n')
        page.until(lambda: ended(page) and '6 of 6 pictures asked' in page.status)
        assert page.status == '6 of 6 pictures asked: 5 objects. 1 picture failed.'
        assert page.id('batch-errors').text.startswith('g.png: ')
        assert sorted(prompt.text for _, prompt in inferencer.seen) == 5 * ['nothing'] + 5 * [
            'square']
        assert page.rows() == {name: '✓1' if name == 'c.png' else '◐1' for name in names} | {
            'g.png': '⚠'}
        page.id('batch-review').click()
        page.until(lambda: page.current() == 'd.png' and page.drawn())
        assert list(page.rows()) == ['d.png', 'b.png', 'f.png', 'a.png', 'e.png']
        for name in ('b.png', 'f.png'):
            page.id('done-next').click()
            page.until(lambda: page.current() == name and page.drawn())
        page.driver.find_element(By.TAG_NAME, 'body').send_keys(Keys.PAGE_DOWN)
        page.until(lambda: page.current() == 'a.png')
        assert list(page.rows()) == ['f.png', 'a.png', 'e.png']
        assert page.id('pictures-count').text == '3 of 7 done, 3 to review'
        page.id('undo').click()  # the batch is a step of each picture
        assert page.here() == []
        page.id('redo').click()
        Select(page.id('filter')).select_by_value('all')

        batch(page, 'square', 'all')  # the same answers: none is added twice
        page.until(lambda: ended(page) and '7 of 7 pictures asked: 1 object.' in page.status)
        assert '5 that were there already are not added again.' in page.status
        assert page.labels()['c.png'] == ['ring', 'square'] and not page.kept()['c.png']['done']
        assert page.kept()['d.png']['done']  # nothing new came
        batch(page, 'crash', 'all')
        page.until(lambda: ended(page) and '7 pictures failed' in page.status)
        batch(page, 'babble', 'all')
        page.until(lambda: ended(page) and '6 answers are in doubt' in page.status)
    page.close()


def test_a_batch_whose_server_goes_away(browser, quiet, tmp_path):
    port = free_port()
    names = [f'{number}.png' for number in range(12)]
    with killable(port) as (start, kill):
        page = Keeping(browser[0], start(), browser[1])
        page.open(*pictures(tmp_path, *names))
        batch(page, 'slow two\nslow', all_of_each=True)
        page.until(lambda: any(count for count in page.labels_now()))
        kill()
        page.until(lambda: 'The server does not answer. The batch waits' in
                   page.id('batch-text').text)
        page.visit('11.png')  # one can go on by hand
        start()
        page.until(lambda: 'waits' not in page.id('batch-text').text)
        page.id('batch-stop').click()
        page.until(lambda: ended(page))
        page.reload()
        page.until(lambda: page.id('batch-on').is_displayed())
        assert page.id('batch-on').text == 'Go on'
        page.id('batch-on').click()
        page.until(lambda: page.driver.execute_script(LEAVES))
        page.until(lambda: ended(page) and '12 of 12' in page.id('batch-text').text)
        expected = ['slow two', 'slow two', 'slow']
        assert page.labels() == {name: expected for name in names}
        assert not page.driver.execute_script(LEAVES)
        assert page.id('pictures-count').text == '0 of 12 done, 12 to review'
        page.id('batch-forget').click()
        page.reload()
        page.until(page.drawn)
        assert not page.id('batch-state').is_displayed()
        page.close()


# --- the server's folder -------------------------------------------------------------------------
class Files:
    """Annotations of a folder, as another program reads and writes them."""

    def __init__(self, root: Path, form: str) -> None:
        self.root, self.form = root, form

    def _file(self, name: str) -> Path:
        return self.root / 'annotations.json' if self.form == 'coco' else \
            (self.root / name).with_suffix('.json')

    def labels(self, name: str) -> list[str]:
        if not self._file(name).exists():
            return []
        content = json.loads(self._file(name).read_text())
        if self.form == 'labelme':
            return [shape['label'] for shape in content['shapes']]
        ids = {row['id'] for row in content['images'] if row['file_name'] == name}
        names = {row['id']: row['name'] for row in content['categories']}
        return [names[row['category_id']] for row in content['annotations']
                if row['image_id'] in ids]

    def relabel(self, name: str, label: str) -> None:
        """Name the first object of a picture otherwise."""
        content = json.loads(self._file(name).read_text())
        if self.form == 'labelme':
            content['shapes'][0]['label'] = label
        else:
            number = 1 + max(row['id'] for row in content['categories'])
            content['categories'].append(dict(id=number, name=label))
            ids = {row['id'] for row in content['images'] if row['file_name'] == name}
            next(row for row in content['annotations'] if row['image_id'] in ids)[
                'category_id'] = number
        self._file(name).write_text(json.dumps(content))


@pytest.mark.parametrize('form', ['labelme', 'coco'])
def test_the_folder_of_the_server(browser, quiet, tmp_path, form):
    pictures(tmp_path, 'a/x.png', 'b/x.png', 'c10.png', 'c9.png')
    files, driver = Files(tmp_path, form), browser[0]
    with serving(settings=dict(root=str(tmp_path), annotations=form)) as (url, _):
        page = Keeping(driver, url, browser[1])
        page.until(lambda: page.current() == 'c9.png' and page.drawn())
        assert list(page.rows()) == ['c9.png', 'c10.png', 'a/x.png', 'b/x.png']
        page.visit('a/x.png')
        assert page.id('folder-name').text == f'Folder {tmp_path.name} of the server'
        page.outline('square')
        page.outline('ring')
        name = page.all('#objects .name')[0]
        name.click()
        name = page.all('#objects input.name')[0]
        name.send_keys(Keys.CONTROL, 'a')
        name.send_keys('<i>"Ä\\\'/名', Keys.ENTER)
        labels = ['<i>"Ä\\\'/名', 'ring']
        page.until(lambda: page.id('saved').text == 'Saved.' and files.labels('a/x.png') == labels)
        assert files.labels('b/x.png') == []
        page.id('done').click()
        page.visit('b/x.png')
        page.outline('square')
        page.kept()
        page = Keeping(driver, url, browser[1])  # another browser
        page.until(lambda: page.current() == 'c9.png' and page.drawn())  # the first to be done
        assert page.rows() == {'a/x.png': '✓2', 'b/x.png': '1', 'c9.png': '', 'c10.png': ''}
        page.visit('a/x.png')
        assert page.here() == labels and page.id('done').is_selected()

        files.relabel('a/x.png', 'theirs')  # another program, while it is shown here
        page.outline('square')
        page.until(lambda: page.id('choice').is_displayed())
        assert '2 objects there, 3 here' in page.id('choice-text').text
        assert 'changed by another program' in page.id('saved').text
        assert files.labels('a/x.png') == ['theirs', 'ring'] and driver.execute_script(LEAVES)
        page.reload()
        page.until(lambda: page.id('choice').is_displayed() and page.drawn())  # asked again
        assert page.here() == [*labels, 'square']
        page.id('take-theirs').click()
        page.until(lambda: page.here() == ['theirs', 'ring'])
        page.until(lambda: page.id('saved').text == 'Saved.')
        page.id('undo').click()
        page.until(lambda: page.here() == [*labels, 'square']
                   and files.labels('a/x.png') == [*labels, 'square'])
        page.kept()

        files.relabel('a/x.png', 'theirs')
        page.id('done').click()
        page.until(lambda: page.id('choice').is_displayed())
        page.id('keep-mine').click()
        page.until(lambda: files.labels('a/x.png') == [*labels, 'square'])
        page.kept()
        page.visit('b/x.png')
        files.relabel('a/x.png', 'meanwhile')
        page.visit('a/x.png')
        page.until(lambda: page.here() == ['meanwhile', 'ring', 'square'])
        assert 'changed by another program' in page.status
        page.kept()

        pictures(tmp_path, 'b/x.png')  # the picture itself is another one
        page = Keeping(driver, url, browser[1])
        page.visit('b/x.png')
        page.until(lambda: page.status == 'b/x.png has changed since it was annotated: look at '
                   'its outlines.')
        assert page.rows()['b/x.png'] == '⚠1'
        page.outline('ring')
        page.kept()
        assert page.rows()['b/x.png'] == '2'
    page.close()


def test_two_tabs_on_one_folder(browser, quiet, tmp_path):
    """Tabs that hear of each other do not take each other's work for another program's."""
    pictures(tmp_path, 'a.png', 'b.png')
    files, driver = Files(tmp_path, 'labelme'), browser[0]
    with serving(settings=dict(root=str(tmp_path))) as (url, _):
        page = Keeping(driver, url, browser[1])
        page.until(page.drawn)
        first = driver.current_window_handle
        driver.switch_to.new_window('tab')
        second = driver.current_window_handle
        driver.get(url)
        page.until(lambda: page.current() == 'a.png' and page.drawn())
        expected = []
        for turn in range(6):
            driver.switch_to.window((first, second)[turn % 2])
            page.until(lambda: page.here() == expected)
            page.outline('square' if turn % 2 else 'ring')
            expected.append('square' if turn % 2 else 'ring')
        page.until(lambda: files.labels('a.png') == expected)
        for tab in (first, second):
            driver.switch_to.window(tab)
            page.until(lambda: page.id('saved').text == 'Saved.' and page.here() == expected)
            assert not page.id('choice').is_displayed()
        driver.close()
        driver.switch_to.window(first)
    page.close()


@pytest.mark.parametrize('where', ['browser', 'folder'])
def test_killed_reloaded_and_switched(browser, quiet, tmp_path, where):
    """A hundred switches among 20 pictures, with a server that is killed again and again: no
    object is lost, and the folder's files are whole at each moment."""
    port, rng = free_port(), random.Random(0)
    names = [f'{letter}/{number}.png' for letter in 'ab' for number in range(10)]
    pictures(tmp_path, *names)
    files, expected = Files(tmp_path, 'labelme'), {name: [] for name in names}
    faults, ends = [], threading.Event()

    def read_all() -> None:
        while not ends.is_set():
            for file in tmp_path.rglob('*.json'):
                try:
                    json.loads(file.read_text())['shapes']
                except ValueError as error:
                    faults.append(error)
            time.sleep(0.002)
    watcher = threading.Thread(target=read_all, daemon=True)
    watcher.start()
    with killable(port, *[tmp_path] * (where == 'folder')) as (start, kill):
        page = Keeping(browser[0], start(), browser[1])
        if where == 'browser':
            page.id('folder').send_keys(str(tmp_path))
            page.until(lambda: page.status == '20 pictures opened.')
        page.until(page.drawn)
        up, known = True, set()
        for step in range(100):
            if step in (30, 50, 70, 90):
                kill()
                up = False
            elif step in (35, 55, 75, 95):
                start()
                up = True
            elif step in (20, 45, 65, 85):
                page.reload()
                page.until(page.drawn)
                known.clear()
            name = rng.choice(names if up else sorted(known))
            known.add(name)
            page.visit(name)
            assert page.here() == expected[name], (step, name)
            if up and rng.random() < 0.6:
                page.outline('square')
                expected[name].append('square')
            elif expected[name]:
                number = rng.randrange(len(expected[name]))
                page.all('#objects [aria-label^=Remove]')[number].click()
                del expected[name][number]
        page.until(lambda: page.id('saved').text == 'Saved.')
        if where == 'folder':
            assert {name: files.labels(name) for name in names} == expected
        else:
            assert page.labels() == expected
        page.reload()
        page.until(page.drawn)
        for name in names:
            page.visit(name)
            assert page.here() == expected[name]
        ends.set()
        watcher.join()
        assert not faults
    page.close()


# --- long lists, other tools, docs ---------------------------------------------------------------
@pytest.mark.parametrize('where', ['browser', 'folder'])
def test_thousands_of_pictures(browser, quiet, tmp_path, where):
    count = 3000
    first, = pictures(tmp_path, 'p0.png', size=(8, 8))
    for number in range(1, count):
        os.link(first, tmp_path / f'p{number}.png')
    settings = dict(root=str(tmp_path)) if where == 'folder' else {}
    with serving(settings=settings) as (url, inferencer):
        page = Keeping(browser[0], url, browser[1])
        if where == 'browser':
            page.id('folder').send_keys(str(tmp_path))
        page.until(lambda: page.current() == 'p0.png' and page.drawn())
        page.until(lambda: page.id('pictures-count').text == f'0 of {count} done')
        assert page.id('place').text == f'1 of {count}'
        assert 5 < len(page.all('#pictures li')) < 60  # those that are seen
        for name in ('p1.png', 'p2.png', 'p3.png'):  # p2 before p10
            page.id('done-next').click()
            page.until(lambda: page.current() == name and page.drawn())
        page.driver.execute_script(
            "const box = document.getElementById('pictures-box');"
            'box.scrollTop = box.scrollHeight')
        page.until(lambda: 'p2999.png' in page.rows())
        page.visit('p2999.png')
        page.outline('square')
        page.id('next').click()
        assert page.status == 'This is the last one of the list.'
        Select(page.id('filter')).select_by_value('done')
        page.until(lambda: page.rows() == {f'p{number}.png': '✓' for number in range(3)})
        kept = page.kept()
        assert kept['p2999.png']['width'] == 8
        if where == 'browser':
            assert len(kept) == count
            assert sum(row['width'] is not None for row in kept.values()) == 5  # read when shown
        page.reload()
        page.until(lambda: page.drawn() and f'of {count} done' in page.id('pictures-count').text)
        assert page.id('pictures-count').text == f'3 of {count} done'
        page.visit('p2999.png')
        assert page.here() == ['square']
    page.close()


def test_annotations_of_other_tools_and_sets(browser, quiet, tmp_path):
    names = ['a/x.png', 'b/x.png', 'c.png']
    pictures(tmp_path / 'set', *names)
    ring = [20, 20, 60, 20, 60, 70, 20, 70]
    coco = dict(images=[dict(id=1, file_name='a/x.png', width=100, height=100),
                        dict(id=2, file_name='b/x.png', width=100, height=100)],
                categories=[dict(id=1, name=NAME.replace('\t', ' '))],
                annotations=[dict(id=1, image_id=1, category_id=1, segmentation=[ring], iscrowd=0,
                                  bbox=[20, 20, 40, 50], area=2000)])
    file = tmp_path / 'set' / 'marks.json'
    file.write_text(json.dumps(coco))
    (tmp_path / 'set' / 'broken.json').write_text('{"shapes": [')
    (tmp_path / 'set' / 'notes.md').write_text('no picture')
    with serving(settings=dict(export_seconds=100.0)) as (url, _):
        page = Keeping(browser[0], url, browser[1])
        page.id('folder').send_keys(str(tmp_path / 'set'))
        page.until(lambda: page.status.startswith('1 object read for 1 picture.'))
        assert 'broken.json is not read' in page.status
        assert page.labels() == {'a/x.png': [NAME.replace('\t', ' ')], 'b/x.png': [],
                                 'c.png': []}
        page.id('file').send_keys(str(file))  # again
        page.until(lambda: '1 that were there already are not added again' in page.status)
        page.id('undo').click()
        assert page.here() == []  # reading is a step
        page.id('redo').click()
        page.visit('b/x.png')
        page.outline('ring')
        page.id('done').click()

        def set_of(which: str, form: str) -> list[str]:
            Select(page.id('which')).select_by_value(which)
            Select(page.id('format')).select_by_value(form)
            before = set(page.downloads.iterdir())
            page.id('export').click()
            page.until(lambda: page.status.startswith('Exported'))
            page.until(lambda: [path for path in set(page.downloads.iterdir()) - before
                                if path.suffix == '.zip'])
            path, = set(page.downloads.iterdir()) - before
            with zipfile.ZipFile(path) as archive:
                found = archive.namelist()
            path.unlink()
            return found
        found = set_of('all', 'coco')
        assert 'Not in it: 1 without objects that is not marked done' in page.status
        assert len([name for name in found if name.endswith('x.png')]) == 2
        assert not [name for name in found if name.endswith('c.png')]
        page.id('status')
        found = set_of('done', 'yolo')
        assert len([name for name in found if name.endswith('.png')]) == 1
        assert 'corrections' in [one.get_attribute('value') for one in
                                 Select(page.id('format')).options]
    page.close()


def test_pictures_of_the_docs(browser, quiet, tmp_path):
    """The packaged model, on generated scenes."""
    import numpy as np

    from simpleseg_mm.apis import SimpleSegInferencer
    from simpleseg_mm.datasets.refshapes import draw_scene
    try:
        inferencer = SimpleSegInferencer(show_progress=False)
    except FileNotFoundError as error:
        pytest.skip(f'no model that writes outlines: {error}')
    for number in range(12):
        scene = draw_scene(np.random.default_rng(number))[0]
        Image.fromarray(scene).save(tmp_path / f'scene_{number}.png')
    with serving(inferencer, name='nano') as (url, _):
        page = Keeping(browser[0], url, browser[1])
        page.id('folder').send_keys(str(tmp_path))
        page.until(lambda: page.status == '12 pictures opened.')
        batch(page, 'ring, star')
        page.until(lambda: ended(page) and '12 of 12 pictures asked' in page.status)
        page.id('batch-review').click()
        page.until(lambda: page.current() and page.drawn() and 'Say' in page.status)
        scores = [min(one['score'] for one in row['objects']) if row['objects'] else -1
                  for row in sorted(page.kept().values(), key=lambda row: list(
                      page.rows()).index(row['name']))]
        assert scores == sorted(scores)
        page.driver.execute_script("document.getElementById('batch').scrollIntoView()")
        page.keep('page_batch')
        for _ in range(3):
            page.id('done-next').click()
            page.until(lambda: page.drawn() and 'Say' in page.status)
        Select(page.id('filter')).select_by_value('all')
        page.all('#objects .name')[0].click()
        page.driver.execute_script("document.getElementById('pictures').scrollIntoView()")
        page.keep('page_list')
    page.close()
