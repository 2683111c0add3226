"""Outcomes of runs -> what can be claimed of them, in figures and in words.

The endpoint is the last checkpoint's averaged weights; everything else is a secondary reading and
says so.  docs/statistics.md states the rule.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from sagan_bench.analysis import statistics
from sagan_bench.analysis.collection import RunSet, gather
from sagan_bench.analysis.question import Measure, PaperRow, Question
from sagan_bench.analysis.statistics import Comparison, Ending, Metric, Pair, Summary, settled
from sagan_bench.config.diff import Difference, in_results
from sagan_bench.core.errors import NothingFinished, UserError
from sagan_bench.core.registry import ATTENTION, METRICS
from sagan_bench.evaluation.metrics import leading, shown
from sagan_bench.runs.records import Status
from sagan_bench.runs.run import Run

ENGAGED = 0.02
"""A block whose ||gamma * o|| / ||x|| stays below this adds nothing that could be judged."""


@dataclass(frozen=True)
class Block:
    """What one block did at the end: medians over a variant's runs; None where not recorded."""

    network: str
    name: str
    gamma: float | None
    """Of its absolute value: the sign means nothing, since o can turn too."""
    ratio: float | None
    entropy: float | None
    entropy_max: float | None
    distance_px: float | None


@dataclass(frozen=True)
class Engagement:
    """In how many runs a variant's blocks did something."""

    is_attention: bool
    runs: int
    """RunSet in which that is known."""
    engaged: int

    @property
    def absent(self) -> bool:
        """Whether most runs did without."""
        return self.runs > 0 and 2 * (self.runs - self.engaged) > self.runs


@dataclass(frozen=True)
class Variant:
    """One variant's runs."""

    name: str
    summary: Summary
    values: dict[int, float | None]
    """Training seed -> the primary metric; None for a run that diverged or failed."""
    parameters: int | None
    flops_per_step: int | None
    train_sec: float | None
    images_per_sec: float | None
    shared_device: bool
    blocks: tuple[Block, ...]
    engagement: Engagement | None
    settled: int
    unsettled: int
    curves: int
    """RunSet whose curve was recorded; where neither settled nor unsettled, it cannot be told."""


@dataclass(frozen=True)
class Reading:
    """Comparisons by one measure, with a sentence for each; or why there are none."""

    title: str
    metric: str
    label: str
    better: Literal["lower", "higher"]
    min_effect: float
    """Smallest difference that matters; where it differs from baseline to baseline, the least."""
    comparisons: tuple[Comparison, ...] = ()
    sentences: tuple[str, ...] = ()
    absent: str | None = None


@dataclass(frozen=True)
class PaperLine:
    """A variant as a row of the paper's table: matched by side of map / side of image."""

    variant: str
    block: str
    """The title of what stands there, or ``none``."""
    channels: int | None
    side: int | None
    share: float | None
    parameters: int
    flops_per_step: int
    mean: float | None
    paper: dict[str, float] | None


@dataclass(frozen=True)
class Findings:
    """Everything that can be said of the runs of a question; figures raw, words beside them."""

    name: str
    question: str
    headline: tuple[str, ...]
    budget: str
    declared: bool
    protocol: dict[str, Any]
    variants: tuple[Variant, ...]
    primary: Reading
    secondary: tuple[Reading, ...]
    paper: tuple[PaperLine, ...]
    differences: dict[str, list[Difference]]
    """Variant -> (key, in its baseline, in the variant): all that changes results."""
    runs: tuple[str, ...]
    unfinished: tuple[str, ...]


# --- What is asked -----------------------------------------------------------------------------


def of_runs(
    paths: Iterable[Path],
    baseline: str | None,
    metric: str | None,
    min_effect: float | str | None,
) -> Findings:
    """Return what can be said of runs that no study names.  Raises `UserError` as `about`."""
    return about(gather(paths, loose=True), baseline, metric, min_effect)


def about(
    runs: RunSet,
    baseline: str | None,
    metric: str | None = None,
    min_effect: float | str | None = None,
) -> Findings:
    """Return what can be said of runs that no study names: each variant against ``baseline``.

    Without a baseline nothing is compared.

    Raises:
        UserError: no finished run, or runs that may not be compared.
    """
    if baseline is not None:
        baseline = _named(baseline, runs)
    metric = metric or next((m for m in leading() if m in runs.metrics), leading()[-1])
    if metric not in METRICS:
        raise UserError(f"--metric {metric}: known are {', '.join(shown())}")
    measure = Measure(metric=metric, min_effect="5%" if min_effect is None else min_effect)
    others = [name for name in runs.variants if name != baseline]
    pairs = tuple((name, baseline) for name in others if baseline)
    text = f"How do {', '.join(others)} differ from {baseline}?" if pairs else "What was run?"
    return findings(runs, Question("runs", text, measure, pairs, declared=False))


