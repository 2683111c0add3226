"""Settings of a block: in short, for those that have them, and for controls that are like it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from example_runs import SMALL
from example_studies import HOST, here, small_study
from example_tunings import SPACE, planned, small_tuning

from sagan_bench import cli
from sagan_bench.config import preset_files
from sagan_bench.config.layers import parse_set, resolve
from sagan_bench.config.schema import RunConfig
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import ATTENTION
from sagan_bench.experiments import ablation, conformance
from sagan_bench.experiments.studies import of_files
from sagan_bench.experiments.tuning import planning
from sagan_bench.experiments.tuning.winners import exported

BLOCK = Path(__file__).parents[1] / "own" / "mean_context.py"
KEY = "model.attention.options.groups"
CONTROLS = ("residual-like-mean-context", "wider-like-mean-context")
SETS = [part for text in SMALL for part in ("--set", text)]
SEARCHED = SPACE.replace('"training.n_critic"', '"block.groups"')
STUDY = """
question = "?"
baseline = "no-attention"
variants = ["mean-context", "sagan", "residual-like-mean-context", "wider-like-mean-context"]
seeds = [0]
set.block.groups = 4
[on.twins]
metric = "twin_rate"
min_effect = 0.05
"""


@pytest.fixture(autouse=True)
def _mine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "require", lambda extension: None)
    shutil.copy(BLOCK, "mine.py")
    extensions.load(Path("mine.py"))


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    return int(exit_.value.code or 0)


def config(*sets: str, **layers: Any) -> RunConfig:
    return resolve(HOST, preset="quick", sets=[*SMALL, *sets], **layers).config


def test_the_short_key_is_the_long_one() -> None:
    assert parse_set("block.groups=4") == (KEY, 4)
    short = config("block.groups=4", variant="mean-context")
    assert short.model.attention.options == {"groups": 4}
    assert short == config(f"{KEY}=4", variant="mean-context")
    Path("run.toml").write_text("block.groups = 4\n")
    assert short == config(variant="mean-context", file=Path("run.toml"))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("block.gruops=4", r"block\.gruops|options\.gruops.*did you mean 'groups'"),
        ("block.groups=much", r"options\.groups.*a whole number"),
        ("block.groups=[4]", r"options\.groups.*a whole number"),
        ("block=4", "no setting is called 'block'"),
        ("block.=4", r"no setting is called 'model\.attention\.options\.'"),
        ("block.like=full", "no setting of kind mean-context is called 'like'"),
    ],
)
def test_what_a_block_has_not_is_refused(setting: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        config(setting, variant="mean-context")


@pytest.mark.parametrize("variant", CONTROLS)
def test_controls_are_like_the_block_with_its_settings(variant: str) -> None:
    blocks = [
        ablation.counted(config(f"block.groups={groups}", variant="mean-context"))
        for groups in (1, 4)
    ]
    controls = [
        ablation.counted(config(f"block.groups={groups}", variant=variant)) for groups in (1, 4)
    ]
    assert blocks[0].parameters_g > blocks[1].parameters_g
    if variant.startswith("residual"):
        for block, control in zip(blocks, controls, strict=True):
            assert control.parameters_g == pytest.approx(block.parameters_g, rel=0.01)
    else:  # the mean of all is a product of one position, too few to widen by
        attention = config("block.groups=4", variant=variant).model.attention
        assert ATTENTION["wider"](attention).like.options == {"groups": 4}
    with pytest.raises(UserError, match="no setting of kind mean-context is called 'heads'"):
        config("block.heads=4", variant=variant)


def test_a_control_with_the_blocks_usual_settings_is_as_without_them() -> None:
    plain, usual = config(variant=CONTROLS[0]), config("block.groups=2", variant=CONTROLS[0])
    assert plain == usual
    assert plain.digest("f") == usual.digest("f")


def test_in_a_study_they_are_of_the_variants_whose_block_has_them() -> None:
    study = small_study(Path(), text=STUDY)
    of = {name: study.config(name, 0, HOST) for name in study.all_variants}
    options = {name: dict(resolved.config.model.attention.options) for name, resolved in of.items()}
    like = {"like": "mean-context", "groups": 4}
    assert options == {
        "no-attention": {}, "sagan": {}, "mean-context": {"groups": 4},
        CONTROLS[0]: like, CONTROLS[1]: like,
    }  # fmt: skip
    assert of["mean-context"].origins[KEY] == "study small"
    assert study.definition[KEY] == 4
    typed = small_study(Path(), "block.groups=1", text=STUDY)
    resolved = typed.config("mean-context", 0, HOST)
    assert (resolved.config.model.attention.options, resolved.origins[KEY]) == (
        {"groups": 1}, "--set",
    )  # fmt: skip


def test_a_file_alone_is_a_study_with_them_too() -> None:
    extension = extensions.load(Path("mine.py"))
    study = of_files({"mine": extension.described}, set=dict([parse_set("block.groups=4")]))
    for name in ("mean-context", *CONTROLS):
        assert study.config(name, 0, HOST).config.model.attention.options["groups"] == 4


def test_a_file_alone_begins_with_ones_own_preset() -> None:
    Path("presets.toml").write_text('[mine]\nextends = "brief"\nmodel.width = 8\n')
    described = extensions.load(Path("mine.py")).described
    study = of_files({"mine": described}, names=preset_files.load(Path("presets.toml")))
    assert (study.preset, list(study.presets)) == ("mine", ["mine"])
    assert study.config("mean-context", 0, HOST).config.model.width == 8


def test_a_setting_of_the_controls_own_name_is_refused() -> None:
    Path("other.py").write_text(
        BLOCK.read_text().replace("groups: int = 2", "groups: int = 2\n        like: int = 3")
        .replace('"mean-context"', '"liking"')
    )  # fmt: skip
    extensions.load(Path("other.py"))
    assert config("block.like=4", variant="liking").model.attention.options == {"like": 4}
    with pytest.raises(UserError, match="residual cannot be like liking"):
        config(variant="residual-like-liking")


def test_settings_that_no_variant_has_are_refused() -> None:
    study = small_study(Path(), "block.heads=4", text=STUDY)
    with pytest.raises(UserError, match=r"no variant has the setting model\.attention\.options\.h"):
        ablation.plan(study, Path("runs/small"), here)


def test_they_are_searched() -> None:
    tuning = small_tuning(Path(), text=SEARCHED, variants=("mean-context", "sagan"))
    tuning.refuse_misnamed()
    assert list(tuning.parameters("mean-context", HOST)) == ["training.lr_g", KEY]
    assert list(tuning.parameters("sagan", HOST)) == ["training.lr_g"]
    tried = tuning.config("mean-context", 0, HOST, params={KEY: 1, "training.lr_g": 2e-4})
    assert tried.model.attention.options == {"groups": 1}
    planning.refuse_impossible(planned(tuning, Path("runs/t")), Path("runs/t"))
    settled = small_tuning(Path(), "block.groups=4", variants=("mean-context", "sagan"))
    assert f"{KEY} = 4" in exported(settled, "mean-context", {})
    assert KEY not in exported(settled, "sagan", {})
    with pytest.raises(UserError, match="no variant has the setting"):
        small_tuning(Path(), text=SEARCHED, variants=("sagan",)).refuse_misnamed()


@pytest.mark.slow
def test_a_search_of_them_runs(capsys: pytest.CaptureFixture[str]) -> None:
    Path("space.toml").write_text(SEARCHED)
    command = ["tune", "--with", "mine.py", "--variant", "mean-context", "--space", "space.toml"]
    sets = [part for text in SMALL if "run.steps" not in text for part in ("--set", text)]
    more = ["--trials", "2", "--no-confirm", "--in-process", "--name", "t"]
    assert run(*command, *sets, *more) == 0
    configs = [json.loads(p.read_text())["config"] for p in Path("runs/t").rglob("record.json")]
    tried = [c["model"]["attention"].get("options", {}).get("groups", 2) for c in configs]
    assert len(tried) == 2
    assert set(tried) <= {1, 2}
    extensions.forget("mine")
    assert run("tune", "show", "t") == 0  # nobody's code is run to read it
