"""A tuning -> the document of its report."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sagan_bench.core.errors import UserError
from sagan_bench.experiments.tuning import findings, space
from sagan_bench.experiments.tuning.definition import Memory
from sagan_bench.experiments.tuning.findings import Findings, SearchFindings
from sagan_bench.experiments.tuning.planning import best, is_over
from sagan_bench.experiments.tuning.storage import JOURNAL
from sagan_bench.experiments.tuning.trials import Outcome
from sagan_bench.report.collect import environments, of_place, toml, unread
from sagan_bench.report.document import TuningDocument
from sagan_bench.runs.records import Record
from sagan_bench.runs.run import Run
from sagan_bench.runs.run_directory import find_runs, read_all


def of_tuning(folder: Path, url: str | None = None) -> TuningDocument:
    """Return the document of a tuning; one that has only begun says so.

    Args:
        folder: of the tuning.
        url: of the storage, if it is not the journal in the folder.

    Raises:
        UserError: there is none, or its storage cannot be read.
    """
    memory, found = Memory.of(folder), findings.of_tuning(folder, url)
    if memory is None:
        raise UserError(f"no tuning is in {folder}; begin one with `tune`")
    paths = find_runs(folder)
    runs = [Run(path, record) for path, record in read_all(paths)]
    records = [run.record for run in runs]
    ended = [a.ended for record in records for a in record.attempts if a.ended]
    winners = {of: best(memory, found, of) for of in memory.tuning.variants}
    finals = (score.protocol for run in runs for score in run.final("ema"))
    protocol = next(finals, {})
    first = memory.tuning.config(memory.tuning.variants[0], 0, memory.auto)
    return TuningDocument(
        name=folder.resolve().name,
        made_with=_version(records),
        finished_at=max(ended).isoformat(timespec="seconds") if ended else None,
        status="complete" if is_over(memory, found) else "partial",
        warnings=(
            *unread(len(paths) - len(runs)),
            *_warnings(memory, found, records, protocol),
        ),
        config=first.model_dump(mode="json"),
        data=next((record.data.manifest for record in records if record.data), {}),
        environments=tuple(environments(records)),
        repeat=repeating(memory),
        findings=replace(found, storage=memory.storage or f"{found.name}/{JOURNAL}"),
        confirm=memory.confirm,
        winners={of: text for of, text in winners.items() if text},
        protocol=protocol,
        runs_over=sum(record.status.is_over for record in records),
    )


def _version(records: Sequence[Record]) -> str:
    versions = (record.environment.sagan_bench for record in records)
    return next((one for one in versions if one), "unknown")


def _warnings(
    memory: Memory, found: Findings, records: Sequence[Record], protocol: Mapping[str, Any]
) -> Iterator[str]:
    if not memory.confirm:
        yield "Nothing is trained again on fresh seeds: the best of a search is too optimistic."
    for one in found.searches:
        yield from _of_search(one)
    if found.looks:
        yield findings.looked(found.looks)
    yield "All trials of a search share one training seed: what they say is also about that seed."
    yield from of_place(protocol, records)


def _of_search(one: SearchFindings) -> Iterator[str]:
    failed, n = one.budget.trials[Outcome.FAILED], len(one.trials)
    if failed:
        yield f"{one.id}: {failed} of {n} trials failed; the sampler learned nothing from them."
    again = [value for c in one.candidates for value in (c.on_a | c.on_b).values()]
    if lost := again.count(None):
        yield f"{one.id}: {lost} of {len(again)} runs on fresh seeds diverged or failed."


def repeating(memory: Memory) -> str | None:
    """Return the command that tunes like this again; null where its space is not shipped."""
    asked = memory.tuning
    if asked.space.name not in space.spaces():
        return None
    shipped, steps = space.load(asked.space.name), asked.space.budget["run.steps"]
    budget = shipped.budget | {"run.steps": steps}
    if asked.space != shipped.model_copy(update={"budget": budget}):
        return None
    words = ["python", "cli.py", "tune", "--variants", ",".join(asked.variants)]
    words += ["--trials", str(memory.trials), "--searches", str(asked.searches)]
    words += ["--preset", asked.preset, "--space", asked.space.name]
    words += ["--objective", ",".join(asked.objectives)]
    words += ["--sampler", asked.sampler, "--pruner", asked.pruner]
    if budget != shipped.budget:
        words += ["--steps", str(steps)]
    for key, value in asked.settings.items():
        words += ["--set", f"{key}={toml(value)}"]
    return shlex.join(words)
