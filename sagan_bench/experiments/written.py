"""What users write to ask for an experiment: files of studies and spaces."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sagan_bench.config.options import settings_in
from sagan_bench.config.wording import in_words
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.stored import table_of

M = TypeVar("M", bound=BaseModel)


def file_of(what: str, name: str, known: Mapping[str, Path]) -> Path:
    """Return the file of a shipped study or space, or the one at a path.

    Raises:
        UserError: there is neither; with the closest name.
    """
    file = known.get(name) or Path(name)
    if name not in known and not file.is_file():
        hint = closest(name, list(known), "give a TOML file")
        raise UserError(f"no {what} is called '{name}'; {hint}")
    return file


def flattened(written: dict[str, Any], file: Path, settings: str) -> dict[str, Any]:
    """Return what a file says with its tables of settings as dotted keys: its own, and of data.

    Raises:
        UserError: one of them is no table.
    """
    own = settings_in(table_of(written.get(settings, {}), f"{file}: {settings}"))
    measures = {}
    for kind, value in table_of(written.get("on", {}), f"{file}: on").items():
        measure = table_of(value, f"{file}: on.{kind}")
        with_it = table_of(measure.get("set", {}), f"{file}: on.{kind}.set")
        measures[kind] = {**measure, "set": settings_in(with_it)}
    return {**written, settings: own} | ({"on": measures} if "on" in written else {})


def validated(kind: type[M], file: Path, fields: Mapping[str, Any]) -> M:
    """Return what a file defines.  Raises `UserError` that names the file and each bad field."""
    try:
        return kind.model_validate(fields)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except OverflowError as error:
        raise UserError(f"{file}: a number beyond all bounds") from error
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, problem['loc'])) or f'the {kind.__name__.lower()}'}: "
            + in_words(problem)
            for problem in error.errors()
        ]
        raise UserError(f"{file}: " + "\n".join(lines)) from error
