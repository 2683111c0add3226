import json
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from example_records import no_constant, record, score, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sagan_bench.core.errors import UserError
from sagan_bench.runs import environment as environments
from sagan_bench.runs import records
from sagan_bench.runs.records import Attempt, Cost, DataSummary, Record, Score

TEXT = st.text(max_size=8)
WHOLE = st.integers(0, 2**63)
ANY_FLOAT = st.none() | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
OBJECT = st.dictionaries(TEXT, JSON | TEXT, max_size=3)
TIME = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5, minutes=30))]))
SCORES = st.builds(
    Score,
    step=WHOLE,
    weights=st.sampled_from(["ema", "raw"]),
    sampling_seed=WHOLE,
    n_fake=WHOLE,
    fingerprint=TEXT,
    protocol=OBJECT,
    metrics=st.dictionaries(TEXT, ANY_FLOAT, max_size=3),
    floor=st.dictionaries(TEXT, ANY_FLOAT, max_size=3),
    warnings=st.lists(TEXT, max_size=2),
    final=st.booleans(),
)
ATTEMPTS = st.builds(
    Attempt, started=TIME, ended=st.none() | TIME, from_step=WHOLE, to_step=st.none() | WHOLE
)
RECORDS = st.builds(
    record,
    status=st.sampled_from(["running", "finished", "diverged", "interrupted", "failed"]),
    reason=st.none() | TEXT,
    config=OBJECT,
    data=st.none() | st.builds(DataSummary, fingerprint=TEXT, manifest=OBJECT),
    scores=st.lists(SCORES, max_size=2),
    cost=st.builds(Cost, train_sec=ANY_FLOAT, images_per_sec=ANY_FLOAT, parameters_g=WHOLE),
    attempts=st.lists(ATTEMPTS, max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(RECORDS)
def test_a_record_survives_json(before: Record) -> None:
    text = before.to_json()
    after = Record.model_validate(json.loads(text, parse_constant=no_constant))
    assert after == before
    assert after.to_json() == text


def test_what_is_not_finite_becomes_null_with_a_reason() -> None:
    nan, inf = float("nan"), float("inf")
    one = score(metrics={"fid": nan, "isc": 2.0}, floor={"fid": inf}, warnings=("few images",))
    assert one.metrics == {"fid": None, "isc": 2.0}
    assert one.floor == {"fid": None}
    assert one.warnings == ("few images", "fid was nan", "floor of fid was inf")
    cost = Cost(train_sec=3.0, images_per_sec=nan)
    assert (cost.train_sec, cost.images_per_sec) == (3.0, None)
    assert cost.notes == ("images_per_sec was nan",)


def test_free_form_fields_may_not_hold_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        record(config={"a": float("nan")}).to_json()


def test_times_are_utc_and_naive_ones_are_refused() -> None:
    local = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    attempt = Attempt(started=local, from_step=0)
    assert attempt.model_dump(mode="json")["started"] == "2026-01-02T01:04:05Z"
    with pytest.raises(ValidationError):
        Attempt(started=datetime(2026, 1, 2), from_step=0)


def test_a_record_is_frozen_and_refuses_unknown_fields() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        record().seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="colour"):
        record(colour="red")


def test_every_field_says_what_it_is() -> None:
    models = (Record, Score, Cost, records.Environment, DataSummary, Attempt)
    assert all(f.description for model in models for f in model.model_fields.values())


def test_read_takes_a_directory_or_a_file(tmp_path: Path) -> None:
    run = stored(tmp_path / "a")
    assert records.read(run) == records.read(run / "record.json") == record(run="a")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"run": "a", ', "damaged record.json"),
        (b"", "damaged record.json"),
        (b"\xff\xfe", "damaged record.json"),
        (b"[1]", "not a JSON object"),
        (b"{}", "schema_version None"),
        (b'{"schema_version": 0}', "schema_version 0"),
        (b'{"schema_version": 1}', "Field required"),
        (record().to_json().replace(b'"seed": 0', b'"seed": "x"'), "seed: "),
        (record(scores=[score()]).to_json().replace(b'"floor": {', b'"floor": 3, "x": {'), "floor"),
    ],
)
def test_a_damaged_record_is_refused_by_name(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        records.read(tmp_path)
    assert str(file) in str(caught.value)
    assert "move its folder away" in str(caught.value)


def test_no_record_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no record\.json"):
        records.read(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    run = stored(tmp_path / "a", schema_version=records.SCHEMA_VERSION + 1)
    with pytest.raises(UserError, match=r"schema 2, this one reads up to 1.*update sagan-bench"):
        records.read(run)


def test_older_schemas_are_upgraded_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = json.loads(record().to_json())
    old["schema_version"] = -1
    old["title"] = old.pop("name")
    (tmp_path / "record.json").write_text(json.dumps(old))

    def named(stored: dict[str, Any]) -> dict[str, Any]:
        return {**{k: v for k, v in stored.items() if k != "title"}, "name": stored["title"]}

    def shouted(stored: dict[str, Any]) -> dict[str, Any]:
        return {**stored, "name": stored["name"].upper()}

    monkeypatch.setattr(records, "UPGRADES", {-1: named, 0: shouted})
    assert records.read(tmp_path) == record(name="A")


# --- Environment --------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root = tmp_path / "checkout"
    (root / "package").mkdir(parents=True)
    (root / "package" / "a.py").write_text("a = 1\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    return root


def test_commit_and_dirtiness_are_those_of_the_package(checkout: Path) -> None:
    package = checkout / "package"
    assert environments.git_state(package) == (None, None)  # nothing committed yet
    git(checkout, "commit", "-q", "-m", "first")
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "notes.txt").write_text("not part of the package")
    assert environments.git_state(package) == (commit, False)
    (package / "a.py").write_text("a = 2\n")
    assert environments.git_state(package) == (commit, True)
    git(checkout, "checkout", "-q", ".")
    (package / "new.py").touch()
    assert environments.git_state(package) == (commit, True)


def test_a_package_installed_inside_a_repository_is_not_of_it(checkout: Path) -> None:
    git(checkout, "commit", "-q", "-m", "first")
    inner = checkout / "venv" / "package"
    inner.mkdir(parents=True)
    assert environments.git_state(inner) == (None, None)


def test_a_git_hook_does_not_mislead(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(checkout, "commit", "-q", "-m", "first")
    expected = environments.git_state(checkout / "package")
    monkeypatch.setenv("GIT_DIR", "/nowhere/.git")
    monkeypatch.setenv("GIT_WORK_TREE", "/nowhere")
    assert environments.git_state(checkout / "package") == expected


def test_environment_without_git_and_with_an_odd_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["cli.py", "a b", "\udcff"])
    found = environments.environment("cuda", device_name="Card", threads=2, cuda="13.0")
    assert (found.git_commit, found.git_dirty) == (None, None)
    assert found.command == r"cli.py 'a b' '\udcff'"
    assert (found.device, found.device_name, found.threads, found.cuda) == (
        "cuda",
        "Card",
        2,
        "13.0",
    )
    assert found.python == sys.version.split()[0]
    assert found.torch is not None
    assert found.torch[0].isdigit()
    assert found.cpu
    record(environment=found).to_json()


@pytest.mark.parametrize(
    ("word", "stored_as"),
    [
        ("postgresql://user:S3CRET@host/db", "postgresql://user:***@host/db"),
        ("--storage=mysql+pymysql://user:S3C%40RET@host:3306/db", "--storage=mysql+pymysql://user:***@host:3306/db"),
        ("redis://:S3CRET@host", "redis://:***@host"),
        ("https://S3CRET@host/x", "https://***@host/x"),
        ("postgresql://u:S3@C/RE?T@host", "postgresql://u:***@host"),
        ("postgresql://u:S3 CRET@host", "postgresql://u:***@host"),
        ("sqlite:///file:x.db?uri=true&password=S3CRET", "sqlite:///file:x.db?***"),
        ("postgresql%3A%2F%2Fuser%3AS3CRET%40host", "postgresql://user:***@host"),
        ("sqlite:///trials.db", "sqlite:///trials.db"),
        ("--set", "--set"),
        ("data.source=lsun:a@b?c", "data.source=lsun:a@b?c"),
    ],
)  # fmt: skip
def test_secrets_of_urls_are_masked_in_the_command(
    monkeypatch: pytest.MonkeyPatch, word: str, stored_as: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["cli.py", "tune", word])
    assert shlex.split(environments.environment("cpu").command) == ["cli.py", "tune", stored_as]
