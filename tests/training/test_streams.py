"""The streams of chance: each can be fixed, and is then the same at every seed, to the bit."""

from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from torch import Tensor

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.distributed import SINGLE_PROCESS
from sagan_bench.data.building import prepare
from sagan_bench.data.feeding import Batch, Feed
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import Store
from sagan_bench.models.build import build
from sagan_bench.training import loop
from sagan_bench.training.draws import step_noise
from sagan_bench.training.loop import train
from sagan_bench.training.state import TrainState

HOST = Host(bf16=False, extractor="efficientnet-lite0")
CPU = torch.device("cpu")
FREE = {"free-weights": "weights", "free-data": "data", "free-noise": "noise"}


def make(variant: str, *sets: str) -> RunConfig:
    base = [
        "model.width=8", "model.z_dim=8", "training.batch_size=4", "run.steps=3", "run.log_every=3",
        "data.train_images=64", "data.test_images=16", "data.flip=true",
    ]  # fmt: skip
    return resolve(HOST, variant=variant, sets=[*base, *sets]).config


@pytest.fixture(scope="module")
def store() -> Store:
    return prepare(DataSpec("twins", 32, train_images=64, test_images=16))


def weights(config: RunConfig) -> list[Tensor]:
    return [tensor for network in build(config) for tensor in network.state_dict().values()]


def noise(config: RunConfig) -> list[Tensor]:
    drawn = step_noise(config, SINGLE_PROCESS, 1)
    parts = [part for each in (*drawn.critic, drawn.generator) for part in each]
    return [part for part in parts if part is not None]


def images(config: RunConfig, store: Store, patch: pytest.MonkeyPatch) -> list[Tensor]:
    """Return the first batch that a step of training asks for."""
    seen = list[Tensor]()

    class Seen(Feed):
        def __call__(self, index: int) -> Batch:
            batch = super().__call__(index)
            seen.append(batch.images.clone())
            return batch

    with patch.context() as patched:
        patched.setattr(loop, "Feed", Seen)
        list(islice(train(config, TrainState(config, CPU), store), 1))
    return seen[:1]


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    assert ours
    assert len(ours) == len(theirs)
    return all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize("variant", FREE)
def test_two_seeds_share_the_fixed_streams_to_the_bit_and_no_other(
    variant: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (make(variant, f"seed={seed}") for seed in (1, 2))
    shared = {
        "weights": same(weights(ours), weights(theirs)),
        "data": same(images(ours, store, monkeypatch), images(theirs, store, monkeypatch)),
        "noise": same(noise(ours), noise(theirs)),
    }
    assert shared == {stream: stream != FREE[variant] for stream in shared}


def test_labels_and_points_of_the_penalty_are_of_the_noise() -> None:
    sets = [
        "model.architecture=resnet", "model.classes=1000", "training.loss=wgan-gp",
        "model.spectral_norm.generator=none", "model.spectral_norm.discriminator=none",
    ]  # fmt: skip
    free = [make("free-noise", *sets, f"seed={seed}") for seed in (1, 2)]
    fixed = [make("free-data", *sets, f"seed={seed}") for seed in (1, 2)]
    assert len(noise(free[0])) == 5  # z, labels and points of D's update; z and labels of G's
    assert not any(map(torch.equal, *map(noise, free)))
    assert all(map(torch.equal, *map(noise, fixed)))


def test_at_seed_0_each_is_the_run_in_which_all_streams_are_free(store: Store) -> None:
    def ends() -> Iterator[list[Tensor]]:
        for variant in ("sagan", *FREE):
            config = make(variant)
            state = TrainState(config, CPU)
            list(train(config, state, store))
            networks = (state.generator, state.discriminator, state.ema)
            yield [tensor for network in networks for tensor in network.state_dict().values()]

    plain, *others = ends()
    assert all(same(plain, other) for other in others)


def test_runs_with_other_streams_fixed_have_other_digests() -> None:
    assert len({make(variant).digest("d") for variant in ("sagan", *FREE)}) == 4
