"""The first minutes on a CUDA device: does it work there, and is it as fast as was estimated?

    python benchmarks/first_gpu.py --list
    python benchmarks/first_gpu.py --out first-gpu      # the same again, until nothing is left

The checks run in order of importance, each in a process of its own with a limit of time, so that
one that fails, crashes or hangs does not stop the next.  Each leaves a line of JSON on stdout and
in ``first_gpu.jsonl``, and its output and files in a folder of its name.  One call runs what fits
into ``--minutes`` and leaves out what has a line already.

Exit: 0 all passed so far, 2 usage or no CUDA device, 3 some failed.  `gpu_checks` has the checks
themselves; this file needs no torch.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(__file__).with_name("gpu_checks")
RECORDS = "first_gpu.jsonl"
STUDY = "python cli.py ablate presence --seeds 0-4 --set run.steps=4000 --jobs 5"
USAGE, SOME_FAILED = 2, 3
PROBE_SEC = 180.0
"""The first import of torch on a machine may take a minute."""
GRACE_SEC = 30.0
"""What a check that is stopped has to clean up."""
LOG_CHARACTERS = 1500

Line = dict[str, Any]


class Check(NamedTuple):
    """A check, as it is announced."""

    name: str
    minutes: float
    """After which it is stopped and has failed."""
    expects: str
    """What makes it pass; an estimate is only there to be compared with."""
    command: tuple[str, ...] = ()
    """Writes ``result.json``; by default the function of this name in `gpu_checks`."""


CHECKS = (
    Check(
        "identity",
        1,
        "compute capability 8.0 or higher; tells memory and the versions of driver and cuDNN",
    ),
    Check(
        "study_in_workers",
        3,
        "ablate smoke --jobs 2 finishes all 4 cells in worker processes that know the card by its "
        "number",
    ),
    Check("gpu_tests", 3, "pytest -m gpu: all pass, at least one ran"),
    Check(
        "no_hidden_wait",
        2,
        "no step between two rows of the log waits for the card: quick, celeba64, cifar10 "
        "(classes, five updates of D), and quick captured, on twins",
    ),
    Check(
        "attention_backends",
        1.5,
        "in bf16, gradients of attention are finite and within 5 % of float64's for the presets' "
        "shapes, also where 64 keys have scores near -144: as the project calls it, flash, "
        "memory-efficient and plain; cuDNN's only reported (known: NaN there)",
    ),
    Check(
        "out_of_memory",
        2,
        "what runs out of 4 GiB, in D's and in G's update, is told a micro-batch, with which a "
        "step then works",
    ),
    Check(
        "resume",
        3,
        "a run killed after its checkpoint of step 200 goes on to 300 on the card, and a copy of "
        "it on the CPU; every step logged once; losses of step 201 within 1e-3",
    ),
    Check(
        "speed",
        6,
        "each preset steps in each precision and compiles without a graph break; estimates for an "
        "H100, quick and celeba64: 5-7 ms a step, about 3 compiled, in 4 graphs",
    ),
    Check("compiled_tf32", 2, "quick steps when compiled with TF32 products"),
    Check(
        "launches",
        2,
        "kernels are seen; estimates: 807 launches a step for quick, 804 for celeba64, the card "
        "busy for 2 to 2.5 of 5-7 ms",
    ),
    Check("repeatable", 2, "reports which tensors differ between two runs; promised for CPUs only"),
    Check(
        "whole_step_graph",
        3,
        "training.cuda_graph: quick in fp32 with two updates of D, captured, differs from the loop "
        "after 13 steps by 1e-4 at most, or by twice what two loops do, and after 26 also where it "
        "goes on from another's state; tells bits and rows of 200 steps, and the time of both; "
        "estimate for an H100: 1.8-2 ms a step of quick",
    ),
    Check(
        "processes",
        6,
        "1, 2, 4 and 8 processes train at once; again under the Multi-Process Service, if it can "
        "be started, and it is stopped; estimates for 8: 500 steps a second in all "
        "time-sliced, 1,400 under the service",
    ),
    Check(
        "context_placement",
        3,
        "with two cards, a study on the second takes less than 50 MiB of the first",
    ),
    Check(
        "paper_network",
        2,
        "imagenet128-official steps with a batch of 256 in bf16; estimate for an H100: 130-160 ms",
    ),
    Check(
        "scoring",
        2,
        "2,048 images against 2,048: every figure within 1e-3 of the CPU's; tells images a second",
    ),
    Check(
        "two_cards",
        3,
        "with two cards, two processes train quick: losses of the first 5 steps within 1e-2 of "
        "one card's",
    ),
)


# --- One check ---------------------------------------------------------------------------------


def run_check(check: Check, out: Path) -> Line:
    """Run a check to its end, whatever that is, and return its line."""
    folder = out.resolve() / check.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = check.command or (sys.executable, str(PROGRAM), check.name)
    began = time.monotonic()
    death = _run(command, folder, 60 * check.minutes)
    seconds = round(time.monotonic() - began, 1)
    result = _result(folder, death)
    return {
        "check": check.name,
        "pass": result["pass"],
        "expects": check.expects,
        "seconds": seconds,
        **{key: value for key, value in result.items() if key != "pass"},
    }


def _run(command: Sequence[str], folder: Path, limit_sec: float) -> str | None:
    """Run a command, its output in ``log.txt``; return why it did not end well, if it did not."""
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with _ended(process):
        try:
            code = process.wait(limit_sec)
        except subprocess.TimeoutExpired:
            return f"stopped after {limit_sec:.0f} s"
    if code < 0:
        return f"died of {signal.Signals(-code).name}"
    return f"exit code {code}" if code else None


@contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """End a process at last, politely first, and then all that it started."""
    try:
        yield
    finally:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(GRACE_SEC)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment() -> dict[str, str]:
    """Return this process's environment, in which this checkout can be imported."""
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def _result(folder: Path, death: str | None) -> Line:
    """Return what a check wrote; one that died or wrote nothing has failed."""
    try:
        written: Line = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        written = {"pass": False, "found": {}}
        death = death or "wrote no result"
    if death:
        log = (folder / "log.txt").read_text(errors="replace").strip()
        error = f"{death}; the end of its log:\n{log[-LOG_CHARACTERS:]}" if log else death
        written |= {"pass": False, "error": error}
    return written


