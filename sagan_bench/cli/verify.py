"""The verb ``verify``: whether what a report says follows from the values in it."""

from pathlib import Path
from typing import Annotated

import typer

from sagan_bench.cli.console import say
from sagan_bench.cli.signals import USAGE


def verify(
    file: Annotated[Path, typer.Argument(help="report.json, in the folder data of a report")],
) -> None:
    """Make every comparison of a report again from its values, and name what does not follow."""
    from sagan_bench.report.formats import plural
    from sagan_bench.report.verification import verified

    count, differing = verified(file)
    for text in differing:
        say(text)
    if differing:
        raise typer.Exit(USAGE)
    say(f"{plural(count, 'comparison')} made again: all that is said follows from the values")
