"""The verb ``evaluate``: score a finished run again, or those of a study."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_bench.cli.compare import place
from sagan_bench.cli.console import say
from sagan_bench.cli.options import (
    Device,
    Json,
    RunOrStudy,
    Runs,
    command,
    pick,
    several_seeds,
)
from sagan_bench.cli.signals import SOME_FAILED, stopping
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import EXTRACTORS

if TYPE_CHECKING:
    from sagan_bench.config.schema import RunConfig, Weights
    from sagan_bench.session.events import Watch

Seeds = Annotated[Any | None, several_seeds("--seeds", "Sampling seeds, e.g. 0-2 or 0,5")]
Wanted = Callable[["RunConfig"], "RunConfig"]
"""From a run's own configuration to that with the evaluation that is asked for."""


def evaluate(
    what: RunOrStudy,
    n_fake: Annotated[int | None, typer.Option(help="Generated images")] = None,
    data: Annotated[str | None, typer.Option(help="Where the same images are now")] = None,
    extractor: Annotated[str | None, typer.Option(help=", ".join(EXTRACTORS))] = None,
    inception_weights: Annotated[str | None, typer.Option(help="Inception's weights")] = None,
    split: Annotated[str | None, typer.Option(help="Real images: train, test")] = None,
    seeds: Seeds = None,
    weights: Annotated[
        str | None, typer.Option(help="ema, raw or ema,raw \\[default: those scored before]")
    ] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="evaluation.key=value")] = None,
    device: Device = "auto",
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Score a finished run again, and add the scores to its record.

    Of a study or a folder of runs, each that lacks them; verdicts rest on the scores of before.
    """
    from sagan_bench.runs.records import RECORD

    path = place(what, runs)
    flags = {
        "evaluation.n_fake": ("--n-fake", n_fake),
        "data.source": ("--data", data),
        "run.device": ("--device", device),
        "evaluation.extractor": ("--extractor", extractor),
        "evaluation.split": ("--split", split),
        "evaluation.sampling_seeds": ("--seeds", seeds),
        "run.inception_weights": ("--inception-weights", inception_weights),
    }
    wanted = partial(_rescored, flags=flags, sets=sets or ())
    kinds = _kinds_in(weights) if weights is not None else ()
    (_run if (path / RECORD).exists() else _runs)(path, wanted, kinds, as_json)


def _kinds_in(text: str) -> "tuple[Weights, ...]":
    from sagan_bench.config.schema import WEIGHTS

    return tuple(pick("--weights", word.strip(), WEIGHTS) for word in text.split(","))


def _run(path: Path, wanted: Wanted, weights: "Sequence[Weights]", as_json: bool) -> None:
    """Score a run, whether it has such scores or not."""
    from sagan_bench.cli.progress import View
    from sagan_bench.cli.record import print_record
    from sagan_bench.runs import records
    from sagan_bench.runs.run import Run
    from sagan_bench.session import experiment

    config = wanted(Run(path, records.read(path)).config)
    with stopping() as stop, View() as view:
        record = experiment.evaluate(path, config, weights=weights, watch=view.watch, stop=stop)
    if as_json:
        print(record.to_json().decode(), end="")
    else:
        print_record(record, path)


def _runs(folder: Path, wanted: Wanted, weights: "Sequence[Weights]", as_json: bool) -> None:
    """Score the runs of a folder that lack such scores; end with 3 if one cannot be."""
    from sagan_bench.cli.progress import View
    from sagan_bench.experiments import rescoring

    with stopping() as stop, View() as view:

        def follow(path: Path, number: int, count: int) -> "Watch":
            say(f"{number}/{count} {path.name}", error=True)
            view.phase_began.clear()  # what is left is left of this run
            return view.watch

        result = rescoring.evaluate(folder, wanted, follow, stop, weights)
    failed = {str(path): why for path, why in result.failed.items()}
    if as_json:
        scored = [str(path) for path in result.scored]
        said = {"finished": result.finished, "scored": scored, "failed": failed}
        print(json.dumps(said, indent=2))
    else:
        rest = "" if failed else "; the others had these scores"
        say(f"scored:  {len(result.scored)} of {result.finished} finished runs{rest}")
        say(f"next:    {command('report', folder)}")
    for path, why in failed.items():
        say(f"failed: {path}: {why}", error=True)
    if failed:
        raise typer.Exit(SOME_FAILED)


def _rescored(
    stored: "RunConfig", flags: Mapping[str, tuple[str, Any]], sets: Sequence[str]
) -> "RunConfig":
    """Return a run's own configuration with another evaluation.

    Raises:
        UserError: a value out of range, or a key outside the section ``evaluation``.
    """
    from sagan_bench.config.layers import Resolved, decide, override, parse_set
    from sagan_bench.session.capabilities import capabilities

    changed = {key: value for key, value in flags.items() if value[1] is not None}
    for text in sets:
        key, value = parse_set(text)
        if not key.startswith("evaluation."):
            raise UserError(f"--set {text}: only evaluation.* can change for a trained run")
        changed[key] = ("--set", value)
    config = override(stored, changed)
    return decide(Resolved(config, {}), capabilities(config)).config
