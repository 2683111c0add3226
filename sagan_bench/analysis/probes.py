"""The stored probes of a study's runs -> what they say together: figures and enums, no words.

They say how finished weights depend on a map, never why training went better (docs/probe.md).
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, NamedTuple

import numpy as np

from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.dependence import Figures, State, judged
from sagan_bench.analysis.intervals import welch
from sagan_bench.analysis.question import Question
from sagan_bench.analysis.statistics import CONFIRMATORY_N
from sagan_bench.analysis.verdicts import ALPHA, Basis, Interval, Metric, S, Standing
from sagan_bench.core.registry import ATTENTION, METRICS
from sagan_bench.runs.probe import NONE, Arm, Outcome, Probe
from sagan_bench.runs.run import Run


class LeftOut(StrEnum):
    """Why a run that is over is not among those of which something is said."""

    LOST = "lost"
    """It diverged or failed: there are no finished weights."""
    NOT_PROBED = "not probed"
    UNREADABLE = "unreadable"
    OTHER_WEIGHTS = "other weights"
    """The run went on after it was probed, or is another one."""
    OTHER_PROTOCOL = "other protocol"
    NO_MAP = "no map"
    """No block of G was changed by its maps."""
    NOT_MEASURED = "not measured"
    """The probe was made without the study's metric."""
    UNDEFINED = "undefined"
    """A figure is null: the metric is undefined, or images were not finite."""


TO_COME = {
    LeftOut.NOT_PROBED, LeftOut.UNREADABLE, LeftOut.OTHER_WEIGHTS, LeftOut.OTHER_PROTOCOL,
    LeftOut.NOT_MEASURED,
}  # fmt: skip
"""What another probe would mend: until then nothing is said, so that nobody stops by looking."""


@dataclass(frozen=True)
class Dependence(Generic[S]):
    """How far a variant's finished weights depend on the map; means over its training seeds.

    Attributes:
        n: runs with all figures.
        left_out: why others are not among them, and how many.
        excesses: training seed -> excess: the figure under the primary probe less its sham's.
        effect: the figure under the primary probe less the untouched one.
        sham_effect: that of the sham less the untouched one.
        excess: mean of ``excesses``; ``interval`` is Student's t, all of a study at once with 95 %.
        excess_frozen: the same with the statistics of the untouched network.
        margin: smallest difference that matters, in units of the metric.
        state: only where confirmatory.
    """

    variant: str
    n: int
    left_out: dict[LeftOut, int]
    excesses: dict[int, float]
    standing: S
    untouched: float | None = None
    effect: float | None = None
    sham_effect: float | None = None
    excess: float | None = None
    excess_frozen: float | None = None
    interval: Interval | None = None
    margin: float | None = None
    state: State | None = None


@dataclass(frozen=True)
class BesideControl:
    """What leaving a block of G out costs a variant, less what it costs a control.

    Attributes:
        side: of the block's feature map, in pixels.
        without: mean excess over the sham of the variant's runs, the block left out.
        control_without: of the control's.
        difference: the former less the latter; ``interval`` is Welch's, 95 %, this one alone.
    """

    variant: str
    control: str
    side: int
    n: int
    n_control: int
    without: float
    control_without: float
    difference: float
    interval: Interval | None


@dataclass(frozen=True)
class Probes(Generic[S]):
    """What the probes of a study say together.

    Attributes:
        metric: key of the study's.
        label: its name for readers.
        fingerprint: of the protocol that all have.
        images: that each arm drew.
        dependences: of each variant with attention in G.
        beside_controls: what a control's block costs, where one stands beside.
        in_one_network: variants with attention in G alone, or in D alone.
    """

    metric: str
    label: str
    fingerprint: str
    images: int
    dependences: tuple[Dependence[S], ...]
    beside_controls: tuple[BesideControl, ...]
    in_one_network: tuple[str, ...]


