"""The stored probes of runs -> means over each variant's runs, of every arm and every block."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.probed_runs import figure as of_metric
from sagan_bench.analysis.probed_runs import probe_of
from sagan_bench.runs.probe import Arm, Network, Outcome, Probe


@dataclass(frozen=True)
class ArmMeans:
    """What one arm did to a variant's finished weights; means over its runs.

    Attributes:
        block: whose maps were changed; several are changed at once.
        intervention: what its map was replaced by.
        keeps_rms: whether each image's branch kept its root mean square.
        n: runs in which it was made and has both figures.
        untouched: of G by the study's metric, of D its ranking of real above generated images.
        figure: the same under the arm; ``sham`` under its sham.
        excess: ``figure`` less ``sham``.
        excess_frozen: likewise, with the statistics of the untouched network.
        changed: share of pixels that are off by more than 1/255; None of D.
        primary: whether words rest on it.
        breaks: the condition of the rule that most images no longer meet.
        breaks_share: of how many images that met it untouched it is.
        reason: why no run has it.
    """

    variant: str
    network: Network
    block: str
    intervention: str
    keeps_rms: bool
    primary: bool
    n: int
    untouched: float | None = None
    figure: float | None = None
    sham: float | None = None
    excess: float | None = None
    excess_frozen: float | None = None
    changed: float | None = None
    breaks: str | None = None
    breaks_share: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class MassMeans:
    """What a part of an image takes in from the part that it must agree with; means over runs.

    Attributes:
        mass: share of what it takes in.
        chance: likewise, by the map of another image.
    """

    variant: str
    block: str
    n: int
    mass: float
    chance: float


def probes_of(runs: RunSet, fingerprint: str) -> dict[str, list[Probe]]:
    """Return the probes that count beside those of a protocol, by variant."""
    found = {
        name: [probe_of(run, runs, fingerprint) for run in own]
        for name, own in runs.variants.items()
    }
    return {
        name: [probe for probe in own if isinstance(probe, Probe)] for name, own in found.items()
    }


def arms(probes: dict[str, list[Probe]], metric: str) -> Iterator[ArmMeans]:
    """Yield the means of every arm of every variant, in the order in which they were made."""
    for variant, own in probes.items():
        each: dict[tuple[str, str, str, bool], list[tuple[Probe, Arm]]] = {}
        for probe in own:
            for arm in probe.arms:
                key = arm.network, " + ".join(arm.blocks), arm.intervention, arm.keeps_rms
                each.setdefault(key, []).append((probe, arm))
        for (_, block, intervention, keeps_rms), made in each.items():
            network = made[0][1].network
            primary = made[0][1].primary
            means = ArmMeans(variant, network, block, intervention, keeps_rms, primary, 0)
            yield _with_figures(means, made, metric)


def _with_figures(means: ArmMeans, made: Sequence[tuple[Probe, Arm]], metric: str) -> ArmMeans:
    def figure(outcome: Outcome | None) -> float | None:
        if means.network == "discriminator":
            return outcome.ranking if outcome else None
        return of_metric(outcome, metric)

    rows = [
        (probe, arm)
        for probe, arm in made
        if figure(arm.applied) is not None and figure(arm.sham) is not None
    ]
    fields = vars(means) | {"n": len(rows)}
    if not rows:
        reasons = [arm.reason or (arm.applied and arm.applied.reason) for _, arm in made]
        return ArmMeans(**fields | {"reason": next(filter(None, reasons), None)})
    of = _mean_over([arm for _, arm in rows], figure)
    applied, sham = of(lambda arm: arm.applied), of(lambda arm: arm.sham)
    frozen, sham_frozen = of(lambda arm: arm.frozen), of(lambda arm: arm.sham_frozen)
    outcomes = [arm.applied for _, arm in rows if arm.applied]
    changed = [outcome.changed for outcome in outcomes if outcome.changed is not None]
    untouched = [value for probe, _ in rows if (value := figure(probe.untouched)) is not None]
    return ArmMeans(
        **fields
        | {
            "untouched": fmean(untouched) if untouched else None,
            "figure": applied,
            "sham": sham,
            "excess": _less(applied, sham),
            "excess_frozen": _less(frozen, sham_frozen),
            "changed": fmean(changed) if changed else None,
            **_breaks(outcomes),
        }
    )


def _mean_over(
    made: Sequence[Arm], figure: Callable[[Outcome | None], float | None]
) -> Callable[[Callable[[Arm], Outcome | None]], float | None]:
    """Return what gives the mean of a figure of one outcome of arms; None if one has none."""

    def mean(which: Callable[[Arm], Outcome | None]) -> float | None:
        values = [figure(which(arm)) for arm in made]
        known = [value for value in values if value is not None]
        return fmean(known) if len(known) == len(values) else None

    return mean


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _breaks(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the condition that most images no longer meet, beside that all are met."""
    shares: dict[str, float] = defaultdict(float)
    for outcome in outcomes:
        for name, share in outcome.breaks.items():
            shares[name] += share / len(outcomes)
    shares.pop("all", None)
    name, share = max(shares.items(), key=lambda item: item[1], default=("", 0.0))
    return {"breaks": name, "breaks_share": share} if share else {}


def masses(probes: dict[str, list[Probe]]) -> Iterator[MassMeans]:
    """Yield of each block of G how much lands on the part that must agree, beside chance."""
    for variant, own in probes.items():
        names = dict.fromkeys(block.name for probe in own for block in probe.blocks if block.mass)
        for name in names:
            found = [b.mass for probe in own for b in probe.blocks if b.mass and b.name == name]
            mass, chance = fmean(of.mass for of in found), fmean(of.chance for of in found)
            yield MassMeans(variant, name, len(found), mass, chance)
