"""Every study of one data set and metric is counted, and told before a verdict is believed."""

import json
import os
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from example_programs import BETTER, SOURCE, leave_programs
from example_records import unsealed
from example_reports import BEGAN, CLEAR, leave_study

from sagan_bench.analysis.question import Ledger
from sagan_bench.core.registry import ATTENTION
from sagan_bench.experiments.ledger import ledger
from sagan_bench.experiments.study import Study, StudyManifest
from sagan_bench.report import caveats, collect, publish
from sagan_bench.report.document import Document, read
from sagan_bench.report.verification import verified

Out = pytest.CaptureFixture[str]
FAMILIES = (
    "Each is a family of its own, with its own 5 % of false claims: of 20 without a difference "
    "one is claimed in the mean."
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return leave_study(tmp_path_factory.mktemp("pristine") / "quick", CLEAR, pictures=False)


@pytest.fixture
def runs(pristine: Path, tmp_path: Path) -> Path:
    """A folder of runs in which is a study, quick."""
    shutil.copytree(pristine, tmp_path / "runs" / "quick")
    return tmp_path / "runs"


def beside(runs: Path, name: str, hours: float | None, **changed: Any) -> Path:
    """Begin another study so many hours after quick; None is one that has no run yet."""
    memory = changed.pop("memory", {})
    study = unsealed(runs / "quick" / "study.json")
    study["study"] |= {"name": name.rpartition("/")[2]} | changed
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps(study | memory))
    if hours is not None:
        (source,) = (runs / "quick").glob("sagan-s0-*")
        record = unsealed(source / "record.json")
        started = (BEGAN + timedelta(hours=hours)).isoformat()
        record["attempts"][0] |= {"started": started, "ended": None}
        (folder / source.name).mkdir()
        (folder / source.name / "record.json").write_text(json.dumps(record | {"files": {}}))
    return folder


def of(folder: Path) -> Ledger | None:
    memory = StudyManifest.of(folder)
    assert memory
    return ledger(folder, memory)


def sentences(folder: Path) -> list[str]:
    findings = collect.of_study(folder)[0].findings
    return list(caveats.other_questions(findings))


def test_studies_of_the_same_data_and_metric_are_counted_in_order(runs: Path) -> None:
    beside(runs, "later", 2)
    beside(
        runs, "group/wider", -1, question="Does width help?", seeds=[0, 1, 2], memory={"looks": 3}
    )
    beside(runs, "unbegun", None)
    beside(runs, "first", -30)
    known = of(runs / "quick")
    assert known
    assert not known.unreadable
    assert [(e.folder, e.before) for e in known.entries] == [
        ("first", True), ("group/wider", True), ("later", False), ("unbegun", None),
    ]  # fmt: skip
    wider = known.entries[1]
    assert (wider.name, wider.question) == ("wider", "Does width help?")
    assert (wider.pairs, wider.seeds, wider.looks) == (1, 3, 3)
    assert wider.begun == "2026-01-02T02:04:00+00:00"
    assert sentences(runs / "quick") == [
        "2 other questions were put to these data by twin_rate before this one (first, "
        f"group/wider), 1 since, 1 at an unknown time. {FAMILIES}"
    ]
    (runs / "later").rename(runs / "gone")
    assert [entry.folder for entry in (of(runs / "quick") or known).entries][2] == "gone"


@pytest.mark.parametrize(
    "changed",
    [
        {"memory": {"data_fingerprint": "e" * 16}},
        {"memory": {"data_fingerprint": ""}},
        {"on": {"twins": {"metric": "fid", "min_effect": 5.0}}},
    ],
)
def test_other_data_or_another_metric_is_another_matter(
    runs: Path, changed: Mapping[str, Any]
) -> None:
    beside(runs, "other", -1, **changed)
    assert of(runs / "quick") is None
    assert sentences(runs / "quick") == []


def test_a_study_alone_says_nothing_and_neither_do_links_to_it(runs: Path, tmp_path: Path) -> None:
    (runs / "again").symlink_to(runs / "quick")
    assert of(runs / "quick") is None
    assert of(runs / "again") is None
    assert "ledger" not in collect.of_study(runs / "quick")[0].to_json()
    beside(runs, "other", -1)
    copy = shutil.copytree(runs / "quick", tmp_path / "elsewhere" / "quick")
    assert of(copy) is None
    paths = sorted((runs / "quick").glob("*-s*"))
    document, _ = collect.of_runs(paths, "runs", "no-attention")
    assert isinstance(document, Document)
    assert document.findings.ledger is None


