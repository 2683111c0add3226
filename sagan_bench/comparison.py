"""Outcomes of runs -> what can be claimed of them, in figures and in words.

The endpoint is the last checkpoint's averaged weights; everything else is a secondary reading and
says so.  docs/statistics.md states the rule.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

import numpy as np

from sagan_bench import statistics, study
from sagan_bench.errors import UserError
from sagan_bench.evaluation.protocol import BETTER
from sagan_bench.outcomes import Run, Runs, gather
from sagan_bench.run_directory import find_runs
from sagan_bench.statistics import Comparison, Metric, Pair, Settling, Summary, settled
from sagan_bench.study import Facts, Measure, Memory, Paper, PaperRow

ENGAGED = 0.02
"""A block whose ||gamma * o|| / ||x|| stays below this adds nothing that could be judged."""
ATTENTION = ("full", "icml", "pooled", "uniform")
BLIND = ("fid", "kid_mean", "isc_mean", "precision", "recall")
"""Metrics that hardly see whether distant parts of an image agree (docs/twins.md)."""


@dataclass(frozen=True)
class Question:
    """What is to be compared, and by what; ``declared`` says that it was fixed before any run."""

    name: str
    text: str
    measure: Measure
    pairs: tuple[Pair, ...]
    declared: bool
    comparable: bool = True
    looks: int = 0
    planned: int | None = None
    """Runs that the plan has; None for runs that no plan names."""
    facts: Mapping[str, Facts] = field(default_factory=dict)
    paper: Paper | None = None


@dataclass(frozen=True)
class Block:
    """What one block did at the end: medians over a variant's runs; None where not recorded."""

    network: str
    name: str
    gamma: float | None
    ratio: float | None
    entropy: float | None
    entropy_max: float | None
    distance_px: float | None


@dataclass(frozen=True)
class Engagement:
    """In how many runs a variant's blocks did something."""

    is_attention: bool
    runs: int
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
    curves: int
    """Runs whose curve was recorded, of which ``settled`` had settled."""


@dataclass(frozen=True)
class Reading:
    """Comparisons by one measure, with a sentence for each; or why there are none."""

    title: str
    metric: str
    label: str
    better: Literal["lower", "higher"]
    min_effect: float
    comparisons: tuple[Comparison, ...] = ()
    sentences: tuple[str, ...] = ()
    absent: str | None = None


@dataclass(frozen=True)
class PaperLine:
    """A variant as a row of the paper's table: matched by side of map / side of image."""

    variant: str
    block: Literal["none", "attention", "residual"]
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
    runs: tuple[str, ...]
    unfinished: tuple[str, ...]


# --- What is asked -----------------------------------------------------------------------------


def of_study(folder: Path) -> Findings:
    """Return what can be said of a study's runs.

    Raises:
        UserError: there is no study, no finished run, or runs that may not be compared.
    """
    memory = study.remembered(folder)
    if memory is None:
        raise UserError(f"no study is in {folder}; begin one with `ablate`")
    return findings(gather(find_runs(folder)), _question(memory))


def _question(memory: Memory) -> Question:
    asked = memory.study
    return Question(
        name=asked.name,
        text=asked.question,
        measure=asked.measure,
        pairs=asked.pairs,
        declared=True,
        comparable=asked.comparable,
        looks=memory.looks,
        planned=len(asked.all_variants) * len(asked.seeds),
        facts=memory.facts,
        paper=asked.paper,
    )


def of_runs(
    paths: Iterable[Path],
    baseline: str | None,
    metric: str | None,
    min_effect: float | str | None,
) -> Findings:
    """Return what can be said of runs that no study names: each variant against ``baseline``.

    Without a baseline nothing is compared.

    Raises:
        UserError: no finished run, or runs that may not be compared.
    """
    runs = gather(paths)
    if baseline is not None and baseline not in runs.variants:
        raise UserError(
            f"--baseline {baseline}: there is no run of it; the variants are "
            f"{', '.join(runs.variants) or 'none'}"
        )
    metric = metric or ("twin_rate" if "twin_rate" in runs.metrics else "fid")
    if metric not in BETTER:
        raise UserError(f"--metric {metric}: known are {', '.join(BETTER)}")
    measure = Measure(metric=metric, min_effect="5%" if min_effect is None else min_effect)
    others = [name for name in runs.variants if name != baseline]
    pairs = tuple((name, baseline) for name in others if baseline)
    text = f"How do {', '.join(others)} differ from {baseline}?" if pairs else "What was run?"
    return findings(runs, Question("runs", text, measure, pairs, declared=False))


# --- What is found -----------------------------------------------------------------------------


