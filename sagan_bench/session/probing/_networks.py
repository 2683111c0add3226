"""G and D of a finished run under every arm: what is run, and what comes of it."""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sagan_bench.config.schema import RunConfig
from sagan_bench.core import system
from sagan_bench.core.precision import full_precision
from sagan_bench.core.progress import OnProgress
from sagan_bench.data.pixels import normalise, quantise
from sagan_bench.evaluation.metrics import parts_of
from sagan_bench.models.attention._interventions import ANOTHER_IMAGE, NONE, UNIFORM
from sagan_bench.models.attention._shares import MassOnTwin, weighted
from sagan_bench.models.replay import Around
from sagan_bench.runs.probe import Arm, MassReading, Network, Outcome, ProbedBlock
from sagan_bench.session.probing._arms import Inputs, Looked, Planned, arms, groups, look
from sagan_bench.session.probing._figures import Measuring, ranking
from sagan_bench.session.probing._running import Made, Way, run, ways_of
from sagan_bench.training.generation import (
    balanced,
    noise,
    put_statistics,
    standing_inputs,
    statistics_under,
)

FEW = 4
"""Inputs by which blocks are looked at."""
SHOWN = 8
"""Images of each way that is shown."""
AS_IT_IS = "untouched"
ALSO_SHOWN = {ANOTHER_IMAGE.name: True, NONE.name: False}
"""Interventions that are shown beside the primary one, and whether the branch keeps its RMS."""
ROWS = (AS_IT_IS, UNIFORM.name, "sham", *ALSO_SHOWN)
UNTOUCHED = Around(0, (), ()), [Way("", nullcontext, [])]


class Counter:
    """Counts inputs that were run, once for each way, of those that are to be.

    Args:
        progress: called with both.
    """

    def __init__(self, progress: OnProgress) -> None:
        self.progress, self.run, self.total = progress, 0, 0

    def expect(self, planned: Sequence[Planned], inputs: int) -> None:
        """Add the runs of arms, and of the network as it is."""
        ways = [1, *(4 if p.first.around.norms else 2 for p in planned if not p.arm.reason)]
        self.total += inputs * sum(ways)

    def done(self, inputs: int) -> None:
        """Add what was run."""
        self.run += inputs
        self.progress(self.run, max(self.run, self.total))


class Probed(NamedTuple):
    """What came of a network."""

    blocks: list[ProbedBlock]
    arms: list[Arm]
    untouched: Outcome
    images: Tensor
    """uint8 (n, 3, S, S): of G, what it drew untouched; of D, the generated ones that it saw."""
    rows: dict[str, Tensor]
    """Of G, the first of its images in each of the ways that are shown, in their order."""


def inputs_of(config: RunConfig, images: int, device: torch.device) -> list[Inputs]:
    """Return G's inputs as scores are drawn from: the noise of the first sampling seed."""
    evaluation, classes = config.evaluation, balanced(config.model.classes)
    seed, cut = evaluation.sampling_seeds[0], evaluation.truncation
    z = noise(seed, 0, images, config.model.z_dim, cut)
    labels = None if classes is None else classes[torch.arange(images) % len(classes)]
    return _batches(z, labels, config.training.batch_size, device)


