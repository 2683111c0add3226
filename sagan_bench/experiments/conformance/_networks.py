"""Networks at a small width: where blocks stand, gradients in G and D, spectral norms, costs."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils import parametrize

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.distributed import SINGLE_PROCESS
from sagan_bench.core.errors import UserError
from sagan_bench.experiments.conformance._alone import (
    TOLERANCE,
    changed,
    has_block,
    snapshot,
    without_gradient,
)
from sagan_bench.experiments.conformance._findings import UNUSUAL, Broken, Skipped, Subject, Unusual
from sagan_bench.experiments.conformance._parts import off
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.build import Networks, attention_blocks, build
from sagan_bench.models.layers import frozen_spectral_norm
from sagan_bench.training.draws import step_noise
from sagan_bench.training.loop import Recipe, TrainState

PIXELS = 32
IMAGES = 4
WIDTHS = {"dcgan": 32, "resnet": 16}
"""Shipped families in which blocks are checked."""
SIDES = {"dcgan": (8, 8), "resnet": (8, 4)}
"""Where, in G and in D: the maps there have 64 channels."""
WIDTH = 32
"""Of other families."""
NORMS = (0.9, 1.1)
"""Between which a spectral norm is about 1."""
FAR = 1e4
"""Times images: logits that are not bounded grow with them."""
NO_NORM = {"generator": "none", "discriminator": "none"}


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


def with_kind(subject: Subject, family: str, **model: Any) -> RunConfig:
    """Return the configuration of a shipped family with a kind of attention at `SIDES`."""
    begins = {"gamma_init": 0.5} if getattr(subject.component, "has_block", True) else {}
    g, d = SIDES[family]
    attention = {"kind": subject.name, "generator": [g], "discriminator": [d], **begins}
    return configured(family, attention, **model)


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
    recipe.update_d(real_images(), noise.critic[0], labels(config))
    recipe.update_g(noise.generator)
    return state


def descend(networks: Networks, config: RunConfig) -> None:
    """Leave gradients of a loss in both networks.

    Of the logistic one: the hinge loss moves the last bias of a new D by nothing.
    """
    classes = labels(config)
    fake = networks.generator(torch.randn(IMAGES, config.model.z_dim), classes)
    softplus(-networks.discriminator(fake, classes)).mean().backward()
    networks.discriminator.zero_grad()
    real, fake = (networks.discriminator(x, classes) for x in (real_images(), fake.detach()))
    (softplus(-real).mean() + softplus(fake).mean()).backward()


def outermost(network: nn.Module) -> dict[str, Block]:
    """Return the blocks of a network by name, without those within others."""
    blocks = attention_blocks(network)
    return {
        name: block
        for name, block in blocks.items()
        if not any(name.startswith(f"{other}.") for other in blocks)
    }


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
                "put blocks_by_side()'s block behind the only map of its side, and refuse others",
            )


def require_reached(config: RunConfig, networks: Networks) -> None:
    """Raise `Broken` where the result of a network does not depend on the gamma of a block."""
    for name, inputs in inputs_of(config).items():
        network = getattr(networks, name).eval()
        for at, block in outermost(network).items():
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
            raise Broken(
                f"in the {name} ({config.model.architecture}) no gradient reaches "
                f"{', '.join(lost[:4])}",
                "look for detach(), .data or a layer whose result is not used",
            )


def require_begun(config: RunConfig, networks: Networks) -> None:
    """Raise `Broken` where a gamma at 0 gets no gradient within a network."""
    for network in networks:
        for block in outermost(network).values():
            block.gamma.detach().fill_(0.0)
    descend(networks, config)
    for name, network in networks._asdict().items():
        for at, block in outermost(network).items():
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
    found = list(normed(network.eval()))
    for name, is_normed, norm in found:
        if is_normed and not NORMS[0] < norm < NORMS[1]:
            raise Broken(f"the spectral norm of {name} is {norm:.3g}, not about 1")
    if bare := [name for name, is_normed, _ in found if not is_normed]:
        raise Unusual(
            "no spectral norm",
            f"{', '.join(bare[:4])} has no spectral norm where all layers have it: only Conv2d "
            "that are direct children of a block are given it",
        )


def in_networks(subject: Subject) -> str:
    """A block trains within both networks of the shipped families, and stands where asked."""
    has_block(subject)
    no_gamma = subject.says("no gamma")
    for family in WIDTHS:
        config = with_kind(subject, family)
        state = after_a_step(config)
        networks = Networks(state.generator, state.discriminator)
        require_at(config, networks)
        for network in networks:
            for block in outermost(network).values():
                block.gamma.detach().fill_(0.5)
        require_gradients(config, networks, no_gamma=no_gamma)
        if not no_gamma:
            require_reached(config, networks)
            require_begun(config, networks)
    stacked = {len(attention_blocks(network)) for network in networks}
    if stacked != {1}:
        raise Unusual("stacked blocks", f"a block holds {max(stacked) - 1} others")
    return f"in G and D of {' and '.join(WIDTHS)}: at its side, trained, not ignored"


def spectral_norm(subject: Subject) -> str:
    """The spectral norms of a block's layers are about 1."""
    has_block(subject)
    for network in build(with_kind(subject, "dcgan")):
        for block in outermost(network).values():
            require_norms(block)
    return "about 1"


