import json
import logging
import math
import os
import random
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import register_feature_extractor

from sagan_bench.core.errors import UserError
from sagan_bench.data.pixels import normalise, quantise
from sagan_bench.evaluation import metrics
from sagan_bench.evaluation.extractors import BATCH_IMAGES, Features, build_extractor, extract
from sagan_bench.evaluation.metrics import (
    KEYS,
    NonFiniteImages,
    Scores,
    measure,
    reference,
    sample_images,
    score,
)
from sagan_bench.evaluation.protocol import EXTRACTORS, Protocol


class Tiny(FeatureExtractorBase):
    """Mean and deviation of 16 random filters, as ``pool``; ten logits."""

    SCALE = 1.0

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        generator = torch.Generator().manual_seed(1)
        self.filters = nn.Parameter(torch.randn(16, 3, 5, 5, generator=generator) / 8)
        self.classes = nn.Parameter(torch.randn(32, 10, generator=generator) * self.SCALE)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = functional.conv2d((images.float() - 127) / 128, self.filters, stride=2).relu()
        pool = torch.cat([maps.mean((2, 3)), maps.flatten(2).std(dim=2)], dim=1)
        layers = {"pool": pool, "logits": pool @ self.classes}
        return tuple(layers[layer] for layer in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "pool", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "logits" if metric == "isc" else "pool"

    @staticmethod
    def can_be_compiled() -> bool:
        return False


class Wild(Tiny):
    """Its logits are so far apart that the inception score is 0 times infinity."""

    SCALE = 1e6


register_feature_extractor("tiny", Tiny)
register_feature_extractor("wild", Wild)


class Pictures(Dataset[Tensor]):
    """What torch-fidelity takes as input."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def pictures(n: int, seed: int = 0, shift: float = 0.0) -> Tensor:
    """Return smooth random images, uint8 (n, 3, 16, 16); ``shift`` makes them brighter."""
    noise = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = functional.interpolate(noise, (16, 16), mode="bilinear", align_corners=False)
    return ((smooth + shift) * 255).round().clamp(0, 255).to(torch.uint8)


def tiny(**changes: Any) -> Protocol:
    """Return a protocol of 120 generated against 200 real images."""
    fields: dict[str, Any] = {
        "extractor": "tiny",
        "layer": "pool",
        "isc_layer": "logits",
        "dimensions": 32,
        "resize": "none",
        "weights_sha256": "0" * 64,
        "data": "smooth pictures",
        "split": "train",
        "n_real": 200,
        "n_fake": 120,
        "sampling_seed": 0,
        "label_law": "none",
        "weights": "raw",
        "ema_decay": None,
        "batchnorm": "running",
        "kid_subsets": 20,
    }
    return Protocol.fitted(**fields | changes)


EXTRACTOR = build_extractor("tiny")
REAL, HELD_OUT = pictures(260, seed=1).numpy(), pictures(150, seed=2)
FAKE = pictures(120, seed=3, shift=0.1)


def sample(seed: int, start: int, stop: int) -> Tensor:
    """Return images that depend on (seed, index) alone."""
    return torch.stack([normalise(pictures(1, 1_000 * seed + i)[0]) for i in range(start, stop)])


def by_torch_fidelity(fake: Tensor, real: Tensor, protocol: Protocol) -> dict[str, float]:
    return calculate_metrics(
        input1=Pictures(fake),
        input2=Pictures(real),
        feature_extractor=protocol.extractor,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        isc_splits=protocol.isc_splits,
        kid_subsets=protocol.kid_subsets,
        kid_subset_size=protocol.kid_subset_size,
        prc_neighborhood=protocol.prc_neighborhood,
        batch_size=BATCH_IMAGES["cpu"],
        cuda=False,
        save_cpu_ram=True,
        verbose=False,
    )


def ours(fake: Tensor, real: Tensor, protocol: Protocol) -> dict[str, float | None]:
    extractor = build_extractor(protocol.extractor)
    return measure(extract(extractor, fake), extract(extractor, real).pool, protocol)


# --- The same figures as torch-fidelity ---


def test_every_metric_equals_torch_fidelitys() -> None:
    real = torch.from_numpy(REAL)
    protocol = tiny(n_real=260, isc_splits=7, kid_subset_size=50, prc_neighborhood=4)
    theirs = by_torch_fidelity(FAKE, real, protocol)
    found = ours(FAKE, real, protocol)
    assert found == {key: theirs[name] for key, name in KEYS.items()}
    assert len(set(found.values())) == len(KEYS)


def test_every_metric_equals_torch_fidelitys_by_efficientnet() -> None:
    fake, real = pictures(20, seed=5, shift=0.2), pictures(24, seed=6)
    protocol = tiny(
        **EXTRACTORS["efficientnet-lite0"], n_fake=20, n_real=24, isc_splits=2, kid_subset_size=8
    )
    theirs = by_torch_fidelity(fake, real, protocol)
    assert ours(fake, real, protocol) == {key: theirs[name] for key, name in KEYS.items()}


@pytest.mark.parametrize("change", [{"isc_splits": 3}, {"kid_subsets": 5}, {"kid_subset_size": 30}])
def test_settings_reach_the_metrics(change: dict[str, int]) -> None:
    real = torch.from_numpy(REAL[:200])
    assert ours(FAKE, real, tiny(**change)) != ours(FAKE, real, tiny())


def test_a_set_is_at_no_distance_from_itself() -> None:
    found = ours(FAKE, FAKE, tiny(n_real=120))
    assert found["fid"] is not None
    assert abs(found["fid"]) < 1e-3
    assert (found["precision"], found["recall"]) == (1.0, 1.0)


def test_precision_is_of_the_fake_and_recall_of_the_real() -> None:
    narrow = pictures(120, seed=1)[:2].repeat(60, 1, 1, 1)  # two of the real images
    found = ours(narrow, torch.from_numpy(REAL[:200]), tiny())
    assert found["precision"] == 1.0
    assert found["recall"] is not None
    assert found["recall"] < 0.1


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    again = tiny(n_fake=200)
    seen = reference(REAL, HELD_OUT, again, EXTRACTOR, tmp_path)
    score(torch.from_numpy(REAL[:200]), seen, again, EXTRACTOR)
    assert capfd.readouterr() == ("", "")


def test_the_global_random_state_is_left_alone(tmp_path: Path) -> None:
    def state() -> tuple[object, ...]:
        numpy_state = np.random.get_state(legacy=False)["state"]["key"].tolist()
        return torch.get_rng_state().tolist(), random.getstate(), numpy_state

    before = state()
    score(FAKE, reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path), tiny(), EXTRACTOR)
    assert state() == before


@pytest.mark.slow
def test_distances_rise_with_damage_by_efficientnet() -> None:
    """The same distribution is nearest; then a blur, then noise."""
    real, same = pictures(100, seed=7), pictures(100, seed=8)
    blurred = functional.avg_pool2d(same.float(), 5, 1, 2).round().to(torch.uint8)
    generator = torch.Generator().manual_seed(9)
    noise = torch.randint(0, 256, same.shape, generator=generator, dtype=torch.uint8)
    protocol = tiny(**EXTRACTORS["efficientnet-lite0"], n_fake=100, n_real=100)
    found = [ours(images, real, protocol) for images in (same, blurred, noise)]
    for key in "fid", "kid_mean":
        values = [each[key] or 0.0 for each in found]
        assert values == sorted(values)
        assert values[1] > 1.5 * values[0]


# --- Undefined and degenerate ---


def test_what_is_undefined_is_none_with_a_reason(tmp_path: Path) -> None:
    protocol = tiny(extractor="wild")
    wild = build_extractor("wild")
    scores = score(FAKE, reference(REAL, None, protocol, wild, tmp_path), protocol, wild)
    assert [key for key, value in scores.metrics.items() if value is None] == [
        "isc_mean",
        "isc_std",
    ]
    assert "IS[wild] is undefined for these images" in scores.warnings


def test_eigenvalues_that_do_not_converge_cost_fid_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(metrics, "fid_statistics_to_metric", fails)
    found = ours(FAKE, torch.from_numpy(REAL[:200]), tiny())
    assert [key for key, value in found.items() if value is None] == ["fid"]


@pytest.mark.parametrize(
    ("images", "distinct"),
    [
        (torch.zeros(120, 3, 16, 16, dtype=torch.uint8), 1),
        (pictures(1).expand(120, -1, -1, -1), 1),
        (pictures(10).repeat(12, 1, 1, 1), 10),
    ],
)
def test_collapse_is_measured_and_named(images: Tensor, distinct: int, tmp_path: Path) -> None:
    scores = score(
        images, reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path), tiny(), EXTRACTOR
    )
    assert f"collapse: only {distinct} of 120 generated images are distinct" in scores.warnings
    assert all(value is not None and math.isfinite(value) for value in scores.metrics.values())
    healthy = score(FAKE, reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path), tiny(), EXTRACTOR)
    assert not any("collapse" in warning for warning in healthy.warnings)
    assert (scores.metrics["recall"] or 0) < (healthy.metrics["recall"] or 0)
    if distinct == 1:
        assert scores.metrics["isc_mean"] == pytest.approx(1.0)


# --- Sampling ---


@given(n=st.integers(1, 9), batch=st.integers(1, 12), seed=st.integers(0, 3))
def test_n_is_exact_and_the_batch_changes_nothing(n: int, batch: int, seed: int) -> None:
    asked: list[tuple[int, int, int]] = []
    done: list[int] = []

    def watched(seed: int, start: int, stop: int) -> Tensor:
        asked.append((seed, start, stop))
        return sample(seed, start, stop)

    images = sample_images(watched, n, seed, batch, done.append)
    assert torch.equal(images, quantise(sample(seed, 0, n)))
    assert images.dtype == torch.uint8
    assert sum(done) == n
    assert [i for _, start, stop in asked for i in range(start, stop)] == list(range(n))


def test_channels_last_networks_score_the_same(tmp_path: Path) -> None:
    def channels_last(seed: int, start: int, stop: int) -> Tensor:
        return sample(seed, start, stop).contiguous(memory_format=torch.channels_last)

    seen = reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path)
    images = sample_images(channels_last, 120, 0, 50)
    assert images.is_contiguous()
    transposed = images.contiguous(memory_format=torch.channels_last)
    found = [score(each, seen, tiny(), EXTRACTOR) for each in (images, transposed)]
    assert found[0].metrics["fid"] == pytest.approx(found[1].metrics["fid"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("index", [0, 5, 9])
def test_the_first_image_that_is_not_finite_is_named(bad: float, index: int) -> None:
    def broken(seed: int, start: int, stop: int) -> Tensor:
        images = sample(seed, 0, 10)
        images[index, 1, 3, 3] = bad
        images[9, 0, 0, 0] = math.nan
        return images[start:stop]

    with pytest.raises(NonFiniteImages, match=f"generated image {index} is not finite") as caught:
        sample_images(broken, 10, 0, 4)
    assert caught.value.index == index


def test_every_level_survives_the_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(quantise(normalise(levels)), levels)
    assert normalise(levels)[[0, 255]].tolist() == [-1.0, 1.0]


def test_pixels_are_rounded_not_truncated() -> None:
    levels = torch.tensor([-0.6, 0.4, 0.6, 127.5, 100.49, 254.7, 260.0], dtype=torch.float64)
    images = (levels / 127.5 - 1).float()
    assert quantise(images).tolist() == [0, 0, 1, 128, 100, 255, 255]
    assert quantise(torch.tensor(5 / 256, dtype=torch.bfloat16)).item() == 130  # not 129


# --- Scores ---


def test_scoring_twice_gives_the_same_to_the_last_digit(tmp_path: Path) -> None:
    first, second = (
        score(
            sample_images(sample, 120, 4, batch),
            reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path / str(batch)),
            tiny(),
            EXTRACTOR,
        )
        for batch in (7, 120)
    )
    assert first.metrics == second.metrics
    assert first.floor == second.floor
    assert first.warnings == second.warnings == ()
    assert set(first.metrics) == set(first.floor) == set(KEYS)


def test_scores_are_json(tmp_path: Path) -> None:
    protocol = tiny(n_fake=30, n_real=100)
    scores = score(
        FAKE[:30], reference(REAL, None, protocol, EXTRACTOR, tmp_path), protocol, EXTRACTOR
    )
    stored = json.loads(json.dumps(scores.model_dump(mode="json"), allow_nan=False))
    assert Scores.model_validate(stored) == scores
    assert scores.fingerprint == protocol.fingerprint()
    assert set(scores.seconds) == {"extract", "metrics"}
    assert [warning.partition(":")[0] for warning in scores.warnings] == [
        "n<d",
        "no held-out images, hence no real-against-real floor",
    ]


def test_sets_of_another_protocol_are_refused(tmp_path: Path) -> None:
    seen = reference(REAL, None, tiny(), EXTRACTOR, tmp_path)
    with pytest.raises(ValueError, match="n_fake is 120, given were 119"):
        score(FAKE[:119], seen, tiny(), EXTRACTOR)
    with pytest.raises(ValueError, match="n_real is 150, given were 200"):
        score(FAKE, seen, tiny(n_real=150), EXTRACTOR)
    with pytest.raises(ValueError, match="extractor is wild, given were tiny"):
        score(FAKE, seen, tiny(extractor="wild"), EXTRACTOR)
    with pytest.raises(ValueError, match="extractor is wild, given were tiny"):
        reference(REAL, None, tiny(extractor="wild"), EXTRACTOR, tmp_path)


def scored_tiny() -> str:
    """Return the scores of the tiny extractor; a process of its own calls this too."""
    pool = extract(EXTRACTOR, torch.from_numpy(REAL[:200])).pool
    return json.dumps(measure(extract(EXTRACTOR, FAKE), pool, tiny()), sort_keys=True)


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_pythons_hash_seed_changes_nothing(hash_seed: str) -> None:
    here = Path(__file__)
    code = f"import {here.stem}; print({here.stem}.scored_tiny())"
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(here.parent)}
    command = [
        sys.executable,
        "-c",
        f"import torch; torch.set_num_threads({torch.get_num_threads()}); {code}",
    ]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert printed.stdout.strip() == scored_tiny()


# --- The reference ---


class Blind(Tiny):
    """An extractor that may not be used: what it is asked for must be in the cache."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        raise AssertionError("extracted again")


def blind() -> FeatureExtractorBase:
    return Blind("tiny", ["pool", "logits"])


def test_the_cache_spares_the_extraction(tmp_path: Path) -> None:
    done: list[int] = []
    first = reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path / "new", progress=done.append)
    assert sum(done) == 200 + 120
    again: list[int] = []
    ema = tiny(weights="ema", ema_decay=0.9)
    second = reference(REAL, HELD_OUT, ema, blind(), tmp_path / "new", progress=again.append)
    assert torch.equal(first.pool, second.pool)
    assert (first.floor, first.n_floor) == (second.floor, second.n_floor)
    assert again == [200, 120]
    assert len(list((tmp_path / "new").iterdir())) == 2


