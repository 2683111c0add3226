"""The figures of every score, and that they are torch-fidelity's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from example_scores import EXTRACTOR, FAKE, REAL, adapted, figures, pictures, tiny
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset
from torch_fidelity import calculate_metrics

from sagan_bench.evaluation import frechet
from sagan_bench.evaluation.extractors import Extractor
from sagan_bench.evaluation.extractors.efficientnet_lite0 import EfficientNetLite0
from sagan_bench.evaluation.features import extract
from sagan_bench.evaluation.protocol import Protocol

KEYS = {
    "fid": "frechet_inception_distance",
    "isc_mean": "inception_score_mean",
    "isc_std": "inception_score_std",
    "kid_mean": "kernel_inception_distance_mean",
    "kid_std": "kernel_inception_distance_std",
    "precision": "precision",
    "recall": "recall",
}
"""Our keys and torch-fidelity's."""


class Pictures(Dataset[Tensor]):
    """What torch-fidelity takes as input."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def by_torch_fidelity(
    fake: Tensor, real: Tensor, protocol: Protocol, extractor: Extractor = EXTRACTOR
) -> dict[str, float]:
    return calculate_metrics(
        input1=Pictures(fake),
        input2=Pictures(real),
        feature_extractor=adapted(extractor),
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        isc_splits=protocol.isc_splits,
        kid_subsets=protocol.kid_subsets,
        kid_subset_size=protocol.kid_subset_size,
        prc_neighborhood=protocol.prc_neighborhood,
        batch_size=extractor.batch_images["cpu"],
        cuda=False,
        save_cpu_ram=True,
        verbose=False,
    )


def ours(
    fake: Tensor, real: Tensor, protocol: Protocol, extractor: Extractor = EXTRACTOR
) -> dict[str, float | None]:
    return figures(fake, extract(extractor, real).pool, protocol, extractor)


def test_every_metric_equals_torch_fidelitys() -> None:
    real = torch.from_numpy(REAL)
    protocol = tiny(n_real=260, isc_splits=7, kid_subset_size=50, prc_neighborhood=4)
    theirs = by_torch_fidelity(FAKE, real, protocol)
    found = ours(FAKE, real, protocol)
    assert found == {key: theirs[name] for key, name in KEYS.items()}
    assert len(set(found.values())) == len(KEYS)


def test_every_metric_equals_torch_fidelitys_by_efficientnet() -> None:
    fake, real = pictures(20, seed=5, shift=0.2), pictures(24, seed=6)
    network = EfficientNetLite0()
    sizes = {"n_fake": 20, "n_real": 24, "isc_splits": 2, "kid_subset_size": 8}
    protocol = tiny(**network.facts(), **sizes)
    theirs = by_torch_fidelity(fake, real, protocol, network)
    assert ours(fake, real, protocol, network) == {key: theirs[name] for key, name in KEYS.items()}


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


@pytest.mark.slow
def test_distances_rise_with_damage_by_efficientnet() -> None:
    """The same distribution is nearest; then a blur, then noise."""
    real, same = pictures(100, seed=7), pictures(100, seed=8)
    blurred = functional.avg_pool2d(same.float(), 5, 1, 2).round().to(torch.uint8)
    generator = torch.Generator().manual_seed(9)
    noise = torch.randint(0, 256, same.shape, generator=generator, dtype=torch.uint8)
    network = EfficientNetLite0()
    protocol = tiny(**network.facts(), n_fake=100, n_real=100)
    found = [ours(images, real, protocol, network) for images in (same, blurred, noise)]
    for key in "fid", "kid_mean":
        values = [each[key] or 0.0 for each in found]
        assert values == sorted(values)
        assert values[1] > 1.5 * values[0]


def test_eigenvalues_that_do_not_converge_cost_fid_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("Eigenvalues did not converge")

    monkeypatch.setattr(frechet, "fid_statistics_to_metric", fails)
    found = ours(FAKE, torch.from_numpy(REAL[:200]), tiny())
    assert [key for key, value in found.items() if value is None] == ["fid"]


def scored_tiny() -> str:
    """Return the scores of the tiny extractor; a process of its own calls this too."""
    pool = extract(EXTRACTOR, torch.from_numpy(REAL[:200])).pool
    return json.dumps(figures(FAKE, pool, tiny()), sort_keys=True)


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_pythons_hash_seed_changes_nothing(hash_seed: str) -> None:
    here = Path(__file__)
    path = os.pathsep.join(map(str, (here.parent, here.parents[1], here.parents[2])))
    code = f"import {here.stem}; print({here.stem}.scored_tiny())"
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
    command = [
        sys.executable,
        "-c",
        f"import torch; torch.set_num_threads({torch.get_num_threads()}); {code}",
    ]
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert printed.stdout.strip() == scored_tiny()
