"""Components of one's own: a Python file that registers them as a module of the package does.

It is a file that somebody names, or a module of an installed package (`core.packages`).  A file is
run once for each content, under a module name of its own, so that its classes can be
named and its lines be told in errors.  What it registers is known in this process alone: each
process that makes runs loads it.
"""

import hashlib
import importlib
import json
import logging
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sagan_bench.core import packages, registry
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write
from sagan_bench.core.registry import UNREAD, Registry

_log = logging.getLogger(__name__)

MODULE = "sagan_bench_own_"
"""What the name of such a module begins with; the stem of its file follows."""
STEM = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,60}")
FOLDER = "own"
"""Of copies, in the folder of a run."""
KINDS: dict[str, Registry[Any]] = {
    name: kind for name, kind in vars(registry).items() if isinstance(kind, Registry)
}
"""The registries by the names under which a file imports them."""


@dataclass(frozen=True)
class Extension:
    """A file of components that is known here.

    Attributes:
        file: where it was read.
        content: that of the file.
        sha256: of its content.
        components: (name of the registry, name of the component), in the order registered.
        module: that it is, of an installed package; else empty.
    """

    file: Path
    content: bytes
    sha256: str
    components: tuple[tuple[str, str], ...]
    module: str = ""

    @property
    def name(self) -> str:
        """The stem of the file, or what its module is called."""
        return _name(self.file, self.module)

    @property
    def described(self) -> dict[str, Any]:
        """What a configuration keeps of it: the hash, and what must be known of its components."""
        facts = {f"{kind}/{name}": _facts(KINDS[kind][name]) for kind, name in self.components}
        own = {"module": self.module} if self.module else {}
        return {"sha256": self.sha256, "components": facts, **own}

    @property
    def only_follows(self) -> bool:
        """Whether it has nothing but trackers."""
        return all(kind == "TRACKERS" for kind, _ in self.components)


def _name(file: Path, module: str) -> str:
    return module.replace(".", "_") or file.stem


def _facts(component: Any) -> dict[str, Any]:
    """Return what a class says of itself in class variables, as far as JSON can hold it."""
    names = {
        name
        for base in component.__mro__
        for name, kind in vars(base).get("__annotations__", {}).items()
        if str(kind).startswith(("typing.ClassVar", "ClassVar"))
    }
    said = (name for name in sorted(names - {"name", "Settings"}) if hasattr(component, name))
    facts = {name: getattr(component, name) for name in said}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in facts.items()
            if _is_json(v)}  # fmt: skip


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def only_follows(described: Mapping[str, Any]) -> bool:
    """Return whether a file has nothing but trackers, by what a configuration keeps of it.

    No result depends on it: it enters no digest, and runs go on with another, or without.
    """
    return all(key.startswith("TRACKERS/") for key in described["components"])


_known: dict[str, Extension] = {}