def _named(baseline: str, runs: RunSet) -> str:
    """Return the variant that is meant: by its name, by one of its runs, or by its folder."""
    folder = Path(baseline)
    for is_meant in (
        lambda run: baseline == run.variant,
        lambda run: folder.resolve() == run.path.resolve(),
        lambda run: folder.name in (run.path.name, run.variant.partition("/")[0]),
    ):
        found = {run.variant for run in runs.attempted if is_meant(run)}
        if len(found) == 1:
            return found.pop()
    which = f"it could be {' or '.join(sorted(found))}" if found else "there is no run of it"
    raise UserError(
        f"--baseline {baseline}: {which}; the variants are {', '.join(runs.variants) or 'none'}"
    )


# --- What is found -----------------------------------------------------------------------------


def findings(runs: RunSet, question: Question) -> Findings:
    """Return what can be said.

    Raises:
        UserError: nothing is finished, or the metric was not measured.
    """
    if not runs.attempted:
        raise NothingFinished(
            f"{question.name}: no run is finished yet, so there is nothing to compare; run it on"
        )
    metric = question.measure.metric
    if runs.metrics and metric not in runs.metrics:
        there = ", ".join(name for name in shown() if name in runs.metrics)
        raise UserError(f"these runs have no {metric}; they have {there}")
    pairs = tuple(pair for pair in question.pairs if all(name in runs.variants for name in pair))
    asked = replace(question, pairs=pairs)
    order = [*(name for variant, base in pairs for name in (base, variant)), *runs.variants]
    variants = tuple(
        _variant(name, runs.variants[name], runs, metric) for name in dict.fromkeys(order)
    )
    by_name = {variant.name: variant for variant in variants}
    primary = _primary(runs, asked)
    return Findings(
        name=question.name,
        question=question.text,
        headline=_headline(question, runs, primary),
        budget=_budget(runs),
        declared=question.declared,
        protocol=_protocol(runs),
        variants=variants,
        primary=primary,
        secondary=tuple(_secondary(runs, asked)),
        paper=tuple(_paper_lines(question, by_name, runs)),
        differences={
            variant: in_results(runs.variants[baseline][0].config, runs.variants[variant][0].config)
            for variant, baseline in pairs
        },
        runs=tuple(str(run.path) for run in runs.attempted),
        unfinished=tuple(map(str, runs.unfinished)),
    )


def missing_runs(question: Question, runs: RunSet) -> int:
    """Return how many runs are still to come."""
    if question.planned is None:
        return len(runs.unfinished)
    return question.planned - len(runs.attempted)


def _metric(question: Question, runs: RunSet, metric: str) -> Metric:
    primary = metric == question.measure.metric
    measure = question.measure if primary else Measure(metric=metric, min_effect="5%")
    least, relative = measure.least
    return Metric(
        label=runs.label(metric),
        better=METRICS[metric].better,
        min_effect=least,
        relative=relative,
        blind_to=METRICS[metric].blind_to,
    )


def _primary(runs: RunSet, question: Question) -> Reading:
    metric = question.measure.metric
    outcomes = runs.outcomes(runs.at_the_end(metric))
    title = "at the end, averaged weights (primary)"
    found = _reading(title, metric, outcomes, runs, question)
    variants = runs.variants
    sentences = (
        f"{text}; {_settling(variants[one.variant], variants[one.baseline], metric)}"
        for one, text in zip(found.comparisons, found.sentences, strict=True)
    )
    return replace(found, sentences=tuple(sentences))


def _withheld(one: Comparison, pair: Pair, question: Question, runs: RunSet) -> Comparison:
    """Take the verdict from a comparison of the variants of ``pair`` if it may have none."""
    if not question.comparable:
        return replace(one, standing="too small to conclude from", verdict=None, seeds_needed=None)
    if idle := _idle(pair, runs):
        return replace(one, standing=idle, verdict=None, seeds_needed=None)
    return one


def _idle(pair: Pair, runs: RunSet) -> str:
    """Return the words for a comparison about blocks that did nothing; else nothing."""
    attention = [runs.variants[name][0].config.model.attention for name in pair]
    if attention[0] == attention[1]:
        return ""
    for name in pair:
        engagement = _engagement(runs.variants[name])
        if engagement and engagement.absent:
            what = "attention" if engagement.is_attention else "the block"
            idle = engagement.runs - engagement.engaged
            return (
                f"{what} was not engaged; no conclusion: ||gamma o|| / ||x|| of {name} was "
                f"below {ENGAGED} at the end of {idle} of {engagement.runs} runs"
            )
    return ""


