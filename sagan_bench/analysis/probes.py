"""The stored probes of a study's runs -> what they say together: figures and enums, no words.

They say how finished weights depend on a map, never why training went better (docs/probe.md).
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple

import numpy as np

from sagan_bench.analysis.beside_controls import BesideControl, beside_controls, chooses
from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.dependence import Figures, State, judged
from sagan_bench.analysis.probed_runs import TO_COME, LeftOut, figure, probe_of
from sagan_bench.analysis.question import Question
from sagan_bench.analysis.statistics import CONFIRMATORY_N
from sagan_bench.analysis.verdicts import ALPHA, Basis, Interval, Metric, S, Standing
from sagan_bench.core.registry import ATTENTION, METRICS
from sagan_bench.runs.run import Run


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
        beside_controls=tuple(beside_controls(runs, fingerprint, key)),
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


def _in_one_network(runs: RunSet, variant: str) -> bool:
    attention = runs.variants[variant][0].attention
    if attention is None or not chooses(attention.kind):
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
    probe = probe_of(run, context.runs, context.fingerprint)
    if isinstance(probe, LeftOut):
        return probe
    key, arm = context.question.measure.metric, probe.primary
    if arm is None:
        return LeftOut.NO_MAP
    if key not in probe.untouched.metrics:
        return LeftOut.NOT_MEASURED
    outcomes = probe.untouched, arm.applied, arm.sham, arm.frozen, arm.sham_frozen
    values = [figure(outcome, key) for outcome in outcomes]
    values.append(arm.applied.changed if arm.applied else None)
    known = [value for value in values if value is not None and math.isfinite(value)]
    return tuple(known) if len(known) == len(values) else LeftOut.UNDEFINED