def load(file: Path) -> Extension:
    """Run a file, and return what it registered; the same content again is not run again.

    Another content under the same name takes its place.

    Raises:
        UserError: it cannot be read or run, which line of it and why; or it registers nothing.
    """
    require_name(file)
    try:
        return load_content(file, file.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error


def load_content(file: Path, content: bytes, module: str = "") -> Extension:
    """Run what a file held, and return what it registered.  Raises as `load`."""
    sha256, stem = hashlib.sha256(content).hexdigest(), _name(file, module)
    earlier = _known.get(stem)
    if earlier and earlier.sha256 == sha256:
        return earlier
    forget(stem)
    with _undone_if_wrong(MODULE + stem) as before:
        _run(file, content, module)
        if not (components := _added(before)):
            raise UserError(
                f"{file} registers no component; decorate a class, e.g. "
                "@ATTENTION.register('my-block')"
            )
    _known[stem] = Extension(file, content, sha256, components, module)
    return _known[stem]


def load_installed() -> None:
    """Have the components of installed packages known.

    A package that cannot be imported is warned of, and told of where a name is not known.

    Raises:
        UserError: a package gives a component the name of another.
    """
    for module, package in packages.modules().items():
        if package in UNREAD or _name(Path(), module) in _known:
            continue
        try:
            import_module(module)
        except UserError as error:
            if isinstance(error.__cause__, UserError):
                raise UserError(f"the installed package {package}: {error}") from error
            UNREAD[package] = str(error)
            _log.warning("the installed package %s is left out: %s", package, error)


def import_module(module: str) -> None:
    """Import a module of a package; what is registered there is known by the file it stands in.

    Raises:
        UserError: it cannot be imported; or as `Registry.register`.
    """
    with _undone_if_wrong(module):
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # the package's own
            raise UserError(f"{module}: {_words(error)}") from error
    of_modules: dict[str, list[tuple[str, str]]] = {}
    for kind, name in ((kind, name) for kind, known in KINDS.items() for name in known.own):
        of_modules.setdefault(KINDS[kind][name].__module__, []).append((kind, name))
    package = module.partition(".")[0]
    for of, components in of_modules.items():
        if of.partition(".")[0] == package and _name(Path(), of) not in _known:
            file = Path(sys.modules[of].__file__ or "")
            content = file.read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            _known[_name(file, of)] = Extension(file, content, sha256, tuple(components), of)


def load_again(extension: Extension) -> None:
    """Have an extension known in another process than that in which it was loaded.

    Raises:
        UserError: it does not run there, and what does not `only_follow`.
    """
    if extension.module and extension.name not in _known:
        with suppress(UserError):  # its content is here too
            import_module(extension.module)
    try:
        load_content(extension.file, extension.content, extension.module)
    except UserError as error:
        if not extension.only_follows:
            raise
        _log.warning("%s; runs go on without its trackers", error)


@contextmanager
def _undone_if_wrong(module: str) -> Iterator[dict[str, set[str]]]:
    """Yield the names that are known before; what an error leaves behind is forgotten."""
    before = {name: set(kind.own) for name, kind in KINDS.items()}
    try:
        yield before
    except BaseException:
        sys.modules.pop(module, None)
        for kind, name in _added(before):
            KINDS[kind].forget(name)
        raise


def require_name(file: Path) -> None:
    """Raise `UserError` where a file is not called as a module is."""
    if file.suffix != ".py" or not STEM.fullmatch(file.stem):
        raise UserError(f"{file}: expected a Python file such as my_block.py")


def forget(name: str) -> None:
    """Know the components of a file no more; nothing if none was loaded under that stem."""
    if earlier := _known.pop(name, None):
        sys.modules.pop(earlier.module or MODULE + name, None)
        for kind, component in earlier.components:
            KINDS[kind].forget(component)


def that_has(kind: str, name: str) -> Extension | None:
    """Return the file that registered a component; None if none did."""
    having = (known for known in _known.values() if (kind, name) in known.components)
    return next(having, None)


def source_of(kind: str, name: str) -> str:
    """Return the SHA-256 of the file that registered a component; empty if none did."""
    extension = that_has(kind, name)
    return extension.sha256 if extension else ""


def recall(own: Any) -> None:
    """Have components known by what a configuration keeps of them, until their code is loaded.

    So records are read without running anybody's code; networks are not made of such components.
    """
    for described in own.values() if isinstance(own, dict) else ():
        components = described.get("components") if isinstance(described, dict) else None
        for key, facts in components.items() if isinstance(components, dict) else ():
            kind, _, name = key.partition("/")
            if kind in KINDS and isinstance(facts, dict):
                KINDS[kind].recall(name, facts)


def require(own: Mapping[str, Any], folder: Path | None = None) -> list[Extension]:
    """Return the files that a configuration was made with, run here from ``folder`` if need be.

    Args:
        own: name -> what the configuration keeps of a file.
        folder: of a run, with copies in `FOLDER`.

    Raises:
        UserError: a file is not here, or is another than then; one of trackers may be.
    """
    needed = []
    for name, described in own.items():
        if only_follows(described):
            needed += _following(name, folder)
            continue
        sha256 = described["sha256"]
        copy = folder / FOLDER / f"{name}.py" if folder else None
        module, how = described.get("module", ""), "add --with FILE"
        if module and name not in _known:
            how = "install its package"
            try:
                import_module(module)
            except UserError as error:
                how += f" ({error})"
        known = _known.get(name)
        if (known is None or known.sha256 != sha256) and copy and copy.is_file():
            content = copy.read_bytes()
            if hashlib.sha256(content).hexdigest() == sha256:
                known = load_content(copy, content, module)
        if known is None and copy and not module:
            is_it = "is another" if copy.is_file() else "is not there"
            raise UserError(
                f"what {name}.py registers is needed, and {copy} {is_it}; restore that of SHA-256 "
                f"{sha256[:12]}..., or add --with FILE where that is taken"
            )
        if known is None:
            needed_file = module or f"{name}.py"
            raise UserError(
                f"what {needed_file} registers is needed (SHA-256 {sha256[:12]}...): {how}"
            )
        if known.sha256 != sha256:
            raise UserError(
                f"{known.file} has SHA-256 {known.sha256[:12]}..., and the run began with "
                f"{sha256[:12]}...: another source is another run; restore it, or begin a new run"
            )
        needed.append(known)
    return needed


def _following(name: str, folder: Path | None) -> list[Extension]:
    """Return a file of trackers as it is here by now; none where it is not, which is logged."""
    copy = folder / FOLDER / f"{name}.py" if folder else None
    if name not in _known and copy and copy.is_file():
        try:
            return [load(copy)]
        except UserError as error:
            _log.warning("%s; runs go on without its trackers", error)
    return [_known[name]] if name in _known else []


def leave(needed: Iterable[Extension], folder: Path) -> None:
    """Leave copies of files in a run's folder, of trackers those of now."""
    for extension in needed:
        copy = folder / FOLDER / f"{extension.name}.py"
        copy.parent.mkdir(parents=True, exist_ok=True)
        if extension.only_follows or not copy.exists():
            atomic_write(copy, extension.content)


def _added(before: dict[str, set[str]]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (kind, name) for kind, known in KINDS.items() for name in known.own
        if name not in before[kind]
    )  # fmt: skip


def _run(file: Path, content: bytes, of: str) -> None:
    """Run the content of a file as a module, of a package maybe; errors name the line."""
    module = ModuleType(MODULE + _name(file, of))
    module.__file__, module.__package__ = str(file), of.rpartition(".")[0]
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


def told(error: BaseException) -> str:
    """Return an error in words, with the line of a user's file that it went through, if any."""
    words, file = f"{type(error).__name__}: {error}", file_of(error)
    return f"{where(error, file)}: {words}" if file else words


def file_of(error: BaseException) -> Path | None:
    """Return the user's file that an error went through; None if it went through none."""
    passed = {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
    known = (extension.file for extension in _known.values())
    return next((file for file in known if str(file) in passed), None)


def _words(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {said}"