def _settling(variant: Sequence[Run], baseline: Sequence[Run], metric: str) -> str:
    sides = {runs[0].variant: _endings(runs, metric) for runs in (variant, baseline)}
    if not all(sides.values()):
        return "whether the runs had settled was not recorded"
    return "; ".join(f"{name}: {_of_endings(words)}" for name, words in sides.items())


def _endings(found: Sequence[Run], metric: str) -> list[Ending]:
    """Return for each curve that was recorded whether it had settled."""
    curves = [curve for run in found if not run.lost and len(curve := run.curve(metric)) > 2]
    return [
        settled([step for step, _ in curve], [value for _, value in curve]).state
        for curve in curves
    ]


def _of_endings(words: Sequence[str]) -> str:
    counts = {each: words.count(each) for each in dict.fromkeys(sorted(words))}
    return ", ".join(f"{count} of {len(words)} runs {each}" for each, count in counts.items())


def _variant(name: str, found: Sequence[Run], runs: RunSet, metric: str) -> Variant:
    value = runs.at_the_end(metric)
    values = {run.seed: None if run.lost else value(run) for run in found}
    endings = _endings(found, metric)
    costs = [run.record.cost for run in found if run.record.status == Status.FINISHED]
    first = found[0].record.cost
    parameters = [one for one in (first.parameters_g, first.parameters_d) if one is not None]
    return Variant(
        name=name,
        summary=statistics.summarize({name: values})[0],
        values=values,
        parameters=sum(parameters) if parameters else None,
        flops_per_step=first.flops_per_step,
        train_sec=_median(cost.train_sec for cost in costs),
        images_per_sec=_median(cost.images_per_sec for cost in costs),
        shared_device=any(run.config.run.cells_on_device > 1 for run in found),
        blocks=tuple(_blocks(found)),
        engagement=_engagement(found),
        settled=endings.count(Ending.SETTLED),
        unsettled=endings.count(Ending.UNSETTLED),
        curves=len(endings),
    )


def _blocks(found: Sequence[Run]) -> Iterable[Block]:
    """Yield each block's figures, medians over the runs that finished."""
    read = [block for run in found if not run.lost for block in run.record.blocks]
    for network, name in dict.fromkeys((block.network, block.name) for block in read):
        same = [block for block in read if (block.network, block.name) == (network, name)]

        def middle(figure: str, same: Sequence[Any] = same) -> float | None:
            return _median(getattr(block, figure) for block in same)

        gamma = _median(block.gamma and abs(block.gamma) for block in same)
        figures = ("ratio", "entropy", "entropy_max", "distance_px")
        yield Block(network, name, gamma, *map(middle, figures))


def _engagement(found: Sequence[Run]) -> Engagement | None:
    """Count the runs in which some block did something; None where there is no block."""
    attention = found[0].config.model.attention
    kind = ATTENTION[attention.kind]
    if not (attention.generator or attention.discriminator) or not kind.has_block:
        return None
    known = [[b.ratio for b in run.record.blocks if b.ratio is not None] for run in found]
    strongest = [max(ratios) for run, ratios in zip(found, known, strict=True)
                 if ratios and not run.lost]  # fmt: skip
    engaged = sum(ratio >= ENGAGED for ratio in strongest)
    return Engagement(kind.is_attention, len(strongest), engaged)


# --- Secondary readings ------------------------------------------------------------------------


def _secondary(runs: RunSet, question: Question) -> Iterable[Reading]:
    primary = question.measure.metric
    for metric in leading():
        if metric != primary and metric in runs.metrics:
            title = "at the end, averaged weights (secondary)"
            yield _reading(title, metric, runs.outcomes(runs.at_the_end(metric)), runs, question)
    raw = runs.outcomes(runs.at_the_end(primary, "raw"))
    yield _reading("at the end, raw weights (secondary)", primary, raw, runs, question)
    if not all(run.lost or run.curve(primary) for run in runs.attempted):
        curves = "no scores on the way were taken (run.eval_every)"
        for title in ("at equal FLOPs", "at equal seconds", "the best on the way"):
            yield _absent(f"{title} (secondary)", primary, runs, curves)
        return
    yield _at_equal("FLOPs", lambda run: run.record.cost.flops_per_step, runs, question)
    yield _at_equal("seconds", lambda run: run.record.cost.train_sec, runs, question)
    best = max if METRICS[primary].better == "higher" else min
    title = "the best on the way (secondary, optimistic: chosen by looking)"
    values = runs.outcomes(lambda run: best(value for _, value in run.curve(primary)))
    yield _reading(title, primary, values, runs, question)


