import hashlib
import io
import json
import logging
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sagan_bench.core.errors import UserError
from sagan_bench.training import checkpoint
from sagan_bench.training.checkpoint import Checkpoints, DamagedCheckpoint


def state(step: int) -> dict[str, Any]:
    return {"step": step, "model": {"up16.conv.weight": torch.full((50,), float(step))}}


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    adam = torch.optim.Adam(layer.parameters(), lr=1e-3, betas=(0.0, 0.9))
    layer(torch.randn(4, 3)).sum().backward()
    adam.step()
    before: dict[str, Any] = {
        "step": 7,
        "lr": 1e-300,
        "name": "größe",
        "none": None,
        "flag": True,
        "model": layer.state_dict(),
        "optimizer": adam.state_dict(),
        "rng": torch.get_rng_state(),
        "odd": torch.tensor([float("nan"), -0.0, float("inf")]).bfloat16(),
    }
    checkpoint.save(tmp_path / "a.ckpt", before)
    after = checkpoint.load(tmp_path / "a.ckpt")
    assert list(after) == list(before)
    for key in ("step", "lr", "name", "none", "flag"):
        assert after[key] == before[key]
    assert after["odd"].view(torch.int16).equal(before["odd"].view(torch.int16))
    assert after["rng"].equal(before["rng"])
    assert after["model"]["weight"].equal(layer.weight)
    moment = after["optimizer"]["state"][0]["exp_avg_sq"]
    assert moment.equal(adam.state_dict()["state"][0]["exp_avg_sq"])
    torch.optim.Adam(layer.parameters()).load_state_dict(after["optimizer"])


def test_saving_the_same_state_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        checkpoint.save(tmp_path / name, state(1))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "key", ["_orig_mod.conv.weight", "module.conv.weight", "up16._orig_mod.weight"]
)
def test_wrapper_prefixes_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match=f"state.g: key '{key}' carries a wrapper's prefix"):
        checkpoint.save(tmp_path / "a", {"g": {key: torch.zeros(1)}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.float64(1.0), Path("a"), torch.float32, {1, 2}])
def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match=r"state\.a\[0\]: a \w+ has no place"):
        checkpoint.save(tmp_path / "a", {"a": [value]})


@pytest.fixture
def two(tmp_path: Path) -> Checkpoints:
    """Checkpoints of steps 100 and 200."""
    found = Checkpoints(tmp_path)
    found.save(100, state(100))
    found.save(200, state(200))
    return found


def newest(checkpoints: Checkpoints) -> Path:
    return checkpoints.folder / "step-00000200.ckpt"


