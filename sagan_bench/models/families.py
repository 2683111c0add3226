"""The families of networks, and the widths of a configuration's G and D."""

from bisect import bisect_left
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from sagan_bench.config.schema import ModelConfig, SpectralNormConfig
from sagan_bench.core.errors import UserError
from sagan_bench.models import dcgan, resnet
from sagan_bench.models.layers import forward_flops

FAMILIES: dict[str, Any] = {"dcgan": dcgan, "resnet": resnet}
NO_SPECTRAL_NORM = SpectralNormConfig(generator="none", discriminator="none")


def networks(
    model: ModelConfig, image_size: int, *, needs_double_backward: bool = False
) -> tuple[nn.Module, nn.Module]:
    """Return G and D of a configuration, not yet initialised.

    ``needs_double_backward``: D's gradient will be differentiated again (gradient penalties).

    Raises:
        UserError: attention at a side that a network lacks, or at one too narrow for C / 8; or a
            setting that the family has no room for.
    """
    if model.architecture == "dcgan" and (model.classes or model.layout != "pyramid"):
        key = "classes" if model.classes else "layout"
        raise UserError(
            f"model.{key} = {getattr(model, key)}: the dcgan knows none; "
            "add --set model.architecture=resnet"
        )
    family, chosen = FAMILIES[model.architecture], widths(model, image_size)
    return family.networks(model, image_size, *chosen, needs_double_backward=needs_double_backward)


@cache
def widths(model: ModelConfig, image_size: int) -> tuple[float, float]:
    """Return the widths of G and D: as configured, or, for the control ``wider``, by FLOPs.

    Each network then has the width at which its forward pass costs as nearly as many FLOPs as with
    ``full`` attention as channels of its narrowest map, added one at a time, allow.

    Raises:
        UserError: as `networks`.
    """
    width = model.width * model.width_factor
    if model.attention.kind != "wider":
        return width, width
    full = model.attention.model_copy(update={"kind": "full"})
    targets = _forward_flops(model.model_copy(update={"attention": full}), image_size, width)
    a_channel = FAMILIES[model.architecture].width_of_a_channel(model, image_size)
    wider = [width + a_channel * added for added in range(round(16 * width / a_channel))]

    def nearest(network: int) -> float:
        def excess(width: float) -> int:
            return _forward_flops(model, image_size, width)[network] - targets[network]

        reached = bisect_left(wider, 0, key=excess)
        return min(wider[max(0, reached - 1) : reached + 1], key=lambda width: abs(excess(width)))

    return nearest(0), nearest(1)


def _forward_flops(model: ModelConfig, image_size: int, width: float) -> tuple[int, int]:
    """Return the FLOPs of a forward pass of one image through G and D, without spectral norms."""
    plain = model.model_copy(update={"spectral_norm": NO_SPECTRAL_NORM})
    with torch.device("meta"):
        generator, discriminator = FAMILIES[model.architecture].networks(
            plain, image_size, width, width
        )
        z, images = torch.zeros(1, model.z_dim), torch.zeros(1, 3, image_size, image_size)
        labels = one_label(model)
        return forward_flops(generator, z, *labels), forward_flops(discriminator, images, *labels)


def one_label(model: ModelConfig) -> tuple[Tensor, ...]:
    """Return the labels (1,) that a batch of one has, or nothing if there are no classes."""
    return (torch.zeros(1, dtype=torch.int64),) if model.classes else ()
