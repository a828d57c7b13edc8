"""Documentation as text: links lead somewhere, sentences are short, pictures are said in words."""
import ast
import html
import importlib.util
import json
import re
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location('readability', ROOT / 'docs/readability.py')
readability = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readability)

PAGES = [path for pattern in ('*.md', 'docs/**/*.md', 'configs/**/*.md', 'simpleseg_mm/**/*.md')
         for path in sorted(ROOT.glob(pattern)) if '_build' not in path.parts]
#: messages and comments that send a reader to a page
SENDERS = [path for pattern in ('simpleseg_mm/**/*.py', 'tools/**/*.py', 'configs/**/*.py')
           for path in sorted(ROOT.glob(pattern))]


def slug(heading: str) -> str:
    """As GitHub and MyST name the anchor of a heading."""
    return re.sub(r'[^\w\- ]', '', heading.strip().lower()).replace(' ', '-')


@cache
def anchors(page: Path) -> frozenset[str]:
    tokens = MarkdownIt('commonmark').parse(page.read_text(encoding='utf-8'))
    found: list[str] = []
    for token, inline in zip(tokens, tokens[1:]):
        if token.type == 'heading_open':
            name = slug(''.join(child.content for child in inline.children or []
                                if child.type in ('text', 'code_inline')))
            times = sum(re.fullmatch(rf'{re.escape(name)}(-\d+)?', one) is not None
                        for one in found)
            found.append(f'{name}-{times}' if times else name)
    return frozenset(found)


def broken(page: Path, target: str) -> str | None:
    """What is wrong with a link of a page; None of one to another site, or right."""
    if re.match(r'[a-z+]+:', target) or target.startswith('simpleseg_mm://'):
        return None
    name, _, anchor = target.partition('#')
    path = (page.parent / name).resolve() if name else page
    if not path.exists():
        return f'{target}: there is no {path.relative_to(ROOT)}'
    if anchor and path.suffix == '.md' and anchor not in anchors(path):
        return f'{target}: {path.name} has no such heading'
    return None


def links(text: str) -> list[str]:
    found = []
    for token in MarkdownIt('commonmark').enable('table').parse(text):
        for child in token.children or []:
            found += [child.attrs[key] for key in ('href', 'src') if key in child.attrs]
    return found + re.findall(r'^:{3,}\{image\} (\S+)', text, re.M)


@pytest.mark.parametrize('text, expected', [
    ('[a](docs/none.md)', ['docs/none.md: there is no docs/none.md']),
    ('[a](docs/glossary.md#none)', ['docs/glossary.md#none: glossary.md has no such heading']),
    ('![a](docs/images/none.png)', ['docs/images/none.png: there is no docs/images/none.png']),
    ('| a |\n|---|\n| [a](none) |', ['none: there is no none']),
    ('# A `b`: c\n\n[a](#none)', ['#none: README.md has no such heading']),
    ('[a](https://arxiv.org/abs/2601.19228), `[a](none)`, [b](README.md)', []),
])
def test_links_are_checked(text, expected):
    faults = [broken(ROOT / 'README.md', target) for target in links(text)]
    assert [fault for fault in faults if fault] == expected


@pytest.mark.parametrize('heading, expected', [
    ('One GPU of 24 GB', 'one-gpu-of-24-gb'),
    ("A metric of one's own", 'a-metric-of-ones-own'),
    ('`acceleration=[]`, plain', 'acceleration-plain'),
])
def test_anchors_of_headings(heading, expected):
    assert slug(heading.replace('`', '')) == expected


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    faults = [broken(page, target) for target in links(page.read_text(encoding='utf-8'))]
    assert [fault for fault in faults if fault] == []


def test_messages_name_pages_that_are_there():
    faults = []
    for path in SENDERS:
        for target in re.findall(r'docs/\w+\.md(?:#[\w-]+)?', path.read_text(encoding='utf-8')):
            fault = broken(ROOT / 'README.md', target)
            faults += [f'{path.relative_to(ROOT)}: {fault}'] if fault else []
    assert faults == []


# Sentences


