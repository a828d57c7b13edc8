"""The command ``simpleseg``: all that a user does, from any folder.

A subcommand is a module of ``simpleseg_mm.commands`` with ``add_arguments(parser)`` and
``main(args)``, whose docstring's first line is its help; or a script of ``tools/``, which is run
as it is. Neither loads a library before its arguments are read.
"""
import argparse
import importlib
import sys
import types
from collections.abc import Sequence
from pathlib import Path

from . import __version__, stopping
from .commands.faults import is_of_files, line_of

#: name of the subcommand -> its module
COMMANDS = {'segment': 'simpleseg_mm.commands.segment',
            'serve': 'simpleseg_mm.commands.serve',
            'report': 'simpleseg_mm.commands.report',
            'study': 'simpleseg_mm.commands.study',
            'grammar': 'simpleseg_mm.commands.grammar',
            'doctor': 'simpleseg_mm.commands.doctor'}
#: name of the subcommand -> its script below tools/, and its help
SCRIPTS = {'train': ('train.py', 'Train a model: simpleseg train CONFIG.'),
           'test': ('test.py', 'Test a model: simpleseg test CONFIG CHECKPOINT.'),
           'annotate': ('annotate.py', 'Annotate images by the data engine.'),
           'browse': ('analysis_tools/browse_dataset.py',
                      'Draw samples of a data set as training sees them.'),
           'plan': ('analysis_tools/plan.py', 'Say what memory and hours a training needs.')}
#: of ``simpleseg convert WHAT``
CONVERTERS = {'own-data': ('dataset_converters/own_data.py',
                           'Annotations of any tool -> a training set and its config.'),
              'refcoco': ('dataset_converters/refcoco.py',
                          'Convert and check sets of the RefCOCO family.'),
              'refshapes': ('dataset_converters/generate_refshapes.py', 'Generate RefShapes.'),
              'questions': ('dataset_converters/refshapes_questions.py',
                            'Questions about a generated set.'),
              'chat': ('dataset_converters/to_chat.py', 'Queries as other trainers read them.'),
              'huggingface': ('model_converters/to_huggingface.py',
                              'A checkpoint -> a folder that transformers loads.'),
              'kimi-vl': ('model_converters/kimi_vl.py',
                          "Kimi-VL's folder as released <-> as transformers loads it.")}
_PACKAGE = Path(__file__).resolve().parent
#: modules that an installation without one of the two extras, or with --no-deps, lacks
_NEEDED = {'mmengine': '[onedl]', 'mmcv': '[onedl]', 'mmdet': '[onedl]', 'torch': '',
           'transformers': '', 'cv2': '', 'numpy': '', 'PIL': '', 'pycocotools': '',
           'shapely': '', 'scipy': '', 'tqdm': '', 'peft': '', 'jinja2': '', 'matplotlib': '',
           'rich': '', 'httpx2': ''}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit status. Where one is named, the others are not loaded."""
    if argv is None:  # this process is the command
        stopping.end_in_one_line('what was written is kept; the same command starts again.')
        argv = sys.argv[1:]
    argv = [*argv]
    try:
        if argv[:1] == ['convert'] and argv[1:2] and argv[1] in CONVERTERS:
            return _run_script(CONVERTERS[argv[1]][0], argv[:2], argv[2:])
        if argv[:1] and argv[0] in SCRIPTS:
            return _run_script(SCRIPTS[argv[0]][0], argv[:1], argv[1:])
        return _run_module(argv)
    except ValueError as error:
        return _fail(line_of(error))
    except OSError as error:
        if not is_of_files(error):
            raise
        return _fail(line_of(error))
    except ModuleNotFoundError as error:
        name = (error.name or '').partition('.')[0]
        if name not in _NEEDED:
            raise
        return _fail(f"{name} is not installed: pip install 'simpleseg-mm{_NEEDED[name]}' (and "
                     '`simpleseg doctor` looks at all of this machine)')


def _fail(said: object) -> int:
    print(f'simpleseg: {said}', file=sys.stderr, flush=True)
    return 2


def _run_module(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog='simpleseg', description='Segmentation by a multimodal LLM that writes polygons.')
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    modules = {}
    alone = argv[:1] if argv and argv[0] in COMMANDS else []
    for name in alone or COMMANDS:
        modules[name] = importlib.import_module(COMMANDS[name])
        text = modules[name].__doc__
        modules[name].add_arguments(commands.add_parser(
            name, help=text.splitlines()[0], description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter))
    if not alone:
        for name, (_, text) in SCRIPTS.items():
            commands.add_parser(name, help=text)
        convert = commands.add_parser('convert', help='Convert data sets and weights.')
        kinds = convert.add_subparsers(dest='what', required=True, metavar='WHAT')
        for name, (_, text) in CONVERTERS.items():
            kinds.add_parser(name, help=text)
    args = parser.parse_args(argv)
    return modules[args.command].main(args) or 0


def _run_script(script: str, words: list[str], rest: list[str]) -> int:
    """Run a script of ``tools/`` in this process, as ``python tools/SCRIPT`` would.

    Raises:
        FileNotFoundError: the installation has no tools.
    """
    found = [path for root in (_PACKAGE.parent, _PACKAGE / '.mim')
             if (root / 'configs/simpleseg').is_dir()
             and (path := root / 'tools' / script).is_file()]
    if not found:
        raise FileNotFoundError(f'{_PACKAGE} has no tools/{script}, neither beside it nor in '
                                '.mim: install simpleseg_mm again')
    module = types.ModuleType('__main__')  # runpy would tell the script another name than this
    module.__file__ = str(found[0])
    before = sys.argv, sys.modules['__main__']
    sys.argv = [' '.join(('simpleseg', *words)), *rest]
    sys.modules['__main__'] = module  # which worker processes load again
    try:
        exec(compile(found[0].read_bytes(), found[0], 'exec'), vars(module))
    finally:
        sys.argv, sys.modules['__main__'] = before
    return 0


if __name__ == '__main__':
    sys.exit(main())
