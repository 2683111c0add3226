"""How an engine is set up: a table of ``engines.toml``, and what is typed over it."""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from platformdirs import user_config_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sagan_bench.config.wording import in_words
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.registry import ENGINES
from sagan_bench.core.stored import load_toml, table_of
from sagan_bench.execution import engines

FILE = "engines.toml"
KIND = "kind"


class EngineSettings(BaseModel):
    """What a profile may say of an engine that makes runs elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    jobs: int | None = Field(None, ge=1, description="runs at a time; none leaves it to the queue")

    @property
    def threads(self) -> int:
        """CPU threads of a run."""
        raise NotImplementedError

    def refuse_steps_of(self, seconds: float) -> None:
        """Refuse what does not do for runs whose steps have taken so long.  Raises `UserError`."""

    def preview(self, folder: Path, runs: int) -> str:
        """Return what would be handed over for so many runs of the experiment in a folder."""
        raise NotImplementedError


class Profile(NamedTuple):
    """An engine, and how it is set up."""

    kind: str
    settings: EngineSettings | None = None
    """None: it makes runs on this machine."""


def chosen(name: str, file: Path | None = None, typed: Mapping[str, Any] | None = None) -> Profile:
    """Return a profile of ``engines.toml``, or an engine by its own name.

    Args:
        name: of either; a profile comes first.
        file: instead of ``./engines.toml``, and that in the user's folder of settings.
        typed: settings in place of those of the profile; tables are laid over its tables.

    Raises:
        UserError: there is neither, with the closest; or something in it cannot be.
    """
    source, tables = _tables(file)
    if name not in tables and name not in ENGINES:
        raise UserError(f"--engine {name}: {closest(name, [*tables, *ENGINES])}")
    where = f"{source} [{name}]" if name in tables else f"--engine {name}"
    table = dict(table_of(tables.get(name, {KIND: name}), where))
    kind = table.pop(KIND, None)
    if not isinstance(kind, str) or kind not in ENGINES:
        hint = closest(str(kind), list(ENGINES))
        raise UserError(f"{where}: kind is {kind!r}; {hint}" if kind else f"{where}: kind? {hint}")
    if name in ENGINES and kind != name:
        raise UserError(f"{where}: {name} is an engine; choose another name for the profile")
    settings = _settings_of(kind)
    for key, over in (typed or {}).items():
        if settings is None or key not in settings.model_fields:
            what = f"options of {key} are" if isinstance(over, Mapping) else f"{key} is"
            raise UserError(f"{where}: {what} not for an engine of kind {kind}")
        is_table = isinstance(over, Mapping)
        table[key] = (
            {**table_of(table.get(key, {}), f"{where} {key}"), **over} if is_table else over
        )
    if settings is not None:
        return Profile(kind, _validated(settings, table, where))
    if table:
        raise UserError(f"{where}: an engine of kind {kind} has no settings; leave the profile out")
    return Profile(kind)


def elsewhere() -> list[str]:
    """Return the engines that make runs on other machines, which whoever comes may `stop`."""
    return [kind for kind in ENGINES if _settings_of(kind)]


def _settings_of(kind: str) -> type[EngineSettings] | None:
    """Return the class of an engine's settings, without reading the engine; None if it has none."""
    package = f"{engines.__name__}._{kind.replace('-', '_')}"
    if importlib.util.find_spec(package) is None:
        return None
    settings: type[EngineSettings] = importlib.import_module(f"{package}.settings").Settings
    return settings


def _tables(file: Path | None) -> tuple[Path, dict[str, Any]]:
    """Return the first file of profiles that is there, and what is in it."""
    places = [file] if file else [Path(FILE), user_config_path("sagan-bench") / FILE]
    there = next((place for place in places if file or place.is_file()), None)
    return (there, load_toml(there)) if there else (Path(FILE), {})


def _validated(kind: type[EngineSettings], table: Mapping[str, Any], where: str) -> EngineSettings:
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        lines = [f"{where}: {_problem(problem, kind)}" for problem in error.errors()]
        raise UserError("\n".join(lines)) from error


def _problem(problem: Mapping[str, Any], kind: type[EngineSettings]) -> str:
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{name}: {closest(name, [KIND, *kind.model_fields])}"
    return f"{name}: {in_words(problem)}" if name else in_words(problem)
