"""The errors that a user is meant to read."""

import errno
from collections.abc import Iterator


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


class MachineError(UserError):
    """The machine failed, not what it was asked for: no result, and the same command goes on."""


class NothingFinished(UserError):
    """There is nothing to say yet: no run is over."""


_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or raise the quota",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "choose a folder that you may use, or change its mode",
    errno.EPERM: "choose a folder that you may use, or change its mode",
    errno.EIO: "look at the disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def machine_error(error: OSError) -> MachineError:
    """Return what to tell the user of an error of the operating system: what, where, what to do."""
    what = error.strerror or str(error) or type(error).__name__
    where = f"; {error.filename}" if error.filename else ""
    advice = _ADVICE.get(error.errno or 0, "mend that")
    return MachineError(f"{what}{where}; {advice}: the same command then goes on")


def machine_cause(error: BaseException) -> OSError | None:
    """Return the failure of the machine that an error of a library came of, if there is one."""
    failures = (cause for cause in causes(error) if isinstance(cause, OSError))
    return next((cause for cause in failures if cause.errno in _ADVICE), None)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came of, back to the first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
