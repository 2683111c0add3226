"""A block of my own: self-attention with a scale, to be changed.

    python cli.py check FILE        what must hold before figures mean anything

A block stands where networks have self-attention, G and D alike: y = x + gamma * o(x).  Its layers
are initialised by their names and the seed, so that `nn.init` in ``__init__`` has no effect; what
no layer's rule fills (a parameter or buffer of your own) needs ``reset_parameters``, which sets all
of it, and always to the same.
"""

from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.config.section import Section
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Site


class MyBlock(Block):
    """What is added to x, before gamma: ``branch``; ``forward`` is Block's, and need not change.

    ``query``, ``key`` and ``value`` are the last layers that make them, and ``out`` is what follows
    the sum over positions: by these names ``check`` sees the axis, sign and scale of ``maps``.
    All layers with weights within it are given spectral norm where networks have it.
    """

    def __init__(self, site: Site, config: AttentionConfig, temperature: float) -> None:
        super().__init__(config)  # gamma: what it is at the start, and whether it is trained
        channels, bias = site.channels, site.bias
        if channels % 8:
            raise ValueError(f"a multiple of 8 channels is needed; got {channels}")
        self.factor = 1 / temperature
        self.query = nn.Conv2d(channels, channels // 8, 1, bias=bias)
        self.key = nn.Conv2d(channels, channels // 8, 1, bias=bias)
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=bias)
        self.out = nn.Conv2d(channels // 2, channels, 1, bias=bias)

    def branch(self, x: Tensor) -> Tensor:
        """Return o, (B, C, H, W), of x in that shape, which stays as it is."""
        return self.through(self.maps(x), x)

    def maps(self, x: Tensor) -> Tensor:
        """Return beta, (B, N, M): row j says where position j looks, and sums to 1.

        Of heads their mean, or (B, heads, N, M).  A block without maps leaves this method out.
        """
        return self.logits(x).softmax(dim=-1)

    def logits(self, x: Tensor) -> Tensor:
        """Return what the maps are a softmax of: its largest is in the diagnostics."""
        query, key = self.query(x).flatten(2), self.key(x).flatten(2)  # (B, D, N)
        return self.factor * (query.mT @ key)

    def through(self, maps: Tensor, x: Tensor) -> Tensor:
        """Return o by these maps: `probe` gives finished weights others than theirs."""
        o = maps @ self.value(x).flatten(2).mT  # (B, N, V)
        result: Tensor = self.out(o.mT.unflatten(2, x.shape[2:]))
        return result

    # def extra_loss(self) -> Tensor | None: a scalar of what `forward` left, if there is one


@ATTENTION.register("my-block")
class MyKind(Attention):
    """What configurations, records and reports know: model.attention.kind = my-block."""

    title = "attention"  # of its layers, e.g. attention16
    label = "my-block"  # in figures
    is_attention = True  # False for a control in attention's place
    chooses = True  # False for constant maps, which look nowhere in particular: a control too
    positions = False  # True if it is to know where a position is
    place = "after"  # the layer of its side, or "instead" of it: then forward() makes the map
    knows = ()  # of "z", "labels" and "step", what self.call is to have; see docs/own.md
    own_spectral_norm = False  # True if the block sees to it itself
    deliberate = ()  # what is unusual and meant, e.g. ("null key",): see docs/own.md

    class Settings(Section):
        """Its own settings: --set block.temperature=2."""

        temperature: float = 1.0

    def block(self, site: Site) -> Block:
        """Return the block for a site: its network, side, channels, and more (`Site`)."""
        return MyBlock(site, self.config, self.settings.temperature)
