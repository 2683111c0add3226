"""What there is of each kind of component, by name: one class a file, read when first asked for.

A component is a class in a module of its kind's package, registered there under its name::

    @LOSSES.register("hinge")
    class Hinge(Loss): ...

Its module is called as it is, with ``_`` for ``-``, so that the names are known without reading
any (`--help` and the check of a name need no torch).  Modules that begin with ``_`` hold what
components of a kind share.  So one file in the package of its kind adds a component, and every
process that makes runs knows it.
"""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest

ROOT = Path(__file__).parents[1]
NAME = re.compile(r"[a-z][a-z0-9_-]*")

UNREAD: dict[str, str] = {}
"""Installed packages whose components are not known -> why."""

T = TypeVar("T")
C = TypeVar("C")


def unread() -> str:
    """Return what a hint on an unknown name ends in where packages could not be imported."""
    return "".join(
        f"; the package {name} could not be imported: {why}" for name, why in UNREAD.items()
    )


class Unknown(ValueError):
    """A name that no component has here; the message names the closest."""


class Recalled:
    """A component of which only the facts are known, because its code is not loaded."""

    name: str
    what: str
    Settings = None

    def __new__(cls, *_: Any, **__: Any) -> "Recalled":
        """Make none: there is no code of it."""
        raise UserError(
            f"the code of the {cls.what} {cls.name!r} is not loaded: add --with FILE, or install "
            "its package"
        )

    def __init_subclass__(cls) -> None:
        """Ask nothing of facts: its own class was asked."""

    @classmethod
    def check(cls, *_: Any) -> None:
        """Accept whatever its own class accepted."""

    @classmethod
    def alike(cls, options: Any) -> None:
        """Return None: what it takes is not looked at."""


class Registry(Mapping[str, type[T]], Generic[T]):
    """The components of one kind by name, those of the package in alphabetical order first.

    Args:
        what: a component of the kind in words, e.g. ``loss``.
        package: whose modules are the shipped components, below ``sagan_bench``.
        separator: of the words of a name, ``_`` in that of a module.
        base: the class in the package's ``_base`` that says what is true of a component whose
            class says nothing, where that is read without torch.
    """

    def __init__(self, what: str, package: str, separator: str = "-", base: str = "") -> None:
        self.what, self.base = what, base
        self.package, self.separator = package, separator
        folder = ROOT.joinpath(*package.split("."))
        names = (path.stem for path in folder.glob("[!_]*.py"))
        self._modules = {name.replace("_", separator): name for name in sorted(names)}
        self._known: dict[str, type[T]] = {}
        self._recalled: dict[str, dict[str, Any]] = {}

    def register(self, name: str) -> Callable[[type[C]], type[C]]:
        """Return the decorator that makes a class known under ``name``.

        Raises:
            UserError: another class has that name, or it is no name.
        """
        if not NAME.fullmatch(name):
            raise UserError(f"{self.what} {name!r}: a name is of small letters, digits, - and _")

        def known(component: type[Any]) -> type[Any]:
            there = self._known.get(name, component)
            own = f"sagan_bench.{self.package}.{self._modules.get(name)}"
            same = (there.__module__, there.__qualname__) == (
                component.__module__,
                component.__qualname__,
            )
            if not same or (name in self._modules and component.__module__ != own):
                raise UserError(
                    f"there is a {self.what} {name!r} already; choose another name in "
                    f"{component.__module__}"
                )
            component.name = name
            self._known[name] = component
            return component

        return known

    @property
    def own(self) -> list[str]:
        """The names that no module of the package has."""
        return [name for name in self._known if name not in self._modules]

    @property
    def not_shipped(self) -> list[str]:
        """Likewise, with those that are known by their facts alone."""
        return [name for name in self if name not in self._modules]

    def forget(self, name: str) -> None:
        """Know a component no more that no module of the package is."""
        if name not in self._modules:
            self._known.pop(name, None)
            self._recalled.pop(name, None)

    def recall(self, name: str, facts: Mapping[str, Any]) -> None:
        """Have a component known by its facts alone, until its class is registered."""
        if NAME.fullmatch(name) and name not in self._modules:
            said = {key: value for key, value in facts.items() if not key.startswith("_")}
            self._recalled[name] = {**said, "name": name, "what": self.what}

    def check(self, name: str) -> str:
        """Return ``name`` if a component is called so, without reading its module.

        Raises:
            ValueError: there is none; the message names the closest.
        """
        if name not in self:
            hint = closest(name, list(self)) + unread()
            raise Unknown(f"no {self.what} is called {name[:80]!r}; {hint}")
        return name

    def __getitem__(self, name: str) -> type[T]:
        """Return the class of that name.  Raises `UserError` if there is none."""
        try:
            self.check(name)
        except ValueError as error:
            raise UserError(str(error)) from None
        if name not in self._known and name in self._recalled:
            return type("Recalled", (Recalled, *self._bases()), self._recalled[name])
        if name not in self._known:
            module = f"sagan_bench.{self.package}.{self._modules[name]}"
            importlib.import_module(module)
            if name not in self._known:
                raise UserError(f"{module} registers no {self.what} {name!r}; call it as its file")
        return self._known[name]

    def _bases(self) -> tuple[type[Any], ...]:
        if not self.base:
            return ()
        return (getattr(importlib.import_module(f"sagan_bench.{self.package}._base"), self.base),)

    def __contains__(self, name: object) -> bool:
        return name in self._modules or name in self._known or name in self._recalled

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._modules, *self._known, *self._recalled]))

    def __len__(self) -> int:
        return len(list(iter(self)))


ATTENTION: Registry[Any] = Registry("attention kind", "models.attention", base="Attention")
FAMILIES: Registry[Any] = Registry("architecture", "models.families")
LOSSES: Registry[Any] = Registry("loss", "training.losses", base="Loss")
METRICS: Registry[Any] = Registry("metric", "evaluation.metrics", separator="_", base="Metric")
EXTRACTORS: Registry[Any] = Registry("extractor", "evaluation.extractors", base="Extractor")
SOURCES: Registry[Any] = Registry("kind of data", "data.sources", base="Source")
SAMPLERS: Registry[Any] = Registry("sampler", "experiments.tuning.samplers")
ENGINES: Registry[Any] = Registry("engine", "execution.engines")
TRACKERS: Registry[Any] = Registry("tracker", "session.trackers", base="Tracker")
SECTIONS: Registry[Any] = Registry("report section", "report.sections")
