"""Records of runs -> the document of a report, and the pictures that go with it."""

import json
import logging
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from sagan_bench.analysis import comparison
from sagan_bench.analysis.collection import RunSet, gather
from sagan_bench.analysis.statistics import CONFIRMATORY_N
from sagan_bench.config.layers import assemble
from sagan_bench.config.schema import RunConfig
from sagan_bench.config.variants import variant_settings, variants
from sagan_bench.core.errors import UserError
from sagan_bench.core.trees import flatten
from sagan_bench.evaluation.protocol import Protocol
from sagan_bench.experiments import study
from sagan_bench.experiments.findings import collected, question
from sagan_bench.experiments.study import Memory
from sagan_bench.report import text
from sagan_bench.report.document import Document, Findings, Placed, RunRow, Series
from sagan_bench.report.pictures import Files, chosen
from sagan_bench.runs.records import Record, Status
from sagan_bench.runs.run import Run
from sagan_bench.runs.run_directory import DIAGNOSTICS, METRICS, read_rows

_log = logging.getLogger(__name__)

POINTS = (25, 200)
"""Of a curve at least and at most; more cannot be told apart on a page."""
POINTS_IN_ALL = 12_000
"""Of one figure, over all runs."""
LOSSES = ("loss_d", "loss_g")
READINGS = ("ratio", "entropy", "distance_px")
RUN_SETTINGS = ("run.steps", "run.threads", "run.eval_every", "run.eval_images", "run.eval_metrics")
"""Of the section ``run``, those that a command which repeats a run has to name."""


def of_study(folder: Path) -> tuple[Document, Files]:
    """Return the document of a study, and its pictures.

    Raises:
        UserError: there is no study, no finished run, or runs that may not be compared.
    """
    memory, runs = collected(folder)
    paper = memory.study.paper
    return _document(
        folder.resolve().name,
        comparison.findings(runs, question(memory)),
        comparable=memory.study.comparable,
        paper=paper.model_dump(mode="json") if paper else None,
        repeat=repeating(memory),
    )


def of_runs(paths: Sequence[Path], name: str, baseline: str | None) -> tuple[Document, Files]:
    """Return the document of runs that no study names.  Raises `UserError` as `of_study`."""
    runs = gather(paths, loose=True)
    return _document(name, comparison.about(runs, baseline))


def _document(
    name: str,
    numbers: comparison.Findings,
    *,
    comparable: bool = True,
    paper: dict[str, Any] | None = None,
    repeat: str | None = None,
) -> tuple[Document, Files]:
    found, collection, missing = text.findings(numbers), numbers.runs, numbers.missing
    runs = _ordered(found, collection)
    ended = [a.ended for run in runs for a in run.record.attempts if a.ended]
    partial = bool(missing or found.unfinished)
    pictures, files = chosen(found, runs)
    first = runs[0].record
    document = Document(
        name=name,
        made_with=first.environment.sagan_bench or "unknown",
        finished_at=max(ended).isoformat(timespec="seconds") if ended else None,
        status="smoke" if not comparable else "partial" if partial else "complete",
        findings=_named(found),
        labels=_labels(found, runs),
        floor=_floor(runs),
        warnings=(*unread(collection.unread), *_warnings(found, runs)),
        says=_says(found),
        placed={run.variant: _placed(run) for run in runs},
        runs=tuple(_row(run, collection.values(run)) for run in runs),
        series=tuple(_all_series(found, runs)),
        pictures=pictures,
        paper=paper,
        config=first.config,
        data=first.data.manifest if first.data else {},
        environments=tuple(environments(run.record for run in runs)),
        repeat=repeat,
        missing=missing,
    )
    return document, files


def _ordered(found: Findings, collection: RunSet) -> list[Run]:
    """Return the runs in the order of their variants and seeds; those of no variant yet last."""
    order = {variant.name: number for number, variant in enumerate(found.variants)}
    runs = (*collection.attempted, *collection.begun)
    return sorted(runs, key=lambda run: (order.get(run.variant, len(order)), run.variant, run.seed))


def _named(found: Findings) -> Findings:
    """Return the findings with names of runs for paths, which mean nothing elsewhere."""
    runs, unfinished = (
        tuple(Path(path).name for path in paths) for paths in (found.runs, found.unfinished)
    )
    return replace(found, runs=runs, unfinished=unfinished)


def _labels(found: Findings, runs: Iterable[Run]) -> dict[str, str]:
    names = dict.fromkeys(name for run in runs for s in run.record.scores for name in s.metrics)
    if not found.protocol:
        return {name: name for name in names}
    protocol = Protocol.model_validate({**found.protocol, "sampling_seed": 0})
    return {name: protocol.label(name) for name in names}


