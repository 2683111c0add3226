"""The verb ``evaluate``: score a finished run again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sagan_bench.cli.options import Device, Json, RunName, Runs
from sagan_bench.cli.places import find_run
from sagan_bench.cli.signals import stopping
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import EXTRACTORS

if TYPE_CHECKING:
    from sagan_bench.config.schema import RunConfig


def evaluate(
    run: RunName,
    n_fake: Annotated[int | None, typer.Option(help="Generated images")] = None,
    data: Annotated[str | None, typer.Option(help="Where the same images are now")] = None,
    extractor: Annotated[str | None, typer.Option(help=", ".join(EXTRACTORS))] = None,
    inception_weights: Annotated[str | None, typer.Option(help="Inception's weights")] = None,
    split: Annotated[str | None, typer.Option(help="Real images: train, test")] = None,
    seeds: Annotated[str | None, typer.Option(help="Sampling seeds, e.g. 0-2 or 0,5")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="evaluation.key=value")] = None,
    device: Device = "auto",
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Score a finished run again, and add the scores to its record."""
    from sagan_bench.cli.progress import View
    from sagan_bench.cli.record import print_record
    from sagan_bench.experiments.written import parse_seeds
    from sagan_bench.runs import records
    from sagan_bench.runs.run import Run
    from sagan_bench.session import experiment

    path = find_run(run, runs)
    flags = {
        "evaluation.n_fake": ("--n-fake", n_fake),
        "data.source": ("--data", data),
        "run.device": ("--device", device),
        "evaluation.extractor": ("--extractor", extractor),
        "evaluation.split": ("--split", split),
        "evaluation.sampling_seeds": ("--seeds", None if seeds is None else parse_seeds(seeds)),
        "run.inception_weights": ("--inception-weights", inception_weights),
    }
    config = _rescored(Run(path, records.read(path)).config, flags, sets or ())
    with stopping() as stop, View() as view:
        record = experiment.evaluate(path, config, watch=view.watch, stop=stop)
    if as_json:
        print(record.to_json().decode(), end="")
    else:
        print_record(record)


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