def of_runs(
    runs: RunSet, question: Question, metric: Metric, missing: int
) -> Probes[Standing] | None:
    """Return what the probes of runs say by a question's metric; None where nothing was probed.

    Args:
        runs: with their probes.
        question: that is put to them.
        metric: its metric.
        missing: runs still to come.
    """
    known = [probe for probe in runs.probes.values() if probe]
    if not known:
        return None
    fingerprint = Counter(probe.fingerprint for probe in known).most_common(1)[0][0]
    images = next(probe.images for probe in known if probe.fingerprint == fingerprint)
    key = question.measure.metric
    attend = [name for name in runs.variants if _attends(runs, name)]
    context = _Context(runs, question, metric, missing, fingerprint, len(attend))
    return Probes(
        metric=key,
        label=metric.label,
        fingerprint=fingerprint,
        images=images,
        dependences=tuple(_dependence(name, context) for name in attend),
        beside_controls=tuple(_beside_controls(context)),
        in_one_network=tuple(name for name in runs.variants if _in_one_network(runs, name)),
    )


class _Context(NamedTuple):
    runs: RunSet
    question: Question
    metric: Metric
    missing: int
    fingerprint: str
    family: int
    """Variants of which something may be said: they share the error."""

    def level(self, n: int) -> tuple[int, float]:
        """Return how many of n seeds count, and the level: of a growing study, those of a look."""
        design = self.question.design
        if design is None:
            return n, ALPHA / max(1, self.family)
        count = max((look for look in design.looks if look <= n), default=0)
        if not count:
            return n, ALPHA / max(1, self.family)
        return count, design.price(count) * min(1.0, design.pairs / max(1, self.family))


def _attends(runs: RunSet, variant: str) -> bool:
    """Return whether a variant has attention in G, a control's constant maps included."""
    attention = runs.variants[variant][0].attention
    placed = attention is not None and bool(attention.generator)
    return placed and attention is not None and ATTENTION[attention.kind].is_attention


def _chooses(kind: str) -> bool:
    """Return whether a kind is attention that looks where the image says; a control is not."""
    return ATTENTION[kind].is_attention and ATTENTION[kind].chooses


def _in_one_network(runs: RunSet, variant: str) -> bool:
    attention = runs.variants[variant][0].attention
    if attention is None or not _chooses(attention.kind):
        return False
    return bool(attention.generator) != bool(attention.discriminator)


# --- The primary probe -------------------------------------------------------------------------


def _dependence(variant: str, context: _Context) -> Dependence[Standing]:
    rows: dict[int, tuple[float, ...]] = {}
    left_out: Counter[LeftOut] = Counter()
    for run in context.runs.variants[variant]:
        row = _row(run, context)
        if isinstance(row, LeftOut):
            left_out[row] += 1
        else:
            rows[run.seed] = row
    order = [seed for seed in context.question.order if seed in rows] or sorted(rows)
    count, level = context.level(len(rows))
    rows = {seed: rows[seed] for seed in order[:count]}
    standing = _standing(len(rows), left_out, context)
    excesses = {seed: row[1] - row[2] for seed, row in rows.items()}
    of = Dependence(variant, len(rows), dict(left_out), excesses, standing)
    return _with_figures(of, rows, level, context)


def _with_figures(
    of: Dependence[Standing],
    rows: Mapping[int, tuple[float, ...]],
    level: float,
    context: _Context,
) -> Dependence[Standing]:
    if not rows:
        return of
    figures = Figures(*np.array(list(rows.values()), np.float64).T)
    key = context.question.measure.metric
    told = judged(
        Figures(*(each[None] for each in figures)), context.metric, level,
        whole=LeftOut.UNDEFINED not in of.left_out,
        is_share=key in METRICS and METRICS[key].is_share,
    )  # fmt: skip
    is_confirmatory = of.standing.basis is Basis.CONFIRMATORY
    bounds = float(told.low[0]), float(told.high[0])
    drawn = of.n >= CONFIRMATORY_N and all(map(math.isfinite, bounds))
    return replace(
        of,
        untouched=float(figures.untouched.mean()),
        effect=float((figures.applied - figures.untouched).mean()),
        sham_effect=float((figures.sham - figures.untouched).mean()),
        excess=float(told.excess[0]),
        excess_frozen=float((figures.frozen - figures.sham_frozen).mean()),
        interval=bounds if drawn else None,
        margin=float(told.margin[0]),
        state=State(told.state[0]) if is_confirmatory else None,
    )


def _standing(n: int, left_out: Mapping[LeftOut, int], context: _Context) -> Standing:
    question = context.question
    to_come = context.missing + sum(left_out.get(why, 0) for why in TO_COME)
    if not question.declared:
        return Standing(Basis.POST_HOC)
    if not question.comparable:
        return Standing(Basis.TOO_SMALL)
    if n < CONFIRMATORY_N:
        return Standing(Basis.POINTS)
    if to_come:
        return Standing(Basis.PROVISIONAL, missing=to_come)
    if question.looks:
        return Standing(Basis.EXPLORATORY, looks=question.looks)
    return Standing(Basis.CONFIRMATORY)