def _floor(runs: Iterable[Run]) -> dict[str, float | None]:
    floors = (score.floor for run in runs for score in run.final("ema") if score.floor)
    return next(floors, {})


def _says(found: Findings) -> dict[str, str]:
    """Return each variant in words, where its parts are shipped."""
    table = variants()
    says = {}
    for variant in found.variants:
        parts = [variant.name] if variant.name in table else variant.name.split("+")
        if all(part in table for part in parts):
            says[variant.name] = "; ".join(table[part]["says"] for part in parts)
    return says


# --- What a reader must know before believing a figure -----------------------------------------


def _warnings(found: Findings, runs: Sequence[Run]) -> Iterator[str]:
    yield from _of_numbers(found, runs)
    yield from _of_readings(found)
    if any(variant.shared_device for variant in found.variants):
        yield "Several runs shared a device: times and images a second are those of a busy one."
    yield from of_place(found.protocol, [run.record for run in runs])
    devices = {run.record.environment.device_name or run.record.environment.cpu for run in runs}
    if len(devices) > 1:
        yield f"Runs were made on {len(devices)} kinds of device: their times do not compare."
    if not found.declared:
        yield "Metric and smallest difference that matters were chosen after the runs."
    scores = (score for run in runs for score in run.final("ema"))
    yield from dict.fromkeys(f"{text}." for score in scores for text in score.warnings)


def unread(count: int) -> Iterator[str]:
    """Yield that so many runs are not in the report."""
    if count:
        runs = "1 run is" if count == 1 else f"{count:,} runs are"
        yield f"{runs} left out: what is stored there cannot be read."


def of_place(protocol: Mapping[str, Any], records: Iterable[Record]) -> Iterator[str]:
    """Yield what is to be known of the extractor of features, and of the checkout."""
    extractor = protocol.get("extractor", "inception")
    if extractor != "inception":
        yield (
            f"Features come from {extractor}, not Inception: its FID, IS and KID are on another "
            "scale than published ones."
        )
    if any(record.environment.git_dirty for record in records):
        yield "Some runs were made from a checkout with changes that no commit holds."


def _of_numbers(found: Findings, runs: Sequence[Run]) -> Iterator[str]:
    for variant in found.variants:
        n, lost = variant.summary.n, variant.summary.n - variant.summary.n_ok
        if lost:
            yield f"{lost} of {n} runs of {variant.name} diverged, failed or have no figure."
    few = [v for v in found.variants if v.summary.n < CONFIRMATORY_N]
    if few:
        counts = ", ".join(f"{v.name} has {v.summary.n}" for v in few[:6])
        more = f" and {len(few) - 6} others" if len(few) > 6 else ""
        yield f"A verdict needs {CONFIRMATORY_N} runs a variant: {counts}{more}."
    stopped = sum(run.record.status == Status.INTERRUPTED for run in runs)
    if stopped:
        yield f"{stopped} interrupted runs are not counted; the same command finishes them."


def _of_readings(found: Findings) -> Iterator[str]:
    """Yield where runs had not settled, and where a secondary metric contradicts a verdict."""
    curves, settled = (
        sum(getattr(variant, name) for variant in found.variants) for name in ("curves", "settled")
    )
    if curves and 2 * settled < curves:
        yield (
            f"{curves - settled} of {curves} runs had not settled at the end: what is said holds "
            "at this budget."
        )
    claimed = {(c.variant, c.baseline): c.verdict for c in found.primary.comparisons}
    for reading in found.secondary:
        for one in reading.comparisons if reading.metric != found.primary.metric else ():
            improved = one.effect and (one.effect > 0) == (reading.better == "higher")
            verdict = claimed.get((one.variant, one.baseline))
            if one.effect and (verdict, improved) in (("better", False), ("worse", True)):
                yield (
                    f"{reading.label}, which does not decide, points the other way: {one.variant} "
                    f"against {one.baseline} {one.effect:+.3g}{_bounds(one.interval)}."
                )


def _bounds(interval: tuple[float, float] | None) -> str:
    return " [{:+.3g}, {:+.3g}]".format(*interval) if interval else ""


# --- What differs, and how to repeat it --------------------------------------------------------


def _placed(run: Run) -> Placed:
    attention = run.config.model.attention
    return Placed(
        kind=attention.kind,
        generator=attention.generator,
        discriminator=attention.discriminator,
    )


