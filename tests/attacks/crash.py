"""Attack the command line: run it in a forked child, and trouble it at its k-th change of the disk.

`cli` runs one command in a fork of this process, which has imported everything, so that a trial
takes a fraction of a second; the file system, the locks, the signals and the messages are real.
`Trouble` kills that child, or fails it, at one operation: whatever changes the disk below the
working directory, counted from 0.  Or it takes copies of that directory at many operations of one
child: what others see at that moment is what a kill would leave.  Seen are: opening for writing,
mkdir, rmdir, unlink, rename, link, symlink and truncate, by Python's audit events, through
whichever function they are asked for; fsync; and each ``write`` that reaches the system, of which a
half is then made.  A file's buffer is 1 MiB here, so that a file is few writes, and fsync itself is
left out: a killed process loses nothing that it wrote.

What it cannot see: C libraries that write by themselves (LMDB, SQLite, ``ndarray.tofile``; but
``torch.save``, Pillow and ``numpy.savez`` write through our files and are seen), processes that
are started (their operations are neither counted nor troubled), and what a power cut does to
operations that were never synced.
"""

import errno
import gc
import io
import logging
import os
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple, NoReturn

CACHE = "the-cache"
LIMIT_SEC = 60
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TARGETS = {
    "os.mkdir": 0, "os.rmdir": 0, "os.remove": 0, "os.truncate": 0,
    "os.rename": 1, "os.link": 1, "os.symlink": 1,
}  # fmt: skip
"""Audit events of operations that change a disk, and which argument is the path they change."""
FREEING = ("os.remove", "os.rmdir", "os.truncate")
"""They need no room on a full disk."""


class Trouble(NamedTuple):
    """What happens at one operation; at -1 nothing, and operations are only counted."""

    at: int = -1
    errno: int = 0
    """Of the OSError; 0 is SIGKILL."""
    lasting: bool = False
    """All later operations fail too."""
    copies: Path | None = None
    """Where the directory is copied to, by the operation's number, instead of a kill."""
    every: int = 1
    """Of all operations but fsync, how many to a copy."""

    def __str__(self) -> str:
        kind = errno.errorcode[self.errno] if self.errno else "SIGKILL"
        return f"{kind} {'from' if self.lasting else 'at'} {self.at}"


class Ended(NamedTuple):
    """How a command ended; a negative code is the signal that killed it."""

    code: int
    stdout: str
    stderr: str
    operations: tuple[str, ...] = ()
    """What was about to be done to the disk, if it was watched."""

    def __str__(self) -> str:
        return f"exit {self.code}: {self.stderr.strip()[-300:]!r}"


def cli(*arguments: str, cwd: Path, trouble: Trouble | None = None) -> Ended:
    """Run the command line in a forked process of its own."""
    from sagan_bench.cli import main

    def run() -> None:
        sys.argv = ["cli.py", *arguments]
        main(arguments)

    return forked(run, cwd=cwd, trouble=trouble)


def forked(work: Callable[[], object], *, cwd: Path, trouble: Trouble | None = None) -> Ended:
    """Call a function in a forked process, in a folder whose cache is `CACHE`."""
    with TemporaryFile() as out, TemporaryFile() as err, TemporaryFile() as log:
        handles = [file.fileno() for file in (out, err, log)]
        pid = os.fork()
        if pid == 0:
            os._exit(_child(work, cwd, trouble, *handles))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = []
        for file in (out, err, log):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Ended(code, texts[0], texts[1], tuple(texts[2].splitlines()))


def _child(
    work: Callable[[], object], cwd: Path, trouble: Trouble | None, out: int, err: int, log: int
) -> int:
    """Do the work and return its exit code; nothing of pytest's may be left in its way."""
    code: Any = 99  # of this file, if it is to blame
    try:
        signal.alarm(LIMIT_SEC)  # a command that hangs ends with -14
        gc.disable()
        gc.collect = lambda generation=2: 0  # torch's million objects, each copied when touched
        for number, handle in ((1, out), (2, err)):
            os.dup2(handle, number)
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8", write_through=True)
            for number in (1, 2)
        )
        logging.getLogger().handlers.clear()
        warnings.simplefilter("ignore")
        os.chdir(cwd)
        os.environ.update(SAGAN_BENCH_CACHE=str(cwd / CACHE), PATH="")  # git is not asked
        if trouble:
            _Disk(cwd, trouble, log).watch()
        work()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:  # noqa: BLE001  # it must not go on as pytest
        traceback.print_exc()
    return code if isinstance(code, int) else 1