def widths(subject: Subject) -> str:
    """The widths that a kind gives both networks are finite, and they can be built."""
    for family in WIDTHS:
        build(with_kind(subject, family))
    return "can be built"


KIND = (in_networks, spectral_norm)


@lru_cache(maxsize=1)
def sides(subject: Subject) -> tuple[list[int], list[int]]:
    """Return the sides where a family takes attention in G and in D, ascending."""
    taken: tuple[list[int], list[int]] = [], []
    for name, known in zip(("generator", "discriminator"), taken, strict=True):
        for side in (4, 8, 16, 32):
            asked_for = {"generator": [], "discriminator": [], name: [side]}
            try:
                build(configured(subject.name, asked_for))
            except UserError:
                continue
            known.append(side)
    return taken


def _with_all(subject: Subject, **model: Any) -> RunConfig:
    """Return the configuration of a family with full attention at the last sides it takes."""
    g, d = sides(subject)
    attention = {"generator": g[-2:], "discriminator": d[-2:], "gamma_init": 0.5}
    return configured(subject.name, attention if g or d else _NOWHERE, **model)


_NOWHERE: dict[str, Any] = {"generator": [], "discriminator": []}


@torch.no_grad()
def shapes(subject: Subject) -> str:
    """G makes images (B, 3, S, S) in [-1, 1], and D logits (B,), both fp32."""
    config = configured(subject.name, _NOWHERE)
    networks = build(config)
    for name, inputs in inputs_of(config).items():
        y = getattr(networks, name)(*inputs)
        shape = (IMAGES, 3, PIXELS, PIXELS) if name == "generator" else (IMAGES,)
        if (tuple(y.shape), y.dtype) != (shape, torch.float32):
            raise Broken(f"the {name} makes {y.dtype} {tuple(y.shape)}, not float32 {shape}")
        if name == "generator" and not y.abs().max() <= 1:
            raise Broken("images leave [-1, 1]", "end with tanh()")
        if name == "generator" and torch.equal(y[0], y[1]):
            raise Broken("G makes the same image of any noise")
    _, d = networks
    if d.eval()(FAR * real_images(), labels(config)).abs().max() <= 1:
        raise Unusual("bounded logits", f"{UNUSUAL['bounded logits']}: losses take no sigmoid's")
    family = subject.component(config.model)
    family.forward_flops(4 * PIXELS, config.model.width)
    if not family.width_of_a_channel(PIXELS) > 0:
        raise Broken("width_of_a_channel() is not positive")
    return f"images {PIXELS} x {PIXELS} and logits, fp32"


def blocks(subject: Subject) -> str:
    """At each asked side stands one block, which the networks use; other sides are refused."""
    g, d = sides(subject)
    for side in sorted({*g, *d}, reverse=True):
        asked_for = {"generator": [s for s in g if s == side], "discriminator": []}
        asked_for["discriminator"] = [s for s in d if s == side]
        config = configured(subject.name, asked_for)
        networks = build(config)
        require_at(config, networks)
        require_reached(config, networks)
    if not (g or d):
        raise Skipped("it takes attention nowhere")
    return f"one at each asked side: G {g}, D {d}"


