"""A network run in many ways on the same inputs: what comes before a change runs once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sagan_bench.core.precision import full_precision
from sagan_bench.models.replay import Around
from sagan_bench.session.probing._arms import Inputs, Planned
from sagan_bench.training.generation import (
    Statistics,
    put_statistics,
    statistics_of,
    statistics_under,
)

NAMES = ("applied", "sham", "frozen", "sham_frozen")
"""Of the ways in which an arm is run: fields of `sagan_bench.runs.probe.Arm`."""


class Way(NamedTuple):
    """One way to run a network."""

    name: str
    on: Callable[[], AbstractContextManager[None]]
    """Entered while it runs."""
    statistics: Statistics
    """Of the BatchNorm layers that come after what is changed."""


class Made(NamedTuple):
    """What a network made in one way."""

    values: Tensor
    """Of all inputs, on the CPU."""
    finite: bool


def ways_of(
    network: nn.Module,
    around: Around,
    group: Sequence[Planned],
    standing: Callable[[], Iterator[Inputs]],
) -> list[list[Way]]:
    """Return the ways in which the arms of a group are run, for each arm.

    Args:
        network: with the statistics of the untouched network.
        around: of what they change.
        group: the arms.
        standing: the batches over which statistics are recomputed, where any can change.
    """
    changes = [planned.on(sham=sham) for planned in group for sham in (False, True)]
    untouched = statistics_of(around.norms)
    recomputed = [untouched] * len(changes)
    if around.norms:
        batches = standing()
        recomputed = statistics_under(network, around.norms, batches, around.once, changes)
    pairs = list(zip(changes, recomputed, strict=True))
    each = []
    for applied, sham in zip(pairs[::2], pairs[1::2], strict=True):
        ways = [Way(name, *how) for name, how in zip(NAMES, (applied, sham), strict=False)]
        if around.norms:
            ways += [Way("frozen", applied[0], untouched), Way("sham_frozen", sham[0], untouched)]
        each.append(ways)
    return each


@torch.no_grad()
def run(
    network: nn.Module,
    around: Around,
    ways: Sequence[Way],
    batches: Sequence[Inputs],
    keep: Callable[[Tensor], Tensor],
    done: Callable[[int], None] = lambda runs: None,
) -> list[Made]:
    """Return what a network makes in each way of all batches; it is left as it was.

    Args:
        network: in evaluation mode.
        around: of what the ways change.
        ways: how it is run.
        batches: of at least two inputs each.
        keep: what is kept of an output.
        done: told of the inputs that were run, once for each way.
    """
    parts: list[list[Tensor]] = [[] for _ in ways]
    finite, before = [True] * len(ways), statistics_of(around.norms)
    try:
        for inputs in batches:
            with around.once(), full_precision():
                for index, way in enumerate(ways):
                    put_statistics(around.norms, way.statistics)
                    with way.on():
                        output = network(*inputs)
                    finite[index] &= bool(output.isfinite().all())
                    parts[index].append(keep(output.nan_to_num()).cpu())
                    done(len(output))
    finally:
        put_statistics(around.norms, before)
    return [Made(torch.cat(of), ok) for of, ok in zip(parts, finite, strict=True)]
