"""What chance gives to a step: every use of it has numbers of its own."""

from itertools import combinations

import torch
from torch import Tensor

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.distributed import SINGLE_PROCESS
from sagan_bench.training.draws import Noise, step_noise

HOST = Host(bf16=False, extractor="efficientnet-lite0")


def make(*sets: str) -> RunConfig:
    base = ["training.loss=wgan-gp", "training.n_critic=3", "training.batch_size=4"]
    plain = [f"model.spectral_norm.{network}=none" for network in ("generator", "discriminator")]
    return resolve(HOST, sets=[*base, *plain, *sets]).config


def parts(noise: Noise) -> dict[str, Tensor]:
    return {name: part for name, part in noise._asdict().items() if part is not None}


def test_no_two_updates_of_d_share_noise_labels_or_points_of_the_penalty() -> None:
    classes = ["model.architecture=resnet", "model.classes=1000"]
    config = make(*classes)
    drawn = [each for step in (1, 2) for each in step_noise(config, SINGLE_PROCESS, step).critic]
    assert len(drawn) == 6
    for one, other in combinations(map(parts, drawn), 2):
        assert one.keys() == other.keys() == {"z", "labels", "share"}
        assert not [name for name in one if torch.equal(one[name], other[name])]


def test_the_points_of_the_penalty_are_the_seeds_and_the_steps() -> None:
    def shares(*sets: str) -> list[Tensor]:
        drawn = step_noise(make(*sets), SINGLE_PROCESS, 1).critic
        return [each.share for each in drawn if each.share is not None]

    ours, again, others = shares(), shares(), shares("seed=1")
    assert len(ours) == 3
    assert all(map(torch.equal, ours, again))
    assert not any(map(torch.equal, ours, others))
    assert all(share.shape == (4, 1, 1, 1) and len(share.unique()) == 4 for share in ours)
