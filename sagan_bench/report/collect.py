"""Records of runs -> the document of a report, and the pictures that go with it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sagan_bench.analysis import asking, comparison
from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.lengths import SideBySide
from sagan_bench.experiments import findings as studies
from sagan_bench.experiments.study import StudyManifest
from sagan_bench.experiments.tuning import findings as tunings
from sagan_bench.experiments.tuning.definition import TuningManifest
from sagan_bench.experiments.tuning.planning import is_over
from sagan_bench.experiments.tuning.storage import JOURNAL
from sagan_bench.experiments.tuning.trials import TrialRun
from sagan_bench.experiments.tuning.winners import best
from sagan_bench.report import answers, caveats, repeating
from sagan_bench.report import findings as words
from sagan_bench.report.beside import Beside, beside
from sagan_bench.report.document import (
    Document,
    LengthsDocument,
    TuningDocument,
    TuningFindings,
)
from sagan_bench.report.pictures import Files
from sagan_bench.report.readings import Findings
from sagan_bench.report.sections._base import Kind, sections
from sagan_bench.runs.finding import find_runs
from sagan_bench.runs.records import Record
from sagan_bench.runs.run import Run
from sagan_bench.runs.run_directory import read_all


@dataclass(frozen=True)
class Source:
    """What the sections of a report collect from.

    Attributes:
        findings: what can be said, in words beside the figures.
        runs: in the order of the page.
        collection: the runs as they may be compared; None where they may not, or of a tuning.
        memory: what the folder of a study or tuning keeps; None of runs that neither names.
        lengths: runs of different length; None of others.
        files: name -> content: where sections leave the files that the document names.
    """

    findings: Findings | Beside | TuningFindings
    runs: Sequence[Run]
    collection: RunSet | None = None
    memory: StudyManifest | TuningManifest | None = None
    lengths: SideBySide | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def records(self) -> list[Record]:
        """The records of the runs."""
        return [run.record for run in self.runs]


def of_study(folder: Path) -> tuple[Document, Files]:
    """Return the document of a study, and its pictures.

    Raises:
        UserError: there is no study, no finished run, or runs that may not be compared.
    """
    memory, runs = studies.collected(folder)
    numbers = comparison.findings(runs, studies.question(memory, folder))
    return of_findings(folder.resolve().name, numbers, memory)


def of_runs(
    paths: Sequence[Path], name: str, baseline: str | None, at_step: int | None = None
) -> tuple[Document | LengthsDocument, Files]:
    """Return the document of runs that no study names; of different length, side by side.

    Raises:
        UserError: as `sagan_bench.analysis.asking.of_runs`.
    """
    said = asking.of_runs(paths, baseline, at_step=at_step)
    if isinstance(said, SideBySide):
        return of_lengths(name, said)
    return of_findings(name, said)


def of_lengths(name: str, numbers: SideBySide) -> tuple[LengthsDocument, Files]:
    """Return the document of runs of different length, and its pictures."""
    said = beside(numbers, name)
    source = Source(said, numbers.runs, lengths=numbers)
    first = source.records[0]
    document = LengthsDocument(
        **_shared(name, source),
        status="partial" if numbers.begun else "complete",
        findings=said,
        warnings=tuple(caveats.of_lengths(numbers)),
        config=first.config,
        data=first.data.manifest if first.data else {},
        made_with=first.environment.sagan_bench or "unknown",
        repeat=None,
        **_collected("lengths", source),
    )
    return document, source.files


def of_findings(
    name: str, numbers: comparison.Findings, memory: StudyManifest | None = None
) -> tuple[Document, Files]:
    """Return the document of what can be said of runs, and its pictures."""
    collection = numbers.runs
    findings = _named(words.findings(numbers))
    source = Source(findings, _ordered(findings, collection), collection, memory)
    kept = _collected("study", source)
    waits = kept["to_come"] if numbers.question.design else findings.unfinished
    is_partial = bool(numbers.missing or waits)
    comparable = numbers.question.comparable
    first = source.records[0]
    document = Document(
        **_shared(name, source),
        status="smoke" if not comparable else "partial" if is_partial else "complete",
        findings=findings,
        warnings=tuple(
            caveats.of_study(
                findings,
                source.runs,
                collection.unread,
                numbers.question.measure.set,
                partial=is_partial,
                bare=[name for name in kept["to_come"] if name not in collection.variants],
            )
        ),
        config=first.config,
        data=first.data.manifest if first.data else {},
        made_with=first.environment.sagan_bench or "unknown",
        repeat=repeating.of_study(memory) if memory else None,
        missing=numbers.missing,
        **kept,
    )
    return document, source.files


def of_tuning(folder: Path, url: str | None = None) -> tuple[TuningDocument, Files]:
    """Return the document of a tuning, and its pictures; one that has only begun says so.

    Args:
        folder: of the tuning.
        url: of the storage, if it is not the journal in the folder.

    Raises:
        UserError: there is none, or its storage cannot be read.
    """
    paths = find_runs(folder)
    records = dict(read_all(paths))

    def record_of(run: TrialRun) -> Record | None:
        return records.get(run.path) or run.record()

    memory, numbers = tunings.collected(folder, url, record_of)
    runs = [Run(path, record) for path, record in records.items()]
    storage = memory.storage or f"{numbers.name}/{JOURNAL}"
    findings = replace(answers.findings(numbers), storage=storage)
    source = Source(findings, runs, memory=memory)
    finals = (score.protocol for run in runs for score in run.final("ema"))
    protocol = next(finals, {})
    unread = len(paths) - len(runs)
    winners = {variant: best(memory, numbers, variant) for variant in memory.tuning.variants}
    versions = (record.environment.sagan_bench for record in source.records)
    first = memory.tuning.config(memory.tuning.variants[0], 0, memory.auto)
    document = TuningDocument(
        **_shared(folder.resolve().name, source),
        status="complete" if is_over(memory, numbers) else "partial",
        findings=findings,
        warnings=tuple(caveats.of_tuning(findings, runs, unread, protocol, confirm=memory.confirm)),
        config=first.model_dump(mode="json"),
        data=next((record.data.manifest for record in source.records if record.data), {}),
        made_with=next(filter(None, versions), "unknown"),
        repeat=repeating.of_tuning(memory),
        confirm=memory.confirm,
        winners={variant: winner for variant, winner in winners.items() if winner},
        protocol=protocol,
        runs_over=sum(record.status.is_over for record in source.records),
        **_collected("tuning", source),
    )
    return document, source.files


def _shared(name: str, source: Source) -> dict[str, Any]:
    """Return what every document says."""
    ended = [a.ended for record in source.records for a in record.attempts if a.ended]
    return {
        "name": name,
        "finished_at": max(ended).isoformat(timespec="seconds") if ended else None,
        "environments": tuple(_environments(source.records)),
    }


def _collected(kind: Kind, source: Source) -> dict[str, Any]:
    """Return what the sections keep: fields of the document, and the data of all others."""
    fields: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for section in sections(kind):
        data = section.collect(source)
        if section.fields:
            fields |= data
        elif data:
            own[section.name] = json.loads(json.dumps(data, allow_nan=False))
    return {**fields, "sections": own}


def _ordered(findings: Findings, collection: RunSet) -> list[Run]:
    """Return the runs in the order of their variants and seeds; those of no variant yet last."""
    order = {variant.name: number for number, variant in enumerate(findings.variants)}
    runs = (*collection.attempted, *collection.begun)
    return sorted(runs, key=lambda run: (order.get(run.variant, len(order)), run.variant, run.seed))


def _named(findings: Findings) -> Findings:
    """Return the findings with names of runs for paths, which mean nothing elsewhere."""
    runs, unfinished = (
        tuple(Path(path).name for path in paths) for paths in (findings.runs, findings.unfinished)
    )
    return replace(findings, runs=runs, unfinished=unfinished)


def _environments(records: Iterable[Record]) -> Iterator[Mapping[str, Any]]:
    """Yield the distinct environments that are known, without command lines: these hold paths."""
    seen: dict[str, dict[str, Any]] = {}
    for record in (record for record in records if record.environment.python):
        environment = record.environment.model_dump(mode="json", exclude={"command"})
        seen.setdefault(json.dumps(environment, sort_keys=True), environment)
    yield from seen.values()
