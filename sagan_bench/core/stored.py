"""Files as a disk gives them back: a value, or one `UserError` with the file's name.

Cut, empty, in another encoding, of another shape, nested without end: none of it is an internal
error, and none of it takes all memory.  What this package stores as a JSON object carries a seal,
so that a change that fits the shape is seen too.
"""

import hashlib
import json
import stat
import tomllib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError

from sagan_bench.core.errors import UserError
from sagan_bench.core.files import json_bytes
from sagan_bench.core.registry import Unknown

SEAL = "sha256"
"""Key of a JSON object: the SHA-256 of the rest, as JSON with sorted keys and without spaces."""
MOST_BYTES = 256 * 2**20
"""Of a file of JSON or TOML; a report of 1,000 runs has 3 MiB."""
MOST_DEPTH = 64
MOST_DIGITS = 40
"""Of a whole number: enough for any that was ever accepted, and a float can hold it."""
_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")
UNFIT = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""What code meets that takes a value for what it is not; `ValidationError` is a ValueError."""

T = TypeVar("T")


def damaged(file: Path, detail: str) -> UserError:
    """Return the error that says that a file cannot be used."""
    return UserError(
        f"damaged {file.name} ({detail}); {file}; restore it from a copy, or move its folder away "
        "and give the same command again"
    )


def sealed(value: Mapping[str, Any]) -> bytes:
    """Return an object as indented JSON with its seal.  Raises ValueError for a NaN or infinity."""
    return json_bytes({SEAL: seal(value), **value})


def seal(value: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an object, whatever its order and its spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _unsealed(value: Any) -> Any:
    """Return a value without its seal, if it has one.  Raises ValueError if that is broken."""
    if not isinstance(value, dict) or SEAL not in value:
        return value
    stored = value.pop(SEAL)
    try:
        whole = seal(value) == stored
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not whole:
        raise ValueError("it is not what was written: its sha256 is another")
    return value


def json_value(file: Path, *, of_any_depth: bool = False, with_nan: bool = False) -> Any:
    """Return what a file of JSON holds, without its seal.

    Args:
        file: its path.
        of_any_depth: whoever takes the value looks at how deeply it is nested.
        with_nan: take NaN and Infinity, which other programs write, for numbers.

    Raises:
        FileNotFoundError: There is none.
        UserError: It cannot be read, is not JSON, or not what was written.
    """
    try:
        value = parsed(_content(file), with_nan=with_nan)
        return _unsealed(value if of_any_depth else _not_deep(value))
    except ValueError as error:
        raise damaged(file, str(error)) from error


def json_object(
    file: Path, *, of_any_depth: bool = False, with_nan: bool = False
) -> dict[str, Any]:
    """Return the JSON object in a file.  Raises as `json_value`, and if it is something else."""
    value = json_value(file, of_any_depth=of_any_depth, with_nan=with_nan)
    if not isinstance(value, dict):
        raise damaged(file, "not a JSON object")
    return value


def parsed(content: bytes, *, with_nan: bool = False) -> Any:
    """Return the value of JSON.  Raises ValueError, for whatever reason it is none."""
    whole = _short_int if _has_long_number(content) else None  # a hook that costs time
    constant = float if with_nan else _refuse_constant
    try:
        return json.loads(content, parse_int=whole, parse_constant=constant)
    except (RecursionError, MemoryError):
        raise ValueError("nested too deeply") from None


def load_text(file: Path) -> str:
    """Return the text of a file, without a byte-order mark.

    Raises:
        UserError: there is none, it cannot be read, or is not UTF-8.
    """
    try:
        return _text(_content(file, piped=True))
    except FileNotFoundError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"cannot read {file}: {error}") from error


def load_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file.  Raises `UserError` that names the file and the line."""
    try:
        return parsed_toml(_text(_content(file, piped=True)))
    except FileNotFoundError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; check the path") from error
    except ValueError as error:
        raise UserError(f"{file} is not valid TOML: {error}") from error


def parsed_toml(text: str) -> dict[str, Any]:
    """Return the table of TOML.  Raises ValueError, for whatever reason it is none."""
    if _has_long_number(text.encode(errors="replace")):
        raise ValueError(f"a number of more than {MOST_DIGITS} digits")
    try:
        table = tomllib.loads(text)
    except (RecursionError, MemoryError):
        raise ValueError("nested too deeply") from None
    _not_deep(table)
    return table


def fitting(make: Callable[[], T], file: Path) -> T:
    """Return what ``make`` makes of a file's content.

    Raises:
        UserError: The content is not what it takes it for; which file, and the first trouble.
    """
    try:
        return make()
    except UserError as error:  # of a value that a user could have given, too
        raise damaged(file, str(error)) from error
    except UNFIT as error:
        if missing := _unknown_component(error):
            raise UserError(
                f"{file}: {missing}; what it was made with is not here: put its file back into "
                "its package (docs/architecture.md)"
            ) from error
        raise damaged(file, first_trouble(error)) from error


def _unknown_component(error: Exception) -> Unknown | None:
    """Return the error of a name that no component has here, if that is the first trouble."""
    if isinstance(error, ValidationError):
        cause = error.errors(include_url=False)[0].get("ctx", {}).get("error")
        return cause if isinstance(cause, Unknown) else None
    return error if isinstance(error, Unknown) else None


def first_trouble(error: Exception) -> str:
    """Return in a line what does not fit: the place of a value and what is wrong with it."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"][:12]))
        return f"{where}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    text = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {text}"


def table_of(value: Any, where: str) -> Mapping[str, Any]:
    """Return a value that is a table.  Raises `UserError` that says where none is."""
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected a table, found {shortened(value)}")
    return value


def shortened(value: Any, most: int = 80) -> str:
    """Return a value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _content(file: Path, *, piped: bool = False) -> bytes:
    try:
        refuse_special(file, piped=piped)
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        _refuse(file, error.strerror or type(error).__name__)
    if len(content) > MOST_BYTES:
        _refuse(file, f"it has more than {MOST_BYTES >> 20} MiB")
    return content


def refuse_special(file: Path, *, piped: bool = False) -> None:
    """Refuse a folder or a device before it is opened, which might wait; a pipe too by default.

    Raises:
        FileNotFoundError: There is none.
        UserError: It is one.
    """
    mode = file.stat().st_mode
    if not (stat.S_ISREG(mode) or (piped and stat.S_ISFIFO(mode))):
        _refuse(file, "it is a folder or a device")


def _refuse(file: Path, why: str) -> NoReturn:
    raise UserError(f"cannot read {file}: {why}; check the path and its permissions")


def _text(content: bytes) -> str:
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise ValueError("it is in UTF-16; save it as UTF-8")
    try:
        return content.removeprefix(BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8; save it as UTF-8") from error


def _has_long_number(content: bytes) -> bool:
    return b"0" * (MOST_DIGITS + 1) in content.translate(_AS_ZERO)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _short_int(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _not_deep(value: Any) -> Any:
    """Return the value.  Raises ValueError if it is nested deeper than code may recurse."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_DEPTH):
        if not level:
            return value
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
    raise ValueError(f"nested more than {MOST_DEPTH} deep")
