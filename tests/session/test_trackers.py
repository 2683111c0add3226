"""Trackers: what they are told, that it changes nothing, and that their errors end no run."""

import json
import random
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import command_line
import numpy as np
import pytest
import torch
from example_runs import SMALL
from own_components import loaded

from sagan_bench import cli
from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.experiments import conformance
from sagan_bench.runs.records import Status
from sagan_bench.session import experiment
from sagan_bench.session.events import Stopped
from sagan_bench.session.trackers import RunFacts
from sagan_bench.session.trackers._telling import Trackers

SCORED = ["run.score_weights=['ema']", "run.eval_every=3", "run.eval_images=10"]
OWN = Path(__file__).parents[1] / "own" / "diary.py"


@pytest.fixture
def _diary() -> Iterator[None]:
    with loaded("diary"):
        yield


def config(*sets: str) -> RunConfig:
    host = Host(bf16=False, extractor="efficientnet-lite0")
    return resolve(host, sets=[*SMALL, "run.score_weights=[]", *sets]).config


def told(folder: Path) -> list[list[Any]]:
    return [json.loads(line) for line in (folder / "diary.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("_diary")
def test_a_tracker_is_told_and_changes_nothing(tmp_path: Path) -> None:
    bare = experiment.run(config(*SCORED), out=tmp_path / "bare")
    followed = experiment.run(config(*SCORED, "run.track=diary"), out=tmp_path / "followed")
    assert followed.config_digest == bare.config_digest
    for file in ("weights.pt", "samples/step-00000006.png"):
        contents = [(tmp_path / name / file).read_bytes() for name in ("bare", "followed")]
        assert contents[0] == contents[1]
    rows = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("bare", "followed")]
    assert [json.loads(text)["loss_d"] for text in rows[0].splitlines()] == [
        json.loads(text)["loss_d"] for text in rows[1].splitlines()
    ]
    known = told(tmp_path / "followed")
    assert known[0] == ["begin", 0, ["diary"]]
    assert known[-1] == ["end", None, "finished"]
    names = [name for what, _, names in known if what == "scalars" for name in names]
    assert {"loss_d", "on the way/FID[effnet-lite0]", "final/twin_rate"} <= set(names)
    assert not [name for name in names if name.endswith("FID")]
    pictures = [(step, name) for what, step, name in known if what == "pictures"]
    assert pictures[-1] == (6, "step-00000006.png")


@pytest.mark.usefixtures("_diary")
def test_what_a_tracker_draws_and_sets_is_set_back(tmp_path: Path) -> None:
    def chance() -> tuple[Any, ...]:
        drawn = np.random.get_state(legacy=True)
        return random.getstate(), str(drawn), torch.get_rng_state().tolist()

    before, threads = chance(), torch.get_num_threads()
    run = RunFacts("run", tmp_path, "sagan", 0, "d", 0, {"run": {"track": []}})
    trackers = Trackers(["diary"], run)
    trackers.scalars(1, values := {"loss_d": 1.0})
    trackers.end(Status.FINISHED)
    assert len(told(tmp_path)) == 3
    assert (chance(), torch.get_num_threads()) == (before, threads)
    assert values == {"loss_d": 1.0}  # it emptied its copy


@pytest.mark.usefixtures("_own_file")
def test_a_file_of_trackers_that_is_gone_or_broken_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    extension = extensions.load(Path("mine.py"))
    own = {"mine": extension.described}
    extensions.forget("mine")
    assert extensions.require(own, Path("run")) == []
    Path("run/own").mkdir(parents=True)
    Path("run/own/mine.py").write_text("import gone")
    assert extensions.require(own, Path("run")) == []
    extensions.load_again(replace(extension, content=b"import gone"))
    warnings = [text for text in caplog.messages if "runs go on without its trackers" in text]
    assert len(warnings) == 2
    with pytest.raises(UserError, match="block"):  # what results depend on is needed
        extensions.require({"block": {"sha256": "0", "components": {"ATTENTION/x": {}}}})


@pytest.mark.usefixtures("_own_file")
def test_one_that_cannot_take_what_it_is_told_is_refused_before_the_run() -> None:
    assert {each.severity for each in conformance.check(extensions.load(Path("mine.py")))} == {"ok"}
    whole = "def scalars(self, step: int, values: Mapping[str, float])"
    text = OWN.read_text()
    assert whole in text
    Path("mine.py").write_text(text.replace(whole, "def scalars(self, step: int)"))
    findings = conformance.check(extensions.load(Path("mine.py")))
    (wrong,) = [each for each in findings if each.severity == "error"]
    assert "too many positional arguments" in wrong.what
    assert wrong.do.startswith("write def scalars(self, step: int, values")


@pytest.mark.usefixtures("_diary")
@pytest.mark.parametrize("where", ["begin", "scalars", "pictures", "end"])
def test_one_that_raises_is_logged_once_and_the_run_goes_on(
    where: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"raise-in-{where}").touch()
    record = experiment.run(config("run.track=diary"), out=tmp_path / "run")
    assert (record.status, record.step) == ("finished", 6)
    (line,) = [text for text in caplog.messages if "tracker diary" in text]
    assert "ValueError: no room in the diary; it is told nothing more" in line
    assert told(tmp_path / "run")[-1][0] == where


@pytest.mark.usefixtures("_diary")
def test_a_run_that_goes_on_tells_no_step_twice_but_what_comes_after_its_checkpoint(
    tmp_path: Path,
) -> None:
    asked = iter([None, None, None, "enough"])
    with pytest.raises(Stopped):
        experiment.run(config("run.track=diary"), out=tmp_path, stop=lambda: next(asked))
    assert told(tmp_path)[-1] == ["end", None, "interrupted"]
    experiment.run(config("run.track=diary"), out=tmp_path)
    known = told(tmp_path)
    assert [step for what, step, _ in known if what == "begin"] == [0, 4]
    rows = [(step, tuple(names)) for what, step, names in known if what == "scalars"]
    assert len(rows) == len(set(rows))
    assert known[-1] == ["end", None, "finished"]


@pytest.mark.slow
def test_tensorboard_shows_each_step_once_after_a_kill(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sets = ["run.tensorboard=true", "run.log_every=1", "run.checkpoint_every=4"]
    wanted = config(*SCORED, *sets)

    def killed(event: object) -> None:
        if getattr(event, "step", 0) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.run(wanted, out=tmp_path, watch=killed)
    experiment.run(wanted, out=tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [each.step for each in events.Scalars("loss_d")] == [1, 2, 3, 4, 5, 6]
    assert [each.step for each in events.Scalars("final/FID[effnet-lite0]")] == [6]
    assert [each.step for each in events.Scalars("on the way/FID[effnet-lite0]")] == [3, 6]
    assert events.Images("samples")[-1].step == 6


def test_what_is_no_tracker_is_refused_with_the_closest() -> None:
    with pytest.raises(UserError, match=r"run\.track = .*no tracker is called 'tensorbord'"):
        config("run.track=tensorbord")
    assert config("run.tensorboard=true", "run.track=tensorboard").run.trackers == ("tensorboard",)


def test_one_without_its_package_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install 'sagan-bench\[tensorboard\]'"):
        experiment.run(config("run.tensorboard=true"), out=tmp_path)
    assert not (tmp_path / "record.json").exists()


@pytest.fixture
def _own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    shutil.copy(OWN, "mine.py")
    yield
    extensions.forget("mine")


def train(*more: str) -> int:
    asked = [*SMALL, "run.score_weights=[]", "training.precision=fp32"]  # as `config` has it
    sets = [part for text in asked for part in ("--set", text)]
    return command_line.run("train", *sets, "--out", "run", *more)


@pytest.mark.slow
@pytest.mark.usefixtures("_own_file")
def test_what_a_file_has_is_used_and_another_version_of_it_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train("--with", "mine.py", "--set", "run.keep_training_state=true") == 0
    record = json.loads(Path("run/record.json").read_text())
    assert record["config"]["run"]["track"] == ["diary"]
    assert record["config_digest"] == config().digest(record["data"]["fingerprint"])
    capsys.readouterr()

    extensions.forget("mine")  # as another process, which reads what is there without that code
    for verb in (["show", "run"], ["list", "--runs", "."], ["sample", "run", "--n", "2"]):
        assert command_line.run(*verb) == 0
    assert "--with" not in capsys.readouterr().out
    assert "mine" not in extensions._known

    Path("mine.py").write_text(OWN.read_text() + "# another version\n")
    more = ["--set", "run.steps=8", "--set", "run.keep_training_state=true"]
    assert train("--with", "mine.py", *more) == 0
    assert [step for what, step, _ in told(Path("run")) if what == "begin"] == [0, 6]
    assert Path("run/own/mine.py").read_text().endswith("# another version\n")


@pytest.mark.slow
@pytest.mark.usefixtures("_own_file")
def test_the_runs_of_a_study_are_followed_and_it_stays_that_study() -> None:
    sets = [part for text in SMALL for part in ("--set", text)]
    study = ["ablate", "quick", "--only", "sagan", *sets, "--jobs", "1", "--engine", "processes"]
    assert command_line.run(*study, "--seeds", "0") == 0
    assert not list(Path("runs").glob("quick/*/diary.jsonl"))
    assert command_line.run(*study, "--seeds", "0-1", "--with", "mine.py") == 0
    (diary,) = Path("runs").glob("quick/*/diary.jsonl")
    assert diary.parent.name.startswith("sagan-s1-")
    assert told(diary.parent)[-1] == ["end", None, "finished"]


@pytest.mark.usefixtures("_own_file")
def test_the_example_of_the_manual_follows_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    manual = Path(cli.__file__).parents[2] / "docs" / "tracking.md"
    (code,) = re.findall(r"```python\n(.*?)```", manual.read_text(), re.DOTALL)
    Path("mine.py").write_text(code)
    mlflow = MagicMock()
    mlflow.start_run.return_value.info.run_id = "7"
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    assert train("--with", "mine.py") == 0
    mlflow.start_run.assert_called_once_with(run_id=None, run_name="run")
    assert Path("run/mlflow.id").read_text() == "7"
    told = {name for call in mlflow.log_metrics.call_args_list for name in call.args[0]}
    assert "loss_d" in told
    mlflow.log_artifact.assert_called_with("run/samples/step-00000006.png", "samples")
    mlflow.end_run.assert_called_once_with("FINISHED")
