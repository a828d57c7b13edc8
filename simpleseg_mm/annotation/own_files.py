"""Which files are annotations of one's own, and of which tool."""
import os
from pathlib import Path

from simpleseg_mm.files import load_json
from simpleseg_mm.files.labelme import is_labelme
from simpleseg_mm.files.texts import is_guessed

from .own_account import Account
from .own_coco import read_coco_set
from .own_cvat import read_cvat
from .own_formats import EXPORT, OwnSet, Reading
from .own_labelme import read_labelme
from .own_studio import is_studio, read_studio
from .own_voc import is_voc, read_voc
from .own_yolo import YoloSet

_NOT_SETS = ('__MACOSX', )  # folders that archives bring along


#: what stands in a folder, or is given by itself
_YOLO, _CVAT = ('data.yaml', 'data.yml', 'dataset.yaml'), 'annotations.xml'


def read_own(path: Path, reading: Reading, account: Account, split: str = 'train') -> OwnSet:
    """Pictures of a file or a folder of annotations: COCO's JSON, LabelMe's files, CVAT's XML,
    Label Studio's JSON, YOLO's data.yaml, or VOC's masks.

    Args:
        split: 'train' or 'val', of a data.yaml.

    Raises:
        FileNotFoundError, ValueError: one line: what is missing or of another form.
    """
    if not path.exists():
        raise FileNotFoundError(f'no annotations {path}: give a file or a folder of them. '
                                + EXPORT)
    path = _inside(path)
    if path.is_dir() and not is_voc(path):
        return _read_folder(path, reading, account)
    content = None
    if path.is_file() and path.suffix.lower() not in ('.xml', '.yaml', '.yml'):
        try:
            content = _load(path, account)
        except ValueError as error:
            raise ValueError(f'{error}. {EXPORT}') from None
    own = path.is_dir() or content is None or is_studio(content) or is_labelme(content)
    if own and reading.expressions is not None:
        raise ValueError('a file of expressions goes with COCO annotations. Other tools hold them '
                         "in their own files: LabelMe in a shape's description, CVAT in an "
                         'attribute, Label Studio in a text area of a region')
    if not own:
        return read_coco_set(path, content, reading, account)
    account.read['file'] += 1
    account.used['file'] += 1
    if path.is_dir():
        return read_voc(path, reading, account)
    if path.suffix.lower() == '.xml':
        return read_cvat(path, reading, account)
    if content is None:
        return YoloSet(path, reading).read(split, account)
    if is_studio(content):
        return read_studio(path, content, reading, account)
    return read_labelme([(path, content)], path.parent, reading, account)


def validation_of(path: Path, reading: Reading) -> bool:
    """Whether annotations bring pictures of validation along, as a data.yaml does."""
    path = _inside(path)
    return path.suffix.lower() in ('.yaml', '.yml') and YoloSet(path, reading).validates


def _inside(path: Path) -> Path:
    """The file in a folder that describes all of it; ValueError: there are several."""
    if not path.is_dir():
        return path
    found = [path / name for name in (*_YOLO, _CVAT) if (path / name).is_file()]
    kinds = [*found, *([path] if is_voc(path) else [])]
    if len(kinds) > 1:
        raise ValueError(f'{path} holds annotations of several tools: '
                         f'{", ".join(one.name for one in kinds)}: give one of them')
    return kinds[0] if kinds else path


def _read_folder(path: Path, reading: Reading, account: Account) -> OwnSet:
    """Of a folder of LabelMe's files, or one that holds a single COCO file."""
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
    if reading.expressions is not None:
        raise ValueError("expressions stand in LabelMe's files (a shape's description, or its "
                         'label); a file of expressions goes with COCO annotations')
    account.used['file'] += len(found)
    return read_labelme(found, path, reading, account)


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
            if not is_labelme(content):
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
