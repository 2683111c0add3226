"""Where a block stands in a network; read without torch."""

from dataclasses import dataclass
from typing import Literal

Network = Literal["generator", "discriminator"]


@dataclass(frozen=True)
class Placed:
    """A block: its network, the side of the feature map that it makes in pixels, its channels."""

    network: Network
    side: int
    channels: int


@dataclass(frozen=True)
class Site(Placed):
    """What a block is told of its place before it is made.

    Attributes:
        channels_in: of the map that comes in; 0 stands for ``channels``.
        side_in: its side; 0 stands for ``side``.
        bias: whether the network's convolutions have one.
        norm: what the network's layers normalise with, e.g. ``batch`` or ``none``.
        z_dim: components of G's noise.
        classes: that both networks know; 0 is none.
        needs_double_backward: whether gradients of gradients will be taken (gradient penalties).
        halves: maps are those of halves of images: half as wide as high, and twice as many.
    """

    channels_in: int = 0
    side_in: int = 0
    bias: bool = True
    norm: str = "none"
    z_dim: int = 128
    classes: int = 0
    needs_double_backward: bool = False
    halves: bool = False

    def __post_init__(self) -> None:
        """Fill in what comes in: by default a map as the one that is made."""
        object.__setattr__(self, "channels_in", self.channels_in or self.channels)
        object.__setattr__(self, "side_in", self.side_in or self.side)
