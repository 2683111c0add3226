"""Self-attention over all positions of a feature map, and the controls that take its place.

Sources: SAGAN, arXiv 1805.08318, section 3; its authors' code, brain-research/self-attention-gan.
Shapes: B images, C channels, N = H * W positions that look, M that are looked at (N, or N / 4 where
pooled), D = C / 8 query and key channels, V value channels.
The maps beta, (B, N, M), cost nearly all the time of the block; four exact paths compute them:

- ``plain``: product, softmax, product over the whole batch.
- ``chunked``: the same over a few images at a time, so that a map is still in the cache when the
  next operation reads it, and its memory is reused instead of being mapped and faulted in again.
- ``fused``: torch's ``scaled_dot_product_attention``, which never stores the maps.
- ``recomputed``: the plain product an image at a time; the backward makes each map again, so that
  there is never more than one.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sagan_bench.config.schema import AttentionConfig

CHUNK_BYTES = 2 * 2**20
"""Size of the maps that ``chunked`` makes at a time; 0.5 to 4 MiB measured alike."""

LARGE_MAP = 2**22
"""Entries N * M from which on a map is large: 64 x 64 positions have four times as many, and where
keys are pooled as many.  Of 64 images such maps take 4 GiB and 1 GiB in fp32."""

FUSED_VALUES = 128
"""Value channels up to which large maps are ``fused`` on a CPU: queries are padded to as many."""


def attention_maps(query: Tensor, key: Tensor) -> Tensor:
    """Return beta_{j,i} = softmax over i of s_ij, s_ij = key_i . query_j, not divided by sqrt(D).

    query: (B, N, D); key: (B, M, D); beta: (B, N, M), row j is the distribution of query j.
    """
    return (query @ key.mT).softmax(dim=-1)


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return o_j = sum over i of beta_{j,i} value_i, the maps of the whole batch in memory.

    query: (B, N, D); key: (B, M, D); value: (B, M, V); o: (B, N, V).
    """
    return attention_maps(query, key) @ value


def chunked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what ``plain`` returns, made for ``CHUNK_BYTES`` of maps, or one image, at a time."""
    map_bytes = query.shape[1] * key.shape[1] * query.element_size()
    images = max(1, CHUNK_BYTES // map_bytes)
    if images >= len(query):
        return plain(query, key, value)
    chunks = zip(*(torch.split(rows, images) for rows in (query, key, value)), strict=True)
    return torch.cat([plain(*chunk) for chunk in chunks])


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what ``plain`` returns, by torch's fused kernels; it has no double backward.

    Queries and keys are padded with zeros, which leave s_ij as it is, because the flash kernels
    take only queries, keys and values of one width, whose rows are contiguous.  On a GPU cuDNN's
    kernel is left out (`precision.use`).
    """
    padding = (0, value.shape[-1] - query.shape[-1])
    padded = F.pad(query, padding), F.pad(key, padding), value
    q, k, v = (rows.contiguous().unsqueeze(1) for rows in padded)
    return F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)


