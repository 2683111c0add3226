"""The runs of a variant -> what they come to: figures, costs, blocks, and how they ended."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from sagan_bench.analysis import statistics
from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.question import Measure
from sagan_bench.analysis.settling import Ending, settled
from sagan_bench.analysis.verdicts import Idle, Lost, Pair, Summary
from sagan_bench.core.registry import ATTENTION
from sagan_bench.runs.records import BlockReading, Status
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
    largest_logit: float | None = None
    mass: float | None = None
    """On the part of an image that must agree: `BlockReading`."""
    chance: float | None = None


@dataclass(frozen=True)
class Engagement:
    """In how many runs a variant's blocks did something."""

    is_attention: bool
    runs: int
    """Those in which that is known."""
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
    """Training seed -> the primary metric; None for a run without a figure."""
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
    """Runs whose curve was recorded; where neither settled nor unsettled, it cannot be told."""


def variant(name: str, runs: RunSet, measure: Measure) -> Variant:
    """Return what the runs of a variant come to by a measure."""
    metric, own = measure.metric, runs.variants[name]
    outcomes = {run.seed: runs.outcome(run, runs.at_the_end(metric)) for run in own}
    values = {seed: None if isinstance(x, Lost) else x for seed, x in outcomes.items()}
    least, relative = measure.least
    endings = _endings(own, metric, least, relative)
    costs = [run.record.cost for run in own if run.record.status == Status.FINISHED]
    first = own[0].record.cost
    parameters = [n for n in (first.parameters_g, first.parameters_d) if n is not None]
    return Variant(
        name=name,
        summary=statistics.summarize({name: outcomes})[0],
        values=values,
        parameters=sum(parameters) if parameters else None,
        flops_per_step=first.flops_per_step,
        train_sec=median_of(cost.train_sec for cost in costs),
        images_per_sec=median_of(cost.images_per_sec for cost in costs),
        shared_device=runs.shared_device(name),
        blocks=tuple(_blocks(own)),
        engagement=_engagement(own),
        settled=endings.count(Ending.SETTLED),
        unsettled=endings.count(Ending.UNSETTLED),
        curves=len(endings),
    )


def idle(pair: Pair, runs: RunSet) -> Idle | None:
    """Return the blocks that did nothing where two variants are compared that differ in them."""
    attention = [runs.variants[name][0].attention for name in pair]
    if attention[0] == attention[1]:
        return None
    for name in pair:
        engagement = _engagement(runs.variants[name])
        if engagement and engagement.absent:
            lost = engagement.runs - engagement.engaged
            return Idle(name, engagement.is_attention, lost, engagement.runs)
    return None


def median_of(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return float(median(known)) if known else None


def _endings(runs: Sequence[Run], metric: str, least: float, relative: bool) -> list[Ending]:
    """Return for each curve that was recorded whether it had settled.

    Args:
        runs: of a variant.
        metric: whose curves.
        least: change that matters in its units, or as a share of each curve's level.
        relative: whether it is one.
    """
    curves = [curve for run in runs if not run.lost and len(curve := run.curve(metric)) > 2]
    axes = (zip(*curve, strict=True) for curve in curves)
    matters = {"share": least} if relative else {"least": least}
    return [settled(steps, values, **matters).state for steps, values in axes]


def _blocks(runs: Sequence[Run]) -> Iterator[Block]:
    """Yield each block's figures, medians over the runs that finished."""
    by_block: dict[tuple[str, str], list[BlockReading]] = {}
    for block in (block for run in runs if not run.lost for block in run.record.blocks):
        by_block.setdefault((block.network, block.name), []).append(block)
    for (network, name), same in by_block.items():
        gamma = median_of(block.gamma and abs(block.gamma) for block in same)
        figures = (
            "ratio", "entropy", "entropy_max", "distance_px", "largest_logit", "mass", "chance",
        )  # fmt: skip
        medians = (median_of(getattr(block, figure) for block in same) for figure in figures)
        yield Block(network, name, gamma, *medians)


def _engagement(runs: Sequence[Run]) -> Engagement | None:
    """Count the runs in which some block did something; None where there is no block."""
    attention = runs[0].attention
    if attention is None or not (attention.generator or attention.discriminator):
        return None
    kind = ATTENTION[attention.kind]
    if not kind.has_block:
        return None
    known = ([b.ratio for b in run.record.blocks if b.ratio is not None and not run.lost]
             for run in runs)  # fmt: skip
    strongest = [max(ratios) for ratios in known if ratios]
    engaged = sum(ratio >= ENGAGED for ratio in strongest)
    return Engagement(kind.is_attention, len(strongest), engaged)
