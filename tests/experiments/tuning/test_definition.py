"""What a tuning is, what may be added to it, and what would make it another."""

from itertools import chain
from pathlib import Path

import pytest
from example_tunings import FILE, here, planned, small_tuning

from sagan_bench.config.layers import read
from sagan_bench.config.schema import RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import METRICS
from sagan_bench.core.stored import load_toml
from sagan_bench.experiments.tuning import definition, planning, winners
from sagan_bench.experiments.tuning.definition import Tuning, TuningManifest


@pytest.fixture
def begun(tmp_path: Path) -> tuple[TuningManifest, Path]:
    folder = tmp_path / "t"
    memory = planned(small_tuning(tmp_path), folder)
    memory.write(folder)
    return memory, folder


def test_no_two_uses_and_no_two_searches_share_a_seed(tmp_path: Path) -> None:
    tuning = small_tuning(tmp_path, searches=7, seeds_a=3, seeds_b=4)
    used = [[one.search, *one.chosen_on, *one.reported_on] for one in map(tuning.seeds, range(7))]
    assert sorted(chain(*used)) == list(range(7 * 8))


def test_seeds_follow_the_first_and_another_first_is_another_tuning(tmp_path: Path) -> None:
    elsewhere = small_tuning(tmp_path, first_seed=2000)
    assert elsewhere.seeds(1) == (2005, (2006, 2007), (2008, 2009))
    assert Tuning.model_validate_json(elsewhere.model_dump_json()) == elsewhere
    assert "first_seed" not in small_tuning(tmp_path).model_dump()
    there = planned(elsewhere, tmp_path / "t")
    assert planned(elsewhere, tmp_path / "t").tuning.first_seed == there.tuning.first_seed == 2000
    there.write(tmp_path / "t")
    with pytest.raises(UserError, match="first_seed: 2000 here, "):
        planned(small_tuning(tmp_path), tmp_path / "t")


def test_a_tuning_is_remembered(begun: tuple[TuningManifest, Path]) -> None:
    memory, folder = begun
    assert definition.TuningManifest.of(folder) == memory
    assert definition.TuningManifest.of(folder / "none") is None
    (folder / "tuning.json").write_text("{")
    with pytest.raises(UserError, match="restore it from a copy"):
        definition.TuningManifest.of(folder)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("high = 1e-3", "high = 2e-3", r"training.lr_g.high: 0.001 here, 0.002 asked"),
        ("run.steps = 60", "run.steps = 90", "run.steps: 60 here, 90 asked"),
        ("evals = 6", "evals = 3", "evals"),
        ("[[4], [8]]", "[[8], [4]]", "choices"),
    ],
)
def test_another_space_is_refused_with_the_difference(
    tmp_path: Path, begun: tuple[TuningManifest, Path], old: str, new: str, says: str
) -> None:
    folder = begun[1]
    with pytest.raises(UserError, match=says):
        planned(small_tuning(tmp_path, text=FILE.replace(old, new)), folder)


def test_another_direction_sampler_pruner_or_setting_is_refused(
    tmp_path: Path, begun: tuple[TuningManifest, Path]
) -> None:
    folder = begun[1]
    for change in (
        {"objectives": ("isc_mean",)}, {"sampler": "random"}, {"pruner": "percentile"},
        {"first_seed": 7},
    ):  # fmt: skip
        with pytest.raises(UserError, match=next(iter(change))):
            planned(small_tuning(tmp_path, **change), folder)
    with pytest.raises(UserError, match=r"settings\.training\.loss"):
        planned(small_tuning(tmp_path, "training.loss=hinge"), folder)
    with pytest.raises(UserError, match="are in its journal"):
        planned(small_tuning(tmp_path), folder, storage="sqlite:///x")


def test_words_may_change_and_variants_searches_and_trials_be_added(
    tmp_path: Path, begun: tuple[TuningManifest, Path]
) -> None:
    folder = begun[1]
    asked = small_tuning(
        tmp_path,
        text=FILE.replace('"a test"', '"another reason"'),
        variants=("no-attention",),
        searches=2,
    )
    grown = planned(asked, folder, trials=9)
    assert grown.tuning.variants == ("sagan", "no-attention")
    assert (grown.tuning.searches, grown.trials) == (2, 9)
    assert planned(asked, folder, trials=1).trials == 4


def test_a_path_may_move_because_images_enter_by_their_content(tmp_path: Path) -> None:
    memory = planned(small_tuning(tmp_path), tmp_path / "t")

    def at(path: str) -> Tuning:
        text = FILE.replace("[on.twins]", "[on.other]")
        return small_tuning(tmp_path, f"data.source=folder:{path}", text=text)

    there = memory.model_copy(update={"tuning": at("a")})
    there.refuse_other(at("b"), tmp_path)
    grown = there.tuning.extended(at("b"))
    assert grown.requested("sagan", 0).config.data.source == "folder:b"


def test_a_pruner_that_cannot_work_is_refused(tmp_path: Path) -> None:
    hyperband = small_tuning(tmp_path, pruner="hyperband")
    with pytest.raises(UserError, match=r"has 2 brackets.* give --trials 20 or more"):
        planned(hyperband, tmp_path / "t", trials=19)
    hyperband.refuse_pruner(20)
    several = small_tuning(tmp_path, objectives=("fid", "images_per_sec"))
    with pytest.raises(UserError, match="several objectives give no order"):
        planned(several, tmp_path / "t")


