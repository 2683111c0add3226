"""Scores under the protocol of a configuration: whose images, and how many of them."""

import pytest
import torch
from example_runs import SMALL
from torch import Tensor

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host
from sagan_bench.core.seeding import generator
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import Store
from sagan_bench.evaluation import scoring
from sagan_bench.evaluation.extractors import extract
from sagan_bench.evaluation.metrics import measure
from sagan_bench.evaluation.protocol import Protocol
from sagan_bench.evaluation.scoring import Scorer
from sagan_bench.runs.records import Score

HOST = Host(bf16=False, extractor="efficientnet-lite0")
N_FAKE = 10


@pytest.fixture(scope="module")
def store() -> Store:
    return prepare(DataSpec("twins", 32, train_images=48, test_images=16))


def noise(seed: int, start: int, stop: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.rand(N_FAKE, 3, 32, 32, generator=source)[start:stop] * 2 - 1


def scored(
    n_floor: int, store: Store, *sets: str, final: bool = True
) -> tuple[Score, Scorer, list[tuple[int, int]]]:
    config = resolve(HOST, sets=[*SMALL, f"evaluation.n_floor={n_floor}", *sets]).config
    told: list[tuple[int, int]] = []
    scorer = Scorer(config, store, torch.device("cpu"), lambda *done: told.append(done))
    (score,) = scorer.scores({"raw": noise}, step=1, n_fake=N_FAKE, final=final)
    return score, scorer, told


@pytest.mark.parametrize(("asked", "of"), [(6, 6), (12, N_FAKE)])
def test_the_floor_is_of_n_floor_held_out_images_or_as_many_as_generated_ones(
    asked: int, of: int, store: Store
) -> None:
    score, scorer, told = scored(asked, store)
    seen = scorer._references[N_FAKE]
    assert seen.n_floor == of
    doubts = [text for text in score.warnings if text.startswith("the floor is of")]
    assert len(doubts) == (of != N_FAKE)
    assert all(f"of {of} held-out images, not {N_FAKE}" in text for text in doubts)
    assert store.test is not None
    order = torch.randperm(16, generator=generator(0, "reference", "held-out"))
    held_out = store.test.images[order[:of].sort().values.numpy()]
    how = Protocol.fitted(**score.protocol | {"n_fake": of})
    measured = measure(extract(scorer.extractor, held_out), seen.pool, how)
    assert {key: score.floor[key] for key in measured} == measured
    assert told[-1] == (told[-1][1], 2 * N_FAKE + 24 + of)


def test_the_floor_of_the_rule_is_of_n_floor_held_out_images(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def watched(images: Tensor) -> dict[str, float | None]:
        seen.append(images)
        return {"twin_rate": len(images) / 100}

    monkeypatch.setattr(scoring, "coherence", watched)
    score, _, _ = scored(6, store, "run.eval_metrics=rule", final=False)
    assert store.test is not None
    generated, held_out = seen
    assert (len(generated), held_out.numpy().tolist()) == (N_FAKE, store.test.images[:6].tolist())
    assert (score.metrics, score.floor) == ({"twin_rate": 0.1}, {"twin_rate": 0.06})
