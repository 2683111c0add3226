"""Failures of the machine while a file is read: never a property of what the file holds.

A picture that is damaged may be left out for good; one that could not be read just now may not. So
an error of the operating system is the machine's, but for those that only the file itself makes.
"""

import errno
import os

from sagan_bench.core.errors import MachineError, causes, machine_error

_OF_THE_FILE = frozenset((
    errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO,
    errno.EINVAL,  # of a seek to where damage leads
))  # fmt: skip
_GONE = frozenset((errno.ENOENT, errno.ENOTDIR))
_ADVICE = {
    errno.ESTALE: "mount its file system again",
    errno.ENOTCONN: "mount its file system again",
    errno.ENFILE: "end what has many files open",
}


def failure(error: BaseException, path: object = "") -> MachineError | None:
    """Return what to tell of a failure of the machine that ``error`` came of, if there is one."""
    for cause in causes(error):
        if isinstance(cause, MachineError):
            return cause
        if isinstance(cause, MemoryError):
            return _failure(errno.ENOMEM, path)
        if isinstance(cause, OSError) and cause.errno and cause.errno not in _OF_THE_FILE | _GONE:
            return _failure(cause.errno, path or cause.filename)
    return None


def _failure(number: int, path: object) -> MachineError:
    if number == errno.ENOMEM:
        return MachineError(
            f"there is not enough memory to read {path or 'the data'}; free some, or read with "
            "--workers 1: the same command then goes on; if it ends here again, look at that file"
        )
    said, where = os.strerror(number), f"; {path}" if path else ""
    if number in _ADVICE:
        return MachineError(f"{said}{where}; {_ADVICE[number]}: the same command then goes on")
    return machine_error(OSError(number, said, str(path) if path else None))


def vanished(error: BaseException, path: str) -> MachineError | None:
    """Return what to tell of a file that was listed and is gone; a link to nothing is no such."""
    if not isinstance(error, OSError) or error.errno not in _GONE or os.path.islink(path):
        return None
    return MachineError(
        f"{path} was there when the folder was listed and is gone; look whether its disk is still "
        "mounted: the same command then goes on"
    )
