"""The block of the paper as published in 2019."""

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import MappedAttention


@ATTENTION.register("icml")
class Icml(MappedAttention):
    """Self-attention whose values have C/8 channels."""

    reduction = 8
