"""The block of arXiv v1 and of the seed project."""

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import MappedAttention


@ATTENTION.register("full")
class Full(MappedAttention):
    """Self-attention whose values have all C channels."""

    label = "attention"