def training(subject: Subject) -> str:
    """A step of training leaves every parameter of both networks with a gradient."""
    config = _with_all(subject)
    state = after_a_step(config)
    g, d = ({*map(id, net.parameters())} for net in (state.generator, state.discriminator))
    if g & d:
        raise Broken("G and D share weights", "make the layers of each anew")
    require_gradients(config, Networks(state.generator, state.discriminator))
    return "gradients reach every parameter of G and D"


@torch.no_grad()
def evaluation(subject: Subject) -> str:
    """Evaluation changes no state, and an image's result does not depend on its batch."""
    config = _with_all(subject)
    networks, unusual = build(config), ""
    for name, inputs in inputs_of(config).items():
        network, before = getattr(networks, name).eval(), snapshot(getattr(networks, name))
        y, again = network(*inputs), network(*inputs)
        if lost := changed(network, before):
            raise Broken(f"evaluation of the {name} changes {', '.join(lost[:4])}")
        if not torch.equal(y, again):
            raise Broken(f"the {name} gives another result the second time")
        if off(_apart(network, inputs), y) > TOLERANCE:
            raise Broken(f"in evaluation, the {name}'s result depends on the rest of the batch")
        if name == "discriminator" and _depends_in_training(network, inputs):
            unusual = "D's logit of an image depends on the rest of its batch in training"
    if unusual:
        raise Unusual("batch statistics", unusual)
    return "no state changed; each image by itself"


def _apart(network: nn.Module, inputs: tuple[Tensor, Tensor | None]) -> Tensor:
    x, classes = inputs
    rows = ((x[i : i + 1], None if classes is None else classes[i : i + 1]) for i in range(len(x)))
    return torch.cat([network(*row) for row in rows])


def _depends_in_training(network: nn.Module, inputs: tuple[Tensor, Tensor | None]) -> bool:
    with frozen_spectral_norm(network.train()):
        return off(_apart(network, inputs), network(*inputs)) > TOLERANCE


def norms(subject: Subject) -> str:
    """The spectral norms of all layers are about 1."""
    for network in build(_with_all(subject)):
        require_norms(network)
    return "about 1"


def penalty(subject: Subject) -> str:
    """A gradient penalty on D has a gradient in all of D."""
    config = _with_all(subject, spectral_norm=NO_NORM)
    training = config.training.model_copy(update={"loss": "wgan-gp"})
    networks = build(config.model_copy(update={"training": training}))
    if any(is_normed for network in networks for _, is_normed, _ in normed(network)):
        raise Broken(
            "layers have spectral norm where model.spectral_norm is none", "use normed_if()"
        )
    d = networks.discriminator
    images = real_images().requires_grad_()
    (gradient,) = torch.autograd.grad(d(images, None).sum(), images, create_graph=True)
    if not gradient.any():
        raise Broken("D's logits do not depend on the images")
    gradient.square().flatten(1).sum(1).sub(1).square().mean().backward()
    if not any(weight.grad is not None and weight.grad.any() for weight in d.parameters()):
        raise Broken("no gradient of a gradient penalty reaches D")
    return "its gradient reaches D"


@torch.no_grad()
def classes(subject: Subject) -> str:
    """Networks that know classes use them."""
    if "classes" not in subject.component.knows:
        raise Skipped("it knows no classes")
    config = configured(subject.name, _NOWHERE, classes=3)
    state = after_a_step_of(config)
    for name, (x, given) in inputs_of(config).items():
        network = getattr(state, name).eval()
        if given is not None and torch.equal(network(x, given), network(x, (given + 1) % 3)):
            raise Broken(f"the {name} ignores the class")
    return "G and D use them"


def after_a_step_of(config: RunConfig) -> TrainState:
    """Return what `after_a_step` does, where gradients are off around."""
    with torch.enable_grad():
        return after_a_step(config)


FAMILY = (shapes, blocks, training, evaluation, norms, penalty, classes)
