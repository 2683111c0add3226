"""How many kernels a step is on a GPU, counted without one."""

import importlib.util
from pathlib import Path

import pytest

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host

FILE = Path(__file__).parents[2] / "benchmarks" / "launches.py"
spec = importlib.util.spec_from_file_location("launches", FILE)
assert spec is not None
assert spec.loader is not None
launches = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launches)


@pytest.mark.parametrize(
    ("preset", "width", "most"), [("quick", 16, 440), ("celeba64", 16, 608), ("cifar10", 32, 1000)]
)
def test_norms_at_once_leave_a_step_of_few_launches(preset: str, width: int, most: int) -> None:
    counts = []
    for batched in ("true", "false"):
        sets = [
            f"model.width={width}", "training.batch_size=2", "training.n_critic=1",
            "training.precision=bf16", f"model.spectral_norm.batched={batched}",
        ]  # fmt: skip
        config = resolve(Host(True, "efficientnet-lite0"), preset=preset, sets=sets).config
        counts.append(sum(launches.of_step(config).values()))
    assert counts[0] <= most < 0.9 * counts[1]