def falls_back(checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        found = checkpoints.latest()
    assert found is not None
    assert found[0] == 100
    assert found[1]["model"]["up16.conv.weight"].eq(100).all()
    assert "step-00000200.ckpt" in caplog.text
    assert "falling back" in caplog.text


def test_a_flipped_bit_anywhere_is_seen(two: Checkpoints, caplog: pytest.LogCaptureFixture) -> None:
    size = newest(two).stat().st_size
    positions = [0, 10, 24, 25, 40, 56, 57, *range(60, size, size // 40), size - 1]
    for position in positions:
        flip(newest(two), position)
        with pytest.raises(DamagedCheckpoint, match=r"step-00000200\.ckpt"):
            checkpoint.load(newest(two))
        if position in (0, 30, size - 1):
            falls_back(two, caplog)
        flip(newest(two), position)
    assert checkpoint.load(newest(two))["step"] == 200


def test_torch_alone_would_load_a_flipped_weight(two: Checkpoints) -> None:
    """The reason for a digest of our own."""
    content = newest(two).read_bytes()
    flip(newest(two), content.index(torch.full((50,), 200.0).numpy().tobytes()) + 2)
    assert not torch.load(newest(two))["model"]["up16.conv.weight"].eq(200).all()


def test_a_checkpoint_is_a_file_of_torchs_own(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "weights.pt", state(7))
    for mmap in (False, True):
        found = torch.load(tmp_path / "weights.pt", weights_only=True, mmap=mmap)
        assert found["step"] == 7
        assert found["model"]["up16.conv.weight"].eq(7).all()
    with zipfile.ZipFile(tmp_path / "weights.pt") as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(checkpoint.MAGIC)


def test_a_checkpoint_of_before_is_read_and_its_damage_seen(two: Checkpoints) -> None:
    written = io.BytesIO()
    torch.save(state(300), written)
    content = written.getvalue()
    file = two.folder / "step-00000300.ckpt"
    file.write_bytes(checkpoint.OLDER + hashlib.sha256(content).digest() + content)
    assert checkpoint.load(file)["step"] == 300
    size = file.stat().st_size
    for position in (0, 30, 60, size // 2, size - 1):
        flip(file, position)
        with pytest.raises(DamagedCheckpoint):
            checkpoint.load(file)
        flip(file, position)
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(DamagedCheckpoint):
        checkpoint.load(file)


@pytest.mark.parametrize("length", [0, 5, 25, 40, 57, 100, -1])
def test_a_truncated_file_is_seen(
    two: Checkpoints, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    newest(two).write_bytes(newest(two).read_bytes()[:length])
    falls_back(two, caplog)


def test_a_longer_file_is_seen(two: Checkpoints, caplog: pytest.LogCaptureFixture) -> None:
    with newest(two).open("ab") as file:
        file.write(b"\0")
    falls_back(two, caplog)


def test_all_damaged_is_an_error_and_never_a_fresh_start(two: Checkpoints) -> None:
    for path in two.folder.iterdir():
        flip(path, 100)
    with pytest.raises(UserError, match=r"every checkpoint is damaged.*--no-resume"):
        two.latest()
    assert len(list(two.folder.iterdir())) == 2


def test_after_a_fallback_the_damaged_one_goes_and_two_whole_ones_stay(two: Checkpoints) -> None:
    flip(newest(two), 100)
    two.save(150, state(150))
    names = sorted(path.name for path in two.folder.iterdir())
    assert names == ["step-00000100.ckpt", "step-00000150.ckpt"]
    found = two.latest()
    assert found is not None
    assert found[0] == 150


def test_the_newest_step_is_one_known_to_be_whole(two: Checkpoints) -> None:
    assert two.newest_step() == 200
    flip(newest(two), 100)
    again = Checkpoints(two.folder)
    assert again.newest_step() is None  # nothing looked at yet
    again.latest()
    assert again.newest_step() == 100  # or the damaged one would never be written anew
    again.clear()
    assert again.newest_step() is None


def test_the_newest_are_kept_past_a_change_of_width(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    steps = [5, 99_999_998, 99_999_999, 100_000_000]
    for step in steps:
        checkpoints.save(step, {"step": step})
    assert len(list(tmp_path.iterdir())) == 3
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == found[1]["step"] == 100_000_000


def test_none_and_clear(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None
    assert Checkpoints(tmp_path / "absent").latest() is None
    (tmp_path / "step-00000001 (copy).ckpt").touch()
    checkpoints.save(1, state(1))
    checkpoints.clear()
    assert checkpoints.latest() is None
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001 (copy).ckpt"]


def test_an_older_one_stays_while_a_newer_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, state(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(2, state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.ckpt"]
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 1


# One process starts the others by fork, so that torch is imported once.
KILLS = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from sagan_bench.runs.run_directory import RunDirectory
from sagan_bench.training.checkpoint import Checkpoints

torch.set_num_threads(1)  # forked children cannot use the threads of their parent
path, moments = Path(sys.argv[1]), random.Random(0)

def write(pipe):
    with RunDirectory(path, digest="d", config={}) as run:
        checkpoints = Checkpoints(run.checkpoints)
        found = checkpoints.latest()
        step = found[0] if found else 0
        while True:
            step += 1
            big = [torch.full((250_000,), float(step)) for _ in range(4)]
            checkpoints.save(step, {"step": step, "big": big})
            os.write(pipe, step.to_bytes(8, "big"))

for _ in range(8):
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        write(outlet)
    os.close(outlet)
    first = os.read(inlet, 8)  # it is under way
    time.sleep(moments.uniform(0, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said = first
    while more := os.read(inlet, 4096):
        said = more[-8:]
    os.close(inlet)
    leftovers = len(list(path.rglob(".*.tmp")))
    with RunDirectory(path, digest="d", config={}) as run:
        step, state = Checkpoints(run.checkpoints).latest()
        whole = state["step"] == step and all((t == step).all() for t in state["big"])
        swept = not list(path.rglob(".*.tmp"))
        kept = len(list(run.checkpoints.iterdir()))
    said = int.from_bytes(said, "big")
    print(json.dumps([said, step, bool(whole), leftovers, swept, kept]))
"""


def test_kill_9_at_any_moment_leaves_whole_checkpoints(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLS, str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 8
    cut_short = 0
    for said, step, whole, leftovers, swept, kept in rows:
        assert whole
        assert said <= step <= said + 1  # nothing that was saved is lost
        assert swept
        assert kept in (min(step, 2), min(step, 3))  # 3: killed between writing and removing
        cut_short += leftovers
    assert cut_short > 0, "no kill fell into a write: make the state bigger"
    assert "damaged" not in done.stderr
