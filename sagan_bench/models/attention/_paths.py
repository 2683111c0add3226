"""The sum over all positions that attention is, computed by four exact paths.

Shapes: B images, N positions that look, M that are looked at, D query and key channels, V value
channels.  The maps beta, (B, N, M), cost nearly all the time of a block:

- ``plain``: product, softmax, product over the whole batch.
- ``chunked``: the same over a few images at a time, so that a map is still in the cache when the
  next operation reads it, and its memory is reused instead of being mapped and faulted in again.
- ``fused``: torch's ``scaled_dot_product_attention``, which never stores the maps.
- ``recomputed``: the plain product an image at a time; the backward makes each map again, so that
  there is never more than one.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_BYTES = 2 * 2**20
"""Size of the maps that ``chunked`` makes at a time; 0.5 to 4 MiB measured alike."""

LARGE_MAP = 2**22
"""Entries N * M from which on a map is large: 64 x 64 positions have four times as many, and where
keys are pooled as many.  Of 64 images such maps take 4 GiB and 1 GiB in fp32."""

FUSED_VALUES = 128
"""Value channels up to which large maps are ``fused`` on a CPU: queries are padded to as many."""


def attention_logits(query: Tensor, key: Tensor) -> Tensor:
    """Return s_ji = key_i . query_j, not divided by sqrt(D).

    query: (B, N, D); key: (B, M, D); s: (B, N, M).
    """
    return query @ key.mT


def attention_maps(query: Tensor, key: Tensor) -> Tensor:
    """Return beta_ji = softmax over i of s_ji: (B, N, M), row j is the distribution of query j."""
    return attention_logits(query, key).softmax(dim=-1)


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
    outputs = (
        checkpoint(plain, *image, use_reentrant=False, preserve_rng_state=False) for image in images
    )
    return torch.cat(list(outputs))


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
