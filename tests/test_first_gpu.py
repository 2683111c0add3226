"""The runner of the first checks on a card: nothing stops it, and it goes on where it was."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MACHINE = {"device": "a card", "torch": "2", "cuda": "13"}


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


first_gpu: Any = loaded("first_gpu")


def check(name: str, code: str, minutes: float = 0.2) -> Any:
    return first_gpu.Check(name, minutes, f"{name} works", (sys.executable, "-c", code))


def writing(passed: bool | None, **more: Any) -> str:
    result = {"pass": passed, "found": {"ms": 1.5}} | more
    return f"print('seen'); open('result.json', 'w').write({json.dumps(result)!r})"


PASSES = check("passes", writing(True))
FAILS = check("fails", writing(False, error="Failed: wrong"))
SKIPS = check("skips", writing(None, skipped="one card"))
CRASHES = check("crashes", f"{writing(True)}; import os; os.abort()")
SILENT = check("silent", "pass")
HANGS = check("hangs", "import time; print('begun', flush=True); time.sleep(600)", 0.01)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / first_gpu.RECORDS).read_text().splitlines()]


def called(
    out: Path, monkeypatch: pytest.MonkeyPatch, checks: tuple[Any, ...], **options: Any
) -> int:
    """Run the command on a machine with a card, and return its exit code."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(first_gpu, "CHECKS", checks)
    monkeypatch.setattr(first_gpu, "machine", lambda: MACHINE)
    try:
        first_gpu.main(out=out, **options)
    except typer.Exit as left:
        return left.exit_code
    finally:  # the command would leave its own handler to the tests that follow
        signal.signal(signal.SIGTERM, before)
    return 0


def test_whatever_becomes_of_a_check_the_next_one_runs_and_each_leaves_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = (FAILS, HANGS, CRASHES, SILENT, SKIPS, PASSES)
    assert first_gpu.run_all(checks, tmp_path, MACHINE, 8) == ()
    found = lines(tmp_path)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == found
    assert [(line["check"], line["pass"]) for line in found] == [
        ("fails", False), ("hangs", False), ("crashes", False), ("silent", False),
        ("skips", None), ("passes", True),
    ]  # fmt: skip
    assert all(line.items() >= MACHINE.items() for line in found)
    by_name = {line["check"]: line for line in found}
    assert by_name["passes"]["found"] == {"ms": 1.5}
    assert by_name["passes"]["expects"] == "passes works"
    assert by_name["fails"]["error"] == "Failed: wrong"
    assert by_name["fails"]["found"] == {"ms": 1.5}
    assert by_name["skips"]["skipped"] == "one card"
    assert "died of SIGABRT" in by_name["crashes"]["error"]
    assert "seen" in by_name["crashes"]["error"]  # the end of its log
    assert by_name["silent"]["error"] == "wrote no result"
    assert by_name["hangs"]["error"].startswith("stopped after")
    assert by_name["hangs"]["seconds"] < 10


def test_a_check_that_is_stopped_cleans_up_and_nothing_of_it_lives_on(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n"
        "deaf = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); '\n"
        "child = subprocess.Popen([sys.executable, '-c', deaf + 'time.sleep(600)'])\n"
        "open('child', 'w').write(str(child.pid))\n"
        "try:\n    time.sleep(600)\nfinally:\n    open('clean', 'w').write('yes')\n"
    )
    first_gpu.run_check(check("hangs", code, 1 / 60), tmp_path)
    assert (tmp_path / "hangs" / "clean").exists()
    child = int((tmp_path / "hangs" / "child").read_text())
    soon(lambda: not lives(child))


