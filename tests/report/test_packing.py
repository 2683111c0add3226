"""A report packed into one file: whole, the same bytes, and its links lead somewhere."""

import os
import re
import zipfile
from pathlib import Path
from urllib.parse import unquote

import command_line
import pytest
from example_reports import CLEAR, leave_study

from sagan_bench.core.errors import UserError
from sagan_bench.report.packing import pack


def test_what_is_packed_opens_elsewhere_and_has_the_same_bytes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    leave_study(Path("runs/quick"), {name: of[:1] for name, of in CLEAR.items()})
    assert command_line.run("report", "quick", "--zip") == 0
    assert "packed: reports/quick.zip" in capsys.readouterr().out
    packed = Path("reports/quick.zip").read_bytes()
    for file in Path("reports/quick").rglob("*.*"):
        os.utime(file, (1, 1))
    (Path("reports/quick/data") / ".hidden").write_text("not of the report")
    (Path("reports/quick/data") / "link").symlink_to("/etc/hostname")
    assert pack(Path("reports/quick")).read_bytes() == packed
    with zipfile.ZipFile("reports/quick.zip") as opened:
        names = opened.namelist()
        opened.extractall("elsewhere")
    assert names[0] == "quick/index.html"
    assert names[1:] == sorted(names[1:])
    page = Path("elsewhere/quick/index.html")
    html = page.read_text()
    links = set(re.findall(r'(?:href|src)="(data/[^"]+)"', html))
    assert "data/report.json" in links
    assert "data/real.png" in links
    for link in links:
        assert (page.parent / unquote(link)).exists(), link
    assert command_line.run("verify", "elsewhere/quick/data/report.json") == 0
    assert "need the folder <code>data/</code> beside the page" in html


def test_what_is_elsewhere_is_packed_beside_it() -> None:
    leave_study(Path("runs/quick"), {name: of[:1] for name, of in CLEAR.items()}, pictures=False)
    assert command_line.run("report", "quick", "--out", "mine", "--zip") == 0
    assert Path("mine.zip").exists()
    assert not Path("reports").exists()


def test_a_folder_without_a_report_is_not_packed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no report is in"):
        pack(tmp_path)
    assert not tmp_path.with_name(f"{tmp_path.name}.zip").exists()
