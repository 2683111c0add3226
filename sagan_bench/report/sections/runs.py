"""Every run, with its status, reason and the command that repeats it."""

from collections.abc import Iterator
from typing import Any

from sagan_bench.analysis import comparison
from sagan_bench.analysis.collection import RunSet
from sagan_bench.core.registry import SECTIONS
from sagan_bench.evaluation.protocol import stored
from sagan_bench.experiments.findings import question
from sagan_bench.experiments.study import StudyManifest
from sagan_bench.report import compared
from sagan_bench.report.document import Document, LengthsDocument, RunRow
from sagan_bench.report.formats import by_variant, decimals, duration, plural
from sagan_bench.report.frames import Cell, Column, Frame, Row, Values
from sagan_bench.report.repeating import of_run
from sagan_bench.report.sections._base import Block, Export, Section, Text
from sagan_bench.report.svg import Theme
from sagan_bench.runs.program import PROGRAM
from sagan_bench.runs.run import Run


@SECTIONS.register("runs")
class Runs(Section):
    """Every run, with its status, reason and the command that repeats it."""

    order = 80
    title = "Every run"
    of = ("study", "lengths")
    fields = True

    def collect(self, source: Any) -> dict[str, Any]:
        """Return a row for each run, finished or not, and how many are still to come."""
        rows = tuple(_row(run, source.collection) for run in source.runs)
        if source.collection is None:
            return {"runs": rows}
        return {"runs": rows, "to_come": dict(_to_come(source))}

    def render(self, document: Document | LengthsDocument, theme: Theme) -> Iterator[Block]:
        """Yield every run."""
        frame = _frame(document)
        about = (Export({"runs.csv": frame.to_csv()}, "one row a run"),)
        to_come = document.to_come if isinstance(document, Document) else {}
        still = (Text(f"Still to come: {by_variant(to_come)}."),)
        parts = (*(still if to_come else ()), frame)
        yield self.block(*parts, id="all-runs", nav="Runs", exports=about)


def _to_come(source: Any) -> Iterator[tuple[str, int]]:
    """Yield each variant of a study that has not all its runs, and how many it lacks."""
    if not isinstance(source.memory, StudyManifest):
        return
    study, runs = source.memory.study, source.collection
    lacking = study.cells - {(run.variant, run.seed) for run in runs.attempted}
    if study.design:
        courses = comparison.courses(runs, question(source.memory))
        lacking = frozenset(cell for course in courses for cell in course.missing)
    for variant in study.all_variants:
        if count := sum(name == variant for name, _ in lacking):
            yield variant, count


def _row(run: Run, collection: RunSet | None) -> RunRow:
    """Return a run; without its figures where runs share no protocol by which all have some."""
    record = run.record
    costs = ("train_sec", "score_sec", "images_per_sec", "peak_memory_gib")
    return RunRow(
        id=record.run,
        variant=run.variant,
        metrics=collection.values(run) if collection else {},
        fingerprint=_fingerprints(run, collection) if collection else None,
        attempts=len(record.attempts),
        device=record.environment.device_name or record.environment.device,
        threads=record.attempts[-1].threads if record.attempts else None,
        digest=record.config_digest,
        command=of_run(record, run.path),
        **{key: getattr(record, key) for key in ("seed", "status", "reason", "step", "steps")},
        **{key: getattr(record.cost, key) for key in costs},
    )


def _fingerprints(run: Run, collection: RunSet) -> str | None:
    """Return the fingerprints of the scores that a run's figures are of: of each sampling seed."""
    by_seed = (collection.protocols, *collection.other_protocols.values())
    protocols = [protocol for of in by_seed for protocol in of.values()]
    scores = run.final("ema") if collection.values(run) else []
    kept = (s.fingerprint for s in scores if stored(s.protocol) in protocols)
    return ";".join(dict.fromkeys(kept)) or None


def _primary(document: Document | LengthsDocument) -> tuple[Column, ...]:
    """Return the column of what decides, if anything does."""
    if isinstance(document, LengthsDocument):
        return ()
    primary = document.findings.primary
    level = decimals(run.metrics.get(primary.metric) for run in document.runs)
    return (Column(primary.metric, primary.label, better=primary.better, places=level),)


def _frame(document: Document | LengthsDocument) -> Frame:
    primary = _primary(document)
    theirs = PROGRAM in document.config
    commands = () if theirs else (Column("command", "Repeat it", _command, numeric=False),)
    columns = (
        Column("id", "Run", numeric=False),
        *primary,
        compared.VARIANT,
        Column("seed", "Seed"),
        Column("status", "Status", _status, numeric=False),
        Column("step", "Steps", _steps),
        Column("train_sec", "Training", lambda row: duration(row["train_sec"]), more=True),
        Column("images_per_sec", "Images/s", better="higher", places=0, more=True),
        Column("peak_memory_gib", "Memory, GiB", places=2, more=True),
        Column("attempts", "Attempts", more=True),
        *commands,
        Column("device", "Device", _device, numeric=False, more=True),
    )  # fmt: skip
    if theirs:  # of which there may be a table alone
        known = {key for run in document.runs for key, value in run if value}
        known -= set() if any(run.steps > 1 for run in document.runs) else {"step"}
        columns = tuple(c for c in columns if c in primary or c.key in known)
    rows, keys = [], dict[str, None]()
    for run in document.runs:
        values = run.model_dump(exclude={"metrics", "command"})
        values |= {**run.metrics, "command": run.command}
        keys |= dict.fromkeys(values)
        rows.append(Row(values, key=f"run-{run.id}", variant=run.variant, status=run.status))
    caption = f"All {plural(len(rows), 'run')}"
    return Frame("runs", caption, columns, rows, filtered=True, filed=tuple(keys))


def _status(row: Values) -> Cell:
    words = row["status"] + (f": {row['reason']}" if row["reason"] else "")
    return Cell(words, row["status"], tone="worse" if row["status"].is_lost else None)


def _steps(row: Values) -> str:
    rest = f" of {row['steps']:,}" if row["step"] < row["steps"] else ""
    return f"{row['step']:,}{rest}"


def _command(row: Values) -> Cell:
    if row["command"]:
        return Cell("command", "", code=row["command"])
    return Cell("its variant or preset is not shipped here", "")


def _device(row: Values) -> Cell:
    return Cell(row["device"] + (f", {plural(row['threads'], 'thread')}" if row["threads"] else ""))
