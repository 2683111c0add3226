"""What older code began is read, shown, compared and rendered."""

import shutil
from pathlib import Path

import begin
import doors
import goldens
import observed
import pytest


@pytest.mark.parametrize("code", observed.CODES)
@pytest.mark.parametrize("part", begin.COMMANDS)
def test_it_is_listed_shown_compared_and_rendered_as_before(
    part: str, code: str, tmp_path: Path
) -> None:
    with doors.plain_machine(tmp_path):
        found = observed.read(part, code)
    held = goldens.EXPECTED / "begun" / f"{part}-{code}"
    wanted = {file.stem: file.read_text(encoding="utf-8") for file in held.iterdir()}
    goldens.alike(*({k: v.splitlines() for k, v in of.items()} for of in (found, wanted)))


@pytest.mark.parametrize("schema", [1, 2])
def test_a_report_of_an_older_schema_is_rendered_as_before(schema: int, tmp_path: Path) -> None:
    with doors.plain_machine(tmp_path):
        found = observed.rendered(schema)
    assert found == goldens.stored(f"expected/begun/report-schema-{schema}.txt")


def test_an_archive_tells_nothing_of_the_machine_that_made_it(tmp_path: Path) -> None:
    for archive in goldens.BEGUN.iterdir():
        shutil.unpack_archive(archive, tmp_path / archive.name, filter="data")
    written = [file for file in tmp_path.rglob("*") if file.suffix in (".json", ".jsonl", ".log")]
    assert len(written) > 30
    for file in written:
        text = file.read_text()
        assert not any(one in text for one in ("/tmp", "/home", "/root", "/work")), file
