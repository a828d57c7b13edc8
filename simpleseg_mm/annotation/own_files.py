"""Which files are annotations of one's own, and of which tool."""
import os
from pathlib import Path

from simpleseg_mm.files import load_json
from simpleseg_mm.files.texts import is_guessed

from .own_account import Account
from .own_coco import read_coco_set
from .own_formats import EXPORT, OwnSet, Reading
from .own_labelme import read_labelme

_NOT_SETS = ('__MACOSX', )  # folders that archives bring along


def read_own(path: Path, reading: Reading, account: Account) -> OwnSet:
    """Pictures of a COCO file, of one LabelMe file, or of a folder of LabelMe files.

    Raises:
        FileNotFoundError, ValueError: one line: what is missing or of another form.
    """
    if not path.exists():
        raise FileNotFoundError(f'no annotations {path}: give a COCO file, or a folder of '
                                "LabelMe's files")
    if not path.is_dir():
        try:
            content = _load(path, account)
        except ValueError as error:
            raise ValueError(f'{error}. {EXPORT}') from None
        if not _is_labelme(content):
            return read_coco_set(path, content, reading, account)
        account.read['file'] += 1
        found, folder = [(path, content)], path.parent
    else:
        found, others = _files_of(path, reading.passed_over, account)
        if not found and len(others) == 1:
            account.read['file'] += 1
            account.used['file'] += 1
            return read_coco_set(*others[0], reading, account)
        if not found and others:
            raise ValueError(f'{path} holds {len(others)} COCO files, such as '
                             f'{others[0][0].relative_to(path)} and '
                             f'{others[1][0].relative_to(path)}: give one of them, and another '
                             'with --val where it is of validation')
        if not found:
            raise FileNotFoundError(
                f"{path} holds no annotations ({dict(account.left_out['file']) or 'no .json'}). "
                + EXPORT)
        for file, _ in others:
            account.read['file'] += 1
            account.leave('file', "COCO file among LabelMe's: give it by itself", str(file))
        folder = path
    if reading.expressions is not None:
        raise ValueError("expressions stand in LabelMe's files (a shape's description, or its "
                         'label); a file of expressions goes with COCO annotations')
    account.used['file'] += len(found)
    return read_labelme(found, folder, reading, account)


def _files_of(folder: Path, passed_over: Path | None, account: Account) -> tuple[list, list]:
    """LabelMe's files of a folder with their content, and COCO files; others are counted."""
    found, others = [], []
    over = os.path.realpath(passed_over) if passed_over is not None else None
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(one for one in folders if not one.startswith('.')
                            and one not in _NOT_SETS
                            and os.path.realpath(os.path.join(place, one)) != over)
        for name in sorted(files):
            if not name.lower().endswith('.json'):
                continue
            file = Path(place, name)
            if name.startswith('.'):
                account.read['file'] += 1
                account.leave('file', 'hidden file, such as those of a Mac', str(file))
                continue
            try:
                content = _load(file, account)
            except (OSError, ValueError) as error:
                account.read['file'] += 1
                account.leave('file', 'file that is no readable JSON', str(error))
                continue
            if isinstance(content, dict) and 'images' in content and 'annotations' in content:
                others.append((file, content))
                continue
            account.read['file'] += 1
            if not _is_labelme(content):
                account.leave('file', "file that is not LabelMe's", str(file))
            else:
                found.append((file, content))
    return found, others


def _load(file: Path, account: Account):
    content = load_json(file)
    if is_guessed(file.read_bytes()):
        account.decide('file that is not in UTF-8, read as Windows-1252: names in other letters '
                       'than those of Western Europe are wrong', str(file), guessed=True)
    return content


def _is_labelme(content) -> bool:
    return isinstance(content, dict) and isinstance(content.get('shapes'), list)
