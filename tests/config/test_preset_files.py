"""Presets of one's own: in a file, beside those that are shipped, and known to records."""

import json
from pathlib import Path
from typing import Any

import pytest
from example_runs import SMALL
from example_studies import FILE, HOST
from example_tunings import SPACE

from sagan_bench import cli
from sagan_bench.config import preset_files
from sagan_bench.config.layers import resolve
from sagan_bench.config.meanings import chosen_preset
from sagan_bench.config.naming import described
from sagan_bench.config.variants import PRESETS
from sagan_bench.core.errors import UserError
from sagan_bench.experiments.studies import load
from sagan_bench.experiments.study import StudyManifest

MINE = """
[mine]
says = "Small and quick"
data.source = "twins"
model.width = 8
model.attention.generator = [8]
model.attention.discriminator = [8]
training.lr_d_over_g = "none"
run.steps = 6
"""
TWO = MINE + '\n[wide]\nextends = "mine"\nmodel.width = 16\n[based]\nextends = "brief"\nseed = 3\n'
SETS = [part for text in SMALL if "model.width" not in text for part in ("--set", text)]
Out = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    return int(exit_.value.code or 0)


def written(text: str = MINE, name: str = "mine.toml") -> Path:
    Path(name).write_text(text)
    return Path(name)


def test_they_are_of_the_form_of_those_that_are_shipped() -> None:
    names = preset_files.load(written(TWO))
    assert list(names[PRESETS]) == ["mine", "wide", "based"]
    config = resolve(HOST, preset="wide", names=names).config
    assert (config.preset, config.model.width, config.run.steps) == ("wide", 16, 6)
    assert resolve(HOST, preset="based", names=names).config.run.steps == 1500
    assert resolve(HOST, preset="quick", names=names).config.meant == {}
    with pytest.raises(UserError, match="presets mine, wide, based: choose one with --preset"):
        chosen_preset(names, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no preset"),
        ("model.width = 8", "model: no setting is called 'width'|expected a table"),
        ("[quick]\nmodel.width = 8", "there is a preset quick already"),
        ("[Quick]\nmodel.width = 8", "there is a preset quick already"),
        ('["a.b"]\nmodel.width = 8', "expected a name"),
        ("[mine]\nmodel.wdth = 8", r"mine: no setting is called 'model\.wdth'; did you mean"),
        ("[mine]\nmodel.width = 'x'", r"model\.width = 'x' \(preset mine\): expected a whole"),
        ("[mine]\nmodel.width = 8\nsays = 3", "says is no text"),
        ('[mine]\nname = "x"', "name is what runs are called"),
        ('[mine]\nextends = "nosuch"', "extends = 'nosuch'; "),
        ("[mine]\nextends = 3", "extends = 3; "),
        ("[mine]\nextends = [3]", "extends = "),
        ('[a]\nextends = "b"\n[b]\nextends = "a"', "extends itself"),
        ("[mine", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(text: str, words: str) -> None:
    with pytest.raises(UserError, match=f"mine\\.toml(?s:.*)({words})"):
        preset_files.load(written(text))


def test_a_run_is_called_as_it_is_on_it() -> None:
    names = preset_files.load(written())
    none = ["model.attention.generator=[]", "model.attention.discriminator=[]"]
    named = resolve(HOST, names=names, sets=none)
    assert named.config.variant == "no-attention"
    assert "on the preset mine" in named.note
    config = resolve(HOST, names=names).config
    again = type(config).model_validate(json.loads(config.model_dump_json()))
    assert again == config
    assert described(again) == ["The network as the preset has it, with self-attention"]
    by_hand = resolve(
        HOST, preset="quick", sets=["model.width=8", "run.steps=6"]
    ).config.model_dump(exclude={"preset", "meant", "run"})
    mine = config.model_dump(exclude={"preset", "meant", "run"})
    assert mine["model"] == by_hand["model"]


def test_it_is_chosen_on_the_command_line(capsys: Out) -> None:
    written(TWO)
    show = ["show", "config", "--preset-file", "mine.toml", "--json"]
    assert run(*show, "--preset", "wide") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["model"]["width"] == 16
    assert shown["origins"]["model.width"] == "preset wide"
    assert run(*show) == cli.USAGE
    assert run(*show, "--preset", "nosuch") == cli.USAGE
    assert "no preset is called 'nosuch'" in capsys.readouterr().err
    assert run("show", "config", "--preset", "wide") == cli.USAGE
    Path("run.toml").write_text('preset = "wide"\n')
    assert run(*show, "--config", "run.toml") == 0
    assert run("show", "config", "--preset-file", "nosuch.toml") == cli.USAGE


def study(**more: Any) -> Any:
    Path("study.toml").write_text('preset-file = "mine.toml"\n' + FILE)
    return load("study.toml", **more)


def test_a_study_names_a_file(capsys: Out) -> None:
    written()
    known = study()
    assert (known.preset, list(known.presets)) == ("mine", ["mine"])
    assert known.config("no-attention", 0, HOST).config.model.width == 8
    assert known.measure.metric == "twin_rate"
    command = ["ablate", "study.toml", *SETS]
    assert run(*command, "--dry-run") == 0
    stored = StudyManifest.begun(known, HOST, "f")
    stored.write(Path("runs/study"))
    Path("mine.toml").unlink()
    read = StudyManifest.of(Path("runs/study"))
    assert read is not None
    assert read.study.config("sagan", 0, HOST) == known.config("sagan", 0, HOST)
    written(MINE.replace("width = 8", "width = 16"))
    with pytest.raises(UserError, match=r"presets\.mine\.model\.width: 8 here, 16 asked"):
        read.refuse_other(study(), Path("runs/study"))
    read.refuse_other(read.study, Path("runs/study"))
    Path("study.toml").write_text("preset-file = 3\n" + FILE)
    assert run(*command, "--dry-run") == cli.USAGE
    assert "preset-file: expected a file" in capsys.readouterr().err


def test_a_shipped_study_and_a_search_begin_with_it(capsys: Out) -> None:
    written(MINE.replace('data.source = "twins"\n', ""))
    assert run("ablate", "quick", "--preset-file", "mine.toml", *SETS, "--dry-run") == 0
    Path("space.toml").write_text(SPACE.replace("low = 1e-4", "low = 1e-5"))
    assert run("tune", "--preset-file", "mine.toml", *SETS) == cli.USAGE
    assert "no space is shipped for preset mine" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_of_it_are_read_without_the_file(capsys: Out) -> None:
    written()
    assert run("train", "--preset-file", "mine.toml", *SETS, "--out", "run") == 0
    tune = ["tune", "--preset-file", "mine.toml", "--space", "space.toml", "--trials", "1"]
    Path("space.toml").write_text(SPACE.replace("low = 1e-4", "low = 1e-5"))
    sets = [part for text in SETS if "run.steps" not in text for part in [text]]
    sets = [text for text in sets if text != "--set"]
    more = [part for text in sets for part in ("--set", text)]
    assert run(*tune, *more, "--no-confirm", "--in-process", "--name", "t") == 0
    Path("mine.toml").unlink()
    capsys.readouterr()
    assert run("show", "run") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "mine: Small and quick: data.source" in shown
    assert "differs from preset mine in" in shown
    for verb in (
        ["list", "--runs", "."], ["compare", "run", "--baseline", "run"], ["tune", "show", "t"],
        ["evaluate", "run", "--n-fake", "9"], ["sample", "run", "--n", "2"],
    ):  # fmt: skip
        assert run(*verb) == 0, verb
