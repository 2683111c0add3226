"""What was found, in words: readings with their sentences, and the headline of them all."""

from collections.abc import Iterable
from dataclasses import replace

from sagan_bench.analysis.budget import BudgetCurve, Unit, Withheld
from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.comparison import Findings, Kind
from sagan_bench.analysis.comparison import Reading as Numbers
from sagan_bench.analysis.costs import Absence
from sagan_bench.analysis.variants import Variant
from sagan_bench.analysis.verdicts import Basis, Verdict
from sagan_bench.report import courses, readings
from sagan_bench.report.formats import compact, duration
from sagan_bench.report.probed import probed
from sagan_bench.report.readings import Reading
from sagan_bench.report.text import Words, in_words, sentence
from sagan_bench.runs.program import has_length

TITLES = {
    Kind.PRIMARY: "at the end, averaged weights (primary)",
    Kind.END: "at the end, averaged weights (secondary)",
    Kind.RAW: "at the end, raw weights (secondary)",
    Kind.EQUAL_FLOPS: "at equal FLOPs, from scores on the way (secondary)",
    Kind.EQUAL_SECONDS: "at equal seconds, from scores on the way (secondary)",
    Kind.BEST: "the best on the way (secondary, optimistic: chosen by looking)",
}
WITHOUT_CURVES = {
    Kind.EQUAL_FLOPS: "at equal FLOPs (secondary)",
    Kind.EQUAL_SECONDS: "at equal seconds (secondary)",
    Kind.BEST: "the best on the way (secondary)",
}
ABSENT = {
    Absence.NOT_SCORED: "no run was scored by them (`evaluate` with --weights raw does it)",
    Absence.NO_CURVES: "no scores on the way were taken (run.eval_every)",
    Absence.OTHER_PROTOCOLS: "scores on the way were taken under different protocols",
    Absence.NO_COSTS: "{} were not recorded",
    Absence.SHARED_DEVICE: "withheld: runs shared a device, so their seconds tell of each other",
    Absence.OTHER_DEVICES: "withheld: runs were made on different devices",
    Absence.NO_COMMON_BUDGET: "no budget at which both have a score",
}
WITHHELD = {
    Withheld.NO_SCORES: "not every run was scored on the way (run.eval_every)",
    Withheld.NO_COST: "not recorded",
    Withheld.SHARED_DEVICE: "withheld: runs shared a device, so their seconds tell of each other",
    Withheld.OTHER_DEVICES: "withheld: runs were made on different devices",
    Withheld.NO_COMMON_BUDGET: "no budget at which both have a score",
    Withheld.TOO_FEW: "fewer than 5 runs with a figure in a group",
}


def findings(numbers: Findings) -> readings.Findings:
    """Return what can be said of runs, in words beside the figures."""
    runs, question = numbers.runs, numbers.question
    theirs = runs.program is not None
    primary = reading(numbers.primary, theirs=theirs)
    if not theirs or any(variant.curves for variant in numbers.variants):
        texts = zip(primary.comparisons, primary.sentences, strict=True)
        settled = (f"{text}; {settling(c, numbers.variants)}" for c, text in texts)
        primary = replace(primary, sentences=tuple(settled))
    budget = _budget(runs)
    return readings.Findings(
        name=question.name,
        question=question.text,
        headline=_headlines(numbers, primary, budget),
        budget=budget,
        declared=question.declared,
        protocol=numbers.protocol,
        variants=numbers.variants,
        primary=primary,
        secondary=tuple(reading(each, theirs=theirs) for each in numbers.secondary),
        by_budget=numbers.by_budget,
        doubts=numbers.doubts,
        matters=f"{question.measure.min_effect}",
        where=question.where,
        unplanned=tuple(map(str, runs.unplanned)),
        paper=numbers.paper,
        differences=numbers.differences,
        runs=tuple(str(run.path) for run in runs.attempted),
        unfinished=tuple(map(str, runs.unfinished)),
        courses=_courses(numbers),
        spreads=numbers.spreads,
        correlations=tuple(
            readings.Correlation(*pair, *of) for pair, of in numbers.correlations.items()
        ),
        rule=_rule(numbers),
        ledger=question.ledger,
        probes=_probed(numbers),
    )


def _probed(numbers: Findings) -> readings.Probed | None:
    if numbers.probes is None:
        return None
    return probed(numbers.probes, numbers.primary.comparisons, numbers.primary.how)


def _rule(numbers: Findings) -> readings.Rule:
    question, design = numbers.question, numbers.question.design
    rule = readings.Rule(
        comparable=question.comparable,
        looks=question.looks,
        missing=numbers.missing,
        lost=question.measure.lost,
        paired=question.measure.paired,
        pairs=len(question.pairs),
    )
    if design is None:
        return rule
    return replace(
        rule,
        pairs=design.pairs,
        horizon=design.horizon,
        most=design.most,
        futility=design.futility,
        order=question.order,
    )


def _courses(numbers: Findings) -> tuple[courses.Course, ...]:
    if numbers.question.design is None:
        return ()
    compared = {(c.variant, c.baseline): in_words(c) for c in numbers.primary.comparisons}
    return tuple(
        courses.of_pair(course, numbers.question.design, compared[course.pair])
        for course in numbers.courses
    )


