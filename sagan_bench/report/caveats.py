"""What a reader must know before believing a figure, in sentences."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sagan_bench.analysis.statistics import CONFIRMATORY_N
from sagan_bench.analysis.verdicts import Verdict
from sagan_bench.evaluation.protocol import suffix
from sagan_bench.experiments.tuning.findings import SearchFindings, looked
from sagan_bench.experiments.tuning.trials import Outcome
from sagan_bench.report.document import TuningFindings
from sagan_bench.report.readings import Findings
from sagan_bench.runs.records import Record, Status
from sagan_bench.runs.run import Run

FEW = 6
"""Variants with too few runs that are named."""


def of_study(findings: Findings, runs: Sequence[Run], unread: int) -> Iterator[str]:
    """Yield what is to be known of a study, or of runs that no study names."""
    yield from _left_out(unread)
    yield from _of_numbers(findings, runs)
    yield from _of_readings(findings)
    if any(variant.shared_device for variant in findings.variants):
        yield "Several runs shared a device: times and images a second are those of a busy one."
    yield from _of_place(findings.protocol, [run.record for run in runs])
    devices = {run.record.environment.device_name or run.record.environment.cpu for run in runs}
    if len(devices) > 1:
        yield f"Runs were made on {len(devices)} kinds of device: their times do not compare."
    if not findings.declared:
        yield "Metric and smallest difference that matters were chosen after the runs."
    scores = (score for run in runs for score in run.final("ema"))
    yield from dict.fromkeys(f"{text}." for score in scores for text in score.warnings)


def of_tuning(
    findings: TuningFindings,
    runs: Sequence[Run],
    unread: int,
    protocol: Mapping[str, Any],
    *,
    confirm: bool,
) -> Iterator[str]:
    """Yield what is to be known of a tuning."""
    yield from _left_out(unread)
    if not confirm:
        yield "Nothing is trained again on fresh seeds: the best of a search is too optimistic."
    for search in findings.searches:
        yield from _of_search(search)
    if findings.looks:
        yield looked(findings.looks)
    yield "All trials of a search share one training seed: what they say is also about that seed."
    yield from _of_place(protocol, [run.record for run in runs])


def _left_out(unread: int) -> Iterator[str]:
    if unread:
        runs = "1 run is" if unread == 1 else f"{unread:,} runs are"
        yield f"{runs} left out: what is stored there cannot be read."


def _of_place(protocol: Mapping[str, Any], records: Iterable[Record]) -> Iterator[str]:
    """Yield what is to be known of the extractor of features, and of the checkout."""
    extractor = protocol.get("extractor", "inception")
    if suffix(extractor):
        yield (
            f"Features come from {extractor}, not Inception: its FID, IS and KID are on another "
            "scale than published ones."
        )
    if any(record.environment.git_dirty for record in records):
        yield "Some runs were made from a checkout with changes that no commit holds."


def _of_numbers(findings: Findings, runs: Sequence[Run]) -> Iterator[str]:
    for variant in findings.variants:
        n, lost = variant.summary.n, variant.summary.n - variant.summary.n_ok
        if lost:
            yield f"{lost} of {n} runs of {variant.name} diverged, failed or have no figure."
    few = [variant for variant in findings.variants if variant.summary.n < CONFIRMATORY_N]
    if few:
        counts = ", ".join(f"{variant.name} has {variant.summary.n}" for variant in few[:FEW])
        more = f" and {len(few) - FEW} others" if len(few) > FEW else ""
        yield f"A verdict needs {CONFIRMATORY_N} runs a variant: {counts}{more}."
    stopped = sum(run.record.status == Status.INTERRUPTED for run in runs)
    if stopped:
        yield f"{stopped} interrupted runs are not counted; the same command finishes them."


def _of_readings(findings: Findings) -> Iterator[str]:
    """Yield where runs had not settled, and where a secondary metric contradicts a verdict."""
    curves = sum(variant.curves for variant in findings.variants)
    settled = sum(variant.settled for variant in findings.variants)
    if curves and 2 * settled < curves:
        yield (
            f"{curves - settled} of {curves} runs had not settled at the end: what is said holds "
            "at this budget."
        )
    claimed = {(c.variant, c.baseline): c.verdict for c in findings.primary.comparisons}
    contradictions = ((Verdict.BETTER, False), (Verdict.WORSE, True))
    for reading in findings.secondary:
        for c in reading.comparisons if reading.metric != findings.primary.metric else ():
            improved = c.effect is not None and (c.effect > 0) == (reading.better == "higher")
            if c.effect and (claimed.get((c.variant, c.baseline)), improved) in contradictions:
                bounds = " [{:+.3g}, {:+.3g}]".format(*c.interval) if c.interval else ""
                yield (
                    f"{reading.label}, which does not decide, points the other way: {c.variant} "
                    f"against {c.baseline} {c.effect:+.3g}{bounds}."
                )


def _of_search(search: SearchFindings) -> Iterator[str]:
    failed, n = search.budget.trials[Outcome.FAILED], len(search.trials)
    if failed:
        yield f"{search.id}: {failed} of {n} trials failed; the sampler learned nothing from them."
    again = [value for c in search.candidates for value in (c.on_a | c.on_b).values()]
    if lost := again.count(None):
        yield f"{search.id}: {lost} of {len(again)} runs on fresh seeds diverged or failed."
