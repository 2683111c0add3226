"""The samplers by name: those that are shipped, and one of a user."""

from pathlib import Path

import optuna
import pytest
from command_line import run
from example_tunings import FILE, SMALLER, Scripted, small_tuning
from own_components import loaded

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import SAMPLERS
from sagan_bench.execution import engines
from sagan_bench.experiments.tuning import storage
from sagan_bench.experiments.tuning.findings import of_tuning


def test_a_sampler_of_a_user_drives_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Scripted(lambda config, step: 1e5 * config.training.lr_g)
    monkeypatch.setattr(engines, "opened", lambda profile, place, stop: engine)
    (tmp_path / "small.toml").write_text(FILE)
    sets = [part for text in [*SMALLER, "run.eval_images=10"] for part in ("--set", text)]
    command = ["tune", "--space", str(tmp_path / "small.toml"), *sets, "--trials", "3"]
    with loaded("lowest"):
        assert run(*command, "--sampler", "lowest") == 0
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
