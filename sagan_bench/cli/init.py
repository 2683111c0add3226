"""The verb ``init``: a file of one's own to begin with, which passes ``check`` as it is."""

from pathlib import Path
from typing import Annotated

import typer

from sagan_bench.cli.check import PREFIXES
from sagan_bench.cli.console import say
from sagan_bench.cli.options import command, either
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest

FOLDER = Path(__file__).parent / "templates"
TEMPLATES = {"block": "attention", "family": "family", "loss": "loss", "metric": "metric"}
TEMPLATES |= {"extractor": "extractor", "source": "source", "tracker": "tracker"}
"""What can be begun -> the kind of component that it is."""


def init(
    what: Annotated[str, typer.Argument(help=either(TEMPLATES))],
    file: Annotated[Path, typer.Argument(help="The file to write, e.g. my_block.py")],
) -> None:
    """Write a commented file with a component of your own, which passes check as it is."""
    if what not in TEMPLATES:
        raise UserError(f"init {what}: {closest(what, list(TEMPLATES))}")
    extensions.require_name(file)
    kind = extensions.KINDS[PREFIXES[TEMPLATES[what]]]
    name = file.stem.lower().replace("_", kind.separator)
    if name in kind:
        raise UserError(f"{kind.what} {name!r} is there already; give the file another name")
    text = (FOLDER / f"{what}.py").read_text(encoding="utf-8")
    placeholder = f"my{kind.separator}{what}"
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(text.replace(placeholder, name))
    except FileExistsError:
        raise UserError(f"{file} is there already; give another name, or remove it") from None
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}; choose another place") from error
    say(f"{file}")
    say(f"next: {command('check', file)}")
