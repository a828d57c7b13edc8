"""The blocks of a page of the documentation, and what a reader does with them.

A block says what it is by its language: ``bash`` and ``python`` are run, ``json``, ``text`` and
the other names of SHOWN are read. A comment right above a block says what else is to be known:

    <!-- not run: needs released weights -->
    <!-- slow: five minutes on one core -->            run by ``pytest -m slow`` alone
    <!-- background: it answers until it is stopped --> stopped where the page ends
    <!-- run with: photo.jpg, CONFIG=configs/simpleseg/nano_sft_refshapes.py -->

The last names what the reader has beforehand (of GIVEN in test_docs.py), and words of the block
that stand for something of the reader's. A paragraph that is a file's name alone, as
"`my_dataset.py`:", names the file that the block is. Python that sets ``_base_`` is a config.
"""
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import warm_python
from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
RUN = ('bash', 'python')
SHOWN = ('bibtex', 'json', 'text', 'xml', 'yaml', '{toctree}')
KEYS = ('not run', 'slow', 'background', 'run with')
#: seconds that a block may take, and one that is marked slow
LIMIT, SLOW_LIMIT = 300, 5400


@dataclass
class Block:
    """One fenced block of a page."""
    place: str                     # PAGE:LINE
    language: str
    text: str
    path: str | None = None        # the file that it is
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def is_run(self) -> bool:
        return self.language in RUN and 'not run' not in self.marks

    @property
    def is_config(self) -> bool:
        return self.language == 'python' and bool(re.search(r'^_base_ =', self.text, re.M))

    @property
    def given(self) -> list[str]:
        """What the reader has before this block."""
        return [item for item in self._items() if '=' not in item]

    @property
    def typed(self) -> str:
        """The text with the reader's own words."""
        text = self.text
        for item in self._items():
            word, equals, value = item.partition('=')
            if equals:
                text = re.sub(rf'(?<![\w/.-]){re.escape(word)}(?![\w/])', lambda _: value, text)
        return text

    def _items(self) -> list[str]:
        return [item.strip() for item in self.marks.get('run with', '').split(',') if item.strip()]


def read_page(text: str, name: str) -> tuple[list[Block], list[str]]:
    """The blocks of a page in Markdown, and what is wrong with them, a line each."""
    blocks, faults, comments, path = [], [], [], None
    for token in MarkdownIt('commonmark').parse(text):
        place = f'{name}:{token.map[0] + 1}' if token.map else name
        if token.type == 'html_block':
            found = re.findall(r'<!--.*?-->', token.content, re.S)
            if not found:  # the head or the end of a fold
                faults += _stray(comments)
                comments, path = [], None
            comments += [(place, comment) for comment in found]
        elif token.type == 'fence':
            block = Block(place, token.info.strip(), token.content, path)
            faults += _read_marks(block, [comment for _, comment in comments])
            faults += _faults_of(block)
            blocks.append(block)
            comments, path = [], None
        elif token.type == 'code_block':
            faults.append(f'{place}: an indented block; write it between ``` with its language')
        elif token.type == 'inline':
            faults += _stray(comments)
            named = re.fullmatch(r'`([\w./-]+\.py)`:', token.content.strip())
            comments, path = [], named and named[1]
    return blocks, faults + _stray(comments)


def _stray(comments: list[tuple[str, str]]) -> list[str]:
    return [f'{place}: no block stands below {comment}' for place, comment in comments
            if re.match(rf'<!--\s*({"|".join(KEYS)})\b', comment)]


def _read_marks(block: Block, comments: list[str]) -> list[str]:
    faults = []
    for comment in comments:
        match = re.fullmatch(rf'<!--\s*({"|".join(KEYS)}):(.*)-->', comment, re.S)
        if not match:
            faults.append(f'{block.place}: {comment} is none of ' +
                          ', '.join(f'<!-- {key}: ... -->' for key in KEYS))
        elif match[1] in block.marks:
            faults.append(f'{block.place}: two marks "{match[1]}"')
        else:
            block.marks[match[1]] = ' '.join(match[2].split())
            if not re.search(r'\w', match[2]):
                faults.append(f'{block.place}: "{match[1]}" says no more; say why or what')
    return faults


