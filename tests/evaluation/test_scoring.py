"""Scores of images, and those of a run under the protocol of its configuration."""

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from example_runs import SMALL
from example_scores import EXTRACTOR, FAKE, HELD_OUT, REAL, Wild, pictures, registered, sample, tiny
from torch import Tensor, nn

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.core.seeding import generator
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import Store
from sagan_bench.evaluation import coherence, scoring
from sagan_bench.evaluation.extractors import Extractor
from sagan_bench.evaluation.features import Features, extract
from sagan_bench.evaluation.measuring import default_metrics, measure
from sagan_bench.evaluation.metrics import Evidence
from sagan_bench.evaluation.protocol import Protocol
from sagan_bench.evaluation.reference import reference
from sagan_bench.evaluation.sampling import sample_images
from sagan_bench.evaluation.scoring import Scorer, score
from sagan_bench.runs.records import Score

KEYS = {"fid", "isc_mean", "isc_std", "kid_mean", "kid_std", "precision", "recall"}


def test_what_is_undefined_is_none_with_a_reason(tmp_path: Path) -> None:
    protocol = tiny(extractor="wild")
    wild = Wild()
    scores = score(FAKE, reference(REAL, None, protocol, wild, tmp_path), protocol, wild)
    assert [key for key, value in scores.metrics.items() if value is None] == [
        "isc_mean",
        "isc_std",
    ]
    assert "IS[wild] is undefined for these images" in scores.warnings


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


def test_channels_last_networks_score_the_same(tmp_path: Path) -> None:
    def channels_last(seed: int, start: int, stop: int) -> Tensor:
        return sample(seed, start, stop).contiguous(memory_format=torch.channels_last)

    seen = reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path)
    images = sample_images(channels_last, 120, 0, 50)
    assert images.is_contiguous()
    transposed = images.contiguous(memory_format=torch.channels_last)
    found = [score(each, seen, tiny(), EXTRACTOR) for each in (images, transposed)]
    assert found[0].metrics["fid"] == pytest.approx(found[1].metrics["fid"])


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
    assert set(first.metrics) == set(first.floor) == KEYS


def test_scores_are_json(tmp_path: Path) -> None:
    protocol = tiny(n_fake=30, n_real=100)
    scores = score(
        FAKE[:30], reference(REAL, None, protocol, EXTRACTOR, tmp_path), protocol, EXTRACTOR
    )
    stored = json.loads(json.dumps(scores.model_dump(mode="json"), allow_nan=False))
    assert Score.model_validate(stored) == scores
    assert scores.fingerprint == protocol.fingerprint()
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


def test_a_floor_of_fewer_images_says_so(tmp_path: Path) -> None:
    found = reference(REAL, HELD_OUT, tiny(), EXTRACTOR, tmp_path, n_floor=60)
    assert (found.n_floor, set(found.floor)) == (60, KEYS)
    scores = score(FAKE, found, tiny(), EXTRACTOR)
    assert "the floor is of 60 held-out images, not 120: the bias of FID[tiny] differs" in (
        scores.warnings
    )
    fewer = reference(REAL, HELD_OUT[:40], tiny(), EXTRACTOR, tmp_path)
    assert fewer.n_floor == 40
    none = reference(REAL, HELD_OUT[:3], tiny(), EXTRACTOR, tmp_path)
    assert (none.floor, none.n_floor) == ({}, 0)


def test_features_are_what_the_extractor_gives() -> None:
    features = extract(EXTRACTOR, FAKE)
    with torch.no_grad():
        pool, logits = EXTRACTOR.network(FAKE[:4])
    assert torch.equal(features.pool[:4], pool)
    assert torch.equal(features.logits[:4], logits)
    assert isinstance(features, Features)


# --- A run's scores ---

HOST = Host(bf16=False, extractor="means")
N_FAKE = 10


class Quarters(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pool = nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)
        return pool, pool / 100


class Means(Extractor):
    """Means of quarters of an image, in place of a network that takes a second to load."""

    layer, isc_layer, dimensions = "quarters", "quarters / 100", 12
    resize, weights_sha256 = "none", "1" * 64

    @classmethod
    def weights(cls, file: Path | None = None) -> Path:
        return Path()

    def build(self, weights: Path) -> nn.Module:
        return Quarters()


@pytest.fixture(autouse=True)
def _means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(scoring, "cache_root", lambda: tmp_path)
    with registered(EXTRACTORS, "means", Means):
        yield


@pytest.fixture(scope="module")
def store() -> Store:
    return prepare(DataSpec("twins", 32, train_images=48, test_images=16))


def noise(seed: int, start: int, stop: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.rand(N_FAKE, 3, 32, 32, generator=source)[start:stop] * 2 - 1


def score_of(
    n_floor: int, store: Store, *sets: str, final: bool = True
) -> tuple[Score, Scorer, list[tuple[int, int]]]:
    config = resolve(HOST, sets=[*SMALL, f"evaluation.n_floor={n_floor}", *sets]).config
    told: list[tuple[int, int]] = []
    scorer = Scorer(config, store, torch.device("cpu"), lambda *done: told.append(done))
    (made,) = scorer.scores({"raw": noise}, step=1, n_fake=N_FAKE, final=final)
    return made, scorer, told


@pytest.mark.parametrize(("asked", "of"), [(6, 6), (12, N_FAKE)])
def test_the_floor_is_of_n_floor_held_out_images_or_as_many_as_generated_ones(
    asked: int, of: int, store: Store
) -> None:
    made, scorer, told = score_of(asked, store)
    seen = scorer._references["means", N_FAKE]
    assert seen.n_floor == of
    doubts = [text for text in made.warnings if text.startswith("the floor is of")]
    assert len(doubts) == (of != N_FAKE)
    assert all(f"of {of} held-out images, not {N_FAKE}" in text for text in doubts)
    assert store.test is not None
    order = torch.randperm(16, generator=generator(0, "reference", "held-out"))
    held_out = store.test.images[order[:of].sort().values.numpy()]
    how = Protocol.fitted(**made.protocol | {"n_fake": of})
    images = torch.from_numpy(held_out)
    evidence = Evidence(images, how, extract(Means(), images), seen.pool)
    measured = measure(evidence, default_metrics())
    assert {key: made.floor[key] for key in measured} == measured
    assert told[-1] == (told[-1][1], N_FAKE + 24 + of)


def test_the_floor_of_the_rule_is_of_n_floor_held_out_images(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def watched(images: Tensor, halves: coherence.Halves) -> dict[str, float | None]:
        seen.append(images)
        return {"twin_rate": len(images) / 100}

    monkeypatch.setattr(coherence, "figures", watched)
    made, _, _ = score_of(6, store, "run.eval_metrics=rule", final=False)
    assert store.test is not None
    generated, held_out = seen
    assert (len(generated), held_out.numpy().tolist()) == (N_FAKE, store.test.images[:6].tolist())
    assert (made.metrics, made.floor) == ({"twin_rate": 0.1}, {"twin_rate": 0.06})
