"""The blocks that kinds of attention and controls put into a network.

Sources: SAGAN, arXiv 1805.08318, section 3; its authors' code, brain-research/self-attention-gan.
Shapes: B images, C channels, N = H * W positions that look, M that are looked at (N, or N / 4 where
pooled), D = C / 8 query and key channels, V value channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.models.attention._paths import attend, attention_logits
from sagan_bench.models.placed import Site

WORDS = ("z", "labels", "step")
"""What a block may be told: see `Call`."""


class Call(NamedTuple):
    """What a network knows while it runs, as far as a kind ``knows`` it; else None."""

    z: Tensor | None = None
    """G's noise, (B, z_dim)."""
    labels: Tensor | None = None
    """Classes, (B,) int64, one for each map that comes in."""
    step: Tensor | None = None
    """The generator update that is being made, from 1, a number; afterwards the last one made."""
    steps: int | None = None
    """Of how many: the run's."""

    def of_image(self, index: int) -> "Call":
        """Return what is known of one image."""
        z, labels = (
            None if each is None else each[index : index + 1] for each in (self.z, self.labels)
        )
        return self._replace(z=z, labels=labels)

    def of_images(self, rows: Tensor) -> "Call":
        """Return what is known of some images, (K,) int64, in that order."""
        z, labels = (None if each is None else each[rows] for each in (self.z, self.labels))
        return self._replace(z=z, labels=labels)


class Block(nn.Module):
    """A block y = x + gamma * o(x) (SAGAN, section 3); at gamma = 0, the usual start, y = x.

    One that has a ``forward`` of its own may be without gamma, which then is constant at 1.

    Args:
        config: what gamma is at the start, and whether it is trained; none is without gamma.
    """

    gamma: Tensor
    site: Site | None = None
    """Where it stands; none outside a network, and within another block."""
    knows: tuple[str, ...] = ()
    """Of `Call`, what it is told."""
    replaces: bool = False
    """Whether it stands instead of a layer, not after it."""
    steps: int = 1
    """Of the run."""

    def __init__(self, config: AttentionConfig | None = None) -> None:
        super().__init__()
        self.heard: Call | None = None
        self.has_gamma = config is not None
        self.gamma_init = config.gamma_init if config else 1.0
        gamma = torch.empty(1)
        if config and config.gamma_learned:
            self.gamma = nn.Parameter(gamma)
        else:  # a buffer: G's step freezes D's parameters and then releases all of them
            self.register_buffer("gamma", gamma, persistent=self.has_gamma)
        self.reset_parameters()

    def stand_at(self, site: Site, knows: tuple[str, ...] = (), *, replaces: bool = False) -> None:
        """Take a place in a network, there to be told what the block's kind ``knows``.

        The step is a part of the state: averaged and stored weights know which they are of.

        Raises:
            UserError: it wants to know what no network does.
        """
        for word in knows:
            if word not in WORDS:
                raise UserError(f"knows: {word!r} is no word of {WORDS}; {closest(word, WORDS)}")
        self.site, self.knows, self.replaces = site, tuple(knows), replaces
        if "step" in knows:
            self.register_buffer("run_step", torch.zeros((), dtype=torch.int64))

    @property
    def call(self) -> Call:
        """What the network knows now.  Raises `UserError` while none runs."""
        if self.heard is None:
            raise UserError(
                f"{type(self).__name__} reads self.call while no network runs, or its kind "
                "declares no knows = ('z', 'labels', 'step'); what is computed again for the "
                "backward pass is handed what it needs as an argument"
            )
        return self.heard

    def hear(self, call: Call | None) -> None:
        """Have ``call`` be what the network knows now; None while none runs."""
        self.heard = call

    def reset_parameters(self) -> None:
        """Set gamma to its value at the start, and the step to 0."""
        nn.init.constant_(self.gamma, self.gamma_init)
        if "run_step" in self._buffers:
            nn.init.zeros_(self.get_buffer("run_step"))

    def forward(self, x: Tensor) -> Tensor:
        """Return y = x + gamma * o.  x, y: (B, C, H, W) float, of one dtype and memory format."""
        # x comes first: the sum takes the memory format of its first operand. gamma stays in fp32.
        return (x + self.gamma * self.branch(x)).to(x.dtype)

    def branch(self, x: Tensor) -> Tensor:
        """Return o, in the shape of x or one that broadcasts to it."""
        raise NotImplementedError

    def extra_loss(self) -> Tensor | None:
        """Return what is added to its network's loss, of what the last ``forward`` left; a scalar.

        A mean over images: micro-batches are averaged.  None adds nothing.
        """
        return None

    def maps(self, x: Tensor) -> Tensor | None:
        """Return beta, (B, N, M) or (B, heads, N, M), or none where the block has no maps.

        Row j says where position j looks; positions are row-major, and the columns of null keys
        come first.
        """
        return None

    def logits(self, x: Tensor) -> Tensor | None:
        """Return what the maps are a softmax of, in their shape; none where it is not told.

        Its largest is in the diagnostics: maps that grow sharp show there before they do in beta.
        A class that has other ``maps`` than the one it extends has to say its logits anew.
        """
        return None

    def own_logits(self, x: Tensor) -> Tensor | None:
        """Return `logits`, if those of this class's maps are told, and not of one above it."""
        above = type(self).__mro__
        maps, logits = (
            next(i for i, each in enumerate(above) if name in vars(each))
            for name in ("maps", "logits")
        )
        return self.logits(x) if logits <= maps else None

    def through(self, maps: Tensor, x: Tensor) -> Tensor | None:
        """Return what `branch` would, had the block these maps; none where it cannot say.

        ``through(maps(x), x)`` is o.  By it finished weights are probed (docs/probe.md): what a
        block without it does is seen by leaving out its branch alone.

        Args:
            maps: as `maps` returns them, and as many.
            x: (B, C, H, W).
        """
        return None


