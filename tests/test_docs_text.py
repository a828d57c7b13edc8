"""Documentation as text: links lead somewhere, and sentences are short."""
import importlib.util
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
