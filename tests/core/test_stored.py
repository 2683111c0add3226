"""Files of any content: a value, or one error with the file's name."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from example_records import record

from sagan_bench.core import stored
from sagan_bench.core.errors import UserError
from sagan_bench.experiments import study
from sagan_bench.experiments.tuning import definition, storage
from sagan_bench.report import document, publish
from sagan_bench.runs import records
from sagan_bench.runs.rows import METRICS, read_rows
from sagan_bench.training import checkpoint

DEEP = b'{"config": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
NO_JSON = {
    "empty": b"",
    "cut": b'{"a": ',
    "garbage": b"\xff\xfe\x00\x01",
    "page": b"<!DOCTYPE html><title>404</title>",
    "deep": DEEP,
    "nested": b'{"a": ' * 100 + b"1" + b"}" * 100,
    "digits": b'{"schema_version": ' + b"9" * 5000 + b"}",
    "NaN": b'{"schema_version": NaN}',
    "list": b"[]",
    "number": b"1",
    "null": b"null",
}
SPECIAL: dict[str, tuple[str, Callable[[Path], object]]] = {
    "rows": (METRICS, lambda folder: read_rows(folder, METRICS, record())),
    "record": ("record.json", records.read),
    "journal": (storage.JOURNAL, lambda folder: storage.opened(folder, None)),
    "journal to write": (
        storage.JOURNAL,
        lambda folder: storage.opened(folder, None, writing=True),
    ),
    "checkpoint": ("a.ckpt", lambda folder: checkpoint.load(folder / "a.ckpt")),
    "picture": ("a.png", lambda folder: publish._content(folder / "a.png")),
    "report": ("report.json", lambda folder: document.read(folder / "report.json")),
}
"""What is read -> the file's name, and its reader in a folder."""
READERS: dict[str, Callable[[Path], object]] = {
    records.RECORD: records.read,
    study.MEMORY: lambda file: study.StudyManifest.of(file.parent),
    definition.MEMORY: lambda file: definition.TuningManifest.of(file.parent),
    "report.json": document.read,
}


@pytest.mark.parametrize("content", NO_JSON.values(), ids=NO_JSON)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_json_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UserError, match=name):
        READERS[name](file)


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=name):
        READERS[name](tmp_path / name)
    (tmp_path / name).rmdir()
    os.mkfifo(tmp_path / name)  # opened, it would wait for ever
    with pytest.raises(UserError, match=name):
        READERS[name](tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / records.RECORD
    file.write_bytes(record().to_json())
    file.chmod(0)
    with pytest.raises(UserError, match=r"record\.json: Permission denied"):
        records.read(tmp_path)


def test_a_file_too_large_for_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "MOST_BYTES", 1 << 20)
    file = tmp_path / "record.json"
    with file.open("wb") as opened:
        opened.truncate((1 << 20) + 1)
    with pytest.raises(UserError, match=r"record\.json: it has more than 1 MiB"):
        records.read(tmp_path)


def test_a_number_that_a_record_may_have_had_is_read() -> None:
    assert stored.parsed(b'{"seed": 100000000000000000000}') == {"seed": 10**20}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"cost": {"train_sec": 10**39}, "blocks": [1]}, "blocks.0: Input should be a valid dict"),
        ({"scores": [{"metrics": {"fid": float(10**300)}, "warnings": 1}]}, "scores.0"),
        ({"attempts": [{"started": "9999-12-31T23:59:59-23:00", "from_step": 1}]}, "date value"),
        ({"cost": 1}, "cost: "),
    ],
)
def test_a_record_of_another_shape_is_refused_by_name(
    tmp_path: Path, changed: dict[str, object], says: str
) -> None:
    whole = json.loads(record().to_json())
    (tmp_path / "record.json").write_text(json.dumps(whole | changed))
    with pytest.raises(UserError, match=f"damaged record.json .*{says}"):
        records.read(tmp_path)


# --- TOML --------------------------------------------------------------------------------------


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(b"\xef\xbb\xbf[training]\r\nlr_g = 0.0002\r\n")
    assert stored.load_toml(file) == {"training": {"lr_g": 0.0002}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("seed = 1".encode("utf-16"), "it is in UTF-16; save it as UTF-8"),
        (b'a = 1\nname = "\xe9"', "line 2 is not UTF-8; save it as UTF-8"),
        (b"x = " + b"[" * 3000 + b"]" * 3000, "nested too deeply"),
        (b"x = " + b"[" * 100 + b"]" * 100, "nested more than 64 deep"),
        (b"x = " + b"9" * 5000, "a number of more than 40 digits"),
        (b"x = \n", "line 1"),
    ],
)
def test_what_is_no_toml_is_refused_by_name(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.toml is not valid TOML: .*{says}"):
        stored.load_toml(file)


def test_a_seal_tells_a_change_that_fits_and_no_other_order_or_spaces(tmp_path: Path) -> None:
    file, value = tmp_path / "a.json", {"b": [1, 0.1, None], "a": {"é": "x"}}
    file.write_bytes(stored.sealed(value))
    assert stored.json_object(file) == value
    whole = json.loads(file.read_bytes())
    file.write_text(json.dumps(whole, sort_keys=True, ensure_ascii=False))
    assert stored.json_object(file) == value
    for change in ({"b": [1, 0.2, None]}, {"c": 0}, {"sha256": None}):
        file.write_text(json.dumps(whole | change))
        with pytest.raises(UserError, match=r"damaged a\.json \(it is not what was written"):
            stored.json_object(file)


def test_what_was_stored_without_a_seal_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": 1}')
    assert stored.json_object(file) == {"a": 1}


@pytest.mark.parametrize("kind", ["pipe", "folder"])
@pytest.mark.parametrize("reader", SPECIAL)
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, kind: str, reader: str
) -> None:
    name, read = SPECIAL[reader]
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=rf"{name}: it is a folder or a device"):
        read(tmp_path)
