"""What leaving a block out costs attention, beside what it costs controls in its place."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.intervals import welch
from sagan_bench.analysis.probed_runs import LeftOut, figure, probe_of
from sagan_bench.analysis.verdicts import ALPHA, Interval
from sagan_bench.core.registry import ATTENTION
from sagan_bench.runs.probe import NONE, Arm


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


def chooses(kind: str) -> bool:
    """Return whether a kind is attention that looks where the image says; a control is not."""
    return ATTENTION[kind].is_attention and ATTENTION[kind].chooses


def beside_controls(runs: RunSet, fingerprint: str, metric: str) -> Iterator[BesideControl]:
    """Yield, block by block of G, what leaving it out costs attention less what it costs controls.

    Any layer that others have adapted to is missed: what counts is what attention's costs more.

    Args:
        runs: with their probes.
        fingerprint: of the protocol that counts.
        metric: key of the study's.
    """
    kinds = {name: own[0].attention for name, own in runs.variants.items()}
    placed = {name: chooses(a.kind) for name, a in kinds.items() if a and a.generator}
    without = {name: _without(runs, name, fingerprint, metric) for name in placed}
    for variant in (name for name, does in placed.items() if does):
        for control in (name for name, does in placed.items() if not does):
            for side in sorted(without[variant].keys() & without[control].keys()):
                ours, theirs = without[variant][side], without[control][side]
                yield _less(variant, control, side, ours, theirs)


def _without(runs: RunSet, variant: str, fingerprint: str, metric: str) -> dict[int, list[float]]:
    """Return side of a block of G -> excess over the sham of each run without it."""
    excesses: dict[int, list[float]] = {}
    for probe in (probe_of(run, runs, fingerprint) for run in runs.variants[variant]):
        for arm in () if isinstance(probe, LeftOut) else probe.arms:
            if (excess := _excess(arm, metric)) is not None:
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
    applied, sham = figure(arm.applied, metric), figure(arm.sham, metric)
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
