"""Self-attention over all positions of a feature map (SAGAN, arXiv 1805.08318, section 3).

Shapes: B images, C channels, N = H * W positions, D = C / 8 query and key channels.
The maps beta, (B, N, N), cost nearly all the time of the block; three exact paths compute them:

- ``plain``: product, softmax, product over the whole batch.
- ``chunked``: the same over a few images at a time, so that a map is still in the cache when the
  next operation reads it, and its memory is reused instead of being mapped and faulted in again.
- ``fused``: torch's ``scaled_dot_product_attention``, which never stores the maps.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK_BYTES = 2 * 2**20
"""Size of the maps that ``chunked`` makes at a time; 0.5 to 4 MiB measured alike."""


def attention_maps(query: Tensor, key: Tensor) -> Tensor:
    """Return beta_{j,i} = softmax over i of s_ij, s_ij = key_i . query_j, not divided by sqrt(D).

    query, key: (B, N, D); beta: (B, N, N), row j is the distribution of query j over the keys.
    """
    return (query @ key.mT).softmax(dim=-1)


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return o_j = sum over i of beta_{j,i} value_i, the maps of the whole batch in memory.

    query, key: (B, N, D); value, o: (B, N, C).
    """
    return attention_maps(query, key) @ value


def chunked(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what ``plain`` returns, made for ``CHUNK_BYTES`` of maps, or one image, at a time."""
    images = max(1, CHUNK_BYTES // (query.shape[1] ** 2 * query.element_size()))
    if images >= len(query):
        return plain(query, key, value)
    chunks = zip(*(torch.split(rows, images) for rows in (query, key, value)), strict=True)
    return torch.cat([plain(*chunk) for chunk in chunks])


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what ``plain`` returns, by torch's fused kernels; it has no double backward.

    Queries and keys are padded with zeros, which leave s_ij as it is, because the flash kernels
    take only queries, keys and values of one width.
    """
    padding = (0, value.shape[-1] - query.shape[-1])
    q, k, v = (rows.unsqueeze(1) for rows in (F.pad(query, padding), F.pad(key, padding), value))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)


def path(device_type: str, needs_double_backward: bool) -> Callable[..., Tensor]:
    """Return the function that computes o on a device: ``chunked``, ``fused`` or ``plain``.

    - CPU: ``chunked``, which has a double backward too.  Forward and backward of the block took
      0.65 (fp32) and 0.7 (bf16) of the time with ``plain`` for 128 images of 256 positions, and
      0.65 and 0.55 for 64 of 1,024, mostly for page faults not taken (two AVX-512 cores without
      AMX, medians).  Rejected: ``fused`` took 1.0 to 1.5 (fp32) and 2.3 to 3 (bf16) times as long
      as ``chunked``; a hand-written backward that makes the maps again 0.95 and 1.25 times.
    - CUDA: ``fused``, for its memory, or ``plain`` where a gradient penalty needs the double
      backward.  Their speed there has not been measured.
    - Others: ``plain``.
    """
    if device_type == "cpu":
        return chunked
    return fused if device_type == "cuda" and not needs_double_backward else plain


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, needs_double_backward: bool = False
) -> Tensor:
    """Return o_j = sum over i of beta_{j,i} value_i by the fastest exact path (see ``path``).

    query, key: (B, N, D); value, o: (B, N, C), all of one dtype.  In bf16 the maps are rounded to
    bf16, and the sums of the softmax are taken in fp32.
    """
    return path(query.device.type, needs_double_backward)(query, key, value)


class SelfAttention(nn.Module):
    """Self-attention block y = gamma * o + x; gamma starts at 0, so that y = x (SAGAN, section 3).

    f(x) = key(x), g(x) = query(x) and h(x) = value(x) are 1x1 convolutions with bias.

    Args:
        channels: C, a positive multiple of 8.
        needs_double_backward: whether gradients of gradients will be taken (gradient penalties).

    Raises:
        ValueError: C is not a positive multiple of 8.
    """

    def __init__(self, channels: int, *, needs_double_backward: bool = False) -> None:
        super().__init__()
        if channels < 8 or channels % 8:
            raise ValueError(
                f"self-attention needs a positive multiple of 8 channels, because its queries and "
                f"keys have C/8 of them; got C = {channels}"
            )
        self.needs_double_backward = needs_double_backward
        self.query = nn.Conv2d(channels, channels // 8, kernel_size=1)
        self.key = nn.Conv2d(channels, channels // 8, kernel_size=1)
        self.value = nn.Conv2d(channels, channels, kernel_size=1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return y = gamma * o + x.  x, y: (B, C, H, W) float, of one dtype and memory format."""
        query, key, value = (_rows(conv(x)) for conv in (self.query, self.key, self.value))
        o = attend(query, key, value, needs_double_backward=self.needs_double_backward)
        # x comes first: the sum takes the memory format of its first operand. gamma stays in fp32.
        return (x + self.gamma * o.mT.reshape(x.shape)).to(x.dtype)

    def maps(self, x: Tensor) -> Tensor:
        """Return beta, (B, N, N): row j says where position j looks; positions are row-major."""
        return attention_maps(_rows(self.query(x)), _rows(self.key(x)))


def _rows(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C), a view: contiguous where the features are channels-last."""
    return features.flatten(2).mT
