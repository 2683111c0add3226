"""What SLURM is asked, and what it says: the programs of its command line, and nothing else."""

import re
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sagan_bench.core.errors import UserError

SECONDS_FOR_AN_ANSWER = 60.0
USUAL_ARRAY = 1001
"""MaxArraySize where SLURM does not say."""
_AWAY = re.compile(
    r"unable to contact slurm controller|connection (refused|timed out|reset)|socket timed out|"
    r"zero bytes were transmitted|slurm backup controller in standby",
    re.IGNORECASE,
)
_TOO_MANY = re.compile(
    r"submit ?(job)?s? ?limit|maxsubmit|job array specification|temporarily unable to accept job|"
    r"resource temporarily unavailable",
    re.IGNORECASE,
)
_FORMAT = "%F|%K|%T|%r|%N|%j"
PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol")


class Unreachable(Exception):
    """SLURM does not answer for now; nobody knows what it did."""


class Refused(Exception):
    """SLURM does not do what it was asked, in its own words."""

    @property
    def is_too_many(self) -> bool:
        """Whether fewer jobs at once might be taken."""
        return bool(_TOO_MANY.search(str(self)))


class Element(NamedTuple):
    """A run in the queue: an element of an array."""

    array: int
    task: int
    state: str
    """Such as PENDING and RUNNING."""
    reason: str
    node: str
    name: str
    """Of the job."""

    @property
    def id(self) -> str:
        """What SLURM's programs call it."""
        return f"{self.array}_{self.task}"

    @property
    def waits(self) -> bool:
        """Whether it is not on a node."""
        return self.state == "PENDING"


class End(NamedTuple):
    """What SLURM knows of a job that is in the queue no more."""

    state: str
    code: int
    signal: int
    node: str


def elements() -> list[Element]:
    """Return this user's elements of arrays.  Raises `Unreachable`, `Refused`, `UserError`."""
    said = _output("squeue", "--me", "--noheader", "--array", f"--format={_FORMAT}")
    parts = (line.split("|", 5) for line in said.splitlines())
    return [
        Element(int(array), int(task), *rest)
        for array, task, *rest in (part for part in parts if len(part) == 6)
        if array.isdecimal() and task.isdecimal()
    ]


def log_at(folder: Path, name: str) -> str:
    """Return the option of sbatch for a log, whose name may have ``%a`` and the like.

    Raises:
        UserError: SLURM cannot write to a folder of that name.
    """
    if "\\" in str(folder):
        raise UserError(
            f"{folder}: sbatch takes a backslash in the path of a log for something else; choose "
            "--runs without"
        )
    return f"--output={str(folder).replace('%', '%%')}/{name}"


def submit(script: Path, options: Sequence[str]) -> int:
    """Hand over an array, and return its number.  Raises as `elements`."""
    said = _output("sbatch", "--parsable", *options, str(script))
    number = re.search(r"^(\d+)", said, re.MULTILINE)
    if not number:
        raise Refused(f"sbatch said {said.strip()!r}")
    return int(number[1])


def try_out(script: Path, options: Sequence[str]) -> None:
    """Ask whether a job would be taken.  Raises `Refused` if not, else as `elements`."""
    _output("sbatch", "--test-only", *options, str(script))


def end_of(element: str) -> End | None:
    """Return how a job ended; None if SLURM knows it no more.  Raises `Unreachable`."""
    try:
        said = _output("scontrol", "show", "job", element, "--oneliner")
    except Refused:  # it is not known any more
        return None
    fields = dict(re.findall(r"(\w+)=(\S*)", said))
    code, _, signal = fields.get("ExitCode", "0:0").partition(":")
    if "JobState" not in fields or not (code + signal).isdecimal():
        return None
    return End(fields["JobState"], int(code), int(signal or 0), fields.get("NodeList", ""))


def most_in_an_array() -> int:
    """Return how many elements an array may have.  Raises `Unreachable`."""
    try:
        said = re.search(r"MaxArraySize\s*=\s*(\d+)", _output("scontrol", "show", "config"))
    except Refused:
        said = None
    return max(1, int(said[1]) - 1) if said else USUAL_ARRAY - 1


def take_out(waiting: Iterable[str]) -> None:
    """Take jobs out of the queue that have not begun; the others are left alone."""
    _signal("scancel", "--state=PENDING", *waiting)


def end(element: str) -> None:
    """End a job that does not do so itself: SIGTERM, and later SIGKILL."""
    _signal("scancel", element)


def begin_now(element: str) -> None:
    """Have a job that was put back into the queue begin as soon as there is room."""
    _signal("scontrol", "update", f"jobid={element}", "starttime=now")


def put_back(job: str) -> bool:
    """Put the job that this is back into the queue; return whether SLURM does so."""
    try:
        _output("scontrol", "requeue", job)
    except (Unreachable, Refused, UserError):
        return False
    return True


def _signal(*words: str) -> None:
    """Ask for what may be refused in a transition, and is asked for again later."""
    with suppress(Unreachable, Refused):
        _output(*words, seconds=10.0)


def _output(*words: str, seconds: float = SECONDS_FOR_AN_ANSWER) -> str:
    try:
        done = subprocess.run(words, capture_output=True, timeout=seconds, check=False)
    except FileNotFoundError:
        raise UserError(
            f"no program {words[0]} is here; give the command on a login node of the cluster"
        ) from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"{words[0]} gave no answer in {seconds:.0f} s") from None
    said = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace")
    if done.returncode == 0:
        return done.stdout.decode(errors="replace")
    if _AWAY.search(said):
        raise Unreachable(said)
    raise Refused(said.strip() or f"{words[0]} ended with exit code {done.returncode}")
