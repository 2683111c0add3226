"""The verb ``train``: one run, from its configuration to its record."""

import json
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagan_bench.cli import completing
from sagan_bench.cli.console import say
from sagan_bench.cli.options import (
    Choice,
    DryRun,
    Json,
    command,
    configured,
    load_own,
    refuse_wrong,
)
from sagan_bench.cli.places import best_file, find_run
from sagan_bench.cli.signals import SOME_FAILED, stopping
from sagan_bench.core.errors import UserError

if TYPE_CHECKING:
    from sagan_bench.config.schema import RunConfig
    from sagan_bench.runs.records import Record

_KEEP = "--set run.keep_training_state"
FAR_BELOW = 0.1
"""Of a preset's steps: a run of fewer is a trial."""


@configured
def train(
    choice: Choice,
    out: Annotated[Path | None, typer.Option(help="The run's folder")] = None,
    from_study: Annotated[
        str | None, typer.Option(help="The confirmed winner of a tuning in runs/, or its folder")
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            help="A run whose weights this one begins with (fine-tuning); or a checkpoint",
            autocompletion=completing.run,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on where this run was cut off")] = True,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train one variant, score it and record it.

    The same command again goes on where it was interrupted, and does nothing once it is finished;
    with more --steps it trains a finished run further.
    """
    if from_study is not None:
        choice = choice.from_file(best_file(from_study, choice.variant, Path("runs")))
    if init_from is not None:
        place = Path(init_from)
        place = place if place.is_file() else find_run(init_from, Path("runs"))
        choice = choice.with_flag("--init-from", "run.init_from", str(place))
    from sagan_bench.core import extensions

    config = choice.resolve().config
    if not dry_run:
        refuse_wrong([*load_own(choice.own), *extensions.require(config.own, out)])
    if dry_run:
        _print_plan(config, out, not resume, as_json)
    elif record := _trained(config, out, not resume):
        path = out or Path("runs") / record.run
        if as_json:
            print(record.to_json().decode(), end="")
        else:
            from sagan_bench.cli.record import print_record

            print_record(record, path)
            if _lacks_probe(config, path):
                say(f"note: it was finished before it was to be probed: {command('probe', path)}")
            print(f"run:     {path}\nsamples: {path / 'samples'}")
            _print_state(record, path)
            print(f"next:    {command('show', path)}")
        if record.status != "finished":
            raise typer.Exit(SOME_FAILED)


def _print_state(record: "Record", path: Path) -> None:
    """Print what is kept to train a run further, or how to have it kept."""
    from sagan_bench.cli.record import print_kept
    from sagan_bench.core.trees import flatten
    from sagan_bench.runs.keeping import keeps, state_bytes

    print_kept(record, path)
    size = state_bytes(record.cost.parameters_g or 0, record.cost.parameters_d or 0)
    choice = dict(flatten(record.config)).get("run.keep_training_state")
    if record.status == "finished" and choice == "auto" and not keeps(choice, size):
        say(f"not kept: its training state of {size / 2**30:.1f} GiB; {_KEEP}=true would keep it")


def _lacks_probe(config: "RunConfig", path: Path) -> bool:
    """Return whether a run was asked to be probed as it ends, and had ended before."""
    from sagan_bench.runs.probe import PROBE

    attention = config.model.attention
    has_block = bool(attention.generator or attention.discriminator)
    return config.run.probe and has_block and not (path / PROBE).exists()


def _trained(config: "RunConfig", out: Path | None, fresh: bool) -> "Record | None":
    """Train, and return the record; None on all processes but the main one."""
    from sagan_bench.cli.progress import View
    from sagan_bench.core import distributed
    from sagan_bench.session import experiment
    from sagan_bench.session.capabilities import on_this_rank

    with distributed.joined(config.run.device) as context, stopping() as stop:
        config = on_this_rank(config, context)
        view = View(config.run.steps)
        if context.is_main_process and (text := too_short_to_score(config)):
            say(text, error=True)
        with view if context.is_main_process else nullcontext():
            record = experiment.run(
                config, out=out, fresh=fresh, watch=view.watch, stop=stop, context=context
            )
        return record if context.is_main_process else None


def _print_plan(config: "RunConfig", out: Path | None, fresh: bool, as_json: bool) -> None:
    from sagan_bench.cli.progress import ahead
    from sagan_bench.cli.record import mib
    from sagan_bench.core import distributed
    from sagan_bench.evaluation.foreseeing import ScoringAhead
    from sagan_bench.session import experiment
    from sagan_bench.session.capabilities import on_this_rank

    context = distributed.launched()
    planned = experiment.dry_run(on_this_rank(config, context), out, fresh=fresh)
    if not context.is_main_process:
        return
    if text := too_short_to_score(config):
        say(text, error=True)
    if as_json:
        print(json.dumps(planned, indent=2))
        return
    state = planned["training_state"]
    stays = "kept at the end" if state["kept"] else "not kept at the end"
    planned["training_state"] = f"about {mib(state['bytes'])}, {stays} ({_KEEP}=true|false)"
    if "scoring" in planned:
        planned["scoring"] = ahead(ScoringAhead(**planned["scoring"]))
    for key, value in planned.items():
        say(f"{key:<16} {'; '.join(value) if isinstance(value, list) else value}")


def too_short_to_score(config: "RunConfig") -> str:
    """Return what to do where a run is far shorter than its preset, and scored as that is."""
    from sagan_bench.config.layers import assemble
    from sagan_bench.evaluation.protocol import least_images_of

    with suppress(UserError):  # a preset that is not here
        preset = assemble(config.preset, config.variant, names=config.meant).config
        n_fake, fewer = config.evaluation.n_fake, min(500, config.evaluation.n_fake // 4)
        is_short = config.run.steps < FAR_BELOW * preset.run.steps
        is_scored_so = config.run.score_weights and n_fake >= preset.evaluation.n_fake
        if is_short and is_scored_so and fewer >= least_images_of():
            steps = f"{config.run.steps:,} of the {preset.run.steps:,} steps"
            return (
                f"{steps} of preset {config.preset}: scoring {n_fake:,} images may take longer "
                f"than training; add --score-images {fewer} or --no-score"
            )
    return ""