class SelfAttention(Block):
    """Self-attention; f(x) = key(x), g(x) = query(x) and h(x) = value(x) are 1x1 convolutions.

    Where V < C, a further 1x1 convolution ``out`` leads back to C.

    Args:
        channels: C, a positive multiple of 8.
        config: gamma.
        reduction: C / V.
        pools: whether keys and values are max-pooled 2x2.
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
        reduction: int = 1,
        pools: bool = False,
        bias: bool = True,
        needs_double_backward: bool = False,
    ) -> None:
        super().__init__(config or AttentionConfig())
        if channels < 8 or channels % 8:
            raise ValueError(
                f"self-attention needs a positive multiple of 8 channels, because its queries and "
                f"keys have C/8 of them; got C = {channels}"
            )
        self.needs_double_backward = needs_double_backward
        width = channels // reduction
        self.query = nn.Conv2d(channels, channels // 8, kernel_size=1, bias=bias)
        self.key = nn.Conv2d(channels, channels // 8, kernel_size=1, bias=bias)
        self.value = nn.Conv2d(channels, width, kernel_size=1, bias=bias)
        self.pool = nn.MaxPool2d(2) if pools else nn.Identity()
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

    def logits(self, x: Tensor) -> Tensor:
        """Return s, (B, N, M): s_ji = key_i . query_j; see `Block.logits`."""
        return attention_logits(_rows(self.query(x)), _rows(self.pool(self.key(x))))

    def maps(self, x: Tensor) -> Tensor:
        """Return beta, (B, N, M); see `Block.maps`."""
        return self.logits(x).softmax(dim=-1)

    def through(self, maps: Tensor, x: Tensor) -> Tensor:
        """Return out(beta h), (B, C, H, W); see `Block.through`.

        Of maps of heads, (B, heads, N, M), each has its part of the V channels, in their order.
        """
        values = _rows(self.pool(self.value(x)))
        if maps.dim() == 4:
            of_heads = values.unflatten(2, (maps.shape[1], -1)).transpose(1, 2)
            o = (maps @ of_heads).transpose(1, 2).flatten(2)
        else:
            o = maps @ values
        return self.out(o.mT.unflatten(2, x.shape[2:]))


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

    def through(self, maps: Tensor, x: Tensor) -> Tensor:
        """Return beta h, (B, C, H, W); see `Block.through`."""
        return (maps @ _rows(self.value(x))).mT.unflatten(2, x.shape[2:])


class Residual(Block):
    """A bottleneck in attention's place: 1x1 convolution, ReLU, 1x1 convolution; no context.

    Its hidden width gives the number of parameters nearest to that of another block on as many
    channels, with ``full`` attention at most 4 % off, and 1 % from 64 channels on.  With gamma
    constant at 1 it is the control of SAGAN, table 1, as far as known: the paper does not give its
    layers.
    """

    def __init__(
        self, channels: int, config: AttentionConfig, *, parameters: int, bias: bool = True
    ) -> None:
        super().__init__(config)
        hidden = max(1, round((parameters - bias * channels) / (2 * channels + bias)))
        self.squeeze = nn.Conv2d(channels, hidden, kernel_size=1, bias=bias)
        self.expand = nn.Conv2d(hidden, channels, kernel_size=1, bias=bias)

    def branch(self, x: Tensor) -> Tensor:
        """Return o, (B, C, H, W)."""
        return self.expand(self.squeeze(x).relu())


def _rows(features: Tensor) -> Tensor:
    """(B, V, H, W) -> (B, N, V), a view: contiguous where the features are channels-last."""
    return features.flatten(2).mT
