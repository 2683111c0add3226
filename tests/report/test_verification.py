"""`verify`: what a report says follows from its values, or is named."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from example_reports import CLEAR, leave_study

from sagan_bench.core.errors import UserError
from sagan_bench.core.stored import SEAL, seal
from sagan_bench.report import collect, publish
from sagan_bench.report.verification import verified

LOST = {**CLEAR, "g-only": [None] * 5, "residual": [0.2, 0.25, None, 0.21, 0.3]}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    document, pictures = collect.of_study(leave_study(root / "quick", LOST, pictures=False))
    return publish.publish(document, pictures, root / "report").parent / "data/report.json"


def forged(report: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Return a report that says something else, with a seal that fits."""
    stored = json.loads(report.read_text())
    stored.pop(SEAL)
    change(stored)
    file = folder / "report.json"
    file.write_text(json.dumps({SEAL: seal(stored), **stored}))
    return file


def dropped(reading: dict[str, Any], number: int) -> None:
    """Leave a comparison out."""
    for key in ("comparisons", "sentences"):
        del reading[key][number]


def first(stored: dict[str, Any]) -> dict[str, Any]:
    comparison: dict[str, Any] = stored["findings"]["primary"]["comparisons"][0]
    return comparison


def test_every_comparison_of_an_honest_report_follows(report: Path) -> None:
    assert verified(report) == (3, [])


def test_the_report_that_the_readme_shows_follows_from_its_records() -> None:
    root = Path(__file__).parents[2]
    example = root / "reports/example-twins32"
    assert example.name in (root / "README.md").read_text()
    assert verified(example / "data/report.json") == (1, [])
    stored = json.loads((example / "data/report.json").read_text())
    assert len(stored["runs"]) == 10
    for run in stored["runs"]:
        (file,) = example.glob(f"records/{run['variant']}-s{run['seed']}-*/record.json")
        (final,) = (made for made in json.loads(file.read_text())["scores"] if made["final"])
        assert run["metrics"]["twin_rate"] == final["metrics"]["twin_rate"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: first(s).update(verdict="worse"), "verdict “worse”, and from its values “b"),
        (lambda s: first(s).update(verdict=None), "no verdict, and from its values “better"),
        (lambda s: first(s).update(effect=0.5), "effect is 0.5, and from"),
        (lambda s: first(s).update(interval=[0.1, 0.2]), "interval is [0.1, 0.2], and from"),
        (lambda s: first(s).update(p_bonferroni=1e-9), "p_bonferroni is 1e-09"),
        (lambda s: s["findings"].update(matters="0.9"), "verdict “better"),
        (lambda s: s["findings"]["rule"].update(looks=2), "verdict “better"),
        (lambda s: s["runs"][0]["metrics"].update(twin_rate=0.999), "and its run has 0.999"),
        (lambda s: s["findings"]["variants"][0]["values"].update({"0": 0.1}), "seed 0: 0.1, and"),
        (lambda s: s["findings"]["variants"][0]["values"].pop("1"), "seed 1: it is left out"),
        (lambda s: s["runs"].append(s["runs"][0]), "seed 0: its run is there twice"),
        (lambda s: first(s).update(n_ok=50), "n_ok is 50"),
        (lambda s: first(s).update(p_better=0.2), "p_better is 0.2"),
        (lambda s: s["findings"]["headline"].append("It is better."), "is that of no comparison"),
        (lambda s: s["findings"]["primary"]["sentences"].__setitem__(0, "x"), "sentence “x”"),
        (lambda s: dropped(s["findings"]["primary"], 2), "2 comparisons, and it is of 3"),
    ],
)  # fmt: skip
def test_what_does_not_follow_is_named(
    report: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], named: str
) -> None:
    _, differing = verified(forged(report, tmp_path, change))
    assert any(named in text for text in differing), differing


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["findings"].update(matters="abc"),
        lambda s: s["findings"]["rule"].update(lost="fid"),
        lambda s: s["findings"]["rule"].update(horizon=0, most=3, order=[0, 1, 2, 3, 4]),
        lambda s: first(s).update(baseline="nobody"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(
    report: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    with pytest.raises(UserError):
        verified(forged(report, tmp_path, change))


def test_the_command_ends_in_2_and_needs_no_torch(report: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from sagan_bench.cli import main\n"
        "try: main(['verify', sys.argv[1]])\n"
        "finally: print('torch' in sys.modules)"
    )
    false = forged(report, tmp_path, lambda s: first(s).update(verdict="worse"))
    for file, status in ((report, 0), (false, 2)):
        ended = subprocess.run(
            [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False
        )
        assert ended.returncode == status, ended.stderr
        assert ended.stdout.splitlines()[-1] == "False"


def test_an_older_report_does_not_say_by_which_rule_it_was_made(
    report: Path, tmp_path: Path
) -> None:
    older = forged(report, tmp_path, lambda s: s["findings"].pop("rule"))
    with pytest.raises(UserError, match="does not say by which rule"):
        verified(older)
