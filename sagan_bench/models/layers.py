"""Spectral normalisation, and weights that depend on the seed and the layer's name alone."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from sagan_bench.core.errors import UserError
from sagan_bench.core.seeding import generator

Convolution = nn.Conv2d | nn.ConvTranspose2d
Weighted = Convolution | nn.Linear | nn.Embedding
"""The layers whose weights are drawn at the start, and may be divided by their spectral norm."""
Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.Embedding)

POWER_ITERATIONS_AT_START = 50
"""So that sigma is right at step 1; afterwards one iteration a step follows the weight."""


class Given(NamedTuple):
    """A weight that was divided beforehand."""

    full: Tensor
    """As wide as the parameter."""
    low: Tensor
    """In the precision of autocast, where that was on."""

    @property
    def now(self) -> Tensor:
        """What a layer that is called now takes."""
        return self.low if torch.is_autocast_enabled(self.low.device.type) else self.full


class SpectralNorm(nn.Module):
    """Return W / sigma(W), sigma by power iteration (Miyato et al. 2018, algorithm 1).

    The weight is flattened to (outputs, the rest).  A transposed convolution's outputs are its
    dim 1, as torch has it; the seed project flattens over dim 0 there, a departure of ours.  In
    training mode each use makes one iteration; in evaluation mode none, so that looking at a
    network never changes it.  Everything is fp32 or wider, also under autocast.
    """

    u: Tensor
    v: Tensor
    given: Given | None = None
    """The divided weight, where those of all layers are made at once (`models.batched`)."""
    as_stored: bool = False
    """Whether v follows the order in which a channels-last weight lies in memory."""

    def __init__(self, weight: Tensor, output_dim: int) -> None:
        super().__init__()
        self.output_dim = output_dim
        matrix = self._matrix(weight)
        for name, length in zip("uv", matrix.shape, strict=True):  # of norm 1
            self.register_buffer(name, weight.new_full((length,), length**-0.5))

    def _matrix(self, weight: Tensor) -> Tensor:
        if not self.as_stored or weight.dim() != 4:
            return weight.transpose(0, self.output_dim).flatten(1)
        stored = weight.permute(0, 2, 3, 1)
        return stored.flatten(0, 2).T if self.output_dim else stored.flatten(1)

    @torch.no_grad()
    def begin(self, weight: Tensor, u: Tensor) -> None:
        """Take a first u (outputs,) of any length, and move it to where sigma is right."""
        as_stored, self.as_stored = self.as_stored, False  # the same bits in either order
        self.u.copy_(functional.normalize(u, dim=0))
        self.iterate(weight, POWER_ITERATIONS_AT_START)
        self.as_stored = as_stored
        if as_stored and weight.dim() == 4 and not self.output_dim:
            self.v.copy_(self.v.view(weight.shape[1:]).permute(1, 2, 0).flatten())

    @torch.no_grad()
    def iterate(self, weight: Tensor, times: int = 1) -> None:
        """Move u and v towards the leading singular vectors of ``weight``."""
        matrix = self._matrix(weight)
        for _ in range(times):
            self.v.copy_(functional.normalize(self.u @ matrix, dim=0))
            self.u.copy_(functional.normalize(matrix @ self.v, dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """Return ``weight`` divided by its estimated largest singular value; same shape.

        Raises:
            UserError: in a backward pass, of a network whose norms are made at once for a call.
        """
        if self.given is not None:
            return self.given.now
        if self.as_stored and torch._C._current_graph_task_id() != -1:
            raise UserError(
                "a layer with spectral norm is computed again in the backward pass "
                "(torch.utils.checkpoint), when the weights that all norms at once made for the "
                "call are gone; add --set model.spectral_norm.batched=false, or compute again "
                "only what has no such layer"
            )
        with no_autocast(weight.device.type):
            if self.training:
                self.iterate(weight)
            # Copies: the next iteration must not change what this graph's backward reads.
            u, v = self.u.clone(), self.v.clone()
            return weight / torch.dot(u, self._matrix(weight) @ v)


def no_autocast(device_type: str) -> AbstractContextManager[None]:
    """Leave products in the precision of their tensors; the meta device knows no autocast."""
    known = torch.amp.is_autocast_available(device_type)
    return torch.autocast(device_type, enabled=False) if known else nullcontext()


def spectral_norm(layer: Layer) -> Layer:
    """Put `SpectralNorm` on the weight of a layer, in place, and return the layer."""
    output_dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    norm = SpectralNorm(layer.weight, output_dim)
    # `unsafe` spares a trial call, which on the meta device takes longer than all of the layer.
    parametrize.register_parametrization(layer, "weight", norm, unsafe=True)
    return layer


def normed_layers(
    network: nn.Module,
) -> Iterator[tuple[nn.Module, SpectralNorm, parametrize.ParametrizationList]]:
    """Yield each layer with a spectral norm, the norm, and what holds the undivided weight."""
    for layer in network.modules():
        if parametrize.is_parametrized(layer, "weight"):
            held: parametrize.ParametrizationList = getattr(layer, "parametrizations").weight  # noqa: B009
            norm = held[0]
            if isinstance(norm, SpectralNorm):
                yield layer, norm, held


def spectral_norms(network: nn.Module) -> Iterator[tuple[SpectralNorm, Tensor]]:
    """Yield each spectral norm of a network with the weight (parameter) that it divides."""
    for _, norm, held in normed_layers(network):
        yield norm, held.original


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the state of the same network without spectral norms: weights already divided."""
    state = dict(network.state_dict())
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            state[f"{name}.weight"] = module.weight.detach()
    return {name: value for name, value in state.items() if ".parametrizations." not in name}


