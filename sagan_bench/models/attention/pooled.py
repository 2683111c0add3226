"""The block of the authors' code, brain-research/self-attention-gan."""

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import MappedAttention


@ATTENTION.register("pooled")
class Pooled(MappedAttention):
    """Self-attention whose values have C/2 channels; keys and values are max-pooled 2x2."""

    reduction = 2
    pools = True
