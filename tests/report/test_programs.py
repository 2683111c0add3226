"""Runs that another program made, from their records to words and page."""

import json
from pathlib import Path

import pytest
from command_line import run
from example_programs import SOURCE, VALUES, leave_programs
from example_reports import leave_study

from sagan_bench.analysis.asking import about
from sagan_bench.analysis.comparison import Kind, findings
from sagan_bench.analysis.gathering import gather
from sagan_bench.analysis.question import Measure, Question
from sagan_bench.analysis.verdicts import Verdict
from sagan_bench.core.errors import UserError
from sagan_bench.report import caveats, collect, compared, publish
from sagan_bench.report.findings import findings as in_words
from sagan_bench.report.frames import Column
from sagan_bench.runs.finding import find_runs
from sagan_bench.runs.program import Better

Out = pytest.CaptureFixture[str]
FID = Measure(metric="fid", min_effect=2)
SHARPNESS = Measure(metric="sharpness", min_effect=0.001, better="higher")
PAIRS = (("attn8", "plain"),)


def printed(capsys: Out, *arguments: str, code: int = 0) -> str:
    ended, out = run(*arguments), capsys.readouterr()
    assert ended == code, out.err
    return out.out if code == 0 else out.err


@pytest.mark.parametrize("curve", [False, True])
def test_a_study_of_another_program_has_a_verdict_and_a_page(tmp_path: Path, curve: bool) -> None:
    folder = leave_programs(tmp_path / "runs", curve=curve)
    question = Question("mine", "Does it help?", FID, PAIRS, declared=True)
    numbers = findings(gather(find_runs(folder)), question)
    (comparison,) = numbers.primary.comparisons
    assert comparison.verdict is Verdict.BETTER_AS_MATTERS
    assert numbers.differences == {"attn8": [("attn", None, 8)]}
    words = in_words(numbers)
    assert words.budget == "1,000 steps"
    assert "attn8 is better than plain by as much as matters: fid -5.34" in words.headline[0]
    assert words.primary.title == "at the end (primary)"
    kinds = [reading.kind for reading in numbers.secondary]
    ways = [Kind.EQUAL_FLOPS, Kind.EQUAL_SECONDS, Kind.BEST] if curve else []
    assert kinds == [Kind.END, *ways]
    assert bool(numbers.by_budget) == curve
    document, pictures = collect.of_findings("mine", numbers)
    page = publish.publish(document, pictures, tmp_path / "page").read_text()
    for text in ("attn8 is better than plain by as much as matters", "sharpness ", SOURCE[:20]):
        assert text in page
    assert "averaged weights" not in page
    assert "? px" not in page
    assert ("By budget" in page) == ("FLOPs" in page) == curve
    for what in ("Images/s", "Parameters", "Data: not known", "protocol</summary>", "FID", "γ"):
        assert what not in page
    assert publish.again(tmp_path / "page" / "data" / "report.json")[0].name == "mine"


def test_a_metric_that_no_registry_knows_goes_the_way_it_says(tmp_path: Path) -> None:
    """Sharper is better: the same runs by another metric of theirs, and its opposite."""
    ways: tuple[Better, Better] = ("higher", "lower")
    verdicts = {}
    for way in ways:
        folder = leave_programs(tmp_path / way, better={"sharpness": way})
        measure = SHARPNESS.model_copy(update={"better": way})
        question = Question("mine", "?", measure, PAIRS, declared=True)
        numbers = findings(gather(find_runs(folder)), question)
        verdicts[way] = numbers.primary.comparisons[0].verdict
        assert numbers.primary.how.label == "sharpness"
        assert not numbers.primary.how.blind_to
    assert verdicts == {"higher": Verdict.BETTER_AS_MATTERS, "lower": Verdict.WORSE_AS_MATTERS}


def test_a_metric_of_ours_keeps_its_own_direction(tmp_path: Path) -> None:
    folder = leave_programs(tmp_path, better={"fid": "higher"})
    numbers = about(gather(find_runs(folder)), "plain", "fid")
    assert numbers.primary.how.better == "lower"
    assert numbers.primary.how.label == "fid"


def test_seconds_of_runs_that_shared_a_device_are_withheld(tmp_path: Path) -> None:
    folder = leave_programs(tmp_path, curve=True, cells_on_device=2)
    numbers = about(gather(find_runs(folder)), "plain")
    assert all(variant.shared_device for variant in numbers.variants)
    seconds = next(r for r in numbers.secondary if r.kind is Kind.EQUAL_SECONDS)
    assert not seconds.comparisons


