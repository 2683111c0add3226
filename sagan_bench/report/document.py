"""Everything that a page shows, as data: a page is a function of this and of the pictures.

Built from the records of a study; stored as ``report.json``, so that a page can be made again.
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sagan_bench import comparison, study
from sagan_bench.comparison import Findings
from sagan_bench.config import RunConfig, flatten
from sagan_bench.errors import UserError
from sagan_bench.outcomes import LABELS, Run
from sagan_bench.records import Record
from sagan_bench.run_directory import DIAGNOSTICS, METRICS, find_runs, read_now, read_rows

SCHEMA_VERSION = 1
POINTS = 200
"""Of a curve at most; more cannot be told apart on a page."""
CURVES = ("loss_d", "loss_g")
READINGS = ("ratio", "entropy", "distance_px")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RunRow(_Part):
    """One run, finished or not."""

    id: str
    path: str
    variant: str
    seed: int
    status: str
    reason: str | None
    step: int
    steps: int
    metrics: dict[str, float | None] = Field(description="final, averaged weights, mean over seeds")
    train_sec: float | None
    score_sec: float | None
    images_per_sec: float | None
    peak_memory_gib: float | None
    attempts: int
    device: str
    threads: int | None
    digest: str
    command: str = Field(description="repeats the run alone")


class Series(_Part):
    """One curve of one run."""

    name: str
    variant: str
    seed: int
    steps: tuple[int, ...]
    values: tuple[float | None, ...]


class Picture(_Part):
    """The last sample grid of one run, at the same noise in all."""

    variant: str
    seed: int
    file: str = Field(description="path of the grid")
    maps: str | None = Field(description="path of the attention maps at that step")
    rule: str


class Document(_Part):
    """What a report says."""

    schema_version: Literal[1] = 1
    name: str
    made_with: str
    finished_at: str | None = Field(description="UTC time at which the last attempt ended")
    status: Literal["complete", "partial", "smoke"]
    findings: dict[str, Any]
    warnings: tuple[str, ...]
    differences: dict[str, list[tuple[str, Any, Any]]] = Field(description="to each one's baseline")
    runs: tuple[RunRow, ...]
    series: tuple[Series, ...]
    pictures: tuple[Picture, ...]
    paper: dict[str, Any] | None
    config: dict[str, Any] = Field(description="of the first run, for what all share")
    data: dict[str, Any]
    environments: tuple[dict[str, Any], ...] = Field(description="distinct ones, of all runs")

    def to_json(self) -> str:
        """Return it as indented JSON."""
        return self.model_dump_json(indent=1) + "\n"


def read(file: Path) -> Document:
    """Return a stored document.

    Raises:
        UserError: it is not there or damaged, or a newer sagan-bench wrote it.
    """
    try:
        stored = json.loads(file.read_bytes())
        version = stored.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise UserError(
                f"{file} was written by a newer sagan-bench (schema {version}, this one reads "
                f"{SCHEMA_VERSION}); update sagan-bench"
            )
        return Document.model_validate(stored)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, AttributeError, ValidationError) as error:
        raise UserError(f"{file} is not a report: {str(error).splitlines()[0]}") from error


def of_study(folder: Path) -> Document:
    """Return the document of a study.

    Raises:
        UserError: there is no study, no finished run, or runs that may not be compared.
    """
    memory = study.remembered(folder)
    if memory is None:
        raise UserError(f"no study is in {folder}; begin one with `ablate`")
    found = comparison.of_study(folder)
    paper = memory.study.paper
    return _document(
        memory.study.name,
        found,
        find_runs(folder),
        comparable=memory.study.comparable,
        paper=paper.model_dump(mode="json") if paper else None,
    )


def of_runs(paths: Sequence[Path], name: str, baseline: str | None) -> Document:
    """Return the document of runs that no study names.  Raises `UserError` as `of_study`."""
    return _document(name, comparison.of_runs(paths, baseline, None, None), paths)


def _document(
    name: str,
    found: Findings,
    paths: Sequence[Path],
    *,
    comparable: bool = True,
    paper: dict[str, Any] | None = None,
) -> Document:
    runs = [Run(path, read_now(path)) for path in paths]
    partial = bool(found.unfinished) or any("still to come" in line for line in found.headline)
    ended = [a.ended for run in runs for a in run.record.attempts if a.ended]
    first = runs[0].record
    return Document(
        name=name,
        made_with=first.environment.sagan_bench or "unknown",
        finished_at=max(ended).isoformat(timespec="seconds") if ended else None,
        status="smoke" if not comparable else "partial" if partial else "complete",
        findings=asdict(found),
        warnings=tuple(_warnings(found, runs)),
        differences=_differences(found, runs),
        runs=tuple(_row(run) for run in runs),
        series=tuple(one for run in runs for one in _series(run, found.primary.metric)),
        pictures=tuple(_pictures(found, runs)),
        paper=paper,
        config=first.config,
        data=first.data.manifest if first.data else {},
        environments=tuple(_environments(run.record for run in runs)),
    )


def _warnings(found: Findings, runs: Sequence[Run]) -> Iterable[str]:
    """Yield what a reader must know before believing a figure."""
    for variant in found.variants:
        lost = variant.summary.n - variant.summary.n_ok
        if lost:
            yield f"{lost} of {variant.summary.n} runs of {variant.name} diverged or failed."
        if variant.summary.n < 5:
            yield f"{variant.name} has {variant.summary.n} runs: fewer than the 5 of a verdict."
    if any(run.record.status == "interrupted" for run in runs):
        yield "Some runs were interrupted and are not counted."
    if any(variant.shared_device for variant in found.variants):
        yield "Several runs shared a device: times and images a second are those of a busy one."
    extractor = found.protocol.get("extractor", "inception")
    if extractor != "inception":
        yield (
            f"Features come from {extractor}, not Inception: its FID, IS and KID are on another "
            "scale than published ones."
        )
    if any(run.record.environment.git_dirty for run in runs):
        yield "Some runs were made from a checkout with changes that no commit holds."
    if not found.declared:
        yield "Metric and smallest difference that matters were chosen after the runs."


def _differences(found: Findings, runs: Sequence[Run]) -> dict[str, list[tuple[str, Any, Any]]]:
    configs = {run.variant: run.record.config for run in runs}
    pairs = [(one.variant, one.baseline) for one in found.primary.comparisons]
    return {
        variant: _apart(configs[baseline], configs[variant])
        for variant, baseline in pairs
        if {variant, baseline} <= configs.keys()
    }


def _apart(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    old, new = dict(flatten(here)), dict(flatten(there))
    keys = [k for k in {**old, **new} if k not in LABELS and not k.startswith("run.")]
    return [(k, old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)]


def _row(run: Run) -> RunRow:
    record = run.record
    finals = run.final("ema")
    names = dict.fromkeys(name for score in finals for name in score.metrics)
    return RunRow(
        id=record.run,
        path=str(run.path),
        variant=record.variant,
        seed=record.seed,
        status=record.status,
        reason=record.reason,
        step=record.step,
        steps=record.steps,
        metrics={name: _mean(score.metrics.get(name) for score in finals) for name in names},
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


def command(record: Record) -> str:
    """Return the command line that repeats a run: what differs from its preset and variant."""
    from sagan_bench.config import assemble, variant_settings

    config = RunConfig.model_validate(record.config)
    words = ["python", "cli.py", "train", "--preset", config.preset, "--variant", config.variant]
    words += ["--seed", str(config.seed)]
    variant = variant_settings(config.variant)
    plain = assemble(config.preset, config.variant, ("variant", variant)).config
    before = dict(flatten(plain.model_dump(mode="json")))
    told = ("run.steps", "run.threads", "run.eval_every", "run.eval_metrics")
    for key, value in flatten(config.model_dump(mode="json")):
        kept = not key.startswith("run.") or key in told
        if kept and key not in ("preset", "variant", "name", "seed") and before[key] != value:
            text = (
                "none" if value is None else value if isinstance(value, str) else json.dumps(value)
            )
            words += ["--set", f"{key}={text}"]
    return shlex.join(words)


def _series(run: Run, metric: str) -> Iterable[Series]:
    def series(name: str, points: Sequence[tuple[int, Any]]) -> Series:
        steps, values = zip(*_thinned(points), strict=True)
        return Series(name=name, variant=run.variant, seed=run.seed, steps=steps, values=values)

    if curve := run.curve(metric):
        yield series(metric, curve)
    rows = read_rows(run.path / METRICS)
    if rows:
        gammas = [name for name in rows[-1] if name.startswith("gamma.")]
        for name in (*CURVES, *gammas):
            yield series(name, [(row["step"], row.get(name)) for row in rows])
    looks = read_rows(run.path / DIAGNOSTICS)
    blocks = [name for name in looks[-1] if name != "step"] if looks else []
    for block in blocks:
        for reading in READINGS:
            points = [(row["step"], row[block].get(reading)) for row in looks if block in row]
            if any(value is not None for _, value in points):
                yield series(f"{reading}.{block}", points)


def _thinned(points: Sequence[tuple[int, Any]]) -> Sequence[tuple[int, Any]]:
    """Return at most `POINTS` of the points, the last among them."""
    every = -(-len(points) // POINTS)
    return points[::-1][::every][::-1]


def _pictures(found: Findings, runs: Sequence[Run]) -> Iterable[Picture]:
    """Yield for each variant the run whose primary metric is the median, never a chosen one."""
    for variant in found.variants:
        ok = {seed: value for seed, value in variant.values.items() if value is not None}
        if not ok:
            continue
        middle = median(ok.values())
        seed = min(ok, key=lambda s: (abs(ok[s] - middle), s))
        run = next(r for r in runs if (r.variant, r.seed) == (variant.name, seed))
        grid = run.path / "samples" / f"step-{run.record.step:08d}.png"
        maps = run.path / "diagnostics" / f"step-{run.record.step:08d}.npz"
        if grid.exists():
            yield Picture(
                variant=variant.name,
                seed=seed,
                file=str(grid),
                maps=str(maps) if maps.exists() else None,
                rule=f"seed {seed}: the run nearest the median of {found.primary.label}",
            )


def _environments(records: Iterable[Record]) -> Iterable[dict[str, Any]]:
    seen: dict[str, dict[str, Any]] = {}
    for record in records:
        environment = record.environment.model_dump(mode="json", exclude={"command"})
        seen.setdefault(json.dumps(environment, sort_keys=True), environment)
    return seen.values()


def _mean(values: Iterable[float | None]) -> float | None:
    known = list(values)
    present = [value for value in known if value is not None]
    return sum(present) / len(present) if present and len(present) == len(known) else None
