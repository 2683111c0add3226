"""Spaces are data: what ships is possible, and what cannot be is refused with its reason."""

from pathlib import Path

import pytest
from example_tunings import FILE, here, small_tuning

from sagan_bench.config.layers import read
from sagan_bench.config.variants import presets
from sagan_bench.core.errors import UserError
from sagan_bench.core.trees import flatten
from sagan_bench.experiments.tuning import planning, space


@pytest.mark.parametrize("name", space.spaces())
def test_shipped_spaces_begin_with_their_presets(name: str) -> None:
    shipped = space.load(name)
    for preset in shipped.presets:
        config = read(preset=preset, variant="sagan").config
        stored = dict(flatten(config.model_dump(mode="json")))
        parameters = shipped.of_variant("sagan", config)
        assert parameters.keys() == shipped.parameters.keys()
        own = shipped.own_values(parameters, config)
        assert own == {key: stored[key] for key in parameters}


def test_shipped_spaces_have_parameters_of_each_kind() -> None:
    found = [one.kind for name in space.spaces() for one in space.load(name).parameters.values()]
    assert {*found} == {"real", "log", "integer", "categorical"}


def test_every_preset_of_the_seed_projects_network_has_a_space() -> None:
    """The paper's has none yet, and says so: nobody has measured what to search there."""
    for preset in presets():
        if read(preset=preset, variant="sagan").config.model.architecture == "dcgan":
            assert preset in space.space_for(preset).presets
    with pytest.raises(UserError, match=r"imagenet64, only for .*; give --space"):
        space.space_for("imagenet64")


def test_a_variant_is_searched_without_what_it_lacks() -> None:
    shipped = space.load("quick")

    def keys(variant: str) -> set[str]:
        return set(shipped.of_variant(variant, read(preset="quick", variant=variant).config))

    attention = {key for key in shipped.parameters if key.startswith("model.attention.")}
    assert keys("sagan") == set(shipped.parameters)
    assert keys("no-attention") == keys("wider") == keys("sagan") - attention
    assert keys("g-only") == keys("sagan") - {"model.attention.discriminator"}
    assert keys("gamma-fixed-1") == keys("sagan") - {"model.attention.gamma_init"}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"training.lr_g"', '"training.lrg"', r"no setting is called 'training.lrg'; did you mean"),
        ('"training.lr_g"', '"run.steps"', "run.steps is how a trial is run"),
        ("high = 1e-3", "high = 1e-5", "give low and high, low below high"),
        ("low = 1e-4", "low = 0.0", "a logarithmic scale begins above 0"),
        ("choices = [[4], [8]]", "choices = [[4]]", "two choices or more"),
        ("choices = [[4], [8]]", "choices = [[8], [8]]", "a choice is there twice"),
        ("run.steps = 60", "run.log_every = 6", "run.steps is missing"),
        ('why = "a test"', 'why = ""', "at least 1 character"),
        ('presets = ["quick"]', 'presets = ["quik"]', "did you mean 'quick'"),
        ("evals = 6", "evals = 6\nfoo = 1", "foo"),
    ],
)
def test_a_space_that_cannot_be_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        small_tuning(tmp_path, text=FILE.replace(old, new, 1))


def test_an_unknown_space_is_refused_with_the_closest() -> None:
    with pytest.raises(UserError, match="did you mean 'quick'"):
        space.load("quik")
    with pytest.raises(UserError, match="only for quick"):
        space.space_for("nosuch")


def test_the_presets_own_values_must_be_inside(tmp_path: Path) -> None:
    asked = small_tuning(tmp_path, text=FILE.replace("high = 1e-3", "high = 2e-4"))
    memory = planning.plan(asked, tmp_path / "t", here, trials=2)
    with pytest.raises(UserError, match=r"own training.lr_g = 0.0004 is outside; widen the space"):
        planning.refuse_impossible(memory, tmp_path / "t")


def test_a_side_that_the_network_lacks_is_refused_before_anything_runs(tmp_path: Path) -> None:
    asked = small_tuning(tmp_path, text=FILE.replace("[[4], [8]]", "[[8], [64]]"))
    memory = planning.plan(asked, tmp_path / "t", here, trials=2)
    with pytest.raises(UserError, match=r"space small: .*64"):
        planning.refuse_impossible(memory, tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("bound", "beyond", "says"),
    [
        ("0.5", "1.5", r"training.beta1 = 1.5 .*less than 1"),
        ("2", "9" * 18, "n_critic = .*at most"),
    ],
)
def test_a_bound_that_no_run_can_have_is_refused_before_anything_runs(
    tmp_path: Path, bound: str, beyond: str, says: str
) -> None:
    asked = small_tuning(tmp_path, text=FILE.replace(f"high = {bound}", f"high = {beyond}"))
    memory = planning.plan(asked, tmp_path / "t", here, trials=2)
    with pytest.raises(UserError, match=rf"space small: .*{says}"):
        planning.refuse_impossible(memory, tmp_path / "t")


def test_what_is_searched_cannot_be_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--set training\.beta1: it is searched"):
        small_tuning(tmp_path, "training.beta1=0.5")


def test_bounds_of_a_setting_that_is_no_number_are_refused(tmp_path: Path) -> None:
    tuning = small_tuning(tmp_path, text=FILE.replace("training.beta1", "training.loss"))
    config = tuning.config("sagan", 0, here(tuning.requested("sagan", 0).config))
    with pytest.raises(UserError, match=r'own training.loss = "hinge" is outside'):
        tuning.space.own_values(tuning.space.parameters, config)
