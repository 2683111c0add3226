"""From a configuration to two initialised networks, and the table of their layers."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from sagan_bench.config.schema import ModelConfig, RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import ATTENTION, FAMILIES
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.batched import batch_spectral_norms
from sagan_bench.models.calls import knowing
from sagan_bench.models.families._base import NO_SPECTRAL_NORM, Family
from sagan_bench.models.layers import SpectralNorm, Weighted, counted, initialise, plain_state
from sagan_bench.models.placed import Placed

BETWEEN = "(between layers)"
"""The row of products that no layer makes when it is called."""


class Networks(NamedTuple):
    """G maps noise (B, z_dim) to images (B, 3, S, S); D maps images to logits (B,).

    Both take labels (B,) int64 as a second argument, None for networks without classes.
    """

    generator: nn.Module
    discriminator: nn.Module


class Layer(NamedTuple):
    """One row of the layer table: for one image, forward only; a product-sum is two FLOPs."""

    network: str
    name: str
    output_shape: tuple[int, ...]
    parameters: int
    flops: int


class Layout(NamedTuple):
    """The layer table of G and D, and the FLOPs of one step's products: counted once for a run."""

    layers: tuple[Layer, ...]
    blocks: tuple[Placed, ...]
    """Of attention, or what stands in its place."""
    flops_per_step: int

    def parameters(self, network: str) -> int:
        """Return the trainable parameters of ``generator`` or ``discriminator``."""
        return sum(layer.parameters for layer in self.layers if layer.network == network)


def build(config: RunConfig) -> Networks:
    """Return both networks in fp32, channels-last, initialised by (seed, layer name).

    Raises:
        UserError: attention at a side that a network lacks.
    """
    networks = skeleton(config)
    for name, network in networks._asdict().items():
        begin(network, config.seed_of("weights"), name, config.model.initialisation)
    return networks


def begin(
    network: nn.Module, seed: int, name: str, law: Literal["torch", "glorot"] = "torch"
) -> None:
    """Bring a network, or a part, from the meta device to the CPU, channels-last, initialised.

    Args:
        network: on the meta device.
        seed: of all draws.
        name: the network's.
        law: see `initialise`.

    Raises:
        TypeError: it has a parameter or buffer that nothing sets.
    """
    network.to_empty(device="cpu").to(memory_format=torch.channels_last)
    _reset(network)
    initialise(network, seed, name, law)


def plain_generator(
    config: RunConfig,
    state: Mapping[str, Tensor],
    device: torch.device,
    origin: Path | None = None,
) -> nn.Module:
    """Return G without spectral norms, in fp32 on a device, with the weights and buffers ``state``.

    They are laid out where they will be, and nothing is drawn only to be replaced.

    Raises:
        UserError: what comes from the file ``origin`` is of other networks.
    """
    return _loaded(skeleton(without_spectral_norm(config)).generator, state, device, origin)


def plain_discriminator(
    config: RunConfig,
    state: Mapping[str, Tensor],
    device: torch.device,
    origin: Path | None = None,
) -> nn.Module:
    """Return D as `plain_generator` returns G, of the ``state`` that training left.

    Its spectral norms are folded into the weights as they stand.

    Raises:
        UserError: as `plain_generator`.
    """
    normed = _loaded(skeleton(config).discriminator, state, device, origin).eval()
    plain = skeleton(without_spectral_norm(config)).discriminator
    return _loaded(plain, plain_state(normed), device)


def _loaded(
    network: nn.Module,
    state: Mapping[str, Tensor],
    device: torch.device,
    origin: Path | None = None,
) -> nn.Module:
    """Return a network of the meta device on another, with weights and buffers of a state."""
    network.to_empty(device=device).to(memory_format=torch.channels_last)
    for module in network.modules():  # `build` has looked at the rules: that waits on a GPU
        if module._non_persistent_buffers_set and (rule := _rule(module)):  # which no state holds
            rule()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        if origin is None or "state_dict" not in str(error):
            raise
        raise UserError(
            f"{origin} holds the weights of other networks; look for its own"
        ) from error
    return network


def skeleton(config: RunConfig) -> Networks:
    """Return both networks on the meta device: shapes and names without memory.

    Raises:
        UserError: attention at a side that a network lacks.
    """
    family, size = _family(config.model), config.data.image_size
    family.refuse_unknown()
    with torch.device("meta"):
        networks = Networks(
            *family.connected(
                size,
                widths(config.model, size),
                needs_double_backward=config.training.needs_double_backward,
            )
        )
    for network in networks:
        for block in knowing(network):
            block.steps = config.run.steps
        if config.model.spectral_norm.batched:
            batch_spectral_norms(network)
    return networks


def _family(model: ModelConfig) -> Family:
    family: Family = FAMILIES[model.architecture](model)
    return family


@cache
def widths(model: ModelConfig, image_size: int) -> tuple[float, float]:
    """Return the widths of G and D, which the kind of attention may change.

    Raises:
        UserError: as `skeleton`.
    """
    of_both: tuple[float, float] = ATTENTION[model.attention.kind](model.attention).widths(
        model, image_size
    )
    return of_both