def recomputed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what ``plain`` returns; the backward makes the map of each image again."""
    images = zip(*(rows.split(1) for rows in (query, key, value)), strict=True)
    outputs = [
        checkpoint(plain, *one, use_reentrant=False, preserve_rng_state=False) for one in images
    ]
    return torch.cat(outputs)


def path(
    device_type: str, needs_double_backward: bool, map_entries: int, values: int
) -> Callable[..., Tensor]:
    """Return the function that computes o on a device for maps of N * M entries, V ``values``.

    - CPU: ``chunked``, which has a double backward too.  Forward and backward of the block took
      0.65 (fp32) and 0.7 (bf16) of the time with ``plain`` for 128 images of 256 positions, and
      0.65 and 0.55 for 64 of 1,024, mostly for page faults not taken (two AVX-512 cores without
      AMX, medians).  Rejected: ``fused`` took 1.0 to 1.5 (fp32) and 2.3 to 3 (bf16) times as long
      as ``chunked``; a hand-written backward that makes the maps again 0.95 and 1.25 times.
    - CPU, maps of `LARGE_MAP` entries or more: never those of a whole batch in memory.  At 64 x 64
      positions ``fused`` took of the time of ``chunked`` 0.52, 0.77 and 1.24 (fp32) and 1.17, 1.46
      and 1.71 (bf16) for V of 64, 128 and 256, and ``recomputed`` 1.25 to 1.35 (fp32) and 1.14 to
      1.27 (bf16), in one thread.  Hence ``fused`` up to `FUSED_VALUES`, which gains more in fp32
      than it loses in bf16 at 128, and ``recomputed`` beyond.  Of four images in fp32 ``chunked``
      took 400 to 450 MiB, ``recomputed`` 210 to 260, ``fused`` 30 to 100; only the first grows by
      a map for each image (docs/adr/0003-attention-on-a-cpu.md).
    - CPU, where a gradient penalty needs the double backward: ``chunked``, whatever the size.  The
      graph of the gradient holds the maps anyway.
    - CUDA: ``fused``, for its memory, or ``plain`` where a gradient penalty needs the double
      backward.  Their speed there has not been measured.
    - Others: ``plain``.
    - In a program that is exported (`torch.export`): ``plain``, and ``fused`` for large maps, whose
      operations do not depend on the number of images.
    """
    large = map_entries >= LARGE_MAP
    if torch.compiler.is_exporting():
        return fused if large else plain
    if device_type == "cpu":
        if not large or needs_double_backward:
            return chunked
        return fused if values <= FUSED_VALUES else recomputed
    return fused if device_type == "cuda" and not needs_double_backward else plain


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, needs_double_backward: bool = False
) -> Tensor:
    """Return o_j = sum over i of beta_{j,i} value_i by the exact path that ``path`` chooses.

    query: (B, N, D); key: (B, M, D); value: (B, M, V); o: (B, N, V), all of one dtype.  In bf16
    the maps are rounded to bf16, and the sums of the softmax are taken in fp32.
    """
    entries = query.shape[1] * key.shape[1]
    chosen = path(query.device.type, needs_double_backward, entries, value.shape[-1])
    return chosen(query, key, value)


class Block(nn.Module):
    """A block y = x + gamma * o(x) (SAGAN, section 3); at gamma = 0, the usual start, y = x.

    Args:
        config: what gamma is at the start, and whether it is trained.
    """

    title: ClassVar[str] = "attention"
    """What the layer's name begins with; the side follows."""
    gamma: Tensor

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.gamma_init = config.gamma_init
        gamma = torch.empty(1)
        if config.gamma_learned:
            self.gamma = nn.Parameter(gamma)
        else:  # a buffer: G's step freezes D's parameters and then releases all of them
            self.register_buffer("gamma", gamma)
        self.reset_gamma()

    def reset_gamma(self) -> None:
        """Set gamma to its value at the start."""
        nn.init.constant_(self.gamma, self.gamma_init)

    def forward(self, x: Tensor) -> Tensor:
        """Return y = x + gamma * o.  x, y: (B, C, H, W) float, of one dtype and memory format."""
        # x comes first: the sum takes the memory format of its first operand. gamma stays in fp32.
        return (x + self.gamma * self.branch(x)).to(x.dtype)

    def branch(self, x: Tensor) -> Tensor:
        """Return o, in the shape of x or one that broadcasts to it."""
        raise NotImplementedError

    def maps(self, x: Tensor) -> Tensor | None:
        """Return beta, (B, N, M), or none where the block has no maps.

        Row j says where position j looks; positions are row-major.
        """
        return None


