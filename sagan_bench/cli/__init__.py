"""The command line: parse, call one function, print one path.  Nothing heavy is imported early."""

import io
import logging
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, NoReturn

import typer

from sagan_bench import __version__
from sagan_bench.cli import data, tune
from sagan_bench.cli.ablate import ablate
from sagan_bench.cli.check import check
from sagan_bench.cli.compare import compare
from sagan_bench.cli.console import ShownFormatter, shown, tolerant
from sagan_bench.cli.doctor import doctor
from sagan_bench.cli.evaluate import evaluate
from sagan_bench.cli.export import export
from sagan_bench.cli.init import init
from sagan_bench.cli.list import list_
from sagan_bench.cli.options import Verb
from sagan_bench.cli.probe import probe
from sagan_bench.cli.prune import prune
from sagan_bench.cli.report import report
from sagan_bench.cli.sample import sample
from sagan_bench.cli.score import score
from sagan_bench.cli.show import show
from sagan_bench.cli.signals import INTERNAL, SOME_FAILED, USAGE
from sagan_bench.cli.train import train
from sagan_bench.cli.verify import verify
from sagan_bench.core import cpu, extensions
from sagan_bench.core.errors import UserError, machine_cause, machine_error

__all__ = ["INTERNAL", "SOME_FAILED", "USAGE", "app", "main"]

app = typer.Typer(
    name="sagan-bench",
    help="Does self-attention help this GAN, where, and how sure are we?",
    epilog="Begin with: python cli.py train --variant sagan",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for verb in (
    train, evaluate, score, ablate, compare, report, probe, sample, export, prune, show, init,
    check, verify, doctor,
):  # fmt: skip
    app.command(cls=Verb)(verb)
app.command("list", cls=Verb)(list_)
app.add_typer(tune.app, name="tune")
app.add_typer(data.app, name="data")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    0 ok, 1 internal, 2 usage or machine, 3 failed runs, 130 and 143 by signals.
    """
    words = sys.argv[1:] if arguments is None else [*arguments]
    debug = "--debug" in words
    _open_streams()
    cpu.wait_briefly()
    try:
        _refuse_empty(words)
        try:
            app(words)
        finally:
            sys.stdout.flush()
    except OSError as error:
        if debug:
            raise
        _say_error(f"error: {machine_error(error)}")
        sys.exit(USAGE)
    except UserError as error:
        _say_error(f"error: {error}")
        sys.exit(USAGE)
    except Exception as error:
        if debug:
            raise
        if cause := machine_cause(error):
            _say_error(f"error: {machine_error(cause)}")
            sys.exit(USAGE)
        if extensions.file_of(error):
            _say_error(f"error: {extensions.told(error)}")
            sys.exit(USAGE)
        _say_error(f"internal error: {type(error).__name__}: {error}")
        print("add --debug directly after cli.py for the traceback", file=sys.stderr)
        sys.exit(INTERNAL)
    sys.exit(0)


def _refuse_empty(words: Sequence[str]) -> None:
    """Refuse what a shell makes of a variable that is not set.  Raises `UserError`."""
    for before, word in pairwise(["the program's name", *words]):
        option, equals, value = word.partition("=")
        if not word.strip() or (word.startswith("--") and equals and not value.strip()):
            raise UserError(
                f"nothing but an empty word stands after {option.strip() or before}; "
                "was a variable not set?"
            )


def _say_error(text: str) -> None:
    print(shown(text, lines=True), file=sys.stderr)


def _open_streams() -> None:
    """Let everything be printed, whatever the streams are: closed, or without our characters."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, as by cron
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # for as long as we run
            continue
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="backslashreplace")
        if stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, tolerant(stream))


def _print_version(requested: bool) -> None:
    if requested:
        print(f"sagan-bench {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Does self-attention help this GAN, where, and how sure are we?"""
    level = logging.INFO if debug else logging.WARNING
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ShownFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