def findings(runs: Runs, question: Question) -> Findings:
    """Return what can be said.

    Raises:
        UserError: nothing is finished, or the metric was not measured.
    """
    if not runs.attempted:
        raise UserError(
            f"{question.name}: no run is finished yet, so there is nothing to compare; run it on"
        )
    metric = question.measure.metric
    if runs.metrics and metric not in runs.metrics:
        there = ", ".join(name for name in BETTER if name in runs.metrics)
        raise UserError(f"these runs have no {metric}; they have {there}")
    pairs = tuple(pair for pair in question.pairs if all(name in runs.variants for name in pair))
    asked = replace(question, pairs=pairs)
    order = [*(name for variant, base in pairs for name in (base, variant)), *runs.variants]
    variants = tuple(
        _variant(name, runs.variants[name], runs, metric) for name in dict.fromkeys(order)
    )
    by_name = {variant.name: variant for variant in variants}
    primary = _primary(runs, asked, by_name)
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
        runs=tuple(str(run.path) for run in runs.attempted),
        unfinished=tuple(map(str, runs.unfinished)),
    )


def _missing(question: Question, runs: Runs) -> int:
    """Return how many runs are still to come."""
    if question.planned is None:
        return len(runs.unfinished)
    return question.planned - len(runs.attempted)


def _metric(question: Question, runs: Runs, metric: str, values: Mapping[str, Any]) -> Metric:
    baselines = {baseline for _, baseline in question.pairs}
    known = [v for name in baselines for v in values.get(name, {}).values() if v is not None]
    primary = metric == question.measure.metric
    measure = question.measure if primary else Measure(metric=metric, min_effect="5%")
    blind = "whether distant parts of an image agree" if metric in BLIND else ""
    return Metric(
        label=runs.label(metric),
        better=BETTER[metric],
        min_effect=measure.min_effect_of(fmean(known)) if known else 0.0,
        blind_to=blind,
    )


def _primary(runs: Runs, question: Question, variants: Mapping[str, Variant]) -> Reading:
    metric = question.measure.metric
    outcomes = runs.outcomes(runs.at_the_end(metric))
    how = _metric(question, runs, metric, outcomes)
    missing = _missing(question, runs)
    compared = [
        _withheld(one, question, variants, runs)
        for one in statistics.compare(
            outcomes, question.pairs, how, looks=question.looks, missing=missing
        )
    ]
    sentences = (f"{statistics.sentence(one, how)}; {_settling(one, variants)}" for one in compared)
    title = "at the end, averaged weights (primary)"
    return Reading(
        title, metric, how.label, how.better, how.min_effect, tuple(compared), tuple(sentences)
    )


def _withheld(
    one: Comparison, question: Question, variants: Mapping[str, Variant], runs: Runs
) -> Comparison:
    """Take the verdict from a comparison that may have none."""
    if not question.comparable:
        return replace(one, standing="too small to conclude from", verdict=None, seeds_needed=None)
    if idle := _idle(one, variants, runs):
        return replace(one, standing=idle, verdict=None, seeds_needed=None)
    return one


def _idle(one: Comparison, variants: Mapping[str, Variant], runs: Runs) -> str:
    """Return the words for a comparison about blocks that did nothing; else nothing."""
    sides = (one.variant, one.baseline)
    attention = [runs.variants[name][0].config.model.attention for name in sides]
    if attention[0] == attention[1]:
        return ""
    for name in sides:
        engagement = variants[name].engagement
        if engagement and engagement.absent:
            what = "attention" if engagement.is_attention else "the block"
            idle = engagement.runs - engagement.engaged
            return (
                f"{what} was not engaged; no conclusion: ||gamma o|| / ||x|| of {name} stayed "
                f"below {ENGAGED} in {idle} of {engagement.runs} runs"
            )
    return ""


def _settling(one: Comparison, variants: Mapping[str, Variant]) -> str:
    sides = [variants[name] for name in (one.variant, one.baseline)]
    if not all(side.curves for side in sides):
        return "whether the runs had settled was not recorded"
    parts = (f"{side.settled} of {side.curves} runs of {side.name}" for side in sides)
    return f"{' and '.join(parts)} had settled"


def _variant(name: str, found: Sequence[Run], runs: Runs, metric: str) -> Variant:
    value = runs.at_the_end(metric)
    values = {run.seed: None if run.lost else value(run) for run in found}
    curves = [curve for run in found if not run.lost and len(curve := run.curve(metric)) > 2]
    costs = [run.record.cost for run in found if run.record.status == "finished"]
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
        settled=sum(_settled(curve).words == "had settled" for curve in curves),
        curves=len(curves),
    )


def _settled(curve: Sequence[tuple[int, float]]) -> Settling:
    return settled([step for step, _ in curve], [value for _, value in curve])