class SelfAttention(Block):
    """Self-attention; f(x) = key(x), g(x) = query(x) and h(x) = value(x) are 1x1 convolutions.

    ``config.kind`` sets the width V of the values and what follows:

    - ``full``: V = C (arXiv v1; the seed project).
    - ``icml``: V = C/8, and a 1x1 convolution ``out`` back to C (the paper as published in 2019).
    - ``pooled``: V = C/2 and ``out``; keys and values are max-pooled 2x2 (the authors' code).

    Args:
        channels: C, a positive multiple of 8.
        config: the kind, and gamma.
        bias: whether convolutions have one: the seed project's do, those of the authors' code not.
        needs_double_backward: whether gradients of gradients will be taken (gradient penalties).

    Raises:
        ValueError: C is not a positive multiple of 8.
    """

    def __init__(
        self,
        channels: int,
        config: AttentionConfig | None = None,
        *,
        bias: bool = True,
        needs_double_backward: bool = False,
    ) -> None:
        config = config or AttentionConfig()
        super().__init__(config)
        if channels < 8 or channels % 8:
            raise ValueError(
                f"self-attention needs a positive multiple of 8 channels, because its queries and "
                f"keys have C/8 of them; got C = {channels}"
            )
        self.needs_double_backward = needs_double_backward
        width = {"icml": channels // 8, "pooled": channels // 2}.get(config.kind, channels)
        self.query = nn.Conv2d(channels, channels // 8, kernel_size=1, bias=bias)
        self.key = nn.Conv2d(channels, channels // 8, kernel_size=1, bias=bias)
        self.value = nn.Conv2d(channels, width, kernel_size=1, bias=bias)
        self.pool = nn.MaxPool2d(2) if config.kind == "pooled" else nn.Identity()
        self.out = (
            nn.Identity()
            if width == channels
            else nn.Conv2d(width, channels, kernel_size=1, bias=bias)
        )

    def branch(self, x: Tensor) -> Tensor:
        """Return o, (B, C, H, W)."""
        query, key, value = self.query(x), self.pool(self.key(x)), self.pool(self.value(x))
        rows = _rows(query), _rows(key), _rows(value)
        o = attend(*rows, needs_double_backward=self.needs_double_backward)
        return self.out(o.mT.unflatten(2, x.shape[2:]))

    def maps(self, x: Tensor) -> Tensor:
        """Return beta, (B, N, M); see `Block.maps`."""
        return attention_maps(_rows(self.query(x)), _rows(self.pool(self.key(x))))


class UniformAttention(Block):
    """Self-attention with constant maps, beta = 1/N: every position sees the mean of all.

    It has the context of attention without the choice.  The mean is taken before the 1x1
    convolution ``value``, which gives the same, both being linear, for N times fewer products.
    """

    def __init__(self, channels: int, config: AttentionConfig, *, bias: bool = True) -> None:
        super().__init__(config)
        self.value = nn.Conv2d(channels, channels, kernel_size=1, bias=bias)

    def branch(self, x: Tensor) -> Tensor:
        """Return o, (B, C, 1, 1)."""
        return self.value(x.mean(dim=(2, 3), keepdim=True))

    def maps(self, x: Tensor) -> Tensor:
        """Return beta, (B, N, N), each 1/N."""
        positions = x[0, 0].numel()
        return x.new_full((len(x), positions, positions), 1 / positions)


class Residual(Block):
    """A bottleneck in attention's place: 1x1 convolution, ReLU, 1x1 convolution; no context.

    Its hidden width gives the number of parameters nearest to that of ``full`` attention on as
    many channels: at most 4 % off, and 1 % from 64 channels on.  With gamma constant at 1 it is
    the control of SAGAN, table 1, as far as known: the paper does not give its layers.
    """

    title = "residual"

    def __init__(self, channels: int, config: AttentionConfig, *, bias: bool = True) -> None:
        super().__init__(config)
        attention = (channels // 8 * 2 + channels) * (channels + bias)
        hidden = round((attention - bias * channels) / (2 * channels + bias))
        self.squeeze = nn.Conv2d(channels, hidden, kernel_size=1, bias=bias)
        self.expand = nn.Conv2d(hidden, channels, kernel_size=1, bias=bias)

    def branch(self, x: Tensor) -> Tensor:
        """Return o, (B, C, H, W)."""
        return self.expand(self.squeeze(x).relu())


def block(
    channels: int,
    config: AttentionConfig,
    *,
    bias: bool = True,
    needs_double_backward: bool = False,
) -> Block:
    """Return the block of ``config.kind``, attention or control, for maps of C channels.

    Raises:
        ValueError: as `SelfAttention`.
    """
    if config.kind == "residual":
        return Residual(channels, config, bias=bias)
    if config.kind == "uniform":
        return UniformAttention(channels, config, bias=bias)
    return SelfAttention(channels, config, bias=bias, needs_double_backward=needs_double_backward)


def _rows(features: Tensor) -> Tensor:
    """(B, V, H, W) -> (B, N, V), a view: contiguous where the features are channels-last."""
    return features.flatten(2).mT
