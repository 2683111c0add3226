"""A run's record, for the terminal."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from sagan_bench.cli.console import say
from sagan_bench.cli.options import command
from sagan_bench.cli.tables import duration, number, print_table
from sagan_bench.core.errors import UserError
from sagan_bench.core.trees import flatten
from sagan_bench.runs.command import folder_of
from sagan_bench.runs.keeping import kept_bytes
from sagan_bench.runs.log import LOG
from sagan_bench.runs.program import PROGRAM, has_length
from sagan_bench.runs.records import Record, Score, Status
from sagan_bench.runs.run import Run, by_protocol
from sagan_bench.runs.table import ended, ends, latest

LAST_POINTS, MOST_DIFFERENCES = 4, 8
"""Of a curve and of settings, those that are shown."""


def print_record(record: Record, path: Path, *, every_end: bool = False) -> None:
    """Print the scores of the run at a path beside the real-against-real floor, and warnings.

    They are those of its last end, or of every one that it had: it may have gone on.
    """
    state = f"{record.status}"
    if has_length(record):
        state += f", step {record.step} of {record.steps}"
    if record.reason:
        state += f" ({record.reason})"
    say(f"{record.run}: {state}; trained {duration(record.cost.train_sec or 0)}")
    if record.is_unscored:
        is_asked_for = dict(flatten(record.config)).get("run.score_weights") == []
        why = "none was asked for" if is_asked_for else "no final score is there"
        say(f"not scored: {why}; {command('evaluate', path)} makes up for it")
    scored = [s for end in ends(record) for s in end] if every_end else []
    scored = scored or latest(record)
    for scores in by_protocol(scored):
        _print_scores(record, scores)
    for warning in dict.fromkeys(text for score in scored for text in score.warnings):
        say(f"note: {warning}")


def _print_scores(record: Record, scores: Sequence[Score]) -> None:
    """Print the scores of a protocol, and what drawing the images does to them, if that is known.

    Of how many images those of another program are, it alone knows.
    """
    step, n_fake = scores[0].step, scores[0].n_fake
    if scores[0].protocol.get("by") == PROGRAM:
        at = f"step {step}" if has_length(record) else "metric"
        print_table("", (at, "value"), (row[:2] for row in _score_rows(scores)))
        return
    columns = [f"{score.weights} z{score.sampling_seed}" for score in scores]
    header, rows = [f"step {step}, n = {n_fake}", *columns, "real v real"], [*_score_rows(scores)]
    errors = [_standard_error(scores, metric) for metric in scores[0].metrics]
    if any(error is not None for error in errors):
        header.append("±")
        rows = [[*row, "" if e is None else number(e)] for row, e in zip(rows, errors, strict=True)]
    print_table("", header, rows)
    if header[-1] == "±":
        say("±: standard error, of drawing the images alone; seeds of training differ by more")


def print_run(run: Run) -> None:
    """Print a run's record, what it was, and where its samples are."""
    print_record(run.record, run.path, every_end=True)
    for text in _curves(run):
        say(f"on the way: {text}")
    try:
        _print_origin(run)
    except UserError as error:  # a damaged configuration hides nothing else
        say(f"note: {error}")
    print_facts([run.record])
    _print_places(run.record)
    if run.program is None:
        _print_pictures(run.path)
    else:
        say(f"left:    {run.path / folder_of(run.path).name}")
    if run.program or (run.path / LOG).exists():
        say(f"log:     {run.path / LOG}")
    print_kept(run.record, run.path)


def print_kept(record: Record, path: Path) -> None:
    """Print what a finished run keeps to be trained further, if it does, and how to free that."""
    size = kept_bytes(path)
    if size and record.status is Status.FINISHED:
        free = command("prune", path)
        say(f"kept:    {mib(size)} to train it further (--steps); free: {free}")


def mib(size: int) -> str:
    """Return a number of bytes as ``12.3 MiB``."""
    return f"{size / 2**20:,.1f} MiB"


def _print_pictures(path: Path) -> None:
    """Print the newest grid of samples, and the folder of all."""
    folder = path / "samples"
    newest = max(folder.glob("step-*.png"), key=lambda file: file.stem, default=None)
    if newest:
        say(f"newest:  {newest}")
    say(f"samples: {folder}")


def print_facts(records: Sequence[Record]) -> None:
    """Print of runs the data, the devices, and what they took together; what is known of it."""
    data = dict.fromkeys(filter(None, map(_data_of, records)))
    on = dict.fromkeys(_device_of(record) for record in records)
    say(f"data:    {'; '.join(data) or 'not known'}")
    say(f"device:  {'; '.join(on)}")
    costs = [record.cost for record in records]
    taken = {
        "trained": sum(cost.train_sec or 0 for cost in costs),
        "scored": sum(cost.score_sec or 0 for cost in costs),
        "data prepared": sum(cost.data_sec or 0 for cost in costs),
    }
    times = ", ".join(f"{what} {duration(sec)}" for what, sec in taken.items() if round(sec))
    over = [at for at in map(ended, records) if at]
    last = f"; {max(over):%Y-%m-%d %H:%M} UTC" if over else ""
    say(f"time:    {times or 'under a second'}{last}")