def test_a_runner_that_is_told_to_stop_takes_its_check_with_it(tmp_path: Path) -> None:
    code = (
        "import importlib.util, pathlib\n"
        f"spec = importlib.util.spec_from_file_location('runner', {first_gpu.__file__!r})\n"
        "runner = importlib.util.module_from_spec(spec); spec.loader.exec_module(runner)\n"
        "code = 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'\n"
        "hangs = runner.Check('hangs', 5, 'to hang', (runner.sys.executable, '-c', code))\n"
        f"runner.CHECKS, runner.machine = (hangs,), lambda: {MACHINE}\n"
        f"runner.main(pathlib.Path({str(tmp_path)!r}))\n"
    )
    log = tmp_path / "hangs" / "log.txt"
    with subprocess.Popen([sys.executable, "-c", code]) as runner:
        soon(lambda: log.exists() and bool(log.read_text().strip()))
        runner.terminate()
    assert runner.returncode == 143
    soon(lambda: not lives(int(log.read_text())))


def soon(true: Callable[[], bool]) -> None:
    """Fail unless something becomes true in ten seconds."""
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lives(process: int) -> bool:
    """Whether a process runs: one that is dead may wait for its parent to notice."""
    told = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True)
    return told.stdout.strip()[:1] not in ("", "Z")


def test_the_same_command_goes_on_and_again_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*checks: Any, **options: Any) -> int:
        return called(tmp_path, monkeypatch, checks, **options)

    def names() -> list[str]:
        return [line["check"] for line in lines(tmp_path)]

    assert call(PASSES) == 0
    assert call(PASSES, FAILS) == 3
    assert call(PASSES, FAILS, SKIPS) == 3
    assert names() == ["passes", "fails", "skips"]
    assert call(PASSES, FAILS, SKIPS, only="skips,passes") == 3
    assert names() == ["passes", "fails", "skips", "passes", "skips"]
    mended = check("fails", writing(True))
    assert call(PASSES, mended, SKIPS, only="fails") == 0
    assert call(PASSES, mended, SKIPS, again=True) == 0
    assert names() == ["passes", "fails", "skips"]
    assert len((tmp_path / "first_gpu.1.jsonl").read_text().splitlines()) == 6
    with pytest.raises(typer.BadParameter, match="no check is called speeed"):
        call(PASSES, only="passes,speeed")


def test_what_an_earlier_attempt_left_is_gone_when_a_check_runs_again(tmp_path: Path) -> None:
    first_gpu.run_check(PASSES, tmp_path)
    assert first_gpu.run_check(check("passes", "pass"), tmp_path)["pass"] is False


def test_a_check_that_does_not_fit_waits_for_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large = check("large", writing(True), 3)
    checks = (PASSES, large, check("last", writing(True)))
    assert called(tmp_path, monkeypatch, checks, minutes=3) == 0
    assert [line["check"] for line in lines(tmp_path)] == ["passes"]
    told = capsys.readouterr().err
    assert "left: large,last; large may take 3 minutes" in told
    assert f"python benchmarks/first_gpu.py --out {tmp_path}\n" in told
    assert called(tmp_path, monkeypatch, checks, minutes=4) == 0
    assert [line["check"] for line in lines(tmp_path)] == ["passes", "large", "last"]
    assert "left" not in capsys.readouterr().err


def command(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "first_gpu.py"), *words],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


def test_the_table_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('torch was imported')")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "first_gpu.py"), "--list"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = done.stdout.splitlines()
    assert len(rows) == len(first_gpu.CHECKS)
    assert rows[0].split()[:4] == ["1.0", "min", "1.0", "identity"]
    total = sum(check.minutes for check in first_gpu.CHECKS)
    assert float(rows[-1].split()[0]) == total


@pytest.mark.slow
def test_without_a_card_it_says_so_and_leaves_with_2(tmp_path: Path) -> None:
    done = command("--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "sees no CUDA device here" in done.stderr
    assert not done.stdout
    assert not (tmp_path / "out").exists()


def test_every_check_is_there_and_fits_into_a_part() -> None:
    code = f"import runpy; print(*runpy.run_path({str(first_gpu.PROGRAM)!r})['CHECKS'])"
    there = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert [check.name for check in first_gpu.CHECKS] == there.stdout.split()
    assert all(check.minutes <= 8 for check in first_gpu.CHECKS)