def _faults_of(block: Block) -> list[str]:
    faults = []
    if block.language not in RUN + SHOWN:
        faults.append(f'{block.place}: {block.language or "no language"} behind ```; '
                      f'write one of {", ".join(RUN + SHOWN)}')
    if block.marks and block.language not in RUN:
        faults.append(f'{block.place}: {block.language} is not run, marks say nothing about it')
    if 'not run' in block.marks and len(block.marks) > 1:
        faults.append(f'{block.place}: not run, and marked as {", ".join(block.marks)}')
    try:
        if block.language == 'python':
            compile(block.text, block.place, 'exec')
        elif block.language == 'bash':
            subprocess.run(['bash', '-n'], input=block.text, text=True, check=True,
                           capture_output=True)
        elif block.language == 'json':
            _read_json(block.text)
        elif block.language == 'xml':
            ElementTree.fromstring(block.text)
    except (SyntaxError, ValueError) as error:
        faults.append(f'{block.place}: {error}')
    except subprocess.CalledProcessError as error:
        faults.append(f'{block.place}: {error.stderr.strip()}')
    return faults


def _read_json(text: str) -> None:
    try:
        json.loads(text)
    except ValueError:  # an object a line?
        for line in text.splitlines():
            json.loads(line)


def run_page(blocks: list[Block], folder: Path, log: Path, warm: Path | None) -> None:
    """Run blocks in order as one reader, in ``folder``; ends the process, with 1 after a failure.

    Names of Python blocks and files are shared; each block of ``bash`` has a shell of its own,
    which stops at its first failure. What is printed goes to ``log``. With ``warm``, a folder,
    scripts are forks of this process (warm_python.py), so that the libraries are not loaded for
    each; servers are not.
    """
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have ignored
    for number in (1, 2):
        os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ.update(
        PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ['PATH']]),
        PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')])),
        HF_HUB_OFFLINE='1')
    environment = dict(os.environ)
    if warm:
        socket = str(warm / 'socket')
        warm_python.write_commands(str(warm), socket)
        environment['PATH'] = os.pathsep.join([str(warm), environment['PATH']])
        with warm_python.listen(socket) as listener:  # before the first block can ask
            if not os.fork():
                warm_python.serve(listener)
    names, servers, status = dict(__name__='__main__'), [], 0
    try:
        for block in blocks:
            print(f'\n--- {block.place}\n{block.typed}---', flush=True)
            if block.is_config:
                _read_config(block)
            elif block.language == 'python':
                _run_python(block, names)
            elif 'background' in block.marks:
                servers.append(_start(block, log))
            else:
                subprocess.run(_shell(block.typed), check=True, env=environment)
    except BaseException:
        traceback.print_exc()
        status = 1
    for server in servers:
        server.send_signal(signal.SIGINT)
        if server.wait(60):
            print(f'the server ended with {server.returncode}')
            status = 1
    sys.stdout.flush()
    os._exit(status)


def _shell(text: str) -> list[str]:
    return ['bash', '-euo', 'pipefail', '-c', text]


def _start(block: Block, log: Path) -> subprocess.Popen:
    """Start what goes on; back when it has printed an address."""
    begin = log.stat().st_size
    # exec: a signal reaches the command itself
    server = subprocess.Popen(_shell(f'exec {block.typed}'))
    deadline = time.monotonic() + LIMIT
    while b'http://' not in log.read_bytes()[begin:]:
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            raise RuntimeError(f'{block.place}: no server, exit code {server.returncode}')
        time.sleep(0.1)
    return server


def _write(block: Block, path: str) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    if Path.cwd() not in file.resolve().parents:
        raise ValueError(f'{block.place}: {path} is not in the folder of the page')
    file.write_text(block.typed)
    return file


def _run_python(block: Block, names: dict) -> None:
    if block.path is None:
        exec(compile(block.typed, block.place, 'exec'), names)
    else:
        _write(block, block.path)
        importlib.invalidate_caches()
        importlib.import_module(block.path.removesuffix('.py').replace('/', '.'))


def _read_config(block: Block) -> None:
    """What every tool does with a config before it builds anything."""
    from simpleseg_mm.config import read_config
    from simpleseg_mm.config_keys import check_config
    page, line = block.place.rsplit(':', 1)
    importlib.invalidate_caches()
    path = _write(block, block.path or f'configs/simpleseg/{Path(page).stem}_{line}.py')
    check_config(read_config(str(path)))
