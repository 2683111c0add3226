"""The network of EfficientNet-Lite0, made as fast as its arithmetic allows."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights


class Lite0(nn.Module):
    """uint8 images (B, 3, H, W) -> ``pool`` (B, 1280) and ``logits`` (B, 1000), float32.

    The architecture is timm's ``tf_efficientnet_lite0``.  Its parameters come in the same order as
    the file's, under other names; ``efficientnet_lite0`` without ``tf_`` loads too and is wrong,
    because it pads strided convolutions otherwise.  Pixels are normalised by (x - 127) / 128.
    """

    SIDE = 224
    net: Any

    def __init__(self, weights: Path) -> None:
        super().__init__()
        import timm  # seconds to import, and nothing but the network itself needs it

        net = timm.create_model("tf_efficientnet_lite0").eval().requires_grad_(False)
        stored = torch.load(weights, map_location="cpu", weights_only=True)
        net.load_state_dict(dict(zip(net.state_dict(), stored.values(), strict=True)))
        _fold_batchnorm(net)
        _pad_evenly(net)
        self.net = net.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return both layers of ``images``, uint8 (B, 3, H, W)."""
        x = (images.float().contiguous(memory_format=torch.channels_last) - 127) / 128
        side = (self.SIDE, self.SIDE)
        x = functional.interpolate(x, side, mode="bilinear", align_corners=False, antialias=True)
        pool = self.net.forward_features(x).mean((2, 3))
        return pool, self.net.classifier(pool)


def _fold_batchnorm(net: nn.Module) -> None:
    """Fold each BatchNorm into the convolution before it, keeping timm's fused activation."""
    conv: nn.Conv2d | None = None
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d):
            conv = module
        elif isinstance(module, nn.BatchNorm2d) and conv is not None:
            norm: Any = module
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight,
                conv.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            net.set_submodule(name, norm.act)


def _pad_evenly(net: nn.Module) -> None:
    """Replace TensorFlow's SAME padding, which copies each input, by a zero in front of the kernel.

    At stride 2 an odd kernel k on an even side gets one column more behind than in front.  A kernel
    of k + 1 that begins with zeros and is padded by (k - 1) / 2 on both sides sums the same
    products: equal bit for bit, in 0.75 to 0.9 of the time.
    """
    for name, conv in list(net.named_modules()):
        if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2):
            kernel = conv.kernel_size[0]
            even = nn.Conv2d(
                conv.in_channels,
                conv.out_channels,
                kernel + 1,
                stride=2,
                padding=(kernel - 1) // 2,
                groups=conv.groups,
            )
            weight = functional.pad(conv.weight.detach(), (1, 0, 1, 0))
            even.load_state_dict({"weight": weight, "bias": conv.bias})
            net.set_submodule(name, even.requires_grad_(False))
