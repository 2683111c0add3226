"""Variants of a study's own: what they set, under which names, and who knows it later."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from example_runs import SMALL
from example_studies import HOST, here, small_study

from sagan_bench import cli
from sagan_bench.config.diff import results
from sagan_bench.config.layers import override, resolve
from sagan_bench.config.naming import contradictions, described, fitting
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import ATTENTION
from sagan_bench.experiments import ablation, conformance
from sagan_bench.experiments.studies import files_of
from sagan_bench.experiments.study import StudyManifest

BLOCK = Path(__file__).parents[1] / "own" / "mean_context.py"
SETS = [part for text in SMALL for part in ("--set", text)]
VARIANTS = """
[variant.late-scale]
says = "Gamma starts high, and everything learns slowly"
model.attention.gamma_init = 0.5
training.lr_scale = 0.25
"""
FILE = """
question = "?"
baseline = "no-attention"
variants = ["late-scale", "late-scale+no-spectral-norm"]
seeds = [0]
[on.twins]
metric = "twin_rate"
min_effect = 0.05
"""
SAYS = (
    "Gamma starts high, and everything learns slowly: model.attention.gamma_init = 0.5, "
    "training.lr_scale = 0.25"
)
Out = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    return int(exit_.value.code or 0)


def text(table: str = VARIANTS, file: str = FILE) -> str:
    return file + table


def test_a_variant_of_its_own_is_what_it_sets() -> None:
    study = small_study(Path(), text=text())
    config = study.config("late-scale", 0, HOST).config
    assert (config.model.attention.gamma_init, config.training.lr_scale) == (0.5, 0.25)
    assert study.requested("late-scale", 0).origins["training.lr_scale"] == "variant late-scale"
    both = study.config("late-scale+no-spectral-norm", 0, HOST).config
    assert (both.training.lr_scale, both.model.spectral_norm.generator) == (0.25, "none")
    assert described(config) == [SAYS]
    assert described(both)[0] == SAYS
    assert contradictions(config) == contradictions(both) == []
    assert fitting(config) == "late-scale"
    other = override(config, {"training.lr_scale": ("--set", 0.5)})
    assert [pair.key for pair in contradictions(other)] == ["training.lr_scale"]


def test_it_is_a_label_and_equal_settings_are_equal_digests() -> None:
    mine = small_study(Path(), text=text()).config("late-scale", 0, HOST).config
    by_hand = resolve(
        HOST,
        preset="quick",
        sets=[*SMALL, "model.attention.gamma_init=0.5", "training.lr_scale=0.25"],
    ).config
    assert mine.meant
    assert not by_hand.meant
    assert mine.digest("f") == by_hand.digest("f")
    assert results(mine) == results(by_hand)
    assert "meant" not in by_hand.model_dump()
    again = type(mine).model_validate(json.loads(mine.model_dump_json()))
    assert again == mine
    assert hash(again.meant) == hash(mine.meant)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[variant.sagan]\ntraining.lr_scale = 2", r"variant\.sagan: there is a variant sagan"),
        ("[variant.SAGAN]\ntraining.lr_scale = 2", "there is a variant sagan already"),
        ('[variant."a+b"]\ntraining.lr_scale = 2', "expected a name of letters"),
        ('[variant."v1.5"]\ntraining.lr_scale = 2', "expected a name of letters"),
        ('[variant."a/b"]\ntraining.lr_scale = 2', "expected a name of letters"),
        ("[variant.residual-like-x]\ntraining.lr_scale = 2", "those of controls"),
        ("[variant.x]\ndata.flip = true", r"small\.toml.*variant\.x: data\.flip is no variant's"),
        ("[variant.x]\nrun.steps = 3", "run.steps is no variant's"),
        ("[variant.x]\nevaluation.n_fake = 9", "evaluation.n_fake is no variant's"),
        ("[variant.x]\nseed = 3", "seed is no variant's"),
        ('[variant.x]\nname = "y"', "name is no variant's"),
        ("[variant.x]\ntraining.lr_skale = 2", "no setting is called .*lr_skale.*lr_scale"),
        ("[variant.x]\nsays = 3\ntraining.lr_scale = 2", "says is no text"),
        ('[variant.x]\nsays = "nothing"', "it sets nothing"),
        ("[variant.x]\n", "it sets nothing"),
        ("[variant]\nx = 3", r"variant\.x"),
        ("[variant.x]\ntraining.lr_scale = 2", r"\[variant\.x\] is not compared"),
    ],
)  # fmt: skip
def test_what_is_no_variant_is_refused(table: str, words: str) -> None:
    listed = FILE if "not compared" in words else FILE.replace("late-scale+no-spectral-norm", "x")
    listed = listed.replace('"late-scale"', '"sagan"').replace("late-scale+", "")
    with pytest.raises(UserError, match=f"(?s){words}"):
        small_study(Path(), text=text(table, listed))


@pytest.mark.parametrize("value", ["[1]", '"much"', "-1", "1979-05-27"])
def test_a_value_that_cannot_be_is_told(value: str) -> None:
    table = VARIANTS.replace("0.25", value)
    with pytest.raises(UserError, match=r"training\.lr_scale|late-scale"):
        ablation.plan(small_study(Path(), text=text(table)), Path("runs/s"), here)


def test_a_study_that_says_otherwise_is_refused() -> None:
    study = small_study(Path(), "training.lr_scale=0.5", text=text())
    assert study.requested("late-scale", 0).config.training.lr_scale == 0.25
    low = 'variants = ["late-scale"]\nset.model.attention.generator = []\n'
    low += "set.model.attention.discriminator = []\n"
    table = VARIANTS.replace("model.attention.gamma_init = 0.5\n", "")
    listed = FILE.replace('variants = ["late-scale", "late-scale+no-spectral-norm"]\n', low)
    study = small_study(Path(), text=text(table, listed))
    with pytest.raises(UserError, match="variant late-scale on the preset quick does not go with"):
        study.requested("late-scale", 0)


def test_another_of_the_same_name_is_refused_and_new_ones_join() -> None:
    folder = Path("runs/small")
    begun = ablation.plan(small_study(Path(), text=text()), folder, here)
    begun.manifest.write(folder)
    ablation.plan(small_study(Path(), text=text(VARIANTS.replace("slowly", "late"))), folder, here)
    for changed in (
        VARIANTS.replace("0.25", "0.5"),
        VARIANTS + "training.beta1 = 0.1\n",
        VARIANTS.replace("training.lr_scale = 0.25\n", ""),
    ):
        with pytest.raises(UserError, match=r"another study is in.*variant\.late-scale"):
            ablation.plan(small_study(Path(), text=text(changed)), folder, here)
    more = text(VARIANTS + "[variant.late]\ntraining.lr_scale = 0.125\n")
    more = more.replace('"late-scale",', '"late-scale", "late",')
    grown = ablation.plan(small_study(Path(), text=more), folder, here).manifest
    assert set(grown.study.variant) == {"late-scale", "late"}
    grown.write(folder)
    kept = StudyManifest.of(folder)
    assert kept is not None
    assert kept.study.variant == grown.study.variant


def test_a_dry_run_says_what_it_sets(capsys: Out) -> None:
    Path("mine.toml").write_text(text())
    assert run("ablate", "mine.toml", *SETS, "--dry-run") == 0
    assert f"late-scale: {SAYS}" in " ".join(capsys.readouterr().out.split())
    assert run("ablate", "mine.toml", *SETS, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["variants"] == {"late-scale": SAYS}


@pytest.mark.slow
def test_records_say_what_it_is_without_the_study(capsys: Out) -> None:
    Path("mine.toml").write_text(text())
    command = ["ablate", "mine.toml", *SETS, "--only", "late-scale,no-attention"]
    assert run(*command, "--in-process") == 0
    Path("mine.toml").unlink()
    (path,) = Path("runs/mine").glob("late-scale-s0-*")
    record = json.loads((path / "record.json").read_text())
    assert record["variant"] == "late-scale"
    assert record["config"]["meant"]["variants"]["late-scale"]["training.lr_scale"] == 0.25
    shutil.rmtree("runs/mine/own", ignore_errors=True)
    capsys.readouterr()
    assert run("show", str(path)) == 0
    assert SAYS in " ".join(capsys.readouterr().out.split())
    for verb in (
        ["list"], ["compare", "runs/mine"], ["evaluate", str(path), "--n-fake", "9"],
        ["sample", str(path), "--n", "2"], ["report", "runs/mine", "--out", "page"],
    ):  # fmt: skip
        assert run(*verb) == 0, verb
    assert "Gamma starts high" in Path("page/index.html").read_text()
    assert json.loads((path / "record.json").read_text())["config"]["meant"]


@pytest.fixture
def with_file(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command of a study in another folder that names a file beside it."""
    monkeypatch.setattr(conformance, "require", lambda extension: None)
    Path("there").mkdir()
    shutil.copy(BLOCK, "there/mine.py")
    table = "[variant.four]\nmodel.attention.kind = 'mean-context'\nblock.groups = 4\n"
    table += "[variant.usual]\nmodel.attention.kind = 'mean-context'\nblock.groups = 2\n"
    file = 'with = ["mine.py"]\n' + FILE.replace('"late-scale"', '"four", "usual"')
    file = file.replace(', "late-scale+no-spectral-norm"', "")
    Path("there/study.toml").write_text(text(table, file))
    return ["ablate", "there/study.toml", *SETS]


