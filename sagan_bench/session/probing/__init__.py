"""A finished run's blocks changed, with weights and noise kept: what its figures make of that."""

from sagan_bench.session.probing._run import IMAGES, at_the_end, has_block, probe

__all__ = ["IMAGES", "at_the_end", "has_block", "probe"]