def _reset(network: nn.Module) -> None:
    """Fill what `initialise` leaves alone, by each module's own rule.

    Raises:
        TypeError: a module has a parameter or buffer that no rule fills, or that one draws by
            chance: it would start from uninitialised memory, or not from the seed.
    """
    for name, module in network.named_modules():
        left = [key for key, _ in _own(module) if not _is_drawn(module, key)]
        rule = _rule(module)
        if left and (rule is None or not _settles(module, rule)):
            raise TypeError(
                f"nothing sets {', '.join(left)} of {name or 'the network'} "
                f"({type(module).__name__}) at the start; give it a reset_parameters() that sets "
                "all of it, and always to the same, or `initialise` a rule for it"
            )


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the parameters and buffers of a module that are not those of one within it."""
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _is_drawn(module: nn.Module, key: str) -> bool:
    """Return whether `initialise` fills this parameter or buffer."""
    if isinstance(module, ParametrizationList):
        return len(module) == 1 and isinstance(module[0], SpectralNorm) and key == "original"
    return isinstance(module, SpectralNorm) or (
        isinstance(module, Weighted) and key in ("weight", "bias")
    )


def _rule(module: nn.Module) -> Callable[[], object] | None:
    rule: Callable[[], object] | None = getattr(module, "reset_parameters", None)
    return rule


def _settles(module: nn.Module, rule: Callable[[], object]) -> bool:
    """Reset a module by its rule; return whether that sets all of it, whatever was there."""
    outcomes = []
    for before in (0, 1):
        for _, tensor in _own(module):
            tensor.detach().fill_(before)
        rule()
        outcomes.append([tensor.detach().clone() for _, tensor in _own(module)])
    return all(map(torch.equal, *outcomes))


def without_spectral_norm(config: RunConfig) -> RunConfig:
    """Return the configuration of the same networks with plain weights."""
    model = config.model.model_copy(update={"spectral_norm": NO_SPECTRAL_NORM})
    return config.model_copy(update={"model": model})


def parameters(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)


def attention_blocks(network: nn.Module) -> dict[str, Block]:
    """Return the attention blocks of a network, or those in their place, by name."""
    return {n: m for n, m in network.named_modules() if isinstance(m, Block)}


def layout(config: RunConfig) -> Layout:
    """Lay the networks out on the meta device and count what they cost.  Raises as `build`.

    A backward pass costs two forward passes, or one where only the input's gradient is needed.
    An update of D evaluates G once and D, forward and backward, on real and fake images; G's
    update runs G forward and backward and D forward and to its input.  Gradient penalties and
    recomputation are not counted.
    """
    networks = skeleton(without_spectral_norm(config))
    table = _table(config, networks)
    names: tuple[Literal["generator", "discriminator"], ...] = ("generator", "discriminator")
    blocks = {name: attention_blocks(getattr(networks, name)) for name in names}
    placed = (
        Placed(name, row.output_shape[1], row.output_shape[0])
        for name in names
        for row in table
        if row.network == name and row.name in blocks[name]
    )
    g, d = (sum(row.flops for row in table if row.network == name) for name in names)
    critic = g + 2 * 3 * d
    step = config.training.batch_size * (config.training.n_critic * critic + 3 * g + 2 * d)
    return Layout(tuple(table), tuple(placed), step)


def flops_per_step(config: RunConfig) -> int:
    """Return the FLOPs of one step's products, as `layout` counts them."""
    return layout(config).flops_per_step


def layers(config: RunConfig) -> list[Layer]:
    """Return the layer table of G and D.  Raises `UserError` as `build`.

    Spectral norms are left out: they add no parameter, and their cost does not grow with the batch.
    """
    return _table(config, skeleton(without_spectral_norm(config)))


def _table(config: RunConfig, networks: Networks) -> list[Layer]:
    with torch.device("meta"):
        z, images, labels = _family(config.model).inputs(config.data.image_size)
    rows = list(_rows("generator", networks.generator, z, labels))
    return rows + list(_rows("discriminator", networks.discriminator, images, labels))


def _rows(title: str, network: nn.Module, *inputs: Tensor | None) -> Iterator[Layer]:
    """Yield a row for each outermost module that has parameters or buffers of its own."""
    shown: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        if _own(module) and not name.startswith(tuple(f"{outer}." for outer in shown)):
            shown[name] = module
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in shown.items():
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: shapes.update({name: tuple(output.shape)})
        )
    counter = counted(network, *inputs)
    counts = counter.get_flop_counts()
    root, between = type(network).__name__, counter.get_total_flops()
    for name, module in shown.items():
        flops = sum(counts.get(f"{root}.{name}", {}).values())
        between -= flops
        yield Layer(title, name, shapes.get(name, ())[1:], parameters(module), flops)
    if between:
        yield Layer(title, BETWEEN, (), 0, between)
