"""What a reader must know before believing a figure, in sentences."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sagan_bench.analysis.comparison import Kind
from sagan_bench.analysis.costs import is_of
from sagan_bench.analysis.gathering import INIT
from sagan_bench.analysis.lengths import Figures, SideBySide
from sagan_bench.analysis.limits import Doubt, Irregularity
from sagan_bench.analysis.question import Ledger
from sagan_bench.analysis.statistics import CONFIRMATORY_N
from sagan_bench.config.diff import listed
from sagan_bench.config.naming import OWN, contradictions
from sagan_bench.core.errors import UserError
from sagan_bench.evaluation.protocol import suffix
from sagan_bench.experiments.tuning.trials import Outcome
from sagan_bench.report.formats import plural
from sagan_bench.report.readings import Findings
from sagan_bench.report.text import Words, claimed, excludes_0, without_figure
from sagan_bench.runs.program import PROGRAM, program_of
from sagan_bench.runs.records import Record, Status
from sagan_bench.runs.run import Run

if TYPE_CHECKING:  # optuna comes with them
    from sagan_bench.experiments.tuning.searched import SearchFindings
    from sagan_bench.report.document import TuningFindings

FEW = 6
"""Variants with too few runs, and other studies, that are named."""
FAMILIES = (
    "Each is a family of its own, with its own 5 % of false claims: of 20 without a difference "
    "one is claimed in the mean."
)


def of_study(
    findings: Findings,
    runs: Sequence[Run],
    unread: int,
    meant: Collection[str] = (),
    *,
    partial: bool = False,
    bare: Sequence[str] = (),
) -> Iterator[str]:
    """Yield what is to be known of a study, or of runs that no study names: contraries first.

    Args:
        findings: what is said.
        runs: of which.
        unread: runs that cannot be read.
        meant: settings that the study says its preset has on these data.
        partial: whether runs are still to come.
        bare: variants of which no run is over.
    """
    yield from contraries(findings, runs, meant)
    if bare:
        yield f"Of {', '.join(bare)} no run is over: nothing here is of that."
    yield from declaration(findings)
    yield from other_questions(findings)
    yield from _left_out(unread)
    if findings.unplanned:
        names = ", ".join(findings.unplanned[:FEW])
        are = "is" if len(findings.unplanned) == 1 else "are"
        runs_that = plural(len(findings.unplanned), "run")
        yield f"{runs_that} that the study does not plan {are} left out: {names}."
    yield from _of_numbers(findings, runs)
    yield from doubts(findings)
    if not partial:
        yield from _settling(findings)
    if any(variant.shared_device for variant in findings.variants):
        rates = any(variant.images_per_sec is not None for variant in findings.variants)
        times = "times and images a second" if rates else "times"
        yield (
            f"Several runs shared a device: {times} are those of a busy one, and of equal seconds "
            "nothing is said."
        )
    yield from of_program(runs)
    yield from of_beginning(runs)
    yield from _of_place(findings.protocol, [run.record for run in runs])
    devices = {run.record.environment.device_name or run.record.environment.cpu for run in runs}
    if len(devices) > 1:
        yield f"Runs were made on {len(devices)} kinds of device: their times do not compare."
    if not findings.declared:
        yield "Post hoc: metric and smallest difference that matters were chosen after the runs."
    scores = (score for run in runs for score in run.final("ema"))
    yield from dict.fromkeys(f"{text}." for score in scores for text in score.warnings)


def of_lengths(numbers: SideBySide) -> Iterator[str]:
    """Yield what is to be known of runs of different length."""
    runs = numbers.runs
    yield from _left_out(numbers.unread)
    for name, own in numbers.variants.items():
        for status in (Status.DIVERGED, Status.FAILED):
            if count := sum(run.record.status == status for run in own):
                yield f"{count} of {plural(len(own), 'run')} of {name} {status}."
    if not numbers.common_steps:
        yield (
            "There is no step at which every run has a score on the way (run.eval_every): curves "
            "and final figures stand side by side, each at its own steps."
        )
    several = {name for figures in (numbers.final, numbers.on_the_way) for name in _twice(figures)}
    if several:
        yield (
            f"{', '.join(sorted(several))} of these runs are of several protocols: figures of two "
            "never stand in one column."
        )
    yield from of_program(runs)
    yield from of_beginning(runs)
    finals = [score.protocol for run in runs for score in run.final("ema")]
    places = {protocol.get("extractor", "inception"): protocol for protocol in finals}
    yield from dict.fromkeys(
        text for how in places.values() for text in _of_place(how, [run.record for run in runs])
    )
    if count := len(numbers.begun):
        yield f"{plural(count, 'unfinished run')} {'is' if count == 1 else 'are'} not shown."


def _twice(figures: Iterable[Figures]) -> Iterator[str]:
    """Yield the metrics of which there is more than one column."""
    seen: set[str] = set()
    for of in figures:
        if of.metric in seen:
            yield of.label
        seen.add(of.metric)


def of_program(runs: Sequence[Run]) -> Iterator[str]:
    """Yield which figures another program gave: of these it is not known how they were measured."""
    given: dict[str, dict[str, None]] = {}
    is_all = True
    for program, run in ((run.program, run) for run in runs):
        for score in run.final("ema") if program else ():
            if program and score.protocol.get("by") == PROGRAM:
                given.setdefault(program.source, {}).update(dict.fromkeys(score.metrics))
            else:
                is_all = False  # we measured others, of pictures that it left
    for source, names in given.items():
        which = "Figures" if is_all else f"Figures of {', '.join(names)}"
        yield f"{which} are as {source} gives them: how they were measured is not known here."


def of_beginning(runs: Iterable[Run]) -> Iterator[str]:
    """Yield which runs began with weights of another run."""
    if names := dict.fromkeys(run.variant for run in runs if run.settings.get(INIT)):
        yield (
            f"Runs of {'; of '.join(names)} began with the weights of another run: its steps, and "
            "the images that it saw, are not counted here."
        )


def of_tuning(
    findings: "TuningFindings",
    runs: Sequence[Run],
    unread: int,
    protocol: Mapping[str, Any],
    *,
    confirm: bool,
) -> Iterator[str]:
    """Yield what is to be known of a tuning."""
    from sagan_bench.experiments.tuning.findings import looked

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
    if any(record.environment.git_dirty for record in records if not program_of(record)):
        yield "Some runs were made from a checkout with changes that no commit holds."


def _of_numbers(findings: Findings, runs: Sequence[Run]) -> Iterator[str]:
    for variant in findings.variants:
        figures = variant.summary
        known = figures.n, figures.n_ok, figures.n_diverged, figures.n_failed
        yield from (f"{text}." for text in without_figure(variant.name, *known))
    few = [variant for variant in findings.variants if variant.summary.n < CONFIRMATORY_N]
    if few:
        counts = ", ".join(f"{variant.name} has {variant.summary.n}" for variant in few[:FEW])
        more = f" and {len(few) - FEW} others" if len(few) > FEW else ""
        yield f"A verdict needs {CONFIRMATORY_N} runs a variant: {counts}{more}."
    stopped = sum(run.record.status == Status.INTERRUPTED for run in runs)
    if stopped:
        are, them = ("is", "it") if stopped == 1 else ("are", "them")
        counted = plural(stopped, "interrupted run")
        if findings.courses:  # no pair may wait for it
            yield f"{counted} {are} not counted."
        else:
            yield f"{counted} {are} not counted; the same command finishes {them}."


def contraries(
    findings: Findings, runs: Iterable[Run] = (), meant: Collection[str] = ()
) -> Iterator[str]:
    """Yield what speaks against the verdicts of a study: first that a side is not what it says."""
    yield from _misnamed(runs, meant)
    baselines = {c.variant: c.baseline for c in findings.primary.comparisons}
    for variant, differ in findings.differences.items():
        if not differ and variant in baselines:
            yield f"{variant} and {baselines[variant]} differ in nothing that changes results."
    for comparison in findings.primary.comparisons:
        yield from _contraries(comparison, findings)


def declaration(findings: Findings) -> Iterator[str]:
    """Yield whose word it is that the question was fixed before the runs."""
    if findings.where:
        yield (
            "Metric, direction, baseline and smallest difference that matters are as declared "
            f"{findings.where}: no study shows that they were fixed before the runs, nor how "
            "often results were looked at."
        )


def other_questions(findings: Findings) -> Iterator[str]:
    """Yield how many other questions were put to the same data, and what that means."""
    if (ledger := findings.ledger) is None:
        return
    if ledger.entries:
        yield _counted(ledger, findings.primary.label)
    if count := len(ledger.unreadable):
        studies = "1 study" if count == 1 else f"{count} studies"
        yield (
            f"{studies} beside this one cannot be read ({_names(ledger.unreadable)}): whether of "
            "these data is not known."
        )


def _counted(ledger: Ledger, label: str) -> str:
    """Return in a sentence how many questions came before this one, since, and when unknown."""
    before = [entry.folder for entry in ledger.entries if entry.before]
    since = sum(entry.before is False for entry in ledger.entries)
    unknown = len(ledger.entries) - len(before) - since
    to = f"put to {'this command' if ledger.of_command else 'these data'} by {label}"
    said = f"No other question is known to have been {to} before this one"
    if before:
        were = "was" if len(before) == 1 else "were"
        said = f"{plural(len(before), 'other question')} {were} {to} before this one"
        said = f"{said} ({_names(before)})"
    rest = [f"{since} since"] * bool(since) + [f"{unknown} at an unknown time"] * bool(unknown)
    said = f"{', '.join([said, *rest])}."
    return f"{said} {FAMILIES}" if before else said


def _names(folders: Sequence[str]) -> str:
    more = f" and {len(folders) - FEW} others" if len(folders) > FEW else ""
    return f"{', '.join(folders[:FEW])}{more}"


def _misnamed(runs: Iterable[Run], meant: Collection[str]) -> Iterator[str]:
    """Yield which variants' runs have settings that are not that variant's."""
    lines = dict[str, None]()
    ours = (run.config for run in runs if run.program is None)
    for config in dict.fromkeys(config.model_copy(update={"seed": 0}) for config in ours):
        if config.variant.endswith(OWN):
            continue
        try:
            differ = [pair for pair in contradictions(config) if pair.key not in meant]
        except UserError:
            continue  # of a variant that is not shipped
        if differ:
            name, why = config.variant, listed(differ, "{} is {}, not {}")
            lines[f"Runs called {name} are not {name} on the preset {config.preset}: {why}."] = None
    yield from lines


def doubts(findings: Findings) -> Iterator[str]:
    """Yield in which way the runs look unlike what the rule was measured on."""
    yield from map(_doubt, findings.doubts)


def _contraries(primary: Words, findings: Findings) -> Iterator[str]:
    """Yield what speaks against a verdict: what it costs, then readings that point elsewhere."""
    if not (primary.verdict and (primary.verdict.is_better or primary.verdict.is_worse)):
        return
    if primary.shown_per_flop is False:
        yield _at_cost(primary, Kind.EQUAL_FLOPS, "is shown per step, not per FLOP", findings)
    for reading in findings.secondary:
        of_cost = reading.kind == Kind.EQUAL_SECONDS
        said = reading.kind == Kind.EQUAL_FLOPS and primary.shown_per_flop is False
        for c in reading.comparisons if not said else ():
            same_way = (c.effect or 0) * (1 if reading.better == "higher" else -1) > 0
            contrary = c.effect and same_way != primary.verdict.is_better
            unshown = of_cost and not (excludes_0(c.interval) and abs(c.effect or 0) > c.min_effect)
            if not (is_of(c, primary) and (contrary or unshown)):
                continue
            if of_cost:
                yield _at_cost(primary, Kind.EQUAL_SECONDS, "is not shown per second", findings)
            else:
                where = "" if reading.kind == Kind.END else f" {reading.title}"
                yield (
                    f"{reading.label}{where}, which does not decide, points the other way: "
                    f"{c.variant} against {c.baseline} {_with_interval(c)}."
                )


def _at_cost(primary: Words, kind: Kind, said: str, findings: Findings) -> str:
    """Return that a verdict at equal steps says less at equal cost."""
    verdict = claimed(replace(primary, shown_per_flop=None))
    readings = [reading for reading in findings.secondary if reading.kind == kind]
    both = ((r, c) for r in readings for c in r.comparisons if is_of(c, primary))
    reading, c = next(both, (readings[-1] if readings else None, None))
    if reading is None or c is None:
        why = f" ({reading.absent})" if reading and reading.absent else ""
        return f"That {verdict} {said}: the difference at equal {kind} is not known{why}."
    differs = f"{reading.label} differs by {_with_interval(c)}"
    return f"That {verdict} {said}: at equal {kind} {differs}, and {c.min_effect:.3g} matters."


def _with_interval(c: Words) -> str:
    bounds = " [{:+.3g}, {:+.3g}]".format(*c.interval) if c.interval else ""
    return f"{c.effect:+.3g}{bounds}" if c.effect is not None else "an unknown amount"


def _settling(findings: Findings) -> Iterator[str]:
    curves = sum(variant.curves for variant in findings.variants)
    settled = sum(variant.settled for variant in findings.variants)
    unsettled = sum(variant.unsettled for variant in findings.variants)
    if curves and 2 * settled < curves:
        counts = {"had not settled at the end": unsettled,
                  "may not have settled": curves - settled - unsettled}  # fmt: skip
        said = " and ".join(f"{count} {ending}" for ending, count in counts.items() if count)
        yield f"Of {plural(curves, 'run')} {said}: what is said holds at this budget."


def _doubt(doubt: Doubt) -> str:
    if doubt.kind is Irregularity.FAR_OUTLIER:
        return (
            f"Run {doubt.seed} of {doubt.variant} lies far from its others, so that one run makes "
            "much of the mean: there the 5 % of false claims do not hold (docs/statistics.md)."
        )
    return (
        f"The runs of {doubt.variant} are skewed and spread more than twice as widely as those of "
        f"{doubt.against}: there false claims reach 27 % instead of 5 (docs/statistics.md)."
    )


def _of_search(search: "SearchFindings") -> Iterator[str]:
    failed, n = search.budget.trials[Outcome.FAILED], len(search.trials)
    if failed:
        yield f"{search.id}: {failed} of {n} trials failed; the sampler learned nothing from them."
    again = [value for c in search.candidates for value in (c.on_a | c.on_b).values()]
    if lost := again.count(None):
        yield f"{search.id}: {lost} of {len(again)} runs on fresh seeds diverged or failed."