def _blocks(found: Sequence[Run]) -> Iterable[Block]:
    """Yield each block's figures, medians over the runs that finished."""
    read = [block for run in found if not run.lost for block in run.record.blocks]
    for network, name in dict.fromkeys((block.network, block.name) for block in read):
        same = [block for block in read if (block.network, block.name) == (network, name)]

        def middle(figure: str, same: Sequence[Any] = same) -> float | None:
            return _median(getattr(block, figure) for block in same)

        figures = ("gamma", "ratio", "entropy", "entropy_max", "distance_px")
        yield Block(network, name, *map(middle, figures))


def _engagement(found: Sequence[Run]) -> Engagement | None:
    """Count the runs in which some block did something; None where there is no block."""
    attention = found[0].config.model.attention
    if not (attention.generator or attention.discriminator) or attention.kind == "wider":
        return None
    read = [run.record.blocks for run in found if run.record.blocks and not run.lost]
    engaged = sum(any((b.ratio or 0) >= ENGAGED for b in blocks) for blocks in read)
    return Engagement(attention.kind in ATTENTION, len(read), engaged)


# --- Secondary readings ------------------------------------------------------------------------


def _secondary(runs: Runs, question: Question) -> Iterable[Reading]:
    primary = question.measure.metric
    for metric in ("twin_rate", "fid"):
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
    best = max if BETTER[primary] == "higher" else min
    title = "the best on the way (secondary, optimistic: chosen by looking)"
    values = runs.outcomes(lambda run: best(value for _, value in run.curve(primary)))
    yield _reading(title, primary, values, runs, question)


def _at_equal(
    what: str, cost: Callable[[Run], float | None], runs: Runs, question: Question
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
    return _reading(title, metric, outcomes, runs, replace(question, pairs=tuple(pairs)))


def _at(curve: Sequence[tuple[int, float]], step: float) -> float:
    """Return the value at a step, between the two scores around it."""
    return float(np.interp(step, [one for one, _ in curve], [value for _, value in curve]))


def _reading(
    title: str, metric: str, outcomes: Mapping[str, Any], runs: Runs, question: Question
) -> Reading:
    how = _metric(question, runs, metric, outcomes)
    missing = _missing(question, runs)
    found = statistics.compare(outcomes, question.pairs, how, looks=question.looks, missing=missing)
    if not question.comparable:
        found = tuple(replace(one, verdict=None, seeds_needed=None) for one in found)
    sentences = tuple(statistics.sentence(one, how) for one in found)
    return Reading(title, metric, how.label, how.better, how.min_effect, found, sentences)


def _absent(title: str, metric: str, runs: Runs, why: str) -> Reading:
    return Reading(title, metric, runs.label(metric), BETTER[metric], 0.0, absent=why)


# --- The paper's table -------------------------------------------------------------------------


def _paper_lines(
    question: Question, variants: Mapping[str, Variant], runs: Runs
) -> Iterable[PaperLine]:
    if question.paper is None:
        return
    for name, variant in variants.items():
        config, facts = runs.variants[name][0].config, question.facts[name]
        places = {(place.side, place.channels) for place in facts.blocks}
        side, channels = next(iter(places)) if len(places) == 1 else (None, None)
        share = side / config.data.image_size if side else None
        kind = config.model.attention.kind
        block: Literal["none", "attention", "residual"] = (
            "none" if not places else "attention" if kind in ATTENTION else "residual"
        )
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


def _headline(question: Question, runs: Runs, primary: Reading) -> tuple[str, ...]:
    """Return in a few sentences what can be claimed, and what cannot."""
    if not question.comparable:
        return ("These runs are too small to compare: they show that everything works.",)
    missing = _missing(question, runs)
    if missing:
        done = len(runs.attempted)
        return (f"Provisional: {done} runs are over and {missing} are still to come.",)
    claims = [
        text
        for one, text in zip(primary.comparisons, primary.sentences, strict=True)
        if one.verdict in ("better", "worse", "no meaningful difference")
    ]
    budget = f"At {_budget(runs)}"
    if claims:
        return tuple(f"{budget}: {claim}." for claim in claims)
    return (f"{budget}: nothing can be claimed.", *(f"{text}." for text in primary.sentences))


def _budget(runs: Runs) -> str:
    rates = dict.fromkeys(run.config.training.learning_rates for run in runs.attempted)
    told = " or ".join(f"{g:.3g}/{d:.3g}" for g, d in rates)
    return f"{runs.steps:,} steps, learning rates of G/D {told}"


def _protocol(runs: Runs) -> dict[str, Any]:
    """Return the protocol behind the figures, with all its sampling seeds."""
    protocols = list(runs.protocols.values())
    if not protocols:
        return {}
    return {**protocols[0].model_dump(mode="json"), "sampling_seed": sorted(runs.protocols)}


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(median(known)) if known else None
