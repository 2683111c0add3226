"""Finished runs of a study scored once more: what is missing, and that no verdict moves."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from example_records import stored
from example_reports import leave_study, score
from example_runs import SMALL
from example_studies import FILE

from sagan_bench import cli
from sagan_bench.analysis import asking
from sagan_bench.analysis.gathering import gather
from sagan_bench.config.layers import override
from sagan_bench.config.schema import RunConfig
from sagan_bench.core.locks import holding
from sagan_bench.experiments import rescoring
from sagan_bench.experiments.findings import of_study
from sagan_bench.report import collect, publish
from sagan_bench.report.verification import verified
from sagan_bench.runs import records
from sagan_bench.runs.finding import find_runs
from sagan_bench.runs.run import Run
from sagan_bench.session.events import Stopped, Watch
from sagan_bench.session.rescoring import _with, lacking

SETS = [part for text in SMALL for part in ("--set", text)]
Out = pytest.CaptureFixture[str]


def add_scores(folder: Path, seeds: range, shift: float, runs: int | None = None) -> None:
    """Leave scores of further sampling seeds, by which the effect would be another."""
    for path in find_runs(folder)[:runs]:
        record = records.read(path)
        value = record.scores[-2].metrics["twin_rate"]
        assert value is not None
        sign = 1 if record.variant == "sagan" else -1
        more = [
            score(value + sign * shift + 0.01 * seed, record.step, sampling_seed=seed)
            for seed in seeds
        ]
        changed = record.model_copy(update={"scores": (*record.scores, *more)})
        (path / records.RECORD).write_bytes(changed.to_json())


@pytest.mark.parametrize("declared", [(0,), (0, 1)])
def test_sampling_seeds_added_after_looking_move_no_verdict(
    tmp_path: Path, declared: tuple[int, ...]
) -> None:
    sets = [f"evaluation.sampling_seeds={list(declared)}"]
    folder = leave_study(tmp_path / "quick", sets=sets, pictures=False)
    add_scores(folder, range(1, len(declared)), shift=0)
    before = of_study(folder)
    add_scores(folder, range(len(declared), 5), shift=-0.2)
    after = of_study(folder)
    assert after.primary == before.primary
    assert after.secondary == before.secondary
    assert after.variants == before.variants
    assert after.protocol["sampling_seed"] == list(declared)
    assert [of.sd for of in after.spreads] == [of.sd for of in before.spreads]
    assert {(of.samples, of.drawn, of.repeated) for of in after.spreads} == {(len(declared), 5, 5)}


def test_scored_again_a_protocol_stands_where_it_stood() -> None:
    first, second = (score(0.5, 6, sampling_seed=seed) for seed in (0, 1))
    again = first.model_copy(update={"metrics": {"twin_rate": 0.6}})
    kept = _with((first, second), again)
    assert [of.sampling_seed for of in kept] == [0, 1]
    assert kept[0].metrics == first.metrics | {"twin_rate": 0.6}


def test_a_report_says_on_which_seeds_verdicts_rest_and_verify_agrees(tmp_path: Path) -> None:
    folder = leave_study(tmp_path / "quick", pictures=False)
    add_scores(folder, range(1, 5), shift=-0.2, runs=3)
    document, pictures = collect.of_study(folder)
    page = publish.publish(document, pictures, tmp_path / "page")
    text = page.read_text()
    assert (
        "3 of 10 runs are scored with up to 5 sampling seeds; verdicts rest on the 1 that the "
        "study declared." in text
    )
    assert "by 3 of its 5 runs" in text
    assert "One more sampling seed costs at most 30 s a run, one more run 4 min" in text
    assert verified(page.parent / "data" / "report.json") == (1, [])


def test_where_drawing_is_not_known_the_page_names_the_command(tmp_path: Path) -> None:
    on = {"on": {"twins": {"metric": "fid", "min_effect": "5%"}}}
    folder = leave_study(tmp_path / "by-fid", changed=on, pictures=False)
    document, pictures = collect.of_study(folder)
    text = publish.publish(document, pictures, tmp_path / "page").read_text()
    assert "not known; python cli.py evaluate by-fid --seeds 0-4 makes it known" in text


def test_what_cannot_be_scored_together_is_refused(tmp_path: Path, capsys: Out) -> None:
    def says(text: str, what: Path) -> bool:
        assert run("evaluate", str(what), "--seeds", "0-4") == cli.USAGE
        return text in capsys.readouterr().err

    stored(tmp_path / "begun" / "a", status="interrupted")
    assert says("no run in", tmp_path / "begun")
    stored(tmp_path / "tuned" / "a")
    (tmp_path / "tuned" / "tuning.json").write_text("{}")
    assert says("is a tuning", tmp_path / "tuned")
    study = leave_study(
        tmp_path / "all" / "quick", {"no-attention": [0.1], "sagan": [0.2]}, pictures=False
    )
    assert says("is a study: name it by itself", tmp_path / "all")
    with holding(study / ".lock"):
        assert says("another process is running the study", study)
    manifest = json.loads((study / "study.json").read_text())
    of_command: dict[str, Any] = {
        "command": "train {seed} {out} {variant}", "preset": "quick", "set": {},
        "on": {"other": {"metric": "twin_rate", "min_effect": 0.05}},
    }  # fmt: skip
    manifest = {k: v for k, v in manifest.items() if k != "sha256"}
    manifest["study"] |= of_command
    (study / "study.json").write_text(json.dumps(manifest))
    assert says("those of a command", study)


def stopped_at_second(folder: Path) -> None:
    begun: list[Path] = []

    def follow(path: Path, number: int, count: int) -> Watch:
        assert (number, count) == (len(begun) + 1, 4)
        begun.append(path)
        return lambda event: None

    def wanted(config: RunConfig) -> RunConfig:
        return override(config, {"evaluation.sampling_seeds": ("--seeds", (0, 1, 2))})

    with pytest.raises(Stopped):
        rescoring.evaluate(folder, wanted, follow, lambda: "terminated" if begun[1:] else None)


def test_a_mistake_is_said_once_and_a_damaged_run_by_its_name(tmp_path: Path, capsys: Out) -> None:
    study = str(leave_study(tmp_path / "quick", {"no-attention": [0.1], "sagan": [0.2]}))
    assert run("evaluate", study, "--set", "training.lr_g=1") == cli.USAGE
    assert "only evaluation.*" in capsys.readouterr().err
    assert run("evaluate", study, "--seeds", "0-4") == cli.SOME_FAILED  # of no whole manifest
    said = capsys.readouterr()
    assert "scored:  0 of 2 finished runs\n" in said.out
    for path in find_runs(Path(study)):
        assert f"failed: {path}: damaged record.json" in said.err


@pytest.mark.slow
def test_a_study_is_scored_where_it_lacks_scores(tmp_path: Path, capsys: Out) -> None:
    file = tmp_path / "small.toml"
    file.write_text(FILE)
    runs = tmp_path / "runs"
    again = ["evaluate", "small", "--runs", str(runs)]
    assert run("ablate", str(file), "--runs", str(runs), "--in-process", *SETS) == 0
    whole, bare, *_ = find_runs(runs / "small")
    capsys.readouterr()
    before = of_study(runs / "small").primary
    assert run(*again) == 0
    assert "0 of 4 finished runs" in capsys.readouterr().out
    stopped_at_second(runs / "small")
    (bare / "weights.pt").rename(tmp_path / "weights.pt")
    assert run(*again, "--seeds", "0-2") == cli.SOME_FAILED
    said = capsys.readouterr()
    assert "3/3" in said.err
    assert f"failed: {bare}" in said.err
    assert "scored:  2 of 4" in said.out
    first = records.read(whole)
    assert [s.sampling_seed for s in first.scores if s.final and s.weights == "ema"] == [0, 1, 2]
    assert lacking(Run(whole, first), Run(whole, first).config) == ()
    (tmp_path / "weights.pt").rename(bare / "weights.pt")
    assert run(*again, "--seeds", "0-2", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"finished": 4, "scored": [str(bare)], "failed": {}}
    assert "1/1" in said.err
    assert records.read(whole) == first
    after = of_study(runs / "small")
    assert after.primary == before
    assert {of.drawn for of in after.spreads} == {3}
    (runs / "small" / "study.json").unlink()  # a folder of runs, which are compared by all
    assert run(*again, "--seeds", "0-2") == 0
    assert "0 of 4 finished runs" in capsys.readouterr().out
    loose = asking.about(gather(find_runs(runs / "small"), loose=True), "no-attention", None, None)
    assert loose.protocol["sampling_seed"] == [0, 1, 2]