def test_a_study_names_its_own_files(with_file: list[str], capsys: Out) -> None:
    assert files_of("there/study.toml") == [Path("there/mine.py")]
    assert run(*with_file, "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert {cell["id"] for cell in planned["cells"]} == {
        "no-attention-s0", "four-s0", "usual-s0",  # and not mean-context: the file says which
    }  # fmt: skip


@pytest.mark.slow
def test_runs_of_a_study_with_files_are_read_without_them(
    with_file: list[str], capsys: Out
) -> None:
    assert run(*with_file, "--in-process", "--only", "four,usual") == 0
    of = {p.name.partition("-s0")[0]: p for p in Path("runs/study").glob("*-s0-*")}
    assert (of["four"] / "own" / "mine.py").exists()
    records = {name: record(path) for name, path in of.items()}
    assert records["four"]["model"]["attention"]["options"] == {"groups": 4}
    assert "options" not in records["usual"]["model"]["attention"]
    extensions.forget("mine")
    ATTENTION._recalled.clear()
    assert run("show", str(of["usual"])) == 0  # of what is usual nothing is said to be amiss
    assert run("compare", "runs/study", "--baseline", "usual") == 0
    assert "Unlike" not in capsys.readouterr().out


def record(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((path / "record.json").read_text())["config"]
    return config


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("with = 3", "with: expected a list of files"),
        ("with = [3]", "with: expected a list of files"),
        ('with = ["nosuch.py"]', r"cannot read nosuch\.py"),
        ('with = ["mine.toml"]', "expected a Python file"),
    ],
)
def test_what_are_no_files_is_refused(line: str, words: str, capsys: Out) -> None:
    Path("mine.toml").write_text(f"{line}\n{text()}")
    assert run("ablate", "mine.toml", *SETS, "--dry-run") == cli.USAGE
    assert words.replace("\\", "") in capsys.readouterr().err


def test_it_is_not_tuned(capsys: Out) -> None:
    assert run("tune", "--variant", "late-scale") == cli.USAGE
    assert "a variant of a study's own, [variant.NAME], is not tuned" in capsys.readouterr().err
