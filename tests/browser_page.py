"""The annotation page as a user handles it in Chromium, for its tests.

SIMPLESEG_SCREENSHOTS=FOLDER keeps pictures of the page; those of docs/ are made so.
"""
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip('starlette', reason="pip install 'simpleseg-mm[serve]'")
pytest.importorskip('uvicorn', reason="pip install 'simpleseg-mm[serve]'")
pytest.importorskip('selenium', reason='pip install --no-deps -r requirements/lock-test.txt')

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402


class Page:
    """The page as a user handles it. Points are pixels of the picture."""
    size = 100, 100  # width and height of the picture

    def __init__(self, driver, url: str, downloads: Path, picture: Path | None = None,
                 fresh: bool = True) -> None:
        """Open the page, where ``fresh`` without what the browser keeps of it, and a picture."""
        self.driver, self.url, self.downloads = driver, url, downloads
        if fresh:
            driver.get('about:blank')
            driver.execute_cdp_cmd('Storage.clearDataForOrigin',
                                   dict(origin=url, storageTypes='all'))
        driver.get(url)
        self.until(lambda: self.id('model').get_attribute('textContent'))
        if picture is not None:
            self.open(picture)

    def open(self, *pictures: Path) -> None:
        """Open files; the first is shown."""
        self.id('file').send_keys('\n'.join(map(str, pictures)))
        self.until(lambda: self.status.startswith(
            f'{len(pictures)} pictures opened' if pictures[1:] else f'{pictures[0].name}: '))

    def id(self, name: str):
        return self.driver.find_element(By.ID, name)

    def all(self, selector: str) -> list:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def until(self, condition) -> None:
        WebDriverWait(self.driver, 120, 0.05).until(lambda _: condition())

    @property
    def status(self) -> str:
        return self.id('status').text

    def ask(self, text: str) -> None:
        box = self.id('expression')
        box.clear()
        box.send_keys(text, Keys.ENTER)

    def outline(self, text: str, objects: int = 1) -> None:
        count = len(self.all('#objects li'))
        self.ask(text)
        self.until(lambda: len(self.all('#objects li')) == count + objects and 'busy' not in
                   self.id('status').get_attribute('class'))

    def tool(self, name: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, f'input[value={name}]').click()

    def at(self, x: float, y: float) -> ActionChains:
        """The pointer over a point of the picture."""
        self.driver.execute_script('scrollTo(0, 0)')
        left, top, width, height = self.driver.execute_script(
            "const r = document.getElementById('picture').getBoundingClientRect();"
            'return [r.x, r.y, r.width, r.height]')
        actions = ActionChains(self.driver, duration=20)
        actions.w3c_actions.pointer_action.move_to_location(
            round(left + x / self.size[0] * width), round(top + y / self.size[1] * height))
        return actions

    def drag(self, start, end) -> None:
        self.at(*start).click_and_hold().perform()
        self.at(*end).release().perform()

    def exported(self) -> list:
        """Rings of the exported file, without the closing point."""
        return [[ring[:-1] for ring in feature['geometry']['coordinates']]
                for feature in self.export('geojson')['features']]

    def export(self, form: str) -> dict:
        """The exported file."""
        Select(self.id('format')).select_by_value(form)
        before = set(self.downloads.iterdir())
        self.id('export').click()
        self.until(lambda: {path for path in set(self.downloads.iterdir()) - before
                            if path.suffix != '.crdownload' and path.stat().st_size})
        path, = set(self.downloads.iterdir()) - before
        content = json.loads(path.read_text())
        path.unlink()
        return content

    def keep(self, name: str) -> None:
        """A picture of the page for the docs, where they are asked for."""
        if folder := os.environ.get('SIMPLESEG_SCREENSHOTS'):
            path = Path(folder, f'{name}.png')
            self.driver.save_screenshot(str(path))
            with Image.open(path) as image:
                image.convert('P', palette=Image.Palette.ADAPTIVE, colors=128).save(
                    path, optimize=True)


@contextmanager
def chromium(downloads: Path, *flags: str):
    """A browser that downloads into a folder; skips the test where there is none."""
    browser, chromedriver = (shutil.which(name) for name in ('chromium', 'chromedriver'))
    if not browser or not chromedriver:
        pytest.skip('no chromium and chromedriver: apt-get install -y chromium chromium-driver')
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu',
                 '--window-size=1240,900', '--force-color-profile=srgb', *flags):
        options.add_argument(flag)
    options.add_experimental_option('prefs', {'download.default_directory': str(downloads)})
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(chromedriver))
    try:
        yield driver
    finally:
        driver.quit()


def close(ring, expected, tolerance=0.35) -> bool:
    """Whether rings agree, wherever they begin and whichever way they run."""
    rolled = [ring[k:] + ring[:k] for k in range(len(ring))]
    return any(len(one) == len(expected) and all(
        abs(a - b) <= tolerance for p, q in zip(one, expected) for a, b in zip(p, q))
        for one in rolled + [list(reversed(one)) for one in rolled])
