"""The verb ``compare``: the same runs give the same verdict on every route, or none."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from example_probes import probe_of
from example_records import unsealed
from example_reports import CLEAR, leave_run, leave_study, settings

from sagan_bench import cli
from sagan_bench.report import collect
from sagan_bench.report.document import Document, read
from sagan_bench.runs import probe, records
from sagan_bench.runs.run import Run

Out = pytest.CaptureFixture[str]
OWN = ["--baseline", "no-attention"]


def compared(capsys: Out, *arguments: str) -> dict[str, Any]:
    assert run("compare", *arguments, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def verdicts(found: dict[str, Any]) -> set[str | None]:
    readings = (found["primary"], *found["secondary"])
    return {c["verdict"] for reading in readings for c in reading["comparisons"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return leave_study(tmp_path_factory.mktemp("compare") / "quick", CLEAR, pictures=False)


def looked(study: Path, folder: Path, looks: int) -> Path:
    """Return a copy of a study that was extended after so many looks."""
    shutil.copytree(study, folder)
    memory = unsealed(folder / "study.json") | {"looks": looks}
    (folder / "study.json").write_text(json.dumps(memory))
    return folder


@pytest.mark.parametrize("looks", [0, 2])
@pytest.mark.parametrize(
    "route", [OWN, [*OWN, "--metric", "twin_rate"], [*OWN, "--min-effect", "0.05"]]
)
def test_a_studys_own_question_has_its_own_answer(
    study: Path, tmp_path: Path, capsys: Out, looks: int, route: list[str]
) -> None:
    """Its looks and its plan hold: asked by options, it says what it says by itself."""
    folder = str(looked(study, tmp_path / "quick", looks))
    by_itself = compared(capsys, folder)
    assert compared(capsys, folder, *route) == by_itself
    (comparison,) = by_itself["primary"]["comparisons"]
    assert comparison["verdict"] == (None if looks else "better by as much as matters")
    assert ("exploratory after 2 looks" in comparison["standing"]) == bool(looks)


def test_a_study_that_was_stopped_is_provisional_on_every_route(
    study: Path, tmp_path: Path, capsys: Out
) -> None:
    folder = looked(study, tmp_path / "quick", 0)
    shutil.rmtree(next(folder.glob("sagan-s4-*")))
    for route in ([], OWN):
        found = compared(capsys, str(folder), *route)
        assert verdicts(found) == {None}
        assert found["headline"][0].startswith("Provisional: 9 runs are over")


@pytest.mark.parametrize(
    "other",
    [["--baseline", "sagan"], [*OWN, "--metric", "fid"], [*OWN, "--min-effect", "0.01"],
     [*OWN, "--min-effect", "5%"]],
)  # fmt: skip
def test_another_question_of_a_studys_runs_is_post_hoc(
    study: Path, capsys: Out, other: list[str]
) -> None:
    found = compared(capsys, str(study), *other)
    assert verdicts(found) == {None}
    assert found["primary"]["comparisons"][0]["standing"].startswith("post hoc")


def test_runs_out_of_a_study_are_post_hoc(study: Path, tmp_path: Path, capsys: Out) -> None:
    runs = [str(path) for path in sorted(study.glob("*-s*"))]
    copied = tmp_path / "copied"
    shutil.copytree(study, copied, ignore=shutil.ignore_patterns("study.json"))
    for what in (runs, [str(copied)], [str(study), *runs[:1]]):
        found = compared(capsys, *what, *OWN)
        assert verdicts(found) == {None}
        assert found["primary"]["comparisons"][0]["standing"].startswith("post hoc")


def test_without_a_comparison_the_margin_is_the_declared_one(
    study: Path, tmp_path: Path, capsys: Out
) -> None:
    folder = looked(study, tmp_path / "quick", 0)
    for path in folder.glob("no-attention-*"):
        shutil.rmtree(path)
    run("compare", str(folder))
    assert "smallest difference that matters: 0.05." in capsys.readouterr().out


def text_of(capsys: Out, *arguments: str) -> str:
    assert run("compare", *arguments) == 0
    return capsys.readouterr().out


def test_runs_that_are_not_what_they_are_called_are_the_first_that_is_said_against_a_verdict(
    tmp_path: Path, capsys: Out
) -> None:
    """As ``train --variant no-attention --set model.attention.generator=[8] ...`` once left."""
    paths = [
        leave_run(
            tmp_path / f"{variant}-{seed}", settings("sagan", seed), 0.3 + seed / 10,
            pictures=False, variant=variant,
        )
        for variant in ("no-attention", "sagan") for seed in (0, 1)
    ]  # fmt: skip
    against = [
        "Runs called no-attention are not no-attention on the preset brief: "
        "model.attention.generator is [8], not [], model.attention.discriminator is [8], not [].",
        "sagan and no-attention differ in nothing that changes results.",
    ]
    text = text_of(capsys, *map(str, paths), *OWN)
    assert [line[7:] for line in text.splitlines() if line.startswith("  but: ")] == against
    assert list(collect.of_runs(paths, "runs", "no-attention")[0].warnings[:2]) == against


def test_where_blocks_stand_on_a_studys_data_is_no_contradiction(tmp_path: Path) -> None:
    sides = {"model.attention.generator": [16], "model.attention.discriminator": [4]}
    measure = {"metric": "twin_rate", "min_effect": 0.05, "set": sides}
    folder = leave_study(
        tmp_path / "quick", {"no-attention": [0.3, 0.4], "sagan": [0.5, 0.6]}, pictures=False,
        changed={"on": {"twins": measure}},
    )  # fmt: skip
    for path in folder.glob("sagan-*"):
        record = unsealed(path / "record.json")
        record["config"]["model"]["attention"] |= {"generator": [16], "discriminator": [4]}
        (path / "record.json").write_text(json.dumps(record))
    assert not any("are not" in text for text in collect.of_study(folder)[0].warnings)


def test_a_study_under_way_says_whose_runs_are_still_to_come(
    study: Path, tmp_path: Path, capsys: Out
) -> None:
    folder = tmp_path / "quick"
    shutil.copytree(study, folder)
    for path in folder.glob("sagan-*"):
        shutil.rmtree(path)
    text = text_of(capsys, str(folder))
    assert "  still to come: 5 runs of sagan\n" in text
    assert "Secondary readings:" not in text
    warnings = collect.of_study(folder)[0].warnings
    assert not any("had not settled" in text or "may not have" in text for text in warnings)


def leave_probes(folder: Path) -> None:
    """Leave a probe in each run of sagan, under which a uniform map breaks it."""
    for seed, path in enumerate(sorted(folder.glob("sagan-s*"))):
        run = Run(path, records.read(path))
        probe.write(path, probe_of(run, 0.1 + seed / 100))


def test_what_runs_were_probed_for_stands_beside_their_comparisons(
    study: Path, tmp_path: Path, capsys: Out
) -> None:
    folder = looked(study, tmp_path / "quick", 0)
    before, text = compared(capsys, str(folder)), text_of(capsys, str(folder))
    assert "probes" not in before
    leave_probes(folder)
    after = compared(capsys, str(folder))
    said = after.pop("probes")
    assert after == before
    (of_sagan,) = said["dependences"]
    assert (of_sagan["n"], of_sagan["state"]) == (5, "depends on the map")
    assert of_sagan["excess"] == pytest.approx(-0.38)
    (sentence,) = said["sentences"]
    assert sentence.startswith("sagan is better than no-attention by as much as matters, and its")
    told = text_of(capsys, str(folder))
    assert "Finished weights and their map in G" in told
    assert sentence[1:] in " ".join(told.split())
    assert len(told) > len(text)
    assert run("probe", str(folder), "--json") == cli.SOME_FAILED  # it has no weights to probe
    assert json.loads(capsys.readouterr().out)["together"] == said


def test_a_probe_that_cannot_be_read_is_counted_and_leaves_verdicts_alone(
    study: Path, tmp_path: Path, capsys: Out
) -> None:
    folder = looked(study, tmp_path / "quick", 0)
    leave_probes(folder)
    next(folder.glob("sagan-s4-*/probe.json")).write_text("{")
    found = compared(capsys, str(folder))
    assert found["primary"]["comparisons"][0]["verdict"] == "better by as much as matters"
    (of_sagan,) = found["probes"]["dependences"]
    assert (of_sagan["left_out"], of_sagan["state"]) == ({"unreadable": 1}, None)
    assert "a probe.json that cannot be read" in found["probes"]["sentences"][0]


def test_a_report_keeps_what_probes_say(study: Path, tmp_path: Path) -> None:
    folder = looked(study, tmp_path / "quick", 0)
    leave_probes(folder)
    document, _ = collect.of_study(folder)
    assert document.findings.probes is not None
    (tmp_path / "report.json").write_text(document.to_json())
    again = read(tmp_path / "report.json")
    assert isinstance(again, Document)
    assert again.findings.probes == document.findings.probes