def _budget(runs: RunSet) -> str:
    """Return the budget in words; empty where it is not known."""
    if runs.program:
        return f"{runs.steps:,} steps" if any(has_length(r.record) for r in runs.attempted) else ""
    shown = " or ".join(f"{g:.3g}/{d:.3g}" for g, d in runs.learning_rates)
    return f"{runs.steps:,} steps, learning rates of G/D {shown}"


def reading(numbers: Numbers, *, theirs: bool = False) -> Reading:
    """Return a reading in words: title, a sentence for each comparison, or why there is none.

    Args:
        numbers: the reading in figures.
        theirs: another program gave them, and only it knows of which weights they are.
    """
    kind, comparisons = numbers.kind, tuple(map(in_words, numbers.comparisons))
    title, absent = TITLES[kind], None
    if numbers.absent:
        absent = ABSENT[numbers.absent].format(kind)
        title = WITHOUT_CURVES[kind] if numbers.absent is Absence.NO_CURVES else title
        pairs = ", ".join(f"{compared} v {baseline}" for compared, baseline in numbers.without)
        absent = f"{pairs}: {absent}" if pairs else absent
    title = title.replace(", averaged weights", "") if theirs else title
    return Reading(
        kind=kind,
        title=title,
        metric=numbers.metric,
        label=numbers.how.label,
        better=numbers.how.better,
        min_effect=numbers.min_effect,
        comparisons=comparisons,
        sentences=tuple(sentence(comparison, numbers.how) for comparison in comparisons),
        absent=absent,
    )


def _headlines(numbers: Findings, primary: Reading, budget: str) -> tuple[str, ...]:
    """Return in a few sentences what can be claimed, and what cannot."""
    if not numbers.question.comparable:
        return ("These runs are too small to compare: they show that everything works.",)
    over = len(numbers.runs.attempted)
    if numbers.missing and not any(c.verdict for c in primary.comparisons):
        return (f"Provisional: {still_to_come(over, numbers.missing)}.",)
    where = numbers.question.where and f"as declared {numbers.question.where}"
    at = ", ".join(filter(None, (where, budget and f"at {budget}")))
    claims, others = list[str](), list[str]()
    for comparison, text in zip(primary.comparisons, primary.sentences, strict=True):
        is_open = comparison.verdict in (None, Verdict.INCONCLUSIVE)
        (others if is_open else claims).append(f"{text}.")
    if not claims:
        claims = ["nothing can be claimed." if at else "Nothing can be claimed."]
    first, *rest = claims
    open_pairs = [f"Open: {still_to_come(over, numbers.missing)}."] if numbers.missing else []
    return (f"{at[0].upper()}{at[1:]}: {first}" if at else first, *rest, *others, *open_pairs)


def still_to_come(over: int, missing: int) -> str:
    """Return how far runs are."""
    return f"{over} runs are over and {missing} are still to come"


def settling(c: Words, variants: Iterable[Variant]) -> str:
    """Return how many runs of both sides of a comparison had settled."""
    by_name = {variant.name: variant for variant in variants}
    sides = [by_name[name] for name in (c.variant, c.baseline)]
    if not all(side.curves for side in sides):
        return "whether the runs had settled was not recorded"
    return "; ".join(f"{side.name}: {_endings(side)}" for side in sides)


def _endings(variant: Variant) -> str:
    unknown = variant.curves - variant.settled - variant.unsettled
    counts = {
        "had not settled": variant.unsettled,
        "had settled": variant.settled,
        "may not have settled": unknown,
    }
    return ", ".join(
        f"{count} of {variant.curves} runs {ending}" for ending, count in counts.items() if count
    )


# --- By budget ---------------------------------------------------------------------------------


def of_curve(curve: BudgetCurve) -> str:
    """Return from which budget on a difference is beyond the smallest that matters."""
    of = f"{curve.variant} against {curve.baseline}, by {UNITS[curve.unit]}{_limits(curve)}"
    if curve.withheld:
        return f"{of}: {WITHHELD[curve.withheld]}"
    matters = f"more than the {curve.margin:.3g} that matters"
    last = spent(curve.points[-1].budget, curve.unit)
    way = "higher" if curve.points[-1].effect > 0 else "lower"
    if curve.crosses is None:
        return f"{of}: at {last} not {way} by {matters}"
    text = f"{of}: {way} by {matters} from {spent(curve.crosses, curve.unit)} on"
    if curve.excludes_margin is None:
        return f"{text}, its interval not wholly up to {last}"
    return f"{text}, its whole interval from {spent(curve.excludes_margin, curve.unit)} on"


def _limits(curve: BudgetCurve) -> str:
    """Return what limits a curve: how much may be said, and that runs are missing from it."""
    standing = "" if curve.basis in ("", Basis.CONFIRMATORY) else curve.basis
    sides = zip(curve.runs, curve.attempted, strict=True)
    lost = any(n < attempted for n, attempted in sides)
    those = f"of the {' and '.join(map(str, curve.runs))} runs that finished" if lost else ""
    parts = ", ".join(filter(None, (standing, those)))
    return f" ({parts})" if parts else ""


UNITS = {Unit.STEPS: "steps", Unit.FLOPS: "FLOPs", Unit.SECONDS: "time"}


def spent(budget: float, unit: str) -> str:
    """Return a budget with its unit."""
    match unit:
        case Unit.STEPS:
            return f"{budget:,.0f} steps"
        case Unit.FLOPS:
            return f"{compact(budget)}FLOPs"
    return duration(budget)