class _Disk:
    """The disk of this process from now on: each change below a folder meets its trouble."""

    def __init__(self, root: Path, trouble: Trouble, log: int) -> None:
        self.root, self.trouble, self.log = f"{root}{os.sep}", trouble, log
        self.count = self.changes = 0

    def watch(self) -> None:
        """Put this disk under Python's functions, for good."""
        import builtins

        sys.addaudithook(self._audited)
        self._open = io.open
        builtins.open = io.open = self._opened
        os.fsync = lambda handle: self.meet("fsync", None)  # type: ignore[assignment]
        os.fdatasync = os.fsync

    def is_ours(self, path: Any) -> bool:
        if isinstance(path, int):
            return path > 2
        return os.path.abspath(os.fsdecode(path)).startswith(self.root)

    def meets(self, operation: str, path: Any) -> bool:
        """Count an operation, and return whether there is trouble with it."""
        number, self.count = self.count, self.count + 1
        os.write(self.log, f"{operation} {path or ''}\n".encode())
        if self.trouble.errno == errno.ENOSPC and operation in FREEING:
            return False
        if self.trouble.copies:
            self.changes += operation != "fsync"  # a kill before it leaves what one after it does
            return operation != "fsync" and (self.changes - 1) % self.trouble.every == 0
        at = self.trouble.at
        return number == at or (self.trouble.lasting and number > at >= 0)

    def copy(self, folder: Path) -> None:
        shutil.copytree(self.root, folder / str(self.count - 1), symlinks=True)

    def strike(self, path: Any) -> NoReturn:
        if not self.trouble.errno:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self.trouble.errno, os.strerror(self.trouble.errno), path)

    def meet(self, operation: str, path: Any) -> None:
        if self.meets(operation, path):
            if self.trouble.copies:
                self.copy(self.trouble.copies)
            else:
                self.strike(path)

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & WRITING and self.is_ours(path):
                self.meet("open", path)
        elif event in TARGETS:
            path = arguments[TARGETS[event]]
            if self.is_ours(path) and not _is_vain(event, path, arguments[-1]):
                self.meet(event, path)

    def _opened(
        self, file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
        errors: str | None = None, newline: str | None = None, closefd: bool = True,
        opener: Any = None,
    ) -> Any:  # fmt: skip
        """Return what ``open`` does, of a file whose writes are watched."""
        if not set("wxa+") & set(mode) or not self.is_ours(file):
            return self._open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = _Raw(self, file, mode.translate({ord("b"): None, ord("t"): None}), closefd, opener)
        if buffering == 0:
            return raw
        kind = io.BufferedRandom if "+" in mode else io.BufferedWriter
        buffered = kind(raw, 2**20)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)


def _is_vain(event: str, path: Any, folder: Any) -> bool:
    """Return whether an operation will fail by itself: on what is there, or is not."""
    if isinstance(path, int) or folder != -1:  # a handle; or a name in an open folder (rmtree)
        return False
    return (
        os.path.lexists(path)
        if event == "os.mkdir"
        else (event in FREEING and not os.path.lexists(path))
    )


class _Raw(io.FileIO):
    """A file of which a write in trouble is made by half, as a disk does that fills up."""

    def __init__(self, disk: _Disk, file: Any, mode: str, closefd: bool, opener: Any) -> None:
        self.disk, self.is_cut = disk, False
        super().__init__(file, mode, closefd, opener)

    def write(self, data: Any, /) -> int:
        if self.is_cut:  # what came back was a short count, and the rest does not fit
            self.is_cut = False
            self.disk.strike(None)
        number = self.disk.count
        if not self.disk.meets("write", self.name):
            return super().write(data)
        copies = self.disk.trouble.copies
        if number > self.disk.trouble.at and not copies:
            self.disk.strike(None)
        whole = memoryview(data)
        written = super().write(whole[: len(whole) // 2])
        if copies:
            self.disk.copy(copies)
            return written + super().write(whole[written:])
        if not self.disk.trouble.errno:
            self.disk.strike(None)
        self.is_cut = True
        return written

    def truncate(self, size: int | None = None, /) -> int:
        self.disk.meet("os.truncate", self.name)
        return super().truncate(size)
