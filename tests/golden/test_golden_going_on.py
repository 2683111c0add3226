"""What older code began goes on to its end."""

import json
from pathlib import Path
from typing import Any

import begin
import doors
import goldens
import observed
import pytest
import test_golden_runs

SOME_SLOW = [
    code if code == observed.CODES[0] else pytest.param(code, marks=pytest.mark.slow)
    for code in observed.CODES
]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder but for locks."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not file.name.endswith(".lock")
    }


def record(folder: Path) -> dict[str, Any]:
    """Return the record of a run."""
    return dict(json.loads((folder / "record.json").read_text()))


def trained(*changed: str) -> Path:
    """Train what older code began without an interruption, and return its folder."""
    command = [*begin.COMMANDS["stopped"], *changed]
    command[command.index("--out") + 1] = "uninterrupted"
    doors.said(*command)
    return Path("uninterrupted")


@pytest.mark.parametrize("code", observed.CODES)
def test_a_finished_run_stays_as_it_is(code: str, tmp_path: Path) -> None:
    with doors.plain_machine(tmp_path):
        folder = observed.unpacked("run", code)
        before = contents(folder)
        doors.said(*begin.COMMANDS["run"])
        after = contents(folder)
    for of in (before, after):
        config = json.loads(of.pop("config.json"))
        config.pop("sha256", None)  # a file of the first release has none, and is given one
        del config["config"]["run"]["keep_training_state"]  # as last asked for: auto by now
        of["config.json"] = json.dumps(config).encode()
    assert after == before


@pytest.mark.parametrize("code", SOME_SLOW)
def test_the_weights_of_a_finished_run_are_scored_as_they_were(code: str, tmp_path: Path) -> None:
    with doors.plain_machine(tmp_path):
        folder = observed.unpacked("run", code)
        before = record(folder)["scores"]
        doors.said("evaluate", str(folder), "--seeds", "0,1")
        after = record(folder)["scores"]
    assert len(after) == len(before) + 2  # averaged and raw weights, with the other noise
    keys = ("step", "weights", "sampling_seed", "final", "fingerprint")
    for score in before:
        (again,) = (one for one in after if all(one[key] == score[key] for key in keys))
        for figures in ("metrics", "floor"):
            goldens.alike(again[figures], score[figures], **test_golden_runs.FIGURES)


@pytest.mark.parametrize("code", observed.CODES)
def test_a_stopped_run_goes_on_from_its_checkpoint_to_what_it_would_have_been(
    code: str, tmp_path: Path
) -> None:
    with doors.plain_machine(tmp_path):
        folder = observed.unpacked("stopped", code)
        doors.said(*begin.COMMANDS["stopped"])
        resumed, whole = (observed.left(one) for one in (folder, trained()))
    assert [one["from_step"] for one in record(tmp_path / folder)["attempts"]] == [0, 3]
    assert resumed["metrics.jsonl"][-1]["step"] == 6
    for found in (resumed, whole):
        del found["files"]  # the first grid was not kept
        # Older code drew none in the first steps.
        found["diagnostics.jsonl"] = [row for row in found["diagnostics.jsonl"] if row["step"] > 3]
        assert found["diagnostics.jsonl"]
    test_golden_runs.alike(resumed, whole)


@pytest.mark.parametrize("code", SOME_SLOW)
def test_a_study_goes_on_with_the_cells_that_it_lacks(code: str, tmp_path: Path) -> None:
    with doors.plain_machine(tmp_path):
        folder = observed.unpacked("study", code)
        done = {run.parent for run in folder.glob("*-s0-*/record.json")}
        before = {run: contents(run) for run in done}
        doors.said(*begin.COMMANDS["study"])
        assert len(done) == 2
        assert {run: contents(run) for run in done} == before
        runs = sorted(folder.glob("*-s1-*"))
        assert [record(run)["status"] for run in runs] == ["finished", "finished"]
        changed = ("--seed", "1", *doors.sets("run.steps=2", "run.eval_every=2"))
        whole, found = observed.left(trained(*changed)), observed.left(runs[1])
    assert found["digest"] == whole["digest"]
    goldens.alike(found["weights"], whole["weights"], **test_golden_runs.WEIGHTS)


def trials(folder: Path) -> list[dict[str, Any]]:
    """Return what is said of the trials of the only search of a tuning."""
    told = json.loads(doors.said("tune", "show", str(folder), "--json"))
    return [*told["searches"][0]["trials"]]


def goes_on(code: str, command: list[str]) -> None:
    """Fail if a tuning does not go on with the trials that it lacks."""
    folder = observed.unpacked("tuning", code)
    done = sorted(folder.glob("sagan-0/t000[01]-*"))
    before, told = [contents(one) for one in done], trials(folder)
    assert [one["outcome"] for one in told[:2]] == ["complete", "complete"]
    doors.said(*command)
    assert [contents(one) for one in done] == before
    after = trials(folder)
    assert after[:2] == told[:2]
    assert [one["outcome"] for one in after] == ["complete"] * 4
    assert after[2]["params"] == told[2]["params"]
    assert len(list(folder.glob("sagan-0/t000?-s0-*"))) == 4


@pytest.mark.parametrize("code", observed.CODES)
def test_a_tuning_keeps_its_trials_and_goes_on(code: str, tmp_path: Path) -> None:
    command = [word for word in begin.COMMANDS["tuning"] if word != "--in-process"]
    with doors.plain_machine(tmp_path), doors.untrained(lambda config, step: 400.0 + config.seed):
        goes_on(code, command)


@pytest.mark.slow
@pytest.mark.parametrize("code", observed.CODES)
def test_a_tuning_goes_on_with_real_runs(code: str, tmp_path: Path) -> None:
    with doors.plain_machine(tmp_path):
        goes_on(code, begin.COMMANDS["tuning"])
