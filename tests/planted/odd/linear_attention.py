"""Linear attention: no map is ever made (Katharopoulos et al. 2020)."""

from torch import Tensor, nn

from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.placed import Site


class Odd(SelfAttention):
    """phi(q) (phi(k)^T v), phi = elu + 1, sums in fp32."""

    def branch(self, x: Tensor) -> Tensor:
        q, k = (nn.functional.elu(layer(x).flatten(2)) + 1 for layer in (self.query, self.key))
        q, k, v = (rows.to(self.gamma.dtype) for rows in (q, k, self.value(x).flatten(2)))
        o = (v @ k.mT) @ q / (k.sum(2, keepdim=True).mT @ q + 1e-6)
        return o.unflatten(2, x.shape[2:])

    def maps(self, x: Tensor) -> None:  # type: ignore[override]
        return None


@ATTENTION.register("planted-linear-attention")
class Kind(Attention):
    """Planted."""

    def block(self, site: Site) -> Block:
        """Return it."""
        return Odd(site.channels, self.config)
