"""The command line: parse, call one function, print one path.  Nothing heavy is imported early."""

import io
import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from sagan_bench import __version__
from sagan_bench.cli import data, tune
from sagan_bench.cli.ablate import ablate
from sagan_bench.cli.compare import compare
from sagan_bench.cli.console import ShownFormatter, say, shown, tolerant
from sagan_bench.cli.export import export
from sagan_bench.cli.options import Choice, configured, program
from sagan_bench.cli.report import report
from sagan_bench.cli.sample import sample
from sagan_bench.cli.signals import exit_stopped, stopping
from sagan_bench.core.errors import UserError, machine_cause, machine_error
from sagan_bench.core.registry import EXTRACTORS

INTERNAL, USAGE, SOME_FAILED = 1, 2, 3

app = typer.Typer(
    name="sagan-bench",
    help="Does self-attention help this GAN, where, and how sure are we?",
    epilog="Begin with: python cli.py train --variant sagan",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(ablate)
app.command()(compare)
app.command()(report)
app.add_typer(tune.app, name="tune")
app.command()(sample)
app.command()(export)
app.add_typer(data.app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of runs")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    0 ok, 1 internal, 2 usage or machine, 3 failed runs, 130 and 143 by signals.
    """
    debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    _open_streams()
    try:
        try:
            app(arguments)
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
        _say_error(f"internal error: {type(error).__name__}: {error}")
        print("add --debug directly after cli.py for the traceback", file=sys.stderr)
        sys.exit(INTERNAL)
    sys.exit(0)


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


def _print_version(asked: bool) -> None:
    if asked:
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


@app.command()
@configured
def train(
    choice: Choice,
    out: Annotated[Path | None, typer.Option(help="The run's folder")] = None,
    from_study: Annotated[
        str | None, typer.Option(help="The confirmed winner of a tuning in runs/, or its folder")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on where this run was cut off")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run; do nothing")] = (
        False
    ),
    as_json: Json = False,
) -> None:
    """Train one variant, score it and record it.

    The same command again goes on where it was interrupted, and does nothing once it is finished.
    """
    if from_study:
        choice = choice.from_file(tune.best_file(from_study, choice.variant, Path("runs")))
    resolved = choice.resolve()
    if dry_run:
        _print_plan(resolved.config, out, not resume, as_json)
        return
    from sagan_bench.cli.display import Display, print_record
    from sagan_bench.core import distributed
    from sagan_bench.session import experiment
    from sagan_bench.session.capabilities import on_this_rank
    from sagan_bench.session.events import Stopped, Watch

    with distributed.joined(resolved.config.run.device) as context, stopping() as stop:
        config = on_this_rank(resolved.config, context)
        display: AbstractContextManager[Watch] = nullcontext(lambda event: None)
        if context.is_main_process:
            display = Display(config.run.steps)
        try:
            with display as watch:
                record = experiment.run(
                    config, out=out, fresh=not resume, watch=watch, stop=stop, context=context
                )
        except Stopped as stopped:
            exit_stopped(str(stopped), stopped.path)
    if not context.is_main_process:
        return
    path = out or Path("runs") / record.run
    if as_json:
        print(record.to_json().decode(), end="")
    else:
        print_record(record)
        print(f"run:     {path}\nsamples: {path / 'samples'}\nnext:    {program()} show {path}")
    if record.status != "finished":
        raise typer.Exit(SOME_FAILED)


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="A run's folder, or its name")],
    n_fake: Annotated[int | None, typer.Option(help="Generated images")] = None,
    data: Annotated[str | None, typer.Option(help="Where the same images are now")] = None,
    extractor: Annotated[str | None, typer.Option(help=", ".join(EXTRACTORS))] = None,
    inception_weights: Annotated[str | None, typer.Option(help="Inception's weights")] = None,
    split: Annotated[str | None, typer.Option(help="Real images: train, test")] = None,
    seeds: Annotated[str | None, typer.Option(help="Sampling seeds, e.g. 0,1,2")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="evaluation.key=value")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda")] = "auto",
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Score a finished run again, and add the scores to its record."""
    from sagan_bench.cli.display import Display, print_record
    from sagan_bench.cli.options import rescored
    from sagan_bench.runs import records
    from sagan_bench.runs.run import Run
    from sagan_bench.session import experiment
    from sagan_bench.session.events import Stopped

    path = find_run(run, runs)
    flags = {
        "evaluation.n_fake": ("--n-fake", n_fake),
        "data.source": ("--data", data),
        "run.device": ("--device", device),
        "evaluation.extractor": ("--extractor", extractor),
        "evaluation.split": ("--split", split),
        "evaluation.sampling_seeds": ("--seeds", _numbers(seeds) if seeds else None),
        "run.inception_weights": ("--inception-weights", inception_weights),
    }
    config = rescored(Run(path, records.read(path)).config, flags, sets or ())
    with stopping() as stop, Display(0) as display:
        try:
            record = experiment.evaluate(path, config, watch=display, stop=stop)
        except Stopped as stopped:
            exit_stopped(str(stopped), stopped.path)
    if as_json:
        print(record.to_json().decode(), end="")
    else:
        print_record(record)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="runs, variants or studies")] = "runs",
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the runs with their status and scores, or the shipped variants or studies."""
    if what == "runs":
        _list_runs(runs, as_json)
    elif what == "variants":
        _list_variants(as_json)
    elif what == "studies":
        _list_studies(as_json)
    else:
        from sagan_bench.core.names import closest

        raise UserError(f"list {what}: {closest(what, ['runs', 'variants', 'studies'])}")


def _list_variants(as_json: bool) -> None:
    from sagan_bench.config.variants import variants

    says = {name: settings["says"] for name, settings in variants().items()}
    if as_json:
        print(json.dumps(says, indent=2))
    else:
        _print_words("variant", says)
        print(f"next: {program()} show variant NAME; a + between names combines them")


def _list_studies(as_json: bool) -> None:
    from sagan_bench.experiments import study

    found = [study.load(name) for name in study.studies()]
    if as_json:
        print(json.dumps([one.model_dump(mode="json") for one in found], indent=2))
        return
    cells = {one.name: len(one.all_variants) * len(one.seeds) for one in found}
    _print_words("study", {s.name: f"{s.question} ({cells[s.name]} cells)" for s in found})
    print(f"next: {program()} ablate NAME --dry-run")


def _print_words(header: str, words: dict[str, str]) -> None:
    width = max(map(len, [header, *words]))
    for name, text in words.items():
        say(f"{name:<{width}}  {text}")


def _list_runs(runs: Path, as_json: bool) -> None:
    from sagan_bench.runs.finding import find_runs
    from sagan_bench.runs.run_directory import read_all
    from sagan_bench.runs.table import frame, listed

    found = find_runs(runs)
    if as_json:
        print(frame(found).to_json(orient="records", indent=2))
        return
    from sagan_bench.cli.tables import number, print_table
    from sagan_bench.evaluation.metrics import shown

    if not found:
        say(f"no runs in {runs}; begin with: {program()} train --variant sagan")
        return
    columns = {name: metric.column for name, metric in shown().items() if metric.column}
    header = ("run", "status", "step", "weights", "extractor", "n_fake", *columns.values())
    rows = []
    for _, record in read_all(found):
        for score in listed(record):
            row: list[Any] = [record.run, record.status, record.step]
            row += [score and score.weights, score and score.protocol.get("extractor")]
            row += [score and score.n_fake]
            metrics = score.metrics if score else {}
            row += [metrics.get(name) for name in columns]
            rows.append([number(cell) for cell in row])
    print_table("", header, rows)


@app.command()
@configured
def show(
    choice: Choice,
    what: Annotated[str, typer.Argument(help="config, model, variant, or a run's folder or name")],
    name: Annotated[str | None, typer.Argument(help="The variant")] = None,
    baseline: Annotated[str, typer.Option(help="What to hold the variant against")] = "sagan",
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Show a run, a variant, the resolved configuration, or the layers of the networks."""
    if what == "variant":
        _show_variant(choice, name or choice.variant or "sagan", baseline, as_json)
    elif what == "config":
        _show_config(choice, as_json)
    elif what == "model":
        _show_model(choice, as_json)
    else:
        from sagan_bench.analysis.collection import scored
        from sagan_bench.cli.display import print_record
        from sagan_bench.core.stored import fitting
        from sagan_bench.runs.records import RECORD

        run = scored(find_run(what, runs))
        if as_json:
            print(fitting(run.record.to_json, run.path / RECORD).decode(), end="")
        else:
            print_record(run.record)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what works here: device, precision, extractor weights, data, disk."""
    from sagan_bench.cli.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'ok' if finding.ok else '!!':>3}  {finding.name:<20} {finding.text}")
    if not all(finding.ok for finding in findings if finding.needed):
        raise typer.Exit(INTERNAL)


def find_run(run: str, runs: Path) -> Path:
    """Return the folder of a run given by path, name, or the beginning of only one name.

    Raises:
        UserError: there is none, or more than one; with the closest name.
    """
    from sagan_bench.core.names import closest
    from sagan_bench.runs.finding import find_runs
    from sagan_bench.runs.records import RECORD

    for path in (Path(run), runs / run):
        if (path / RECORD).exists():
            return path
    found = find_runs(runs)
    begun = [path for path in found if path.name.startswith(run)]
    if len(begun) == 1:
        return begun[0]
    names = [path.name for path in begun or found]
    hint = closest(run, names) if names else f"there are no runs in {runs}"
    raise UserError(f"no run is at {run}, nor in {runs}; {hint}")


def _show_config(choice: Choice, as_json: bool) -> None:
    from sagan_bench.core.trees import flatten

    resolved = choice.resolve()
    if as_json:
        tree = {"config": resolved.config.model_dump(mode="json"), "origins": resolved.origins}
        print(json.dumps(tree, indent=2))
        return
    from sagan_bench.cli.tables import print_table

    leaves = flatten(resolved.config.model_dump(mode="json"))
    rows = ([key, json.dumps(value), resolved.origins[key]] for key, value in leaves)
    print_table("", ("setting", "value", "from"), rows)


def _show_variant(choice: Choice, name: str, baseline: str, as_json: bool) -> None:
    """Print what a variant changes, in words and as keys, and what that costs."""
    from sagan_bench.config.diff import in_results
    from sagan_bench.config.variants import variants
    from sagan_bench.experiments.ablation import counted

    there, here = (choice.of_variant(one).resolve().config for one in (name, baseline))
    changes = in_results(here, there)
    table = variants()
    says = [table[part]["says"] for part in ([name] if name in table else name.split("+"))]
    facts = {one: counted(config) for one, config in ((baseline, here), (name, there))}
    if as_json:
        costs = {one: fact.model_dump(mode="json") for one, fact in facts.items()}
        print(json.dumps({"says": says, "differences": changes, "facts": costs}, indent=2))
        return
    from sagan_bench.cli.tables import print_table

    say(f"{name}: {'; '.join(says)}")
    rows = [[key, json.dumps(old), json.dumps(new)] for key, old, new in changes]
    rows.append(["parameters", *(f"{f.parameters_g + f.parameters_d:,}" for f in facts.values())])
    rows.append(["FLOPs a step", *(f"{f.flops_per_step:,}" for f in facts.values())])
    print_table("", ("setting", baseline, name), rows)


def _show_model(choice: Choice, as_json: bool) -> None:
    from sagan_bench.models.build import flops_per_step, layers

    config = choice.resolve().config
    table = layers(config)
    totals = {
        network: {
            "parameters": sum(row.parameters for row in table if row.network == network),
            "flops": sum(row.flops for row in table if row.network == network),
        }
        for network in ("generator", "discriminator")
    }
    if as_json:
        rows = [row._asdict() for row in table]
        step = flops_per_step(config)
        print(json.dumps({"layers": rows, "totals": totals, "flops_per_step": step}, indent=2))
        return
    from sagan_bench.cli.tables import print_table

    for network, total in totals.items():
        lines = [
            [
                row.name,
                " x ".join(map(str, row.output_shape)),
                f"{row.parameters:,}",
                f"{row.flops:,}",
            ]
            for row in table
            if row.network == network
        ]
        lines.append(["total", "", f"{total['parameters']:,}", f"{total['flops']:,}"])
        print_table(network, ("layer", "output", "parameters", "FLOPs an image"), lines)


def _print_plan(config: Any, out: Path | None, fresh: bool, as_json: bool) -> None:
    from sagan_bench.session import experiment

    planned = experiment.dry_run(config, out, fresh=fresh)
    if as_json:
        print(json.dumps(planned, indent=2))
        return
    for key, value in planned.items():
        say(f"{key:<16} {value}")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--seeds {text}: expected numbers such as 0,1,2") from error