def one_pixel(images: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    changed = images.copy()
    changed[:, 0, 0, 0] ^= 1
    return changed


@pytest.mark.parametrize(
    ("real", "held_out", "changes"),
    [
        (one_pixel(REAL), HELD_OUT, {}),
        (REAL, torch.from_numpy(one_pixel(HELD_OUT.numpy())), {}),
        (REAL, HELD_OUT, {"n_real": 199}),
        (REAL, HELD_OUT, {"n_fake": 119}),
        (REAL, HELD_OUT, {"split": "test"}),
        (REAL, HELD_OUT, {"weights_sha256": "1" * 64}),
        (REAL, HELD_OUT, {"resize": "other"}),
        (REAL, HELD_OUT, {"isc_splits": 2}),
        (REAL, HELD_OUT, {"kid_subset_size": 20}),
    ],
)
def test_nothing_stale_comes_from_the_cache(
    real: Any, held_out: Any, changes: dict[str, Any], tmp_path: Path
) -> None:
    reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path)
    with pytest.raises(AssertionError, match="extracted again"):
        reference(real, held_out, tiny(**changes), blind(), tmp_path)


@pytest.mark.parametrize("library", ["torch", "torch-fidelity", "timm"])
def test_features_of_another_version_of_a_library_are_made_again(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path)

    def newer(name: str) -> str:
        return version(name) + "+x" * (name == library)

    monkeypatch.setattr("sagan_bench.evaluation.metrics.version", newer)
    with pytest.raises(AssertionError, match="extracted again"):
        reference(REAL, HELD_OUT, tiny(), blind(), tmp_path)