def _row(run: Run, metrics: dict[str, float | None]) -> RunRow:
    record = run.record
    return RunRow(
        id=record.run,
        variant=run.variant,
        seed=run.seed,
        status=record.status,
        reason=record.reason,
        step=record.step,
        steps=record.steps,
        metrics=metrics,
        train_sec=record.cost.train_sec,
        score_sec=record.cost.score_sec,
        images_per_sec=record.cost.images_per_sec,
        peak_memory_gib=record.cost.peak_memory_gib,
        attempts=len(record.attempts),
        device=record.environment.device_name or record.environment.device,
        threads=record.attempts[-1].threads if record.attempts else None,
        digest=record.config_digest,
        command=command(record),
    )


def command(record: Record) -> str | None:
    """Return the command line that repeats a run: what differs from its preset and variant.

    Null where the preset or the variant is not one that ships here.
    """
    config = RunConfig.model_validate(record.config)
    before = _plain(config.preset, config.variant)
    if before is None:
        return None
    words = ["python", "cli.py", "train", "--preset", config.preset, "--variant", config.variant]
    words += ["--seed", str(config.seed)]
    for key, value in flatten(config.model_dump(mode="json")):
        labels = key in ("preset", "variant", "name", "seed")
        told = not key.startswith("run.") or key in RUN_SETTINGS
        if told and not labels and before[key] != value:
            words += ["--set", f"{key}={toml(value)}"]
    return shlex.join(words)


@cache
def _plain(preset: str, variant: str) -> dict[str, Any] | None:
    """Return the settings of a shipped variant on a shipped preset; null where one is not."""
    try:
        changed = ("variant", variant_settings(variant))
        config = assemble(preset, variant, changed).config
    except UserError:
        return None
    return dict(flatten(config.model_dump(mode="json")))


def repeating(memory: Memory) -> str | None:
    """Return the command that runs a shipped study again; null where its file is not shipped."""
    asked = memory.study
    if asked.name not in study.studies():
        return None
    plain = study.load(asked.name)
    words = ["python", "cli.py", "ablate", asked.name]
    if asked.seeds != plain.seeds:
        words += ["--seeds", ",".join(map(str, asked.seeds))]
    if asked.preset != plain.preset:
        words += ["--preset", asked.preset]
    for key, value in asked.set.items():
        if key not in plain.set or plain.set[key] != value:
            words += ["--set", f"{key}={toml(value)}"]
    return shlex.join(words)


def toml(value: Any) -> str:
    """Return a value as ``--set`` takes it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def environments(records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """Yield the distinct environments, without command lines, which may hold paths."""
    seen: dict[str, dict[str, Any]] = {}
    for record in records:
        environment = record.environment.model_dump(mode="json", exclude={"command"})
        seen.setdefault(json.dumps(environment, sort_keys=True), environment)
    yield from seen.values()


# --- Curves ------------------------------------------------------------------------------------


def _all_series(found: Findings, runs: Sequence[Run]) -> Iterator[Series]:
    least, most = POINTS
    points = max(least, min(most, POINTS_IN_ALL // len(runs)))
    metrics = dict.fromkeys((found.primary.metric, "twin_rate", "fid"))
    for run in runs:
        for name, curve in _curves(run, metrics):
            steps, values = zip(*_thinned(curve, points), strict=True)
            yield Series(
                name=name,
                variant=run.variant,
                seed=run.seed,
                steps=steps,
                values=tuple(None if value is None else float(f"{value:.5g}") for value in values),
            )


def _curves(run: Run, metrics: Iterable[str]) -> Iterator[tuple[str, Sequence[tuple[int, Any]]]]:
    for metric in metrics:
        if curve := run.curve(metric):
            yield metric, curve
    rows = _rows(run, METRICS)
    gammas = [name for name in rows[-1] if name.startswith("gamma.")] if rows else []
    for name in (*LOSSES, *gammas) if rows else ():
        yield name, [(row["step"], _figure(row.get(name))) for row in rows]
    looks = _rows(run, DIAGNOSTICS)
    for block in [name for name in looks[-1] if name != "step"] if looks else []:
        for reading in READINGS:
            there = ((row["step"], row.get(block)) for row in looks)
            points = [
                (step, _figure(of.get(reading))) for step, of in there if isinstance(of, dict)
            ]
            if any(value is not None for _, value in points):
                yield f"{reading}.{block}", points


def _rows(run: Run, name: str) -> list[dict[str, Any]]:
    """Return rows of a run; none, which is logged, if they are damaged."""
    try:
        return read_rows(run.path, name, run.record)
    except UserError as error:
        _log.warning("left out of the report: %s", error)
        return []


def _figure(value: Any) -> float | None:
    """Return a value of a row if it is one number."""
    return value if isinstance(value, int | float) else None


def _thinned(points: Sequence[tuple[int, Any]], most: int) -> Sequence[tuple[int, Any]]:
    """Return at most so many of the points, the last among them."""
    every = -(-len(points) // most)
    return points[::-1][::every][::-1]
