"""The samplers by name: those that are shipped, and one of a user."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from example_tunings import FILE, SMALLER, Scripted, small_tuning

from sagan_bench import cli
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import SAMPLERS
from sagan_bench.execution import engines
from sagan_bench.experiments.tuning import storage
from sagan_bench.experiments.tuning.findings import of_tuning


@pytest.fixture
def lowest() -> Iterator[str]:
    """A sampler of a user, for one test: it proposes the least of everything."""

    class Least(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {}

        def sample_relative(self, study: Any, trial: Any, space: Any) -> dict[str, Any]:
            return {}

        def sample_independent(self, study: Any, trial: Any, name: str, among: Any) -> Any:
            return among.choices[0] if hasattr(among, "choices") else among.low

    @SAMPLERS.register("lowest")
    class Lowest:
        def make(self, seed: int, sequence: int) -> optuna.samplers.BaseSampler:
            return Least()

    yield "lowest"
    del SAMPLERS._known["lowest"]


def test_a_sampler_of_a_user_drives_a_search(
    lowest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Scripted(lambda config, step: 1e5 * config.training.lr_g)
    monkeypatch.setattr(engines, "opened", lambda name, slots, stop: engine)
    (tmp_path / "small.toml").write_text(FILE)
    sets = [part for text in [*SMALLER, "run.eval_images=10"] for part in ("--set", text)]
    command = ["tune", "--space", str(tmp_path / "small.toml"), *sets, "--trials", "3"]
    with pytest.raises(SystemExit) as exit_:
        cli.main([*command, "--sampler", lowest])
    assert not exit_.value.code
    found = of_tuning(tmp_path / "runs" / "tune-sagan")
    assert found.sampler == "lowest"
    least = {
        "training.lr_g": 1e-4, "training.beta1": 0.0, "training.n_critic": 1,
        "model.attention.generator": [4],
    }  # fmt: skip
    assert [trial.params for trial in found.searches[0].trials[1:]] == [least, least]


def test_every_sampler_has_its_name(tmp_path: Path) -> None:
    asked = small_tuning(tmp_path)
    made = {
        name: storage.sampler(asked.model_copy(update={"sampler": name}), 0, 0) for name in SAMPLERS
    }
    kinds = {name: type(one).__name__.removesuffix("Sampler").lower() for name, one in made.items()}
    assert kinds == {name: name for name in ("gp", "qmc", "random", "tpe")}


def test_a_name_without_a_sampler_is_no_search(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sampler is called 'rando'; did you mean 'random'"):
        small_tuning(tmp_path, sampler="rando")
    asked = small_tuning(tmp_path).model_copy(update={"sampler": "annealing"})
    with pytest.raises(UserError, match="annealing"):
        storage.begun(optuna.storages.InMemoryStorage(), "t/x", asked, 0, {})