def test_a_measure_of_another_program_needs_a_direction() -> None:
    with pytest.raises(ValueError, match="better = 'lower' or 'higher'"):
        Measure(metric="sharpness", min_effect=1)
    with pytest.raises(ValueError, match="of fid lower is better"):
        Measure(metric="fid", min_effect=1, better="higher")
    assert "better" not in FID.model_dump(mode="json")
    assert SHARPNESS.model_dump(mode="json")["better"] == "higher"


def test_our_runs_and_theirs_are_never_put_together(tmp_path: Path) -> None:
    leave_programs(tmp_path / "theirs")
    leave_study(tmp_path / "ours", pictures=False)
    with pytest.raises(UserError, match="made by another program"):
        gather(find_runs(tmp_path), loose=True)


def test_two_settings_of_a_variant_are_refused(tmp_path: Path) -> None:
    folder = leave_programs(tmp_path, {"attn8": [24.0, 25.0]})
    (other,) = list(folder.glob("attn8-s1-*"))
    stored = json.loads((other / "record.json").read_text())
    stored["config"]["program"]["values"]["attn"] = 16
    del stored["sha256"]
    (other / "record.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="attn: 8 and 16"):
        gather(find_runs(folder))


def test_runs_that_all_diverged_have_a_page(tmp_path: Path) -> None:
    folder = leave_programs(tmp_path / "runs", {**VALUES, "attn8": [None] * 5}, curve=True)
    question = Question("mine", "?", FID, PAIRS, declared=True)
    numbers = findings(gather(find_runs(folder)), question)
    assert numbers.primary.comparisons[0].verdict is Verdict.WORSE_BY_DIVERGENCE
    document, pictures = collect.of_findings("mine", numbers)
    publish.publish(document, pictures, tmp_path / "page")


def test_what_is_not_known_of_their_figures_is_said(tmp_path: Path) -> None:
    folder = leave_programs(tmp_path)
    numbers = about(gather(find_runs(folder)), "plain")
    said = list(caveats.of_study(in_words(numbers), numbers.runs.attempted, 0))
    assert f"Figures are as {SOURCE} gives them: how they were measured is not known here." in said


@pytest.mark.parametrize("form", ["--json", "--csv", "--latex", "--markdown", None])
@pytest.mark.parametrize("curve", [False, True])
def test_compare_lists_and_shows_them(
    tmp_path: Path, capsys: Out, form: str | None, curve: bool
) -> None:
    folder = leave_programs(tmp_path / "runs" / "mine", curve=curve)
    text = printed(capsys, "compare", str(folder), "--baseline", "plain", *filter(None, [form]))
    assert "attn8" in text
    assert "post hoc" in text
    if form is None:
        assert "attn8 differs in attn null → 8" in text
        assert "Figures are as python train.py" in text
        for cost in ("parameters", "GFLOPs a step", "seconds"):
            assert (cost in text) == (curve and cost != "parameters")
    listed = printed(capsys, "list", "--runs", str(tmp_path / "runs"))
    assert "FID" not in listed
    assert "fid" in listed
    assert "sharpness" in listed
    assert "[None]" not in listed
    assert " n " not in listed
    told = json.loads(printed(capsys, "list", "--runs", str(tmp_path / "runs"), "--json"))
    assert {row["n_fake"] for row in told} == {None}
    path = next(folder.glob("attn8-s0-*"))
    shown = printed(capsys, "show", str(path))
    assert "made by: python train.py" in shown
    assert "attn = 8" in shown
    assert "samples" not in shown
    assert f"{path / 'out'}\n" in shown
    assert f"{path / 'log.txt'}\n" in shown


def test_costs_that_no_run_tells_are_no_columns_nor_readings(tmp_path: Path) -> None:
    folder = leave_programs(tmp_path, curve=True, flops_per_step=None)
    numbers = about(gather(find_runs(folder)), "plain")
    assert Kind.EQUAL_FLOPS not in [reading.kind for reading in numbers.secondary]
    assert {curve.unit for curve in numbers.by_budget} == {"steps", "seconds"}
    rows = compared.variants(in_words(numbers))
    keys = ("parameters", "flops_per_step", "train_sec", "images_per_sec")
    assert [c.key for c in compared.known([Column(key) for key in keys], rows)] == ["train_sec"]


def test_runs_of_another_program_have_a_page_by_report(
    tmp_path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = leave_programs(tmp_path / "runs" / "mine")
    printed(capsys, "report", str(folder), "--baseline", "plain")
    assert (tmp_path / "reports" / "mine" / "index.html").exists()


def test_a_metric_that_is_none_of_theirs_is_refused(tmp_path: Path, capsys: Out) -> None:
    folder = str(leave_programs(tmp_path))
    said = printed(capsys, "compare", folder, "--baseline", "plain", "--metric", "sharpnes", code=2)
    assert "--metric sharpnes: did you mean 'sharpness'" in said
