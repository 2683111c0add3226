"""Where trials are kept: a journal that was damaged, cut or replaced, and what is said of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from example_records import unsealed
from example_tunings import Scripted, planned, small_tuning

from sagan_bench.core.errors import UserError
from sagan_bench.experiments.tuning import planning, storage
from sagan_bench.experiments.tuning.definition import PRUNERS, TuningManifest, masked
from sagan_bench.experiments.tuning.findings import of_tuning

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The journal of a search with one trial."""
    opened = storage.opened(tmp_path, None, writing=True)
    study = optuna.create_study(storage=opened, study_name="t/x")
    study.add_trial(optuna.trial.create_trial(value=1.0))
    return tmp_path / storage.JOURNAL


@pytest.mark.parametrize("writing", [False, True])
@pytest.mark.parametrize(
    "line",
    [
        b"{garbage", b"\xff\xfe", b"[]", b"{}", b"1", b"", b'{"op_code": "0"}', b"[" * 100_000,
        b'{"op_code": 0}', b'{"op_code": 99, "worker_id": "x"}', b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda line: str(line[:12]),
)  # fmt: skip
def test_a_damaged_line_is_refused_by_name(journal: Path, line: bytes, writing: bool) -> None:
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + line + b"\n" + b"".join(lines[1:]))
    with pytest.raises(UserError, match=r"damaged optuna\.journal\.log"):
        storage.opened(journal.parent, None, writing=writing)


def test_a_torn_last_line_is_read_over(journal: Path) -> None:
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    study = storage.read(storage.opened(journal.parent, None), "t/x")
    assert study is not None
    assert len(study.get_trials()) == 1


def test_a_journal_cut_at_a_line_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "t"
    memory = planned(small_tuning(tmp_path), folder, trials=2, confirm=False)
    engine = Scripted(lambda config, step: config.training.lr_g)
    planning.run(memory, folder, engine, lambda *_: None, lambda: None)
    assert len(of_tuning(folder).searches[0].trials) == 2
    assert "part of it is lost" not in caplog.text
    journal = folder / storage.JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]))
    assert len(of_tuning(folder).searches[0].trials) < 2
    assert "2 trials of sagan-0 have begun and optuna.journal.log knows" in caplog.text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["tuning"].update(searches=10**12), "tuning.searches"),
        (lambda d: d["tuning"]["settings"].update({"no.such": 1}), "no.such"),
        (lambda d: d["tuning"]["space"]["budget"].update({"run.steps": "x"}), "run.steps"),
        (lambda d: d["tuning"].update(preset="qick"), "did you mean"),
        (lambda d: d.update(trials=10**30), "trials"),
    ],
)
def test_a_damaged_memory_is_refused_by_name(tmp_path: Path, change: Change, says: str) -> None:
    planned(small_tuning(tmp_path), tmp_path).write(tmp_path)
    file = tmp_path / TuningManifest.FILE
    kept = unsealed(file)
    change(kept)
    file.write_text(json.dumps(kept))
    with pytest.raises(UserError, match=rf"damaged tuning\.json \(.*{says}"):
        TuningManifest.of(tmp_path)


def test_every_pruner_has_its_name(tmp_path: Path) -> None:
    asked = small_tuning(tmp_path)
    made = {name: storage.pruner(asked.model_copy(update={"pruner": name})) for name in PRUNERS}
    told = {
        name: (type(one).__name__, getattr(one, "_percentile", None)) for name, one in made.items()
    }
    assert told == {
        "percentile": ("PercentilePruner", 75.0),
        "median": ("PercentilePruner", 50.0),
        "hyperband": ("HyperbandPruner", None),
        "none": ("NopPruner", None),
    }


def test_a_name_without_a_pruner_of_its_own_is_no_search(tmp_path: Path) -> None:
    asked = small_tuning(tmp_path).model_copy(update={"pruner": "annealing"})
    with pytest.raises(AssertionError, match="annealing"):
        storage.begun(optuna.storages.InMemoryStorage(), "t/x", asked, 0, {})


def test_a_host_of_another_shape_is_refused(tmp_path: Path) -> None:
    memory = planned(small_tuning(tmp_path), tmp_path).model_copy(update={"host": {"bf16": "x"}})
    with pytest.raises(UserError, match=r"damaged tuning\.json \(host: "):
        _ = memory.auto


def test_an_error_of_a_database_keeps_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(url: str) -> None:
        raise RuntimeError(f"cannot connect to {url}")

    monkeypatch.setattr(storage, "RDBStorage", refuses)
    with pytest.raises(UserError) as told:
        storage.opened(Path(), "postgresql://user:S3CRET@host/db")
    assert "S3CRET" not in str(told.value)


@pytest.mark.parametrize("url", ["postgresql://u:S3CRET@host:port/db", "no URL", ""])
def test_what_is_no_url_is_refused_without_it(url: str) -> None:
    with pytest.raises(UserError, match="that is no URL of a database") as told:
        masked(url)
    assert "S3CRET" not in str(told.value)
