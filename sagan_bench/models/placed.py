"""Where a block stands in a network; read without torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Placed:
    """A block: its network, the side of its feature map in pixels, and its channels."""

    network: Literal["generator", "discriminator"]
    side: int
    channels: int
