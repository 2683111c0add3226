"""Two variants differ in what they name and in nothing else: settings, images, noise.

That layers of one name start equal is tested in tests/models/test_dcgan.py.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from example_runs import SMALL
from torch import Tensor

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.config.variants import presets, variant_settings, variants
from sagan_bench.core.trees import flatten
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import Store
from sagan_bench.experiments import studies
from sagan_bench.experiments.studies import shipped
from sagan_bench.training.draws import Noise
from sagan_bench.training.loop import train
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Recipe

HOST = Host(bf16=True, extractor="efficientnet-lite0")
SIZE = {"feat64": 128, "feat32": 64, "seed-sides": 64}
COMBINED = sorted(
    {name for one in shipped() for name in studies.load(one).all_variants} - variants().keys()
)
ALL = [*variants(), *COMBINED]


def config_of(variant: str, *sets: str) -> RunConfig:
    size = max(SIZE.get(part, 32) for part in variant.split("+"))
    small = [*SMALL, "run.steps=2", "data.flip=true", f"data.image_size={size}"]
    return resolve(HOST, variant=variant, sets=[*small, *sets]).config


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Store]:
    folder = tmp_path_factory.mktemp("stores")
    sizes = {32, *SIZE.values()}
    return {
        size: prepare(DataSpec("twins", size, train_images=48, test_images=16), Path(folder))
        for size in sizes
    }


@pytest.mark.parametrize("preset", presets())
@pytest.mark.parametrize("variant", ALL)
def test_a_variant_changes_the_settings_that_it_names(variant: str, preset: str) -> None:
    changed = resolve(HOST, preset=preset, variant=variant).config
    plain = resolve(HOST, preset=preset).config
    before, after = (dict(flatten(one.model_dump())) for one in (plain, changed))
    differ = {key for key in before if before[key] != after[key]} - {"variant", "name"}
    forced = {"training.precision"} if "wgan-gp" in variant else set()  # by `auto`: docs say so
    assert differ <= set(variant_settings(variant)) | forced


def seen_in_training(
    config: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Tensor, ...]]:
    """Return what each update was given: images and noise, without the networks."""
    given: list[tuple[Tensor, ...]] = []
    ones = torch.ones(())

    def update_d(self: Any, real: Tensor, noise: Noise, labels: None) -> dict[str, Tensor]:
        given.append((real.clone(), noise.z.clone()))
        return {"loss_d": ones}

    def update_g(self: Any, noise: Noise) -> dict[str, Tensor]:
        given.append((noise.z.clone(),))
        return {"loss_g": ones}

    monkeypatch.setattr(Recipe, "update_d", update_d)
    monkeypatch.setattr(Recipe, "update_g", update_g)
    list(train(config, TrainState(config, torch.device("cpu")), store))
    return given


@pytest.mark.parametrize("variant", ALL)
def test_every_variant_sees_the_same_images_and_noise(
    variant: str, stores: dict[int, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(variant)
    store = stores[config.data.image_size]
    size = f"data.image_size={config.data.image_size}"
    ours = seen_in_training(config, store, monkeypatch)
    theirs = seen_in_training(config_of("no-attention", size), store, monkeypatch)
    assert len(ours) == len(theirs) == 4
    for mine, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))
    another = seen_in_training(config_of(variant, "seed=1"), store, monkeypatch)
    fixed = config.training.fixed
    assert torch.equal(ours[0][0], another[0][0]) == ("data" in fixed)
    assert torch.equal(ours[0][1], another[0][1]) == ("noise" in fixed)
