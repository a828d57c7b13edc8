"""Errors that a user can mend, which are told in one line. Imports the standard library alone."""
import errno

#: of files that are no fault of the program's
_FILES = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS,
          errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP)


def line_of(error: BaseException) -> str:
    """What it says, in one line; of a loader's worker what its own error said."""
    text = str(error).strip()
    if text.startswith('Caught ') and 'Original Traceback' in text:
        text = text.splitlines()[-1].partition(': ')[2] or text
    return ' '.join(text.split())


def is_of_files(error: OSError) -> bool:
    """Whether it says that something is missing, cannot be read or written, or has no room; or is
    this package's own, which has no number."""
    return error.errno is None or error.errno in _FILES
