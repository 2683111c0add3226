"""Components of one's own: a Python file that registers them as a module of the package does.

A file is run once for each content, under a module name of its own, so that its classes can be
named and its lines be told in errors.  What it registers is known in this process alone: each
process that makes runs loads it.
"""

import hashlib
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from sagan_bench.core import registry
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import Registry

MODULE = "sagan_bench_own_"
"""What the name of such a module begins with; the stem of its file follows."""
STEM = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,60}")
KINDS: dict[str, Registry[object]] = {
    name: kind for name, kind in vars(registry).items() if isinstance(kind, Registry)
}
"""The registries by the names under which a file imports them."""


@dataclass(frozen=True)
class Extension:
    """A file of components that is known here.

    Attributes:
        file: where it was read.
        sha256: of its content.
        components: (name of the registry, name of the component), in the order registered.
    """

    file: Path
    sha256: str
    components: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The stem of the file."""
        return self.file.stem


_known: dict[str, Extension] = {}


def load(file: Path) -> Extension:
    """Run a file, and return what it registered; the same content again is not run again.

    Another content under the same name takes its place.

    Raises:
        UserError: it cannot be read or run, which line of it and why; or it registers nothing.
    """
    require_name(file)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    earlier = _known.get(file.stem)
    if earlier and earlier.sha256 == sha256:
        return earlier
    forget(file.stem)
    before = {name: set(kind.own) for name, kind in KINDS.items()}
    try:
        _run(file, content)
        if not (components := _added(before)):
            raise UserError(
                f"{file} registers no component; decorate a class, e.g. "
                "@ATTENTION.register('my-block')"
            )
    except BaseException:
        _forget(file.stem, _added(before))
        raise
    _known[file.stem] = Extension(file, sha256, components)
    return _known[file.stem]


def require_name(file: Path) -> None:
    """Raise `UserError` where a file is not called as a module is."""
    if file.suffix != ".py" or not STEM.fullmatch(file.stem):
        raise UserError(f"{file}: expected a Python file such as my_block.py")


def forget(name: str) -> None:
    """Know the components of a file no more; nothing if none was loaded under that stem."""
    if earlier := _known.pop(name, None):
        _forget(name, earlier.components)


def _added(before: dict[str, set[str]]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (kind, name) for kind, known in KINDS.items() for name in known.own
        if name not in before[kind]
    )  # fmt: skip


def _forget(stem: str, components: tuple[tuple[str, str], ...]) -> None:
    sys.modules.pop(MODULE + stem, None)
    for kind, name in components:
        KINDS[kind].forget(name)


def _run(file: Path, content: bytes) -> None:
    """Run the content of a file as a module; its errors are told with their line."""
    module = ModuleType(MODULE + file.stem)
    module.__file__ = str(file)
    sys.modules[module.__name__] = module
    try:
        exec(compile(content, str(file), "exec"), vars(module))  # the user's own
    except (Exception, SystemExit) as error:
        raise UserError(f"{where(error, file)}: {_words(error)}") from error


def where(error: BaseException, file: Path) -> str:
    """Return the file, and the last of its lines that an error went through."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{file}, line {error.lineno}"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(file)
    ]  # fmt: skip
    return f"{file}, line {lines[-1]}" if lines else str(file)


def _words(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {said}"
