"""A family of networks: shapes, blocks at the asked sides, training, evaluation, norms, classes."""

from functools import lru_cache
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from sagan_bench.config.schema import RunConfig
from sagan_bench.config.wording import in_words
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import NAME
from sagan_bench.experiments.conformance._alone import TOLERANCE, changed, snapshot
from sagan_bench.experiments.conformance._findings import (
    UNUSUAL,
    Broken,
    Skipped,
    Subject,
    Unusual,
)
from sagan_bench.experiments.conformance._networks import (
    IMAGES,
    PIXELS,
    after_a_step,
    configured,
    inputs_of,
    labels,
    normed,
    real_images,
    require_at,
    require_gradients,
    require_norms,
    require_reached,
)
from sagan_bench.experiments.conformance._parts import off
from sagan_bench.models.build import Networks, build, parameters
from sagan_bench.models.layers import frozen_spectral_norm
from sagan_bench.training.state import TrainState

FAR = 1e4
"""Times images: logits that are not bounded grow with them."""
NO_NORM = {"generator": "none", "discriminator": "none"}


@lru_cache(maxsize=1)
def sides(subject: Subject) -> tuple[list[int], list[int]]:
    """Return the sides where a family takes attention in G and in D, ascending."""
    taken: tuple[list[int], list[int]] = [], []
    for name, known in zip(("generator", "discriminator"), taken, strict=True):
        for side in (4, 8, 16, 32):
            wanted = {"generator": [], "discriminator": [], name: [side]}
            try:
                build(configured(subject.name, wanted))
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
        wanted = {"generator": [s for s in g if s == side], "discriminator": []}
        wanted["discriminator"] = [s for s in d if s == side]
        config = configured(subject.name, wanted)
        networks = build(config)
        require_at(config, networks)
        require_reached(config, networks)
    if not (g or d) and not subject.component.contrast:
        raise Skipped("it takes attention nowhere, and declares no contrast")
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
    """Evaluation changes no state, and an image's result does not depend on its batch.

    D's logit may: G descends by it as it is then, and it scores nothing.
    """
    config = _with_all(subject)
    networks, unusual = build(config), ""
    for name, inputs in inputs_of(config).items():
        network, before = getattr(networks, name).eval(), snapshot(getattr(networks, name))
        y, again = network(*inputs), network(*inputs)
        if lost := changed(network, before):
            raise Broken(f"evaluation of the {name} changes {', '.join(lost[:4])}")
        if not torch.equal(y, again):
            raise Broken(f"the {name} gives another result the second time")
        depends = off(_apart(network, inputs), y) > TOLERANCE
        if depends and name == "generator":
            raise Broken("in evaluation, an image depends on the rest of its batch")
        if name == "discriminator" and (depends or _depends_in_training(network, inputs)):
            unusual = "D's logit of an image depends on the rest of its batch"
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
            "layers have spectral norm where model.spectral_norm is none", "use norm_layers()"
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


def contrast(subject: Subject) -> str:
    """Each contrast is another network of the same family, all of which trains."""
    if not subject.component.contrast:
        raise Skipped("it declares none")
    plain, said = build(configured(subject.name, _NOWHERE)), []
    for name, settings in subject.component.contrast.items():
        if not NAME.fullmatch(name):
            raise Broken(f"a contrast is called {name!r}", "small letters, digits, - and _")
        try:
            config = configured(subject.name, _NOWHERE, options=settings)
        except ValidationError as error:
            raise Broken(f"{name}: {in_words(error.errors()[0])}") from error
        if not config.model.options:
            raise Broken(f"{name} has the settings of the family as it is", "set another")
        networks = build(config)
        same = (_alike(a, b) for a, b in zip(plain, networks, strict=True))
        if all(same):
            raise Broken(f"{name} is the family as it is", "have its settings change a network")
        state = after_a_step(config)
        require_gradients(config, Networks(state.generator, state.discriminator))
        share = sum(map(parameters, networks)) / sum(map(parameters, plain))
        said.append(f"{name} has {share:.0%} of the parameters")
    return ", ".join(said)


@torch.no_grad()
def _alike(network: nn.Module, other: nn.Module) -> bool:
    """Return whether two networks have the same layers, and weights that start alike."""
    (a, b) = (each.state_dict() for each in (network, other))
    return list(a) == list(b) and all(map(torch.equal, a.values(), b.values()))


FAMILY = (shapes, blocks, training, evaluation, norms, penalty, classes, contrast)