def test_features_of_another_device_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path)
    monkeypatch.setitem(BATCH_IMAGES, "meta", BATCH_IMAGES["cpu"])
    with pytest.raises(AssertionError, match="extracted again"):
        reference(REAL, HELD_OUT, tiny(), blind().to("meta"), tmp_path)


def test_a_damaged_cache_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path)
    for file in tmp_path.iterdir():
        whole = file.read_bytes()
        middle = bytearray(whole)
        middle[len(whole) // 2] ^= 1
        headless = b"\0" + whole[1:]
        for damaged in (b"", whole[:-1], whole[: len(whole) // 2], bytes(middle), headless):
            caplog.clear()
            file.write_bytes(damaged)
            found = reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path)
            assert torch.equal(found.pool, expected.pool)
            assert found.floor == expected.floor
            assert file.read_bytes() == whole
            assert f"{file} is damaged and is made again" in caplog.text
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        found = reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path / "file" / "cache")
    assert len(found.pool) == 200
    assert "cannot keep" in caplog.text


def test_the_floor_is_what_held_out_images_score(tmp_path: Path) -> None:
    everything = tiny(n_real=260, n_fake=150)
    found = reference(REAL, HELD_OUT, everything, EXTRACTOR, tmp_path)
    pool = extract(EXTRACTOR, torch.from_numpy(REAL)).pool
    assert torch.equal(found.pool, pool)  # all are chosen, in their order
    assert found.floor == measure(extract(EXTRACTOR, HELD_OUT), pool, everything)
    assert found.n_floor == 150


def test_the_choice_is_random_and_always_the_same(tmp_path: Path) -> None:
    half = tiny(n_real=130)
    found = reference(REAL, None, half, EXTRACTOR, tmp_path / "1")
    again = reference(REAL, None, half, EXTRACTOR, tmp_path / "2")
    assert torch.equal(found.pool, again.pool)
    everything = extract(EXTRACTOR, torch.from_numpy(REAL)).pool
    rows = [int((everything == row).all(dim=1).nonzero().item()) for row in found.pool]
    assert rows == sorted(set(rows))
    assert rows[:10] != list(range(10))
    assert rows[-1] > 240


def test_a_floor_of_fewer_images_says_so(tmp_path: Path) -> None:
    found = reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path, n_floor=60)
    assert (found.n_floor, set(found.floor)) == (60, set(KEYS))
    scores = score(FAKE, found, tiny(), EXTRACTOR)
    assert "the floor is of 60 held-out images, not 120: the bias of FID[tiny] differs" in (
        scores.warnings
    )
    fewer = reference(REAL, HELD_OUT[:40], tiny(), EXTRACTOR, tmp_path)
    assert fewer.n_floor == 40
    none = reference(REAL, HELD_OUT[:3], tiny(), EXTRACTOR, tmp_path)
    assert (none.floor, none.n_floor) == ({}, 0)


def test_more_real_images_than_there_are_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train split has 260 images, 261 were asked for"):
        reference(REAL, None, tiny(n_real=261), blind(), tmp_path)


def test_features_are_what_the_extractor_gives() -> None:
    features = extract(EXTRACTOR, FAKE)
    pool, logits = EXTRACTOR(FAKE[:4])
    assert torch.equal(features.pool[:4], pool)
    assert torch.equal(features.logits[:4], logits)
    assert isinstance(features, Features)