@pytest.mark.parametrize('text, expected', [
    ('One two. Three `four five`!\nSix', ['One two.', 'Three code!', 'Six']),
    ('- a [b c](d)\n- e', ['a b c', 'e']),
    ('# Not this\n\n| not | this |\n|---|---|\n| a | b |\n\n```bash\nnot this\n```\nThis.',
     ['This.']),
    ('Of e.g. 0.5 and v1.2.', ['Of e.g. 0.5 and v1.2.']),
    ('<details>\n<summary>Not this</summary>\n\nThis.\n\n</details>', ['This.']),
    ('<!-- not run: this -->\n\nThis.', ['This.']),
    (json.dumps(dict(cells=[dict(cell_type='markdown', source=['# No\n', '\n', 'This.']),
                            dict(cell_type='code', source=['not = this'])])), ['This.']),
    ('```{toctree}\n:maxdepth: 1\n\nnot/this\n```\n\nThis.\n\n```bash\nls\n```', ['This.']),
])
def test_what_a_sentence_is(text, expected):
    assert readability.sentences(text) == expected


def test_long_sentences_are_found():
    short, long = ' '.join(['word'] * 25) + '.', ' '.join(['word'] * 26) + '.'
    assert readability.too_long(f'{short}\n\n{long}') == [long]


@pytest.mark.parametrize('page', readability.pages(),
                         ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sentences_hold_one_thought(page):
    assert readability.too_long(page.read_text(encoding='utf-8')) == []


# Pictures


IMAGES = ROOT / 'docs/images'


def images(text: str) -> list[tuple[str, str]]:
    """Address and words of each picture of a page."""
    found = [(child.attrs['src'], child.content)
             for token in MarkdownIt('commonmark').enable('table').parse(text)
             for child in token.children or [] if child.type == 'image']
    return found + re.findall(r'^:{3,}\{image\} (\S+)\n:alt: (.*)$', text, re.M)


def is_sentence(words: str) -> bool:
    return re.fullmatch(r'[A-Z].{20,}\.', words) is not None and len(words.split()) > 4


def drawn() -> list[str]:
    """Names of the pictures that docs/pictures makes; read, as drawing loads libraries."""
    return [keyword.arg for path in (ROOT / 'docs/pictures').glob('*.py')
            for node in ast.parse(path.read_text(encoding='utf-8')).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'PICTURES'
            and isinstance(node.value, ast.Call) for keyword in node.value.keywords]


@pytest.mark.parametrize('text, expected', [
    ('![A b.](images/c.png)', [('images/c.png', 'A b.')]),
    ('| a |\n|---|\n| ![b](c) |', [('c', 'b')]), ('`![a](b)`, [a](b)', []),
    (':::{image} images/c.svg\n:alt: A b.\n:class: d\n:::', [('images/c.svg', 'A b.')]),
])
def test_what_a_picture_is(text, expected):
    assert images(text) == expected


@pytest.mark.parametrize('words, expected', [
    ('The curve of nano rises from 40 to 60.', True), ('the curve of nano rises a lot.', False),
    ('The curve of nano rises a lot', False), ('Curve.', False), ('', False),
])
def test_what_says_a_picture(words, expected):
    assert is_sentence(words) is expected


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pictures_are_said_in_a_sentence(page):
    found = images(page.read_text(encoding='utf-8'))
    assert [one for one in found if not is_sentence(one[1])] == []


def test_each_picture_is_on_a_page():
    shown = {(page.parent / target.partition('#')[0]).resolve() for page in PAGES
             for target in links(page.read_text(encoding='utf-8'))}
    assert [path.name for path in sorted(IMAGES.iterdir()) if path not in shown] == []


def test_pictures_that_are_drawn_are_there_and_small():
    """outline.svg has a script of its own."""
    assert sorted(drawn()) == sorted({path.stem for path in IMAGES.glob('*.svg')} - {'outline'})
    assert [path.name for path in IMAGES.glob('*.svg') if path.stat().st_size > 150_000] == []


def test_pages_say_of_a_drawn_picture_what_it_says_itself():
    """A picture that is made anew with other figures has other words."""
    faults = []
    for page in PAGES:
        for target, words in images(page.read_text(encoding='utf-8')):
            name = Path(target).stem
            if name in drawn() and Path(target).parent.name == 'images':
                svg = (IMAGES / f'{name}.svg').read_text(encoding='utf-8')
                label = html.unescape(re.search(' aria-label="(.*?)"', svg)[1])
                faults += [name] if label != words else []
    assert faults == []
