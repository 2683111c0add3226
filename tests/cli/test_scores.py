"""A table of scores: read, refused, and judged, on the command line and in Python."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import run

import sagan_bench as sb
from sagan_bench.core.errors import UserError
from sagan_bench.report.document import Document, RunRow, read
from sagan_bench.runs.program import RESERVED

Out = pytest.CaptureFixture[str]
VALUES: dict[str, list[float | None]] = {
    "plain": [30.1, 31.4, 29.7, 30.8, 30.3],
    "attn": [24.9, 25.6, 24.1, 25.2, 25.8],
    "wide": [29.9, 31.0, 30.2, 30.6, 29.8],
    "tall": [39.0, 40.5, None, 38.7, 39.6],
}
DECLARED = ["--baseline", "plain", "--metric", "fid", "--min-effect", "1"]
TEXT = "variant,seed,fid\n" + "".join(
    f"{name},{seed},{'' if value is None else value}\n"
    for name, own in VALUES.items()
    for seed, value in enumerate(own)
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def compare(
    capsys: Out, text: str | bytes, *options: str, name: str = "scores.csv"
) -> tuple[int, str]:
    """Return the exit code of comparing a file of this content, and what was printed."""
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    code, out = run("compare", name, *options), capsys.readouterr()
    return code, out.err if code else out.out


def judged(capsys: Out, text: str | bytes, *options: str, name: str = "scores.csv") -> Any:
    code, said = compare(capsys, text, *options, "--json", name=name)
    assert code == 0, said
    return json.loads(said)


def verdicts(said: Any) -> dict[str, str | None]:
    return {c["variant"]: c["verdict"] for c in said["primary"]["comparisons"]}


def test_twenty_scores_give_a_verdict(capsys: Out) -> None:
    """Who gives metric, baseline and margin declares them; the family is all but the baseline."""
    said = judged(capsys, TEXT, *DECLARED)
    assert verdicts(said) == {
        "attn": "better by as much as matters",
        "wide": "inconclusive",
        "tall": "worse by as much as matters",
    }
    assert said["headline"][0].startswith("As declared on the command line: attn is")
    (tall,) = [c for c in said["primary"]["comparisons"] if c["variant"] == "tall"]
    assert (tall["n"], tall["n_ok"], tall["n_diverged"]) == (5, 4, 1)
    attn = said["primary"]["comparisons"][0]
    assert attn["p_bonferroni"] == pytest.approx(3 * attn["p"])


def test_the_words_say_whose_declaration_it_is(capsys: Out) -> None:
    said = compare(capsys, TEXT, *DECLARED)[1]
    assert "are as declared on the command line: no study shows that they were fixed" in said
    assert "Post hoc" not in said
    assert "differs in" not in said
    assert "Secondary" not in said


@pytest.mark.parametrize(
    "options", [["--baseline", "plain"], DECLARED[:4], [*DECLARED[:2], *DECLARED[4:]]]
)
def test_what_is_left_to_us_is_post_hoc(capsys: Out, options: list[str]) -> None:
    said = judged(capsys, TEXT, *options)
    assert set(verdicts(said).values()) == {None}
    assert not said["declared"]
    assert "post hoc" in said["headline"][1]


def test_looks_make_it_exploratory(capsys: Out) -> None:
    said = judged(capsys, TEXT, *DECLARED, "--looks", "2")
    assert set(verdicts(said).values()) == {None}
    assert "exploratory after 2 looks" in said["headline"][1]


def test_a_metric_of_somebody_elses_needs_a_direction(capsys: Out) -> None:
    text = TEXT.replace("fid", "my score %")
    options = [*DECLARED[:2], "--metric", "my score %", *DECLARED[4:]]
    code, said = compare(capsys, text, *options)
    assert (code, "say which values of my score % are, lower or higher" in said) == (2, True)
    ways = {"lower": "better by as much as matters", "higher": "worse by as much as matters"}
    for way, verdict in ways.items():
        said = judged(capsys, text, *options, "--better", way)
        assert verdicts(said)["attn"] == verdict
        assert said["primary"]["label"] == "my score %"
    assert compare(capsys, TEXT, *DECLARED, "--better", "higher")[0] == 2
    assert verdicts(judged(capsys, TEXT, *DECLARED, "--better", "lower"))["attn"]


def test_the_page_and_exports_of_a_table(capsys: Out) -> None:
    rows = [line + f",{i / 7},note {i}" for i, line in enumerate(TEXT.splitlines()[1:])]
    text = "\n".join(["variant,seed,fid,beauty,notes", *rows])
    compare(capsys, text, *DECLARED, "--report")
    folder = Path("reports/scores")
    document = read(folder / "data" / "report.json")
    assert isinstance(document, Document)
    assert document.runs[0].metrics.keys() == {"fid", "beauty"}
    page = (folder / "index.html").read_text()
    for words in ("1 better (attn)", "1 worse (tall)", "as declared on the command line", "beauty"):
        assert words in page
    for words in ("What differed", "Repeat it", "? px", "Images/s", "averaged weights (primary)",
                  "FID", "not recorded", "not known<", "Provenance", "protocol", "FLOP", "Budget",
                  "settled", "γ"):  # fmt: skip
        assert words not in page
    assert not document.environments
    names = {"comparisons.csv", "summary.csv", "summary.tex", "summary.md", "runs.csv"}
    assert names <= {file.name for file in (folder / "data").iterdir()}
    assert len(pd.read_csv(folder / "data" / "runs.csv")) == 20
    assert "scores" in Path("reports/index.html").read_text()


def test_the_terminal_says_nothing_that_a_table_does_not_say(capsys: Out) -> None:
    said = compare(capsys, TEXT, *DECLARED)[1]
    for words in ("not recorded", "Budget", "FLOP", "parameters", "seconds", "FID", "settled"):
        assert words not in said
    assert said.count("Figures are as scores.csv gives them") == 1
    post_hoc = compare(capsys, TEXT, "--baseline", "plain")[1]
    assert "\nNothing can be claimed.\n" in post_hoc
    assert "A table has a verdict where --metric and --min-effect declare" in post_hoc


@pytest.mark.parametrize("form", ["--csv", "--latex", "--markdown"])
def test_all_forms(capsys: Out, form: str) -> None:
    assert "attn" in compare(capsys, TEXT, *DECLARED, form)[1]


SAME: dict[str, Callable[[str], str | bytes]] = {
    "byte-order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "semicolons": lambda text: text.replace(",", ";"),
    "decimal commas": lambda text: text.replace(",", ";").replace(".", ","),
    "tabs": lambda text: text.replace(",", "\t"),
    "spaces": lambda text: text.replace(",", " , "),
    "Windows": lambda text: text.replace("\n", "\r\n"),
    "blank lines": lambda text: text.replace("\n", "\n\n") + "\n,,\n",
    "capitals": lambda text: text.replace("variant,seed", "Variant,SEED"),
    "an index": lambda text: "," + text.replace("\n", "\n7,", 20),
    "NaN": lambda text: text.replace("tall,2,", "tall,2,NaN"),
    "quotes": lambda text: text.replace("plain", '"plain"'),
    "seeds of a frame": lambda text: text.replace(",0,", ",0.0,"),
}


@pytest.mark.parametrize("how", SAME)
def test_the_same_table_in_another_dress(capsys: Out, how: str) -> None:
    plain = judged(capsys, TEXT, *DECLARED)
    other = judged(capsys, SAME[how](TEXT), *DECLARED)
    assert other["primary"]["comparisons"] == plain["primary"]["comparisons"]


WRONG: dict[str, tuple[Callable[[str], str | bytes], str]] = {
    "empty": (lambda text: "", "scores.csv is empty"),
    "only a header": (lambda text: text.splitlines()[0], "has no runs below its header"),
    "no seed": (lambda text: text.replace("seed", "run"), "has no column 'seed'; it has variant"),
    "no variant": (lambda text: text.replace("variant", "name"), "no column 'variant'"),
    "a text": (lambda text: text.replace("31.4", "n/a"), "line 3, column fid: 'n/a' is no number"),
    "infinity": (lambda text: text.replace("31.4", "1e999"),  "fid: '1e999' is beyond 1e+100"),
    "a word for it": (lambda text: text.replace("31.4", "inf"), "line 3, column fid: 'inf' is no"),
    "underscores": (lambda text: text.replace("31.4", "3_1"), "line 3, column fid: '3_1'"),
    "a seed of text": (lambda text: text.replace("plain,1,", "plain,b,"), "line 3, column seed"),
    "half a seed": (lambda text: text.replace("plain,1,", "plain,1.5,"), "line 3, column seed"),
    "a long seed": (lambda text: text.replace("plain,1,", f"plain,{'9' * 5000},"), "column seed"),
    "no name": (lambda text: text.replace("plain,1,", ",1,"), "line 3, column variant"),
    "a run twice": (
        lambda text: text.replace("plain,1,", "plain,0,"),
        "two runs of plain at seed 0: scores.csv/line 2 and scores.csv/line 3",
    ),
    "one variant": (lambda text: "\n".join(text.splitlines()[:6]), "has one variant alone, plain"),
    "no such metric": (lambda text: text.replace("fid", "fix"), "did you mean 'fix'?"),
    "a cell too many": (lambda text: text.replace("31.4", "31,4"), "line 3: 4 cells for 3 columns"),
    "a column twice": (
        lambda text: text.replace("\n", ",1\n").replace("fid,1", "fid,fid"),
        "two columns 'fid'",
    ),
    "UTF-16": (lambda text: text.encode("utf-16"), "UTF-16; save it as UTF-8"),
    "Latin-1": (lambda text: "variänt".encode("latin-1"), "line 1 is not UTF-8"),
    "a spreadsheet": (lambda text: b"PK\x03\x04\x14\x00\xff\xfe\x00", "is not UTF-8"),
    "a cell that never ends": (lambda text: text + "x" * 200_000, "field larger than"),
    "nothing but zeros": (lambda text: b"\x00" * 100, "no column 'variant'"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_in_a_table_is_said(capsys: Out, what: str) -> None:
    change, words = WRONG[what]
    code, said = compare(capsys, change(TEXT), *DECLARED)
    assert code == 2
    assert words in said
    assert said.startswith("error: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (DECLARED[2:], "--baseline: say which variant the others are held to: plain, attn"),
        (["--baseline", "plane", *DECLARED[2:]], "--baseline plane: there is no run of it"),
        ([*DECLARED, "--looks", "-1"], "--looks"),
        ([*DECLARED, "--better", "best"], "--better best"),
        (["scores.csv", *DECLARED], "a table is compared alone"),
        ([*DECLARED[:5], "much"], "--min-effect much"),
        ([*DECLARED[:3], "FID", *DECLARED[4:]], "no such column; did you mean 'fid'?"),
    ],
)
def test_what_is_wrong_in_the_options_is_said(capsys: Out, options: list[str], words: str) -> None:
    code, said = compare(capsys, TEXT, *options)
    assert code == 2
    assert words in said


def test_a_column_of_words_is_no_metric(capsys: Out) -> None:
    text = "\n".join([line + ",x" for line in TEXT.splitlines()]).replace("fid,x", "fid,note")
    code, said = compare(capsys, text, *DECLARED[:3], "note", *DECLARED[4:])
    assert (code, "line 2, column note: 'x' is no number" in said) == (2, True)


def test_a_file_that_is_no_study_is_named_with_what_it_may_be(capsys: Out) -> None:
    Path("scores.xlsx").write_bytes(b"PK")
    for words in (["compare", "scores.xlsx"], ["report", "scores.xlsx"]):
        assert run(*words, "--baseline", "plain") == 2
        assert "of a table of scores: compare FILE.csv" in capsys.readouterr().err


def test_a_table_of_several_metrics_asks_which_decides(capsys: Out) -> None:
    text = "\n".join([line + ",1" for line in TEXT.splitlines()]).replace("fid,1", "fid,kid_mean")
    code, said = compare(capsys, text, "--baseline", "plain")
    assert (code, "--metric: say which decides: fid, kid_mean" in said) == (2, True)


def test_options_of_tables_are_for_tables(capsys: Out, tmp_path: Path) -> None:
    assert run("compare", "nothing", "--baseline", "x", "--looks", "1") == 2
    assert run("compare", "missing.csv", "--baseline", "x") == 2
    assert "cannot read missing.csv" in capsys.readouterr().err


def test_names_of_other_things_are_no_metrics(capsys: Out) -> None:
    """A column of steps is no metric: it would stand where the steps of a run stand."""
    text = "\n".join([line + ",90" for line in TEXT.splitlines()]).replace("fid,90", "fid,steps")
    assert verdicts(judged(capsys, text, "--baseline", "plain"))
    code, said = compare(capsys, text, "--baseline", "plain", "--metric", "steps")
    assert (code, "name of something else in reports" in said) == (2, True)
    assert set(RunRow.model_fields) <= RESERVED


def test_markup_in_names_stays_text(capsys: Out) -> None:
    text = TEXT.replace("attn", "<b>x").replace("fid", '"<i>m"')
    options = ["--baseline", "plain", "--better", "lower", "--report", "--metric", "<i>m"]
    assert compare(capsys, text, *options)[0] == 0
    page = Path("reports/scores/index.html").read_text()
    assert "<b>x" not in page
    assert "<i>m" not in page


# --- In Python ---------------------------------------------------------------------------------


def frame() -> pd.DataFrame:
    rows = [(name, seed, x) for name, own in VALUES.items() for seed, x in enumerate(own)]
    return pd.DataFrame(rows, columns=["variant", "seed", "fid"])


def test_a_frame_says_what_the_file_says(capsys: Out) -> None:
    file = judged(capsys, TEXT, *DECLARED)
    said = sb.verdict(frame(), metric="fid", baseline="plain", min_effect=1)
    assert list(said.comparisons.verdict) == list(verdicts(file).values())
    assert list(said.comparisons.effect) == [c["effect"] for c in file["primary"]["comparisons"]]
    assert said.headline == (
        "Of 3 comparisons with plain: 1 better (attn); 1 worse (tall); 1 open (wide)."
    )
    assert said.sentence.splitlines()[0].startswith("As declared in the call: attn is")
    assert "but: Metric, direction, baseline" in str(said)
    assert "<strong>Of 3 comparisons" in said._repr_html_()
    looked = sb.verdict(frame(), metric="fid", baseline="plain", min_effect="3%", looks=1)
    assert "exploratory after 1 look" in looked.sentence
    assert "post hoc" in sb.verdict(frame(), baseline="plain").sentence


@pytest.mark.parametrize("kind", ["float32", "Float64", "object", "string"])
def test_a_frame_of_any_dtype(kind: str) -> None:
    table = frame().astype({"fid": kind})
    table["seed"] = table["seed"].astype(np.int16)
    said = sb.verdict(table, metric="fid", baseline="plain", min_effect=1)
    assert list(said.comparisons.n_ok) == [5, 5, 4]


def test_what_is_wrong_in_a_frame_is_said() -> None:
    table = frame().astype({"fid": object})
    table.loc[3, "fid"] = "good"
    with pytest.raises(UserError, match="the frame, row 3, column fid: 'good' is no number"):
        sb.verdict(table, metric="fid", baseline="plain", min_effect=1)
    table.loc[3, "fid"] = True
    with pytest.raises(UserError, match="row 3, column fid: True is no number"):
        sb.verdict(table, metric="fid", baseline="plain", min_effect=1)
    for wrong in ({"better": "best"}, {"min_effect": "much"}, {"looks": -1}, {"min_effect": -1}):
        options: dict[str, Any] = {"metric": "fid", "baseline": "plain", "min_effect": 1} | wrong
        with pytest.raises(UserError):
            sb.verdict(frame(), **options)
    with pytest.raises(UserError, match="no column 'seed'"):
        sb.verdict(frame().drop(columns="seed"), baseline="plain")


def test_importing_the_package_is_light() -> None:
    code = "import sys, sagan_bench; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "torch", "numpy", "pydantic"} & set(done.stdout.split())
    code = "import sagan_bench.report.verdict, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()
