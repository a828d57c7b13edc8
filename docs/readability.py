"""How hard the pages are to read: ``python docs/readability.py [--against REVISION]``.

Of the prose of a page (no code, tables, links' addresses or headings), for each page: words a
sentence, the longest sentence, and Flesch's reading ease (60 to 70 is plain English, more is
easier). ``pyphen`` counts the syllables and finds fewer than a dictionary does: compare pages
with each other, not with newspapers. ``--against`` sets the figures of an earlier revision of
git beside them. A sentence of more than ``LONGEST`` words is an error: it holds more than one
thought (the limit is that of gov.uk's style guide).
"""
import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
PAGES = ('README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'docs/*.md', 'docs/tutorials/*.md',
         'docs/tutorials/*.ipynb', 'configs/**/*.md')
#: words of a sentence, at most
LONGEST = 25


def paragraphs(text: str) -> list[str]:
    """The prose of a page in Markdown, or of a notebook: paragraphs and items of lists, a line
    each."""
    if text.startswith('{'):
        text = '\n\n'.join(''.join(cell['source']) for cell in json.loads(text)['cells']
                           if cell['cell_type'] == 'markdown')
    text = re.sub(r'\A---\n.*?\n---\n', '', text, flags=re.S)
    text = re.sub(r'^:{3,}\{(grid|image|figure|button|card)[^\n]*\n(:\w[^\n]*\n)*',
                  '\n', text, flags=re.M)
    text = re.sub(r'^:{3,}[^\n]*$', '', text, flags=re.M)
    found, skipped = [], 0
    for token in MarkdownIt('commonmark').enable('table').parse(text):
        if token.type in ('table_open', 'heading_open'):
            skipped += 1
        elif token.type in ('table_close', 'heading_close'):
            skipped -= 1
        elif token.type == 'inline' and not skipped:
            words = ''.join(_text(child) for child in token.children or [])
            if re.search(r'\w', words):
                found.append(' '.join(words.split()))
    return found


def _text(token) -> str:
    """What a reader reads of a piece; a piece of code counts as one word."""
    if token.type in ('softbreak', 'hardbreak'):
        return ' '
    if token.type == 'code_inline':
        return 'code'
    return '' if token.type in ('html_inline', 'image') else token.content


def sentences(text: str) -> list[str]:
    """The sentences of a page: they end at a full stop, or where a list begins."""
    return [one for line in paragraphs(text)
            for one in re.split(r'(?<=[\w)"”\]%][.!?])(?<!e\.g\.)(?<!i\.e\.)["”)]?\s+', line)
            if one.strip()]


def words(sentence: str) -> list[str]:
    return re.findall(r"\w(?:[\w'’.-]*\w)?", sentence)


def figures(text: str) -> tuple[float, int, float] | None:
    """Words a sentence, words of the longest, reading ease; None of a page without prose."""
    import pyphen  # not where the tests run: they count words alone
    found = [words(one) for one in sentences(text)]
    if not found:
        return None
    syllables = pyphen.Pyphen(lang='en_US')
    all_words = [word for one in found for word in one]
    a_sentence = len(all_words) / len(found)
    a_word = sum(len(syllables.positions(word)) + 1 for word in all_words) / len(all_words)
    return (a_sentence, max(map(len, found)),
            206.835 - 1.015 * a_sentence - 84.6 * a_word)  # Flesch, J. Appl. Psychol. 32 (1948)


def too_long(text: str) -> list[str]:
    """Sentences of more than ``LONGEST`` words."""
    return [one for one in sentences(text) if len(words(one)) > LONGEST]


def pages() -> list[Path]:
    return [path for pattern in PAGES for path in sorted(ROOT.glob(pattern))]


def earlier(revision: str, name: str) -> str | None:
    shown = subprocess.run(['git', 'show', f'{revision}:{name}'], cwd=ROOT, capture_output=True,
                           text=True)
    return shown.stdout if shown.returncode == 0 else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--against', metavar='REVISION', help='an earlier one of git')
    args = parser.parse_args()
    columns = ['words a sentence', 'longest', 'reading ease']
    print('| page | ' + ' | '.join(columns) + ' |\n' + '|---' * (1 + len(columns)) + '|')
    faults = []
    for path in pages():
        text, name = path.read_text(encoding='utf-8'), path.relative_to(ROOT).as_posix()
        now = figures(text)
        if now is None:
            continue
        then = earlier(args.against, name) if args.against else None
        before = figures(then) if then else None
        cells = [(f'{old:.{digits}f} → ' if before else '') + f'{new:.{digits}f}'
                 for new, old, digits in zip(now, before or now, (1, 0, 0))]
        print(f'| {name} | ' + ' | '.join(cells) + ' |')
        faults += [f'{name}: {len(words(one))} words: {one}' for one in too_long(text)]
    print('\n'.join(['', *faults]) if faults else '', file=sys.stderr)
    return bool(faults)


if __name__ == '__main__':
    raise SystemExit(main())
