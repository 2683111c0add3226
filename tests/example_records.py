"""Records to test with, and what to look at them by."""

import json
from pathlib import Path
from typing import Any

from sagan_bench.runs.records import Record, Score

CONFIG: dict[str, Any] = {
    "training": {"lr_g": 0.0001, "steps": 100},
    "model": {"attention": {"generator": [8, 16], "discriminator": []}},
}


def score(**changes: Any) -> Score:
    fields: dict[str, Any] = {
        "step": 100,
        "weights": "ema",
        "sampling_seed": 0,
        "n_fake": 2048,
        "fingerprint": "f1",
        "protocol": {"extractor": "effnet-lite0", "splits": 10},
        "metrics": {"fid": 12.5, "isc": 2.0},
        "floor": {"fid": 1.5},
        "final": True,
    }
    return Score(**{**fields, **changes})


def record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "run": "a-s0-d1",
        "name": "a",
        "variant": "sagan",
        "seed": 0,
        "status": "finished",
        "step": 100,
        "steps": 100,
        "config": CONFIG,
        "config_digest": "d1",
        "environment": {"python": "3.11.7", "platform": "Linux", "device": "cpu", "command": "x"},
    }
    return Record(**{**fields, **changes})


def stored(path: Path, **changes: Any) -> Path:
    path.mkdir(parents=True)
    (path / "record.json").write_bytes(record(run=path.name, **changes).to_json())
    return path


def unsealed(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file without its seal: written again, it is one of somebody's."""
    value: dict[str, Any] = json.loads(file.read_bytes())
    value.pop("sha256", None)
    return value


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} in JSON")