def _at_equal(
    what: str, cost: Callable[[Run], float | None], runs: RunSet, question: Question
) -> Reading:
    """Compare each pair where the costlier of the two had spent what the cheaper spent in all."""
    metric, outcomes, pairs = question.measure.metric, {}, []
    title = f"at equal {what}, from scores on the way (secondary)"
    for variant, baseline in question.pairs:
        spent = {
            name: _median(cost(run) for run in runs.variants[name] if not run.lost)
            for name in (variant, baseline)
        }
        if any(not one for one in spent.values()):
            return _absent(title, metric, runs, f"{what} were not recorded")
        least = min(one for one in spent.values() if one)
        at_budget = f"{baseline} (budget of {variant})"
        for name, side in ((variant, variant), (at_budget, baseline)):
            step = runs.steps * least / (spent[side] or 1)
            values = runs.outcomes(lambda run, step=step: _at(run.curve(metric), step))  # type: ignore[misc]
            outcomes[name] = values[side]
        pairs.append((variant, at_budget))
    return _reading(title, metric, outcomes, runs, question, pairs)


def _at(curve: Sequence[tuple[int, float]], step: float) -> float:
    """Return the value at a step, between the two scores around it."""
    return float(np.interp(step, [one for one, _ in curve], [value for _, value in curve]))


def _reading(
    title: str,
    metric: str,
    outcomes: Mapping[str, Any],
    runs: RunSet,
    question: Question,
    compared: Sequence[Pair] = (),
) -> Reading:
    """Compare ``outcomes`` by the question's pairs, or by as many whose keys say more."""
    how = _metric(question, runs, metric)
    by, missing = compared or question.pairs, missing_runs(question, runs)
    made = statistics.compare(outcomes, by, how, looks=question.looks, missing=missing)
    found = tuple(
        _withheld(one, pair, question, runs) for one, pair in zip(made, question.pairs, strict=True)
    )
    sentences = tuple(statistics.sentence(one, how) for one in found)
    least = min((one.min_effect for one in found), default=0.0)
    return Reading(title, metric, how.label, how.better, least, found, sentences)


def _absent(title: str, metric: str, runs: RunSet, why: str) -> Reading:
    return Reading(title, metric, runs.label(metric), METRICS[metric].better, 0.0, absent=why)


# --- The paper's table -------------------------------------------------------------------------


def _paper_lines(
    question: Question, variants: Mapping[str, Variant], runs: RunSet
) -> Iterable[PaperLine]:
    if question.paper is None:
        return
    for name, variant in variants.items():
        config, facts = runs.variants[name][0].config, question.facts[name]
        places = {(place.side, place.channels) for place in facts.blocks}
        side, channels = next(iter(places)) if len(places) == 1 else (None, None)
        share = side / config.data.image_size if side else None
        block = ATTENTION[config.model.attention.kind].title if places else "none"
        yield PaperLine(
            variant=name,
            block=block,
            channels=channels,
            side=side,
            share=share,
            parameters=facts.parameters_g + facts.parameters_d,
            flops_per_step=facts.flops_per_step,
            mean=variant.summary.mean,
            paper=_paper_figures(question.paper.rows, block, share),
        )


def _paper_figures(
    rows: Iterable[PaperRow], block: str, share: float | None
) -> dict[str, float] | None:
    """Return what the paper has for such a block at such a place; sides in G and D must agree."""
    for row in rows:
        if row.block == block and row.share == share:
            return row.figures
    return None


# --- Words -------------------------------------------------------------------------------------


def _headline(question: Question, runs: RunSet, primary: Reading) -> tuple[str, ...]:
    """Return in a few sentences what can be claimed, and what cannot."""
    if not question.comparable:
        return ("These runs are too small to compare: they show that everything works.",)
    missing = missing_runs(question, runs)
    if missing:
        done = len(runs.attempted)
        return (f"Provisional: {done} runs are over and {missing} are still to come.",)
    claimed = [one.verdict not in (None, "inconclusive") for one in primary.comparisons]
    told = list(zip(claimed, primary.sentences, strict=True))
    claims = [f"{text}." for claim, text in told if claim]
    others = [f"{text}." for claim, text in told if not claim]
    budget = f"At {_budget(runs)}"
    if claims:
        return (f"{budget}: {claims[0]}", *claims[1:], *others)
    return (f"{budget}: nothing can be claimed.", *others)


def _budget(runs: RunSet) -> str:
    rates = dict.fromkeys(run.config.training.learning_rates for run in runs.attempted)
    told = " or ".join(f"{g:.3g}/{d:.3g}" for g, d in rates)
    return f"{runs.steps:,} steps, learning rates of G/D {told}"


def _protocol(runs: RunSet) -> dict[str, Any]:
    """Return the protocol behind the figures, with all its sampling seeds."""
    protocols = list(runs.protocols.values())
    if not protocols:
        return {}
    return {**protocols[0].model_dump(mode="json"), "sampling_seed": sorted(runs.protocols)}


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(median(known)) if known else None