@pytest.mark.parametrize(("evals", "brackets"), [(2, 1), (3, 1), (4, 2), (9, 2), (10, 3), (27, 3)])
def test_hyperbands_brackets_are_optunas(tmp_path: Path, evals: int, brackets: int) -> None:
    import optuna

    from sagan_bench.experiments.tuning import storage

    text = FILE.replace("evals = 6", f"evals = {evals}").replace("steps = 60", "steps = 300")
    tuning = small_tuning(tmp_path, text=text, pruner="hyperband")
    pruner = storage.pruner(tuning)
    assert isinstance(pruner, optuna.pruners.HyperbandPruner)
    study = optuna.create_study(pruner=pruner)
    pruner.prune(study, study.ask()._get_latest_trial())
    assert pruner._n_brackets == brackets
    with pytest.raises(UserError, match=rf"it has {brackets} bracket"):
        tuning.refuse_pruner(10 * brackets - 1)
    tuning.refuse_pruner(10 * brackets)


@pytest.mark.parametrize(
    ("objectives", "says"),
    [
        (("",), "--objective : "),
        (("fid", "fid"), "one is there twice"),
        (("images_per_sec", "fid"), "says nothing of its images; name it after another"),
        (("intra_fid",), "with --set evaluation.intra_class=true only"),
    ],
)
def test_objectives_that_cannot_guide_are_refused(
    tmp_path: Path, objectives: tuple[str, ...], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        small_tuning(tmp_path, objectives=objectives)


def test_what_diverges_first_has_a_value_whatever_the_objective() -> None:
    beyond = {name for name, metric in METRICS.items() if metric.beyond}
    assert beyond == {name for name, metric in METRICS.items() if metric.better == "lower"}
    assert {"fid", "intra_fid", "kid_mean"} <= beyond


def test_a_password_is_not_kept() -> None:
    url = "postgresql://me:secret@host/db"
    assert definition.masked(url) == "postgresql://me:***@host/db"
    for password in ("se/cret", "pa@ss"):
        assert password[:2] not in str(definition.masked(f"postgresql://me:{password}@host/db"))
    assert definition.masked("mysql://host/db?password=secret") == "mysql://host/db"
    with pytest.raises(UserError, match="that is no URL"):
        definition.masked("x.db")
    assert definition.masked("sqlite:///x.db") == "sqlite:///x.db"
    assert definition.masked(None) is None


def test_only_trials_are_scored_on_the_way(tmp_path: Path) -> None:
    def config(**changed: str) -> RunConfig:
        return small_tuning(tmp_path, **changed).requested("sagan", 0, watched=True).config

    assert small_tuning(tmp_path).requested("sagan", 0).config.run.eval_every is None
    assert config().run.eval_every == 11
    assert config().run.eval_metrics == "all"
    by_rule = small_tuning(tmp_path, objectives=("twin_rate",))
    assert by_rule.requested("sagan", 0, watched=True).config.run.eval_metrics == "rule"


def test_what_is_exported_is_read_back_by_train(tmp_path: Path) -> None:
    tuning = small_tuning(tmp_path, "run.tensorboard=true", "run.inception_weights=none")
    params = {"training.lr_g": 3.3e-05, "model.attention.generator": [4], "training.n_critic": 2}
    file = tmp_path / "best.toml"
    file.write_text(winners.exported(tuning, "sagan", params, ["a remark"]))
    assert load_toml(file)["variant"] == "sagan"
    config = read(file=file).config
    assert (config.training.lr_g, config.training.n_critic) == (3.3e-05, 2)
    assert config.model.attention.generator == (4,)
    assert config.model.width == 8
    assert config.run.steps == read(preset="quick").config.run.steps
    assert (config.run.tensorboard, config.run.inception_weights) == (True, None)


def test_what_is_exported_is_what_was_tuned(tmp_path: Path) -> None:
    text = FILE.replace("run.steps = 60", "run.steps = 60\ntraining.lr_d = 9e-4")
    sets = "model.attention.discriminator=[8]", "training.precision=fp32"
    tuning = small_tuning(tmp_path, *sets, text=text)
    file = tmp_path / "best.toml"
    file.write_text(winners.exported(tuning, "no-attention", {"training.lr_g": 2e-4}))
    config, host = read(file=file).config, here(tuning.requested("sagan", 0).config)
    tried = tuning.config("no-attention", 0, host, params={"training.lr_g": 2e-4})
    assert (config.model, config.training) == (tried.model, tried.training)
    assert config.model.attention.discriminator == ()
    assert config.training.lr_d == 9e-4


def test_no_trial_is_called_by_a_variants_name_that_settings_contradict(tmp_path: Path) -> None:
    tuning = small_tuning(tmp_path, "model.attention.kind=residual")
    with pytest.raises(UserError, match=r"sagan on .* = .residual. \(--set\).* it: residual "):
        tuning.refuse_misnamed()
    small_tuning(tmp_path, "training.batch_size=8").refuse_misnamed()
    with pytest.raises(UserError, match="variant sagan on the preset quick does not go with"):
        planning.plan(tuning, tmp_path / "tuning", here, trials=1)