@contextmanager
def frozen_spectral_norm(network: nn.Module) -> Iterator[None]:
    """Within the block a network in training mode makes no power iteration."""
    training = [norm for norm, _ in spectral_norms(network) if norm.training]
    for norm in training:
        norm.eval()
    try:
        yield
    finally:
        for norm in training:
            norm.train()


def at_least_fp32(features: Tensor) -> Tensor:
    """Return ``features`` in fp32, or as they are if they are fp64."""
    return features.to(torch.promote_types(features.dtype, torch.float32))


def logits_of(
    sees: Literal["whole", "halves"],
    score: Callable[[Tensor, Tensor | None], Tensor],
    images: Tensor,
    labels: Tensor | None,
) -> Tensor:
    """Return logits (B,) of images; of ``halves``, the mean of the left's and the right's.

    Args:
        sees: ``model.discriminator_sees``.
        score: logits (N,) of images (N, 3, H, W) and labels (N,), if there are any.
        images: (B, 3, S, S).
        labels: (B,) int64, or None.
    """
    if sees == "whole":
        return score(images, labels)
    halves = torch.cat(images.chunk(2, dim=3))
    left, right = score(halves, None if labels is None else labels.repeat(2)).chunk(2)
    return (left + right) / 2


class ConditionalBatchNorm2d(nn.Module):
    """Return gain_y * (x - mean) / std + bias_y, gain and bias one of each a class y.

    Mean and variance are those of the batch over all classes, as in BatchNorm.  Gains start at 1,
    biases at 0, and neither has spectral norm.  Source: Dumoulin et al. 2017, by the SAGAN authors'
    code, brain-research/self-attention-gan.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Parameter(torch.empty(classes, channels))
        self.bias = nn.Parameter(torch.empty(classes, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as a BatchNorm that knows no classes."""
        nn.init.ones_(self.gain)
        nn.init.zeros_(self.bias)

    def forward(
        self, x: Tensor, labels: Tensor, others: Tensor | None = None, share: Tensor | None = None
    ) -> Tensor:
        """Return the normalised x.  x: (B, C, H, W) float; labels: (B,) int64.

        For interpolations gain and bias may be mixed: those of ``others`` (B,) int64 enter by
        ``share`` (B,) in [0, 1].
        """
        h = self.norm(x)
        gain, bias = (
            _row_of(table, labels, others, share).to(h.dtype)[:, :, None, None]
            for table in (self.gain, self.bias)
        )
        return torch.addcmul(bias, h, gain)


