"""All spectral norms of a network at once, in few launches, when it is called.

`SpectralNorm` makes about 15 launches a layer and use, which on a GPU take longer than a small
network's products.  Here the weights of a network lie one after another in one tensor, as they lie
in memory; layers of one shape share their products, and what is left is one operation for all.
The same mathematics, rounded otherwise: docs/adr/0002-spectral-norm.md.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sagan_bench.models.layers import Given, SpectralNorm, no_autocast, normed_layers


def batch_spectral_norms(network: nn.Module) -> nn.Module:
    """Have each call of a network make all its spectral norms at once; return the network.

    Outside of such a call, or while only some of them iterate, each layer makes its own.
    """
    if any(normed_layers(network)):
        batch = BatchedNorms(network)
        network.register_forward_pre_hook(batch.give)
        network.register_forward_hook(batch.take_back, always_call=True)
    return network


class Alike(NamedTuple):
    """Layers of one shape, which follow each other in tensors of all layers."""

    layers: slice
    weights: slice
    u: slice
    v: slice
    stored: tuple[int, int, int]
    """How the weights lie in memory: layers, outputs and inner size, or the latter two swapped."""
    swapped: bool

    def matrices(self, weights: Tensor) -> Tensor:
        """Return a view (layers, outputs, inner) of all weights (N,)."""
        matrices = weights[self.weights].view(self.stored)
        return matrices.mT if self.swapped else matrices

    def columns(self, u: Tensor) -> Tensor:
        """Return a view (layers, outputs, 1) of all u."""
        return u[self.u].view(self.stored[0], -1, 1)

    def rows(self, v: Tensor) -> Tensor:
        """Return a view (layers, 1, inner) of all v."""
        return v[self.v].view(self.stored[0], 1, -1)


class BatchedNorms:
    """The L spectral norms of one network, sorted by shape.

    Tensors of all layers, in that order: weights (N,) as channels-last ones lie in memory, u (sum
    of outputs,), v (sum of inner sizes,), sigma (L,).
    """

    def __init__(self, network: nn.Module) -> None:
        layers = [(_order(layer, norm), norm, held) for layer, norm, held in normed_layers(network)]
        layers.sort(key=lambda layer: layer[0])
        self.norms = [norm for _, norm, _ in layers]
        self.held = [held for _, _, held in layers]
        for norm in self.norms:
            norm.as_stored = True
        self.sizes = [held.original.numel() for held in self.held]
        self.cast = sum(not is_table for (is_table, *_), _, _ in layers)
        """Of so many layers, the first, weights are cast under autocast; rows of tables are not."""
        self.groups = _groups([order for order, _, _ in layers])
        self.chunk = math.gcd(*self.sizes)
        """Weights are a whole number of chunks of so many elements in each layer."""
        lengths = [len(norm.v) for norm in self.norms] + [len(norm.u) for norm in self.norms]
        chunks = [size // self.chunk for size in self.sizes]
        self._layers = _Layers(_repeated(chunks), _repeated(lengths))

    def give(self, *_: object) -> None:
        """Give each layer its divided weight, for the call that begins."""
        if len({norm.training for norm in self.norms}) > 1:
            return
        weights = [held.original for held in self.held]
        device = weights[0].device.type
        is_cast = torch.is_autocast_enabled(device)
        with no_autocast(device):
            flat = torch.cat([_as_stored(weight) for weight in weights])
            u, v, sigma = self.spectrum(flat.detach(), iterate=self.norms[0].training)
            divided = _Divided.apply(flat, u, v, sigma, self)
            full = divided.split(self.sizes)
            low = full
            if is_cast:  # one cast for all, not one a layer
                low = self._cast(divided, torch.get_autocast_dtype(device)) + full[self.cast :]
        for norm, weight, *given in zip(self.norms, weights, full, low, strict=True):
            norm.given = Given(*(_like(weight, each) for each in given))

    def take_back(self, *_: object) -> None:
        """Have each layer divide its weight itself again."""
        for norm in self.norms:
            norm.given = None

    def _cast(self, divided: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        sizes = self.sizes[: self.cast]
        rest = len(divided) - sum(sizes)
        cast = divided if not rest else divided.split([len(divided) - rest, rest])[0]
        return cast.to(dtype).split(sizes)

    @torch.no_grad()
    def spectrum(self, weights: Tensor, *, iterate: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return u, v and sigma = u . W v of all layers.

        Args:
            weights: (N,).
            iterate: first v = W^T u and u = W v, divided by their lengths, which the layers keep.
        """
        u = torch.cat([norm.u for norm in self.norms])
        if not iterate:
            v = torch.cat([norm.v for norm in self.norms])
            sigma = weights.new_empty(len(self.norms))
            for group in self.groups:
                product = group.matrices(weights) @ group.rows(v).mT
                sigma[group.layers].view(-1, 1, 1).baddbmm_(group.columns(u).mT, product, beta=0)
            return u, v, sigma
        kept = [norm.v for norm in self.norms] + [norm.u for norm in self.norms]
        sizes = [len(vector) for vector in kept]
        moved = weights.new_empty(sum(sizes))
        v, product = moved.split([len(moved) - len(u), len(u)])
        for group in self.groups:
            matrices = group.matrices(weights)
            group.rows(v).baddbmm_(group.columns(u).mT, matrices, beta=0)
            group.columns(product).baddbmm_(matrices, group.rows(v).mT, beta=0)
        lengths = torch.stack(torch._foreach_norm(moved.split(sizes)))
        of_v, of_product = lengths.chunk(2)
        least = torch.finfo(weights.dtype).tiny  # zeros stay zeros
        moved /= lengths.clamp_min(least)[self._at(weights.device).of_vectors]
        torch._foreach_copy_(kept, moved.split(sizes))
        return product, v, of_product / of_v

    def _at(self, device: torch.device) -> "_Layers":
        if self._layers.of_chunks.device != device:
            self._layers = _Layers(*(numbers.to(device) for numbers in self._layers))
        return self._layers

    def scaled_u(self, u: Tensor, factors: Tensor) -> Tensor:
        """Return all u times the factors (L,) of their layers."""
        of_u = self._at(u.device).of_vectors[-len(u) :] - len(self.norms)
        return u * factors[of_u]

    def by_layer(self, weights: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (chunks, chunk), and for each chunk the factor of its layer."""
        factors = factors[self._at(weights.device).of_chunks]
        return weights.view(-1, self.chunk), factors[:, None]


class _Layers(NamedTuple):
    """Numbers of layers, int64."""

    of_chunks: Tensor
    """Of each chunk of weights."""
    of_vectors: Tensor
    """Of each element of all v, 0 to L - 1, and then of all u, L to 2 L - 1."""


class _Divided(torch.autograd.Function):
    """W / sigma, sigma = u . W v; u and v are constants."""

    @staticmethod
    def forward(
        weights: Tensor, u: Tensor, v: Tensor, sigma: Tensor, batch: BatchedNorms
    ) -> Tensor:
        chunks, sigmas = batch.by_layer(weights, sigma)
        return (chunks / sigmas).flatten()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, u, v, sigma, ctx.batch = inputs
        ctx.save_for_backward(output, u, v, sigma)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """dL/dW = (G - (sum of G * W / sigma) u v^T) / sigma, G the gradient of W / sigma."""
        divided, u, v, sigma = ctx.saved_tensors
        batch: BatchedNorms = ctx.batch
        with no_autocast(grad.device.type):
            products = grad * divided
            along = torch.cat([
                products[group.weights].view(group.stored[0], -1).sum(1) for group in batch.groups
            ])  # fmt: skip
            chunks, inverses = batch.by_layer(grad, 1 / sigma)
            result = (chunks * inverses).flatten()
            u = batch.scaled_u(u, along / sigma)
            for group in batch.groups:
                vectors = group.columns(u), group.rows(v)
                first, second = (each.mT for each in vectors[::-1]) if group.swapped else vectors
                result[group.weights].view(group.stored).baddbmm_(first, second, alpha=-1)
        return result, None, None, None, None


def _order(layer: nn.Module, norm: SpectralNorm) -> tuple[bool, int, int, bool]:
    is_table = isinstance(layer, nn.Embedding)  # whose rows are looked up, and not cast
    return is_table, len(norm.u), len(norm.v), norm.output_dim == 1


def _groups(orders: Sequence[tuple[bool, int, int, bool]]) -> list[Alike]:
    groups = []
    layer = weight = row = column = 0
    for (_, outputs, inner, swapped), same in groupby(orders):
        count = len(list(same))
        layers = slice(layer, layer := layer + count)
        weights = slice(weight, weight := weight + count * outputs * inner)
        u = slice(row, row := row + count * outputs)
        v = slice(column, column := column + count * inner)
        stored = (count, inner, outputs) if swapped else (count, outputs, inner)
        groups.append(Alike(layers, weights, u, v, stored, swapped))
    return groups


def _repeated(lengths: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))


def _as_stored(weight: Tensor) -> Tensor:
    """Return the elements (N,) of a weight as a channels-last one lies in memory."""
    return (weight.permute(0, 2, 3, 1) if weight.dim() == 4 else weight).flatten()


def _like(weight: Tensor, elements: Tensor) -> Tensor:
    """Return elements (N,) in the shape of a weight, laid out as `_as_stored` says."""
    if weight.dim() != 4:
        return elements.view(weight.shape)
    outer, inner, *kernel = weight.shape
    return elements.view(outer, *kernel, inner).permute(0, 3, 1, 2)
