"""What a kind of attention, or a control in its place, says of itself."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from sagan_bench.config.component import Component
from sagan_bench.config.options import Options
from sagan_bench.config.schema import AttentionConfig, AttentionKind, ModelConfig, RunConfig
from sagan_bench.config.section import Section
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.placed import Site

if TYPE_CHECKING:  # a second of torch
    from sagan_bench.models.attention._blocks import Block


class Attention(Component):
    """A kind: what stands at a side of a feature map, and how wide the networks are with it."""

    config: AttentionConfig
    title: ClassVar[str] = "attention"
    """What stands there: the layer's name begins with it, and the side follows."""
    label: ClassVar[str] = ""
    """What a figure calls it, where its name does not say it."""
    is_attention: ClassVar[bool] = True
    """Whether it is attention, in what is said of it; else it is a control."""
    chooses: ClassVar[bool] = True
    """Whether attention looks where the image says; with constant maps it is a control."""
    has_block: ClassVar[bool] = True
    """Whether anything stands there, with a gamma of its own."""
    positions: ClassVar[bool] = False
    """Whether it knows where a position is; else permuted positions give permuted results."""
    place: ClassVar[Literal["after", "instead"]] = "after"
    """Whether it stands after the layer that makes the map of its side, or instead of it."""
    knows: ClassVar[tuple[str, ...]] = ()
    """What its blocks are told at each call: of `Call`, ``z``, ``labels`` and ``step``."""
    own_spectral_norm: ClassVar[bool] = False
    """Whether its blocks see to spectral norm themselves, and are given none."""

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ValueError where gamma was set and there is none."""
        attention, neutral = config.model.attention, AttentionConfig()
        why = "it stands instead of a layer" if cls.has_block else "there is no block"
        for key in ("gamma_learned", "gamma_init"):
            has_gamma = cls.has_block and cls.place == "after"
            if not has_gamma and getattr(attention, key) != getattr(neutral, key):
                raise ValueError(
                    f"model.attention.{key} changes nothing, because with kind {cls.name} {why}; "
                    "leave it out"
                )

    def block(self, site: Site) -> "Block":
        """Return the block for a site: of its channels, a positive multiple of 8.

        Raises:
            ValueError: it cannot stand there.
        """
        raise NotImplementedError

    def widths(self, model: ModelConfig, image_size: int) -> tuple[float, float]:
        """Return the widths of G and D: by default as configured."""
        width = model.width * model.width_factor
        return width, width


class MappedAttention(Attention):
    """Self-attention with maps of its own; values have V of the C channels."""

    reduction: ClassVar[int] = 1
    """C / V."""
    pools: ClassVar[bool] = False
    """Whether keys and values are max-pooled 2x2."""

    def block(self, site: Site) -> "Block":
        """Return the block for a site."""
        from sagan_bench.models.attention._blocks import SelfAttention

        return SelfAttention(
            site.channels,
            self.config,
            reduction=self.reduction,
            pools=self.pools,
            bias=site.bias,
            needs_double_backward=site.needs_double_backward,
        )


class LikeAnother(Attention):
    """A control that costs what another kind does with its settings, which are given to both."""

    is_attention = False

    class Settings(Section):
        """Which kind it is to be like."""

        like: AttentionKind = "full"

    @classmethod
    def alike(cls, options: Mapping[str, Any]) -> type[Attention] | None:
        """Return the kind that it is like; None if there is no such."""
        name = options.get("like", cls.Settings.model_fields["like"].default)
        known: type[Attention] | None = None
        if isinstance(name, str) and name in ATTENTION:
            known = ATTENTION[name]
        return known

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ValueError as `Attention.check`, and where the other has a setting called so."""
        super().check(config)
        other = cls.alike(config.model.attention.options)
        theirs = other.Settings if other and not issubclass(other, LikeAnother) else None
        if other and theirs and "like" in theirs.model_fields:
            raise ValueError(
                f"{cls.name} cannot be like {other.name}, which has a setting 'like' itself: call "
                "that something else"
            )

    @property
    def like(self) -> AttentionConfig:
        """The configuration that it is like."""
        own = type(self).Settings.model_fields
        theirs = Options((k, v) for k, v in self.config.options.items() if k not in own)
        return self.config.model_copy(update={"kind": self.settings.like, "options": theirs})