def test_what_cannot_be_read_is_named_and_is_no_error(runs: Path) -> None:
    for name, content in (("cut", b'{"study": '), ("odd", b"[1]"), ("older", b"\xff")):
        (runs / name).mkdir()
        (runs / name / "study.json").write_bytes(content)
    (runs / "folder" / "study.json").mkdir(parents=True)
    assert sentences(runs / "quick") == [
        "4 studies beside this one cannot be read (cut, folder, odd, older): whether of these data "
        "is not known."
    ]
    other = beside(runs, "other", -1)
    (record,) = other.glob("*/record.json")
    record.write_text("{")
    assert sentences(runs / "quick")[0] == (
        "No other question is known to have been put to these data by twin_rate before this one, "
        "1 at an unknown time."
    )


def test_the_page_has_them_and_is_made_again_and_verified(runs: Path, tmp_path: Path) -> None:
    beside(runs, "other", -1, question="Is <b> it?")
    document, pictures = collect.of_study(runs / "quick")
    assert document.warnings[0].startswith("1 other question was put to these data by twin_rate")
    page = publish.publish(document, pictures, tmp_path / "page")
    html, data = page.read_text(), page.parent / "data" / "report.json"
    assert '<section id="ledger"' in html
    assert "Is &lt;b&gt; it?" in html
    assert "2026-01-02 02:04 UTC" in html
    assert read(data) == document
    assert verified(data) == (1, [])
    stored = unsealed(data)
    del stored["findings"]["ledger"]  # as in a report that is older
    data.write_text(json.dumps(stored))
    assert read(data).findings.ledger is None  # type: ignore[union-attr]
    assert verified(data) == (1, [])


def test_a_folder_whose_name_is_no_text_is_named_nonetheless(runs: Path) -> None:
    beside(runs, "other", -1).rename(os.fsdecode(bytes(runs / "odd-") + b"\xff"))
    document, _ = collect.of_study(runs / "quick")
    assert "before this one (odd-\ufffd)." in document.warnings[0]
    document.to_json().encode()


def test_compare_says_it_in_a_line_of_the_studys_own_question_alone(
    runs: Path, capsys: Out
) -> None:
    beside(runs, "other", -1)
    said = "note: 1 other question was put to these data by twin_rate before this one (other). Each"
    assert run("compare", str(runs / "quick")) == 0
    assert said in " ".join(capsys.readouterr().out.split())
    assert run("compare", str(runs / "quick"), "--baseline", "sagan") == 0
    assert "put to these data" not in capsys.readouterr().out


def test_studies_of_one_command_are_of_the_same_data(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "name": "mine", "question": "Does it help?", "baseline": "plain", "variants": ["attn8"],
        "seeds": range(5), "on": {"other": {"metric": "fid", "min_effect": 1.0}},
        "command": SOURCE, "better": BETTER,
        "variant": {"plain": {"attn": 0}, "attn8": {"attn": 8}},
    }  # fmt: skip
    for name, command in (("mine", SOURCE), ("same", SOURCE), ("other", f"nice {SOURCE}")):
        study = Study.model_validate(fields | {"command": command})
        StudyManifest.of_command(study).write(tmp_path / name)
    known = of(tmp_path / "mine")
    assert known
    assert [entry.folder for entry in known.entries] == ["same"]
    assert known.of_command
    leave_programs(tmp_path / "mine")
    (said,) = sentences(tmp_path / "mine")
    assert "put to this command by fid before this one, 1 at an unknown time" in said


def test_what_others_call_by_a_name_of_ones_own_is_not_taken_for_it(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ATTENTION, "_recalled", {})

    def own(title: str) -> dict[str, Any]:
        facts = {"ATTENTION/my-block": {"title": title}}
        return {"own": {"mine": {"sha256": title, "components": facts}}}

    beside(runs, "theirs", -1, **own("theirs"))
    known = of(beside(runs, "ours", 1, **own("ours")))
    assert known
    assert [entry.folder for entry in known.entries] == ["theirs", "quick"]
    assert ATTENTION["my-block"].title == "ours"