# --- All of them -------------------------------------------------------------------------------


def run_all(checks: Sequence[Check], out: Path, machine: Line, minutes: float) -> tuple[Check, ...]:
    """Run the checks that fit into so many minutes, in their order, and return those left."""
    began = time.monotonic()
    for number, check in enumerate(checks):
        if (time.monotonic() - began) / 60 + check.minutes > minutes:
            return tuple(checks[number:])
        text = json.dumps(run_check(check, out) | machine)
        with (out / RECORDS).open("a") as records:
            records.write(text + "\n")
        print(text, flush=True)
    return ()


def recorded(out: Path) -> dict[str, Line]:
    """Return the last line of each check, by name."""
    path, lines = out / RECORDS, dict[str, Line]()
    for text in path.read_text().splitlines() if path.exists() else []:
        with suppress(ValueError):  # cut off: its check runs again
            line = json.loads(text)
            lines[line["check"]] = line
    return lines


def chosen(checks: Sequence[Check], out: Path, only: str | None) -> tuple[Check, ...]:
    """Return the checks that were asked for by name, else those without a line."""
    if only is None:
        done = recorded(out)
        return tuple(check for check in checks if check.name not in done)
    names = only.split(",")
    if unknown := set(names) - {check.name for check in checks}:
        raise typer.BadParameter(f"--only: no check is called {', '.join(sorted(unknown))}")
    return tuple(check for check in checks if check.name in names)


def set_aside(out: Path) -> None:
    """Give the lines so far another name, so that every check runs again."""
    path = out / RECORDS
    if path.exists():
        number = sum(1 for _ in out.glob("first_gpu*.jsonl"))
        path.rename(path.with_suffix(f".{number}.jsonl"))


def machine() -> Line:
    """Return the card's name and the versions of torch and CUDA, or leave if there is none."""
    told = subprocess.run(
        [sys.executable, str(PROGRAM), "machine"],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=PROBE_SEC,
    )
    if told.returncode:
        print(f"error: torch cannot be used here:\n{told.stderr.strip()}", file=sys.stderr)
        raise typer.Exit(USAGE)
    found: Line = json.loads(told.stdout.splitlines()[-1])
    if found["device"] is None:
        print(f"error: torch {found['torch']} sees no CUDA device here", file=sys.stderr)
        raise typer.Exit(USAGE)
    return found


def _leave(number: int, frame: object) -> None:
    """Leave as by an error, so that no check is left behind."""
    sys.exit(128 + number)


def print_table(checks: Sequence[Check]) -> None:
    """Print each check, its limit, and the minutes up to its end at most."""
    total = 0.0
    for check in checks:
        total += check.minutes
        print(f"{total:5.1f} min  {check.minutes:4.1f}  {check.name:18}  {check.expects}")


def conclude(checks: Sequence[Check], out: Path, left: Sequence[Check], only: bool) -> None:
    """Say on stderr how far this is, and how to go on; leave with 3 if a check failed."""
    lines = recorded(out)
    results = {name: lines[name]["pass"] for name, *_ in checks if name in lines}
    failed = [name for name, passed in results.items() if passed is False]
    passed, skipped = (list(results.values()).count(result) for result in (True, None))
    print(f"{passed} passed, {len(failed)} failed, {skipped} skipped", file=sys.stderr)
    for name in failed:
        print(f"failed: {name}, see {out / name / 'log.txt'}", file=sys.stderr)
    if left:
        names = ",".join(check.name for check in left)
        asked = f" --only {names}" if only else ""
        print(
            f"left: {names}; {left[0].name} may take {left[0].minutes:g} minutes; go on with\n"
            f"python benchmarks/first_gpu.py --out {out}{asked}",
            file=sys.stderr,
        )
    elif not only:
        print(f"next, the study that a card is wanted for:\n{STUDY}", file=sys.stderr)
    if failed:
        raise typer.Exit(SOME_FAILED)


def main(
    out: Annotated[Path, typer.Option(help="Folder of the results")] = Path("first-gpu"),
    minutes: Annotated[float, typer.Option(help="Of this call, at most")] = 8.0,
    only: Annotated[str | None, typer.Option(help="Run these, done or not, e.g. a,b")] = None,
    again: Annotated[bool, typer.Option("--again", help="Set the lines aside; begin anew")] = False,
    as_table: Annotated[bool, typer.Option("--list", help="Print the checks; run none")] = False,
) -> None:
    """Run the checks that are left, as many as fit."""
    if as_table:
        print_table(CHECKS)
        return
    wanted = chosen(CHECKS, out, only)
    here = machine()
    if again:
        set_aside(out)
        wanted = chosen(CHECKS, out, only)
    signal.signal(signal.SIGTERM, _leave)
    left = run_all(wanted, out, here, minutes)
    conclude(CHECKS, out, left, only is not None)


if __name__ == "__main__":
    typer.run(main)
