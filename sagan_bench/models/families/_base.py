"""What a family of networks is asked for."""

from abc import ABC
from typing import Any, ClassVar

import torch
from torch import nn

from sagan_bench.config.component import Component
from sagan_bench.config.schema import ModelConfig, SpectralNormConfig
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import FAMILIES
from sagan_bench.models.calls import connect
from sagan_bench.models.layers import forward_flops

NO_SPECTRAL_NORM = SpectralNormConfig(generator="none", discriminator="none")


class Family(Component, ABC):
    """A G and a D of any width, for images of any side that is a power of two."""

    config: ModelConfig
    knows: ClassVar[tuple[str, ...]] = ()
    """Which of the settings ``classes`` and ``layout`` it has."""
    contrast: ClassVar[dict[str, dict[str, Any]]] = {}
    """What it is held against, where it is attention through and through: name -> own settings."""
    generator: ClassVar[type[nn.Module]]
    """G of (model, image_size, width)."""
    discriminator: ClassVar[type[nn.Module]]
    """D of (model, image_size, width, needs_double_backward=)."""

    def networks(
        self, image_size: int, widths: tuple[float, float], *, needs_double_backward: bool = False
    ) -> tuple[nn.Module, nn.Module]:
        """Return G and D, not yet initialised.

        Both take labels (B,) int64, or None, as a second argument: G after noise (B, z_dim), D
        after images (B, 3, S, S).

        Args:
            image_size: S.
            widths: of G and of D, as `ModelConfig.width`.
            needs_double_backward: D's gradient will be differentiated again (gradient penalties).

        Raises:
            UserError: attention at a side that a network lacks, or at one too narrow for C / 8.
        """
        width_g, width_d = widths
        return self.generator(self.config, image_size, width_g), self.discriminator(
            self.config, image_size, width_d, needs_double_backward=needs_double_backward
        )

    def connected(
        self, image_size: int, widths: tuple[float, float], *, needs_double_backward: bool = False
    ) -> tuple[nn.Module, nn.Module]:
        """Return `networks`, which tell their blocks what those want to know of each call."""
        networks = self.networks(image_size, widths, needs_double_backward=needs_double_backward)
        for network in networks:
            connect(network)
        return networks

    def width_of_a_channel(self, image_size: int) -> float:
        """Return the width that adds a channel to the map of most channels, in G and D alike.

        Where less adds none, a smaller width is only slower to search by.
        """
        return 1 / 16

    def refuse_unknown(self) -> None:
        """Raise `UserError` if a setting has a value that the family has no room for."""
        for key in ("classes", "layout"):
            value = getattr(self.config, key)
            if key not in self.knows and value != ModelConfig.model_fields[key].default:
                others = " or ".join(name for name in FAMILIES if key in FAMILIES[name].knows)
                raise UserError(
                    f"model.{key} = {value}: the {self.name} knows none; "
                    f"add --set model.architecture={others}"
                )

    def forward_flops(self, image_size: int, width: float) -> tuple[int, int]:
        """Return the FLOPs of a forward pass of an image through G and D, without spectral norms.

        Raises:
            UserError: as `networks`.
        """
        generator, discriminator = self._plain(image_size, width)
        with torch.device("meta"):
            z, images, labels = self.inputs(image_size)
            return forward_flops(generator, z, labels), forward_flops(discriminator, images, labels)

    def parameters(self, image_size: int, width: float) -> tuple[int, int]:
        """Return the parameters of G and D.  Raises as `networks`."""
        generator, discriminator = self._plain(image_size, width)
        counts = (sum(w.numel() for w in net.parameters()) for net in (generator, discriminator))
        return next(counts), next(counts)

    def _plain(self, image_size: int, width: float) -> tuple[nn.Module, nn.Module]:
        """Return G and D of one width without spectral norms, on the meta device."""
        plain = type(self)(self.config.model_copy(update={"spectral_norm": NO_SPECTRAL_NORM}))
        with torch.device("meta"):
            return plain.connected(image_size, (width, width))

    def inputs(self, image_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return the shape of a batch of a single image: noise, images, and labels if any."""
        labels = torch.zeros(1, dtype=torch.int64) if self.config.classes else None
        return torch.zeros(1, self.config.z_dim), torch.zeros(1, 3, image_size, image_size), labels