def _batches(x: Tensor, labels: Tensor | None, size: int, device: torch.device) -> list[Inputs]:
    """Return inputs in batches of ``size`` or more, none of which is a single one."""
    parts = max(1, len(x) // max(size, 2))
    given = [system.sent(each, device) for each in x.tensor_split(parts)]
    if labels is None:
        return [(each, None) for each in given]
    classes = [system.sent(each, device) for each in labels.tensor_split(parts)]
    return list(zip(given, classes, strict=True))


def probe_generator(
    config: RunConfig, generator: nn.Module, measuring: Measuring, images: int, counter: Counter
) -> Probed:
    """Return what each arm of G gives; its statistics are then those made here.

    Args:
        config: of the run.
        generator: without spectral norms, in evaluation mode.
        measuring: what is measured of its images.
        images: how many are drawn, at least 2.
        counter: told of images that are drawn.
    """
    device = next(generator.parameters()).device
    batches = inputs_of(config, images, device)

    def standing() -> Iterator[Inputs]:
        for batch in range(config.evaluation.bn_batches):
            counter.done(0)  # it may be asked to stop
            yield standing_inputs(config, batch, device)

    norms = [module for module in generator.modules() if isinstance(module, _BatchNorm)]
    if norms:  # here, so that nothing but a change makes a difference, to the bit
        made = statistics_under(generator, norms, standing(), nullcontext, [nullcontext])
        put_statistics(norms, made[0])
    looked = look(generator, _few(batches))
    planned, outcomes = arms("generator", looked), dict[Arm, dict[str, Outcome]]()
    counter.expect(planned, images)
    untouched = run(generator, *UNTOUCHED, batches, quantise, counter.done)[0]
    before = measuring.begin(untouched)
    parts = parts_of(untouched.values, config, measuring.kind)
    blocks = [_block("generator", each, _mass(generator, each, batches, parts)) for each in looked]
    rows = {AS_IT_IS: untouched.values[:SHOWN]}
    for around, group in groups(planned):
        each_ways = ways_of(generator, around, group, standing)
        for one, ways in zip(group, each_ways, strict=True):
            made_so = run(generator, around, ways, batches, quantise, counter.done)
            for name, way in _shown(one.arm, planned).items():
                rows[name] = made_so[[each.name for each in ways].index(way)].values[:SHOWN]
            outcomes[one.arm] = {
                way.name: measuring.outcome(each) for way, each in zip(ways, made_so, strict=True)
            }
    made_arms = [_with(one.arm, outcomes.get(one.arm, {})) for one in planned]
    in_order = {name: rows[name] for name in ROWS if name in rows}
    return Probed(blocks, made_arms, before, untouched.values, in_order)


def _shown(arm: Arm, planned: Sequence[Planned]) -> dict[str, str]:
    """Return the ways of an arm that are shown: name of the row -> name of the way.

    They are those of the primary arm, and others of the same blocks.
    """
    primary = next((each.arm for each in planned if each.arm.primary), None)
    if primary is None or arm.blocks != primary.blocks:
        return {}
    if arm.primary:
        return {arm.intervention: "applied", "sham": "sham"}
    is_shown = arm.intervention in ALSO_SHOWN and arm.keeps_rms == ALSO_SHOWN[arm.intervention]
    return {arm.intervention: "applied"} if is_shown else {}


def probe_discriminator(
    config: RunConfig,
    discriminator: nn.Module,
    real: tuple[Tensor, Tensor | None],
    fake: tuple[Tensor, Tensor | None],
    counter: Counter,
) -> Probed:
    """Return what each arm of D gives: how it ranks real images against generated ones.

    Args:
        config: of the run.
        discriminator: without spectral norms, in evaluation mode.
        real: images, uint8 (n, 3, S, S), and their labels, if there are any.
        fake: likewise, generated ones.
        counter: told of images that D sees.
    """
    device, size = next(discriminator.parameters()).device, config.training.batch_size
    batches = [
        batch
        for images, labels in (real, fake)
        for batch in _batches(normalise(images), labels, size, device)
    ]
    count = len(real[0])

    def outcome(made: Made) -> Outcome:
        if not made.finite:
            return Outcome(reason="D made NaN or infinity")
        return Outcome(ranking=ranking(made.values[:count], made.values[count:]))

    looked = [each.without_norms() for each in look(discriminator, _few(batches))]
    planned, outcomes = arms("discriminator", looked), dict[Arm, dict[str, Outcome]]()
    counter.expect(planned, sum(len(x) for x, _ in batches))
    before = outcome(run(discriminator, *UNTOUCHED, batches, torch.clone, counter.done)[0])
    for around, group in groups(planned):
        for one, ways in zip(group, ways_of(discriminator, around, group, _none), strict=True):
            made = run(discriminator, around, ways, batches, torch.clone, counter.done)
            names = (way.name for way in ways)
            outcomes[one.arm] = dict(zip(names, map(outcome, made), strict=True))
    blocks = [_block("discriminator", each, None) for each in looked]
    made_arms = [_with(one.arm, outcomes.get(one.arm, {})) for one in planned]
    return Probed(blocks, made_arms, before, fake[0], {})


def _none() -> Iterator[Inputs]:
    yield from ()


def _few(batches: Sequence[Inputs]) -> Inputs:
    x, labels = batches[0]
    return x[:FEW], None if labels is None else labels[:FEW]


def _with(arm: Arm, outcomes: dict[str, Outcome]) -> Arm:
    """Return an arm with its outcomes; without BatchNorm after it, frozen ones are the same."""
    if not outcomes:
        return arm
    same = {"frozen": outcomes["applied"], "sham_frozen": outcomes["sham"]}
    return arm.model_copy(update=same | outcomes)


def _block(network: Network, looked: Looked, mass: MassReading | None) -> ProbedBlock:
    block = looked.block
    gamma = float(block.gamma) if block.has_gamma else math.nan
    by: Literal["maps", "branch"] = "maps" if looked.reason is None else "branch"
    return ProbedBlock(
        network=network,
        name=looked.name,
        gamma=gamma if math.isfinite(gamma) else None,
        by=None if block.replaces else by,
        reason=looked.reason,
        norms_after=len(looked.around.norms),
        mass=mass,
    )


@torch.no_grad()
def _mass(
    network: nn.Module, looked: Looked, batches: Sequence[Inputs], parts: Tensor | None
) -> MassReading | None:
    """Return how much of what a block's queries take in comes from the part they must agree with.

    None without maps or parts, or where no image has both parts.
    """
    if looked.reason is not None or parts is None:
        return None
    summed, of_batches = MassOnTwin(), iter(parts.split([len(x) for x, _ in batches]))

    def seen(_block: nn.Module, given: tuple[Tensor, ...]) -> None:
        x = given[0]
        summed.add(weighted(looked.block, x), next(of_batches).to(x.device))

    hook = looked.block.register_forward_pre_hook(seen)
    try:
        with full_precision():
            for inputs in batches:
                network(*inputs)
    finally:
        hook.remove()
    mass = summed.mass()
    if mass is None:
        return None
    return MassReading(mass=mass.mass, chance=mass.chance, images=mass.images)
