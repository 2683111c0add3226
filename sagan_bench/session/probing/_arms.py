"""Which interventions a network's blocks are probed by, and the ways to run it that they are."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.attention._interventions import (
    NONE,
    TABLE,
    UNIFORM,
    Intervention,
    cannot,
    intervened,
    refusal,
)
from sagan_bench.models.build import attention_blocks
from sagan_bench.models.replay import Around, around
from sagan_bench.runs.probe import Arm, Network

Inputs = tuple[Tensor, Tensor | None]
"""What a network is given: noise or images, and labels."""


class Looked(NamedTuple):
    """A block, as it was found in its network."""

    name: str
    block: Block
    around: Around
    """What the network does before and after it."""
    reason: str | None
    """Why it cannot be changed by its maps."""
    lacking: dict[str, str]
    """Intervention -> why it cannot be made here."""

    def without_norms(self) -> "Looked":
        """Return it in a network whose statistics stay as training left them, as D's do."""
        return self._replace(around=self.around._replace(norms=()))


class Planned(NamedTuple):
    """An arm that is to be run."""

    arm: Arm
    looked: tuple[Looked, ...]
    intervention: Intervention

    @property
    def first(self) -> Looked:
        """The block that runs first."""
        return min(self.looked, key=lambda each: each.around.at)

    def on(self, *, sham: bool) -> Callable[[], AbstractContextManager[None]]:
        """Return what is entered to run the network so, or under its sham."""
        blocks = [each.block for each in self.looked]
        keeps = self.arm.keeps_rms
        return partial(intervened, blocks, self.intervention, keeps_rms=keeps, sham=sham)


@torch.no_grad()
def look(network: nn.Module, inputs: Inputs) -> list[Looked]:
    """Return the blocks of a network in evaluation mode, by a batch of at least two inputs."""
    blocks = {n: b for n, b in attention_blocks(network).items() if not _is_within(n, network)}
    reasons: dict[str, str | None] = {}
    lacking: dict[str, dict[str, str]] = {}

    def seen(name: str, block: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(block, Block)
        if block.replaces:
            reasons[name] = "it stands instead of a layer, which nothing can take away"
            return
        reasons[name] = refusal(block, given[0])
        each = {one.name: cannot(block, one, given[0]) for one in TABLE if not reasons[name]}
        lacking[name] = {what: why for what, why in each.items() if why}

    with ExitStack() as stack:
        for name, block in blocks.items():
            stack.callback(block.register_forward_pre_hook(partial(seen, name)).remove)
        network(*inputs)
    return [
        Looked(name, block, around(network, [block], *inputs), reasons[name], lacking.get(name, {}))
        for name, block in blocks.items()
    ]


def _is_within(name: str, network: nn.Module) -> bool:
    """Return whether a block is a part of another."""
    above = name.split(".")[:-1]
    outer = (".".join(above[:count]) for count in range(1, len(above) + 1))
    return any(isinstance(network.get_submodule(path), Block) for path in outer)


def arms(network: Network, blocks: Sequence[Looked]) -> list[Planned]:
    """Return the arms of a network: each intervention on each block, as it is and with its RMS.

    Of several blocks, `UNIFORM` with the root mean square kept is put on all at once too.  In G
    that, or the same on its only block, is the primary one.
    """
    planned = [
        _planned(network, (looked,), intervention, keeps_rms)
        for looked in blocks
        if not looked.block.replaces
        for intervention in (TABLE if looked.reason is None else (NONE,))
        for keeps_rms in ((False, True) if intervention.change else (False,))
    ]
    by_maps = tuple(looked for looked in blocks if looked.reason is None)
    if len(by_maps) > 1:
        planned.append(_planned(network, by_maps, UNIFORM, keeps_rms=True))
    if network == "generator":
        primary = UNIFORM, True, by_maps
        planned = [
            each._replace(arm=each.arm.model_copy(update={"primary": True}))
            if (each.intervention, each.arm.keeps_rms, each.looked) == primary
            else each
            for each in planned
        ]
    return planned


def _planned(
    network: Network, looked: tuple[Looked, ...], intervention: Intervention, keeps_rms: bool
) -> Planned:
    why = next((w for each in looked if (w := each.lacking.get(intervention.name))), None)
    arm = Arm(
        network=network,
        blocks=tuple(each.name for each in looked),
        intervention=intervention.name,
        keeps_rms=keeps_rms,
        reason=why,
    )
    return Planned(arm, looked, intervention)


def groups(planned: Sequence[Planned]) -> Iterator[tuple[Around, list[Planned]]]:
    """Yield the arms that can be run, by what they have in common: what runs before them."""
    by_first: dict[str, list[Planned]] = {}
    for each in planned:
        if each.arm.reason is None:
            by_first.setdefault(each.first.name, []).append(each)
    for group in by_first.values():
        yield group[0].first.around, group