def _row(run: Run, context: _Context) -> tuple[float, ...] | LeftOut:
    """Return the `Figures` of a run, or why it has none."""
    probe = _probe_of(run, context)
    if isinstance(probe, LeftOut):
        return probe
    key, arm = context.question.measure.metric, probe.primary
    if arm is None:
        return LeftOut.NO_MAP
    if key not in probe.untouched.metrics:
        return LeftOut.NOT_MEASURED
    outcomes = probe.untouched, arm.applied, arm.sham, arm.frozen, arm.sham_frozen
    values = [_figure(outcome, key) for outcome in outcomes]
    values.append(arm.applied.changed if arm.applied else None)
    known = [value for value in values if value is not None and math.isfinite(value)]
    return tuple(known) if len(known) == len(values) else LeftOut.UNDEFINED


def _probe_of(run: Run, context: _Context) -> Probe | LeftOut:
    if run.lost:
        return LeftOut.LOST
    if run.path not in context.runs.probes:
        return LeftOut.NOT_PROBED
    probe = context.runs.probes[run.path]
    if probe is None:
        return LeftOut.UNREADABLE
    if (probe.step, probe.config_digest) != (run.record.step, run.record.config_digest):
        return LeftOut.OTHER_WEIGHTS
    return probe if probe.fingerprint == context.fingerprint else LeftOut.OTHER_PROTOCOL


def _figure(outcome: Outcome | None, metric: str) -> float | None:
    return outcome.metrics.get(metric) if outcome else None


# --- Beside a control --------------------------------------------------------------------------


def _beside_controls(context: _Context) -> Iterator[BesideControl]:
    """Yield, block by block of G, what leaving it out costs attention less what it costs controls.

    Any layer that others have adapted to is missed: what counts is what attention's costs more.
    """
    variants = context.runs.variants
    kinds = {name: own[0].attention for name, own in variants.items()}
    chooses = {name: _chooses(a.kind) for name, a in kinds.items() if a and a.generator}
    without = {name: _without(variants[name], context) for name in chooses}
    for variant in (name for name, does in chooses.items() if does):
        for control in (name for name, does in chooses.items() if not does):
            for side in sorted(without[variant].keys() & without[control].keys()):
                ours, theirs = without[variant][side], without[control][side]
                yield _less(variant, control, side, ours, theirs)


def _without(runs: Sequence[Run], context: _Context) -> dict[int, list[float]]:
    """Return side of a block of G -> excess over the sham of each run without it."""
    key = context.question.measure.metric
    excesses: dict[int, list[float]] = {}
    for probe in (_probe_of(run, context) for run in runs):
        for arm in () if isinstance(probe, LeftOut) else probe.arms:
            if (excess := _excess(arm, key)) is not None:
                excesses.setdefault(_side(arm.blocks[0]), []).append(excess)
    return excesses


def _side(block: str) -> int:
    """Return the side of a block's feature map, in which its name ends; 0 where it does not."""
    found = re.search(r"\d+$", block)
    return int(found[0]) if found else 0


def _excess(arm: Arm, metric: str) -> float | None:
    """Return the excess of an arm that leaves a block of G out; None of others."""
    if arm.network != "generator" or arm.intervention != NONE or len(arm.blocks) != 1:
        return None
    applied, sham = _figure(arm.applied, metric), _figure(arm.sham, metric)
    return None if applied is None or sham is None else applied - sham


def _less(
    variant: str, control: str, side: int, ours: list[float], theirs: list[float]
) -> BesideControl:
    longest = max(len(ours), len(theirs))
    x, y = (
        np.pad(each, (0, longest - len(each)), constant_values=np.nan)[None]
        for each in (ours, theirs)
    )
    tested = welch(x, y, ALPHA)
    bounds = float(tested.low[0]), float(tested.high[0])
    return BesideControl(
        variant, control, side, len(ours), len(theirs),
        float(np.mean(ours)), float(np.mean(theirs)), float(tested.effect[0]),
        bounds if all(map(math.isfinite, bounds)) else None,
    )  # fmt: skip