def _data_of(record: Record) -> str:
    """Return which images a run saw, in words; empty where that is not known."""
    leaves = dict(flatten(record.config))
    source, side = leaves.get("data.source"), leaves.get("data.image_size")
    if not source:
        return ""
    manifest = dict(flatten(record.data.manifest)) if record.data else {}
    count = manifest.get("train.images")
    images = f", {count:,} images" if isinstance(count, int) else ""
    return f"{source}, {side} px{images}"


def _device_of(record: Record) -> str:
    """Return on what a run was trained, and in what precision, in words."""
    on, precision = record.environment, dict(flatten(record.config)).get("training.precision")
    what = on.device_name or on.cpu
    name = f"{on.device} ({what})" if what and what != on.device else on.device
    number_of = f"{on.threads} thread{'s' * (on.threads != 1)}" if on.threads else ""
    threads = number_of if on.device == "cpu" else ""
    torch = f"torch {on.torch}" if on.torch else ""
    return ", ".join(filter(None, (name, str(precision or ""), threads, torch)))


def _print_places(record: Record) -> None:
    """Print on which machines attempts were made, and by which engine, as which job of it."""
    places = dict.fromkeys(attempt.place for attempt in record.attempts if attempt.host)
    if places:
        say(f"made:    {', '.join(places)}")


def _print_origin(run: Run) -> None:
    """Print what differs from the preset, and the command that repeats a run."""
    from sagan_bench.cli.tables import changes
    from sagan_bench.report.repeating import beyond_preset, of_run

    if run.program:
        say(f"made by: {run.program.source}")
        for key, value in run.program.values.items():
            say(f"  {key} = {json.dumps(value)}")
        return
    for tables in run.config.meant.values():
        for name, table in tables.items():
            say(f"{name}: {table['says']}")
    preset, differs = run.config.preset, beyond_preset(run.config)
    if differs is not None:
        more = (
            f" and {len(differs) - MOST_DIFFERENCES} more"
            if len(differs) > MOST_DIFFERENCES
            else ""
        )
        said = changes(differs[:MOST_DIFFERENCES]) or "nothing that changes results"
        say(f"differs from preset {preset} in {said}{more}")
    if command := of_run(run.record, run.path):
        say(f"again:   {command}")


def _curves(run: Run) -> Iterator[str]:
    """Yield the last points of each metric that was measured on the way and is listed."""
    scores = [score for score in run.record.scores if not score.final]
    for name, title in _listed(scores, theirs=run.program is not None):
        if points := run.curve(name)[-LAST_POINTS:]:
            of = "" if run.program else f" of {scores[-1].n_fake:,} images"
            texts = (f"{number(value)} at {step:,}" for step, value in points)
            yield f"{title}{of} {', '.join(texts)}"


def _listed(scores: Sequence[Score], *, theirs: bool) -> Iterator[tuple[str, str]]:
    """Yield the metrics of scores that are listed: name, and title for readers."""
    from sagan_bench.core.registry import METRICS
    from sagan_bench.evaluation.metrics import ordered
    from sagan_bench.evaluation.protocol import label_in

    known = dict.fromkeys(name for score in scores for name in score.metrics)
    for name in ordered(known, theirs=theirs):
        if name not in METRICS or METRICS[name].column:
            yield name, label_in(name, scores[-1].protocol)


def _values(scores: Sequence[Score], metric: str) -> list[float]:
    """Return the values of a metric; none if one is missing."""
    values = [score.metrics.get(metric) for score in scores]
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else []


def _score_rows(scores: Sequence[Score]) -> Iterator[Sequence[str]]:
    from sagan_bench.evaluation.protocol import label_in

    for metric in scores[0].metrics:
        values = [number(score.metrics.get(metric)) for score in scores]
        yield label_in(metric, scores[0].protocol), *values, number(scores[0].floor.get(metric))


def _standard_error(scores: Sequence[Score], metric: str) -> float | None:
    """Return what drawing the images does to a score of averaged weights; null if not known."""
    from sagan_bench.analysis.drawing import standard_error
    from sagan_bench.core.registry import METRICS

    drawn = [score.metrics.get(metric) for score in scores if score.weights == "ema"]
    values = [value for value in drawn if value is not None]
    is_share = metric in METRICS and METRICS[metric].is_share
    return standard_error(values, scores[0].n_fake if is_share else None) if values else None
