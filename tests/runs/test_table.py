import json
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from example_records import score, stored

from sagan_bench.runs.records import Cost
from sagan_bench.runs.table import frame


def test_a_run_that_failed_first_shifts_nothing(tmp_path: Path) -> None:
    failed = stored(tmp_path / "a", status="failed", reason="out of memory", step=3, seed=7)
    scores = (score(), score(weights="raw", metrics={"fid": None, "kid": 0.5}, warnings=("w",)))
    cost = Cost(train_sec=60.0, parameters_g=11)
    done = stored(tmp_path / "b", scores=scores, cost=cost, seed=8)
    table = frame([failed, done])
    assert list(table.run) == ["a", "b", "b"]
    assert list(table.seed) == [7, 8, 8]
    assert list(table.step) == [3, 100, 100]
    assert list(table.reason.fillna("-")) == ["out of memory", "-", "-"]
    assert list(table.fid.fillna(-1)) == [-1, 12.5, -1]
    assert list(table.isc.fillna(-1)) == [-1, 2.0, -1]
    assert list(table.kid.fillna(-1)) == [-1, -1, 0.5]
    assert list(table.weights.fillna("-")) == ["-", "ema", "raw"]
    assert list(table.warnings.fillna("-")) == ["-", "", "w"]
    assert list(table.train_sec.fillna(-1)) == [-1, 60.0, 60.0]
    assert list(table["floor.fid"].fillna(-1)) == [-1, 1.5, 1.5]
    assert list(table["protocol.splits"].fillna(-1)) == [-1, 10, 10]


def test_config_columns_are_factors(tmp_path: Path) -> None:
    other = {"model": {"attention": {"generator": []}}, "training": {"lr_g": 0.0004, "ema": 0.9}}
    table = frame([stored(tmp_path / "a"), stored(tmp_path / "b", config=other)])
    assert list(table["config.model.attention.generator"]) == ["8,16", ""]
    assert list(table["config.training.lr_g"]) == [0.0001, 0.0004]
    assert list(table["config.training.ema"].isna()) == [True, False]
    assert list(table["config.training.steps"].isna()) == [False, True]


def test_types_do_not_depend_on_what_is_missing(tmp_path: Path) -> None:
    one = score(metrics={"fid": None, "twin_rate": 1})
    table = frame([stored(tmp_path / "a", scores=(one,))])
    empty = frame([])
    assert (table.dtypes[empty.columns] == empty.dtypes).all()
    assert table.fid.dtype == table.twin_rate.dtype == "Float64"
    assert len(empty) == 0


def test_missing_is_na_and_never_nan(tmp_path: Path) -> None:
    run = stored(tmp_path / "a", scores=(score(metrics={"fid": float("nan")}),))
    assert frame([run]).fid[0] is pd.NA


def test_the_table_states_the_status_as_of_now(tmp_path: Path) -> None:
    table = frame([stored(tmp_path / "a", status="running")])
    assert (table.status[0], table.reason[0]) == ("interrupted", "the process was killed")


def test_numbers_beyond_64_bits_are_kept(tmp_path: Path) -> None:
    config = {"seed": 2**63, "run": {"steps": 10**30}}
    runs = [stored(tmp_path / "a"), stored(tmp_path / "b", seed=2**63, step=10**20, config=config)]
    table = frame(runs)
    assert list(table.seed) == [0, 2**63]
    rows = json.loads(table.to_json(orient="records"))
    assert [row["seed"] for row in rows] == [0, 2**63]
    assert [row["step"] for row in rows] == [100, 10**20]
    assert rows[1]["config.run.steps"] == 10**30


def test_a_metric_called_like_a_column_takes_no_place(tmp_path: Path) -> None:
    one = score(metrics={"path": 1.0, "seed": 7.0, "fid": 2.0})
    table = frame([stored(tmp_path / "a", scores=(one,))])
    assert (table.path[0], table.seed[0], table.fid[0]) == (str(tmp_path / "a"), 0, 2.0)


def test_the_import_is_quick() -> None:
    code = (
        "import sys, sagan_bench.runs.table; print('torch' in sys.modules, 'pandas' in sys.modules)"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
    assert time.monotonic() - began < 5
