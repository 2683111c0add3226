"""The log of a run: all that its process prints, and nothing that fails the run."""

import logging
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sagan_bench.core.errors import UserError
from sagan_bench.runs.environment import attempt_here
from sagan_bench.runs.log import heading, last_lines, lines_of, logged_to, printed_to

PROGRAM = """
import faulthandler, os, sys
from pathlib import Path
from sagan_bench.runs.log import printed_to
faulthandler.enable()
print("before")
with printed_to(Path(sys.argv[1]) / "log.txt") as add:
    add("--- attempt")
    print("out"); print("err", file=sys.stderr)
    os.system("echo from C")
    if sys.argv[2:]:
        print("last words")
        os.kill(os.getpid(), int(sys.argv[2]))
print("after")
"""


def printing(folder: Path, *more: str) -> tuple[str, str]:
    """Return what a process printed to its terminal, and to the log."""
    words = [sys.executable, "-c", PROGRAM, str(folder), *more]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    log = folder / "log.txt"
    return done.stdout + done.stderr, log.read_text() if log.is_file() else ""


def test_all_that_is_printed_within_is_in_the_log_and_in_it_alone(tmp_path: Path) -> None:
    terminal, log = printing(tmp_path / "run")
    assert terminal == "before\nafter\n"
    assert log == "--- attempt\nout\nerr\nfrom C\n"
    printing(tmp_path / "run")
    assert (tmp_path / "run" / "log.txt").read_text() == log + log


def test_a_crash_loses_no_line_and_leaves_where_it_was(tmp_path: Path) -> None:
    _, log = printing(tmp_path, "11")
    assert "last words\nFatal Python error: Segmentation fault" in log


@pytest.mark.parametrize("there", ["folder", "pipe", "read only"])
def test_that_it_cannot_be_opened_fails_nothing(tmp_path: Path, there: str) -> None:
    if there == "folder":
        (tmp_path / "log.txt").mkdir()
    elif there == "pipe":
        os.mkfifo(tmp_path / "log.txt")
    else:
        tmp_path = Path("/proc/nowhere")
    terminal, log = printing(tmp_path)
    assert sorted(terminal.split()) == sorted(["before", "out", "from", "C", "after", "err"])
    assert log == ""


def test_in_this_process_all_is_as_it_was_after_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        with printed_to(tmp_path / "log.txt") as add:
            add("\ud800 odd")
            os.write(2, b"within\n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    os.write(1, b"after\n")
    logging.getLogger("sagan_bench").warning("after too")
    assert capfd.readouterr().out == "after\n"
    assert [*lines_of(tmp_path)] == ["? odd", "within"]


def test_a_heading_says_when_and_where() -> None:
    attempt = attempt_here(0, 1)
    assert heading(attempt) == (
        f"--- attempt of {attempt.started:%Y-%m-%d %H:%M:%S} UTC, {attempt.place}"
    )


def test_the_end_of_a_log_is_its_last_lines_that_say_something(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert last_lines(log) == ""
    log.write_bytes(b"x" * 10_000 + b"\n" + b"\n".join(b"line %d \n" % i for i in range(12)))
    assert last_lines(log).splitlines() == [f"line {i}" for i in range(4, 12)]


def test_a_run_without_a_log_is_told_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no log\.txt: it was made before"):
        next(lines_of(tmp_path))
    os.mkfifo(tmp_path / "log.txt")
    with pytest.raises(UserError, match="cannot read"):
        next(lines_of(tmp_path))


LOGGER = logging.getLogger("sagan_bench.anything")


def test_what_is_logged_within_is_a_line_with_its_time_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "run" / "log.txt"
    for attempt in range(2):
        with logged_to(file) as add:
            add(f"--- attempt {attempt}")
            LOGGER.warning("odd \x1b[2J name at postgres://me:pw@host/db?key=1, %s", "twice")
        LOGGER.warning("after")
    first, second, third, fourth = file.read_text().splitlines()
    assert (first, third) == ("--- attempt 0", "--- attempt 1")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC WARNING: odd \\x1b\[2J name at "
        r"postgres://me:\*\*\*@host/db\?\*\*\* twice",
        second,
    )
    assert fourth.partition(" UTC ")[2] == second.partition(" UTC ")[2]
    utc = datetime.strptime(second[:19], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - utc).total_seconds()) < 60


@pytest.mark.parametrize("trouble", ["folder", "full"])
def test_a_log_that_cannot_be_written_fails_nothing(
    tmp_path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "log.txt"
    if trouble == "folder":
        file.mkdir()
    else:
        file = Path("/dev/full")
    with logged_to(file) as add:
        add("--- attempt")
        LOGGER.warning("within")
    assert "within" in caplog.text


def test_where_all_that_is_printed_goes_nothing_is_said_twice(tmp_path: Path) -> None:
    program = """
import logging, sys
from pathlib import Path
from sagan_bench.runs.log import logged_to, printed_to
file = Path(sys.argv[1])
with printed_to(file) as printed:
    logging.basicConfig()
    with logged_to(file) as logged:
        logged("twice")
        logging.warning("once")
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "log.txt"], check=False)
    assert done.returncode == 0
    assert (tmp_path / "log.txt").read_text() == "WARNING:root:once\n"
