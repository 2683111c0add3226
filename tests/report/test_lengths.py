"""Runs of different length side by side: on the page, in the terminal, in files, from Python."""

import csv
import json
import re
from collections.abc import Callable
from functools import partial
from html import unescape
from pathlib import Path

import command_line
import example_programs
import pytest
from example_reports import leave_run, score, settings

import sagan_bench as sb
from sagan_bench import cli
from sagan_bench.core.errors import UserError
from sagan_bench.report import publish
from sagan_bench.report.verdict import SideBySide

Out = pytest.CaptureFixture[str]
compare = partial(command_line.run, "compare")
report = partial(command_line.run, "report")
VERDICTS = re.compile(
    r"\b(better|worse|verdict|wins|claim|confirmatory|exploratory|provisional|inconclusive|"
    r"pairs ahead|interval|significant)\b",
    re.IGNORECASE,
)


def text_of(page: Path) -> str:
    """Return what a reader of a page reads."""
    bare = re.sub(r"<(style|script|svg)\b.*?</\1>", "", page.read_text(), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def leave(name: str, steps: int, value: float = 0.4, seed: int = 0, *sets: str) -> Path:
    """Leave a run of sagan in runs/ that has scores on the way at each sixth of its steps."""
    config = settings("sagan", seed, [f"run.steps={steps}", *sets])
    return leave_run(Path("runs") / name, config, value, pictures=False)


@pytest.fixture
def pair() -> list[str]:
    """Two runs of which one is twice as long, by batches of half the size."""
    return [
        str(leave("short", 600, 0.3)),
        str(leave("long", 1200, 0.5, 0, "training.batch_size=32")),
    ]


def test_the_page_has_both_each_figure_with_its_step_and_no_verdict(pair: list[str]) -> None:
    assert report(*pair, "--out", "mine") == 0
    text = text_of(Path("mine/index.html"))
    assert not VERDICTS.findall(text)
    assert "2 runs of 600 and 1,200 steps, side by side" in text
    for told in ("training.batch_size 64 32", "sagan, 600 steps 1 600 215.0", "1,200 185.0"):
        assert told in text, told
    assert "At step 600, scores on the way" in text
    document = json.loads(Path("mine/data/report.json").read_text())
    curves = {s["variant"]: s["steps"] for s in document["series"] if s["name"] == "twin_rate"}
    assert curves == {
        "sagan, 600 steps": [100, 200, 300, 400, 500, 600],
        "sagan, 1,200 steps": [200, 400, 600, 800, 1000, 1200],
    }
    assert "fig-twin-rate.svg" in {file.name for file in Path("mine/data").iterdir()}


def test_the_page_again_from_its_data_has_the_same_bytes(pair: list[str]) -> None:
    assert report(*pair, "--out", "mine") == 0
    before = {file: file.read_bytes() for file in Path("mine").rglob("*.*")}
    publish.again(Path("mine/data/report.json"))
    assert {file: file.read_bytes() for file in Path("mine").rglob("*.*")} == before
    assert command_line.run("verify", "mine/data/report.json") == 0


def test_the_terminal_says_no_verdict_and_lists_other_steps(pair: list[str], capsys: Out) -> None:
    assert compare(*pair) == 0
    text = capsys.readouterr().out
    assert not VERDICTS.findall(text)
    assert "All have scores on the way at 200, 400 too: --at-step N shows those." in text


@pytest.mark.parametrize(("step", "short", "long"), [(None, 0.3, 0.25), (200, 0.1, 0.5 / 6)])
def test_scores_at_equal_step_are_those_of_the_curves(
    pair: list[str], step: int | None, short: float, long: float, capsys: Out
) -> None:
    assert compare(*pair, "--json", *(["--at-step", str(step)] if step else [])) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["at_step"] == (step or 600)
    (of,) = found["on_the_way"]
    assert (of["label"], of["n_fake"]) == ("twin_rate", 512)
    assert of["values"] == pytest.approx([short, long])
    assert {run["step"] for run in found["runs"]} == {600, 1200}


@pytest.mark.parametrize("verb", [compare, report])
def test_a_step_that_not_all_have_is_refused_with_those_that_they_have(
    pair: list[str], verb: Callable[..., int], capsys: Out
) -> None:
    assert verb(*pair, "--at-step", "1200") == cli.USAGE
    assert "they have those at 200, 400, 600" in capsys.readouterr().err


def test_without_a_common_step_curves_are_overlaid_and_that_is_said(capsys: Out) -> None:
    paths = [str(leave("a", 600)), str(leave("b", 6006))]
    assert report(*paths, "--out", "mine") == 0
    told = "no step at which every run has a score on the way"
    assert told in text_of(Path("mine/index.html"))
    assert compare(*paths, "--at-step", "600") == cli.USAGE
    assert "they share no step" in capsys.readouterr().err


def test_figures_of_two_protocols_are_never_in_one_column(capsys: Out) -> None:
    for name, steps, n_fake in (("a", 600, 2048), ("b", 1200, 4096)):
        config = settings("sagan", 0, [f"run.steps={steps}"])
        leave_run(Path("runs") / name, config, 0.4, scores=[score(0.4, steps, n_fake=n_fake)])
    assert compare("runs/a", "runs/b", "--json", "--metric", "fid") == 0
    first, other = json.loads(capsys.readouterr().out)["final"]
    assert [value is None for value in (*first["values"], *other["values"])] == [
        False, True, True, False,
    ]  # fmt: skip
    assert first["fingerprint"] != other["fingerprint"]
    assert compare("runs/a", "runs/b", "--csv") == 0
    header = next(csv.reader(capsys.readouterr().out.splitlines()))
    assert len([name for name in header if name.startswith("FID[effnet-lite0]")]) == 2
    assert compare("runs/a", "runs/b") == 0
    assert "of several protocols" in capsys.readouterr().out


def test_a_lost_run_is_counted_and_hides_no_step(pair: list[str], capsys: Out) -> None:
    config = settings("sagan", 1, ["run.steps=600"])
    lost = leave_run(Path("runs/lost"), config, None)
    assert compare(*pair, str(lost)) == 0
    text = capsys.readouterr().out
    assert "1 of 2 runs of sagan, 600 steps diverged." in text
    assert "At step 600" in text


def test_files_and_tables_have_labels_and_are_escaped(pair: list[str], capsys: Out) -> None:
    assert compare(*pair, "--latex") == 0
    latex = capsys.readouterr().out
    assert r"twin\_rate, at step 600" in latex
    assert compare(*pair, "--markdown") == 0
    assert r"FID\[effnet-lite0\]" in capsys.readouterr().out


def test_a_baseline_comes_first_and_an_unknown_one_is_refused(pair: list[str], capsys: Out) -> None:
    assert compare(*pair, "--baseline", pair[1], "--json") == 0
    assert json.loads(capsys.readouterr().out)["variants"][0] == "sagan, 1,200 steps"
    assert compare(*pair, "--baseline", "wider") == cli.USAGE
    assert "there is no run of it" in capsys.readouterr().err
    assert compare(*pair, "--min-effect", "1") == cli.USAGE
    assert "are not compared" in capsys.readouterr().err


def test_runs_that_began_with_others_weights_are_called_so(capsys: Out) -> None:
    begun = "training.init_sha256=" + "ab" * 32
    plain = str(leave("plain", 600))
    for steps, ending in ((600, "nothing can be claimed"), (1200, "side by side")):
        fine = str(leave(f"fine{steps}", steps, 0.5, 0, begun))
        assert compare(plain, fine, "--baseline", "sagan") == 0
        said = capsys.readouterr().out
        assert "Runs of sagan (fine-tuned) began with" in " ".join(said.split())
        assert ending in said
        assert report(plain, fine, "--baseline", "sagan", "--out", f"page{steps}") == 0
        assert "Runs of sagan (fine-tuned) began with the weights of another run" in text_of(
            Path(f"page{steps}/index.html")
        )


def test_runs_of_one_length_and_studies_have_no_step_of_their_own(capsys: Out) -> None:
    paths = [str(leave("a", 600)), str(leave("b", 600, 0.5, 1))]
    assert compare(*paths, "--baseline", "sagan", "--at-step", "600") == cli.USAGE
    assert "--at-step: it is for runs of different length" in capsys.readouterr().err


def test_from_python_the_same_figures_come_as_tables(pair: list[str]) -> None:
    found = sb.compare(*pair)
    assert isinstance(found, SideBySide)
    assert found.at_step == 600
    assert list(found.figures.steps) == [600, 1200]
    assert "training.batch_size" in set(found.differences.setting)
    assert not VERDICTS.findall(repr(found) + found._repr_html_())
    with pytest.raises(UserError, match="they have those at 200, 400, 600"):
        sb.compare(*pair, at_step=7)


def test_runs_of_another_program_stand_side_by_side_too(
    monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    example_programs.leave_programs(Path("runs/a"), {"plain": [30.0]}, curve=True)
    monkeypatch.setattr(example_programs, "STEPS", 2000)
    example_programs.leave_programs(Path("runs/b"), {"attn8": [25.0]}, curve=True)
    assert report("runs/a", "runs/b", "--out", "mine") == 0
    text = text_of(Path("mine/index.html"))
    assert "2 runs of 1,000 and 2,000 steps, side by side" in text
    assert not VERDICTS.findall(capsys.readouterr().out)
    assert compare("runs/a", "runs/b", "--json", "--metric", "fid") == 0
    found = json.loads(capsys.readouterr().out)
    assert [of["values"] for of in found["on_the_way"]] == [[30.0, 50.0]]
    assert list(found["differing"]) == ["run.steps", "attn"]
