"""The blocks that kinds of attention and controls put into a network.

Sources: SAGAN, arXiv 1805.08318, section 3; its authors' code, brain-research/self-attention-gan.
Shapes: B images, C channels, N = H * W positions that look, M that are looked at (N, or N / 4 where
pooled), D = C / 8 query and key channels, V value channels.
"""

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.models.attention._paths import attend, attention_maps


class Block(nn.Module):
    """A block y = x + gamma * o(x) (SAGAN, section 3); at gamma = 0, the usual start, y = x.

    Args:
        config: what gamma is at the start, and whether it is trained.
    """

    gamma: Tensor

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.gamma_init = config.gamma_init
        gamma = torch.empty(1)
        if config.gamma_learned:
            self.gamma = nn.Parameter(gamma)
        else:  # a buffer: G's step freezes D's parameters and then releases all of them
            self.register_buffer("gamma", gamma)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set gamma to its value at the start."""
        nn.init.constant_(self.gamma, self.gamma_init)

    def forward(self, x: Tensor) -> Tensor:
        """Return y = x + gamma * o.  x, y: (B, C, H, W) float, of one dtype and memory format."""
        # x comes first: the sum takes the memory format of its first operand. gamma stays in fp32.
        return (x + self.gamma * self.branch(x)).to(x.dtype)

    def branch(self, x: Tensor) -> Tensor:
        """Return o, in the shape of x or one that broadcasts to it."""
        raise NotImplementedError

    def maps(self, x: Tensor) -> Tensor | None:
        """Return beta, (B, N, M), or none where the block has no maps.

        Row j says where position j looks; positions are row-major.
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

    def maps(self, x: Tensor) -> Tensor:
        """Return beta, (B, N, M); see `Block.maps`."""
        return attention_maps(_rows(self.query(x)), _rows(self.pool(self.key(x))))


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
