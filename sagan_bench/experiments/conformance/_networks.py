"""Networks at a small width: where blocks stand, gradients in G and D, spectral norms."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils import parametrize

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.distributed import SINGLE_PROCESS
from sagan_bench.experiments.conformance._findings import Broken, Unusual
from sagan_bench.experiments.conformance._gradients import without_gradient
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.build import Networks, attention_blocks
from sagan_bench.models.calls import extra_loss
from sagan_bench.training.draws import step_noise
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Recipe

PIXELS = 32
IMAGES = 4
WIDTHS = {"dcgan": 32, "resnet": 16}
"""Shipped families in which blocks are checked."""
WIDTH = 32
"""Of other families."""
NORMS = (0.9, 1.1)
"""Between which a spectral norm is about 1."""


def configured(family: str, attention: dict[str, Any], **model: Any) -> RunConfig:
    """Return the configuration of small networks, trained in fp32 on the CPU."""
    model = {
        "architecture": family,
        "width": WIDTHS.get(family, WIDTH),
        "z_dim": 16,
        "attention": attention,
        **model,
    }
    training = {"batch_size": IMAGES, "precision": "fp32"}
    given = {"data": {"image_size": PIXELS}, "model": model, "training": training}
    return RunConfig.model_validate(given)


def real_images() -> Tensor:
    """Return images (B, 3, S, S) in [-1, 1], channels-last."""
    images = torch.rand(IMAGES, 3, PIXELS, PIXELS) * 2 - 1
    return images.contiguous(memory_format=torch.channels_last)


def labels(config: RunConfig) -> Tensor | None:
    """Return classes of a batch, (B,), if there are any."""
    classes = config.model.classes
    return torch.arange(IMAGES) % classes if classes else None


def after_a_step(config: RunConfig) -> TrainState:
    """Return what one step of training makes of new networks."""
    state = TrainState(config, torch.device("cpu"))
    noise, recipe = step_noise(config, SINGLE_PROCESS, 1), Recipe(config, state)
    state.begin(1)
    recipe.update_d(real_images(), noise.critic[0], labels(config))
    recipe.update_g(noise.generator)
    return state


def descend(networks: Networks, config: RunConfig) -> None:
    """Leave gradients of a loss in both networks.

    Of the logistic one: the hinge loss moves the last bias of a new D by nothing.
    """
    classes = labels(config)
    fake = networks.generator(torch.randn(IMAGES, config.model.z_dim), classes)
    _with_extra(networks.generator, softplus(-networks.discriminator(fake, classes)).mean())
    networks.discriminator.zero_grad()
    real, fake = (networks.discriminator(x, classes) for x in (real_images(), fake.detach()))
    _with_extra(networks.discriminator, softplus(-real).mean() + softplus(fake).mean())


def _with_extra(network: nn.Module, loss: Tensor) -> None:
    """Leave gradients of a loss and of what blocks add to it."""
    extra = extra_loss(network)
    (loss if extra is None else loss + extra).backward()


def outermost(network: nn.Module) -> dict[str, Block]:
    """Return the blocks of a network by name, without those within others."""
    blocks = attention_blocks(network)
    return {
        name: block
        for name, block in blocks.items()
        if not any(name.startswith(f"{other}.") for other in blocks)
    }


def _with_gamma(network: nn.Module) -> dict[str, Block]:
    return {name: block for name, block in outermost(network).items() if block.has_gamma}


def sides_of_blocks(network: nn.Module, *inputs: Tensor | None) -> list[int]:
    """Return the side of the map behind each block, as a forward pass meets them."""
    met: list[int] = []
    handles = [
        block.register_forward_hook(lambda _module, _inputs, y: met.append(y.shape[2]))
        for block in outermost(network).values()
    ]
    with torch.no_grad():
        network(*inputs)
    for handle in handles:
        handle.remove()
    return met


def inputs_of(config: RunConfig) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Return what G and D are given."""
    z = torch.randn(IMAGES, config.model.z_dim)
    return {"generator": (z, labels(config)), "discriminator": (real_images(), labels(config))}


def require_at(config: RunConfig, networks: Networks) -> None:
    """Raise `Broken` unless a forward pass meets a block once at each side that was asked for."""
    for name, inputs in inputs_of(config).items():
        wanted = list(getattr(config.model.attention, name))
        met = sorted(sides_of_blocks(getattr(networks, name), *inputs))
        if met != wanted:
            raise Broken(
                f"model.attention.{name} = {wanted}: {config.model.architecture}'s {name} has "
                f"blocks at {met}",
                "put there what Places.at() returns for the only map of a side, and refuse others",
            )


def require_reached(config: RunConfig, networks: Networks) -> None:
    """Raise `Broken` where the result of a network does not depend on the gamma of a block."""
    for name, inputs in inputs_of(config).items():
        network = getattr(networks, name).eval()
        for at, block in _with_gamma(network).items():
            results = []
            for gamma in (0.0, 2.0):
                with torch.no_grad():
                    block.gamma.fill_(gamma)
                    results.append(network(*inputs))
            if torch.equal(*results):
                raise Broken(
                    f"the {name} ignores {at}: its result is the same for any gamma",
                    "hand the map on through the block",
                )


def require_gradients(config: RunConfig, networks: Networks, *, no_gamma: bool = False) -> None:
    """Raise `Broken` where a loss leaves a parameter of G or D without a gradient."""
    descend(networks, config)
    for name, network in networks._asdict().items():
        blocks = outermost(network)
        fine = {f"{at}.gamma" for at in blocks} if no_gamma else set()
        if lost := [at for at in without_gradient(network) if at not in fine]:
            more = f" and {len(lost) - 4} more" if lost[4:] else ""
            raise Broken(
                f"in the {name} ({config.model.architecture}) no gradient reaches "
                f"{', '.join(lost[:4])}{more}",
                "look for detach(), .data or a layer whose result is not used",
            )


def require_begun(config: RunConfig, networks: Networks) -> None:
    """Raise `Broken` where a gamma at 0 gets no gradient within a network."""
    for network in networks:
        for block in _with_gamma(network).values():
            block.gamma.detach().fill_(0.0)
    descend(networks, config)
    for name, network in networks._asdict().items():
        for at, block in _with_gamma(network).items():
            if block.gamma.grad is None or not block.gamma.grad.any():
                raise Broken(f"in the {name} gamma of {at} gets no gradient at 0")


def normed(network: nn.Module) -> Iterator[tuple[str, bool, float]]:
    """Yield each layer with a weight matrix: its name, whether it has spectral norm, the norm."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.Embedding):
            weight = layer.weight.detach()
            dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            matrix = weight.transpose(0, dim).flatten(1)
            is_normed = parametrize.is_parametrized(layer, "weight")
            yield name, is_normed, float(torch.linalg.matrix_norm(matrix, 2))


def require_norms(network: nn.Module) -> None:
    """Raise `Broken` where a spectral norm is not about 1, `Unusual` where a layer has none."""
    layers = list(normed(network.eval()))
    for name, is_normed, norm in layers:
        if is_normed and not NORMS[0] < norm < NORMS[1]:
            raise Broken(f"the spectral norm of {name} is {norm:.3g}, not about 1")
    if bare := [name for name, is_normed, _ in layers if not is_normed]:
        more = f" and {len(bare) - 4} more" if bare[4:] else ""
        raise Unusual(
            "no spectral norm",
            f"{', '.join(bare[:4])}{more}: no spectral norm, where all layers of networks have it",
        )