def _row_of(table: Tensor, labels: Tensor, others: Tensor | None, share: Tensor | None) -> Tensor:
    rows = functional.embedding(labels, table)
    if others is None or share is None:
        return rows
    return torch.lerp(rows, functional.embedding(others, table), share[:, None])


@torch.no_grad()
def forward_flops(network: nn.Module, *inputs: Tensor | None) -> int:
    """Return the FLOPs of the products of a forward pass; a product-sum is two."""
    return counted(network, *inputs).get_total_flops()


def counted(network: nn.Module, *inputs: Tensor | None) -> FlopCounterMode:
    """Run a forward pass without gradients, and return its counter of FLOPs.

    No weight may have one meanwhile: the counter fails where a module returns a view of its own.
    """
    trained = [weight for weight in network.parameters() if weight.requires_grad]
    try:
        network.requires_grad_(False)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(*inputs)
    finally:
        for weight in trained:
            weight.requires_grad_()
    return counter


@torch.no_grad()
def initialise(
    network: nn.Module, seed: int, name: str, law: Literal["torch", "glorot"] = "torch"
) -> None:
    """Draw every weight from a generator of its own: ``generator(seed, name, parameter)``.

    A layer that two variants share starts from the same values whatever else the networks hold.
    BatchNorm starts at gain 1 and bias 0, gamma at its ``gamma_init``.

    Args:
        network: on the CPU.
        seed: of all draws.
        name: the network's.
        law: ``torch``, its default, which the seed project uses: U(-b, b) for weights and biases,
            b = 1 / sqrt(fan_in), and N(0, 1) for embeddings; ``glorot``, the authors' code's:
            U(-b, b), b = sqrt(6 / (fan_in + fan_out)), and biases at 0.
    """
    for path, layer in network.named_modules():
        if not isinstance(layer, Weighted):
            continue
        norm, weight = _parts(layer)
        weight.copy_(_drawn(weight, layer, law, seed, name, f"{path}.weight"))
        bias = getattr(layer, "bias", None)
        if bias is not None and law == "glorot":
            bias.zero_()
        elif bias is not None:
            bias.copy_(_uniform(bias, _torch_bound(weight), seed, name, f"{path}.bias"))
        if norm is not None:
            start = torch.randn(len(norm.u), generator=generator(seed, name, f"{path}.u"))
            norm.begin(weight, start)


def _parts(layer: Weighted) -> tuple[SpectralNorm | None, Tensor]:
    """Return a layer's spectral norm, if it has one, and its weight (parameter)."""
    for norm, weight in spectral_norms(layer):
        return norm, weight
    return None, layer.weight


def _drawn(weight: Tensor, layer: Weighted, law: str, seed: int, *name: str) -> Tensor:
    if law == "glorot":
        inner = weight[0, 0].numel()  # of the kernel
        bound = math.sqrt(6 / (inner * (weight.shape[0] + weight.shape[1])))
        return _uniform(weight, bound, seed, *name)
    if isinstance(layer, nn.Embedding):
        source = generator(seed, *name)
        return torch.randn(weight.shape, generator=source, dtype=torch.float64)
    return _uniform(weight, _torch_bound(weight), seed, *name)


def _torch_bound(weight: Tensor) -> float:
    return 1 / math.sqrt(weight[0].numel())  # torch's fan-in, transposed or not


def _uniform(like: Tensor, bound: float, seed: int, *name: str) -> Tensor:
    """Draw U(-bound, bound) in the shape of ``like``, on the CPU, whatever its memory format."""
    draw = torch.rand(like.shape, generator=generator(seed, *name), dtype=torch.float64)
    return (2 * draw - 1) * bound
