"""A run to be made, and what happens in it, as one line of JSON each: for other machines."""

import json
import time
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from sagan_bench.config.schema import RunConfig
from sagan_bench.core import extensions
from sagan_bench.core.stored import UNFIT
from sagan_bench.execution.engine import Ended, Job
from sagan_bench.runs.command import Command
from sagan_bench.session.events import Event as RunEvent
from sagan_bench.session.events import Progress, SampleGrid, Scored, ScoringAhead
from sagan_bench.training.loop import Diverged, Step

VERSION = 1
"""Of these lines; whoever reads takes no other."""
_KINDS: dict[str, type[Any]] = {
    "step": Step, "progress": Progress, "diverged": Diverged, "scored": Scored, "ended": Ended,
    "ahead": ScoringAhead, "grid": SampleGrid,
}  # fmt: skip
_KIND_OF = {kind: name for name, kind in _KINDS.items()}
_EVENTS = {name: TypeAdapter[Any](kind) for name, kind in _KINDS.items()}
_COMMAND = TypeAdapter(Command)


class Pace:
    """Lets every event pass, but of steps and progress one in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._let = -seconds

    def lets(self, what: RunEvent | Ended) -> bool:
        """Return whether an event is to be told now."""
        if not isinstance(what, Progress | Step):
            return True  # and the next step is told no later for it
        now = time.monotonic()
        is_time = now - self._let >= self.seconds
        self._let = now if is_time else self._let
        return is_time


class Unreadable(ValueError):
    """A line is no message, or one of another version of this package."""


def of_job(job: Job) -> str:
    """Return a run to be made as a line; files of its components are named, not in it."""
    if isinstance(job.config, Command):
        config = {"command": _COMMAND.dump_python(job.config, mode="json")}
    else:
        config = {"config": job.config.model_dump(mode="json")}
    return _line({"id": job.id, "digest": job.digest, "path": str(job.path.absolute()), **config})


def handed(job: Job, folder: Path) -> str:
    """Return a run to be made as a line, and leave the files of its components in ``folder``."""
    own = job.own or extensions.require(getattr(job.config, "own", {}), job.path)
    extensions.leave(own, folder)
    return of_job(job)


def job_in(line: str, folder: Path) -> Job:
    """Return the run in a line; files of components are run from the copies in ``folder``.

    Raises:
        Unreadable: it is none.
        UserError: a file of components is not there, or is another.
    """
    said = _said(line)
    try:
        who, path = (str(said["id"]), str(said["digest"])), Path(said["path"])
        if "command" in said:
            return Job(who[0], _COMMAND.validate_python(said["command"]), path, who[1])
        own = extensions.require(said["config"].get("own") or {}, folder)
        config = RunConfig.model_validate(said["config"])
        return Job(who[0], config, path, who[1], own=tuple(own))
    except UNFIT as error:
        raise Unreadable(f"no run: {error}") from error


def key_in(line: str) -> tuple[str, str]:
    """Return id and digest of the run in a line.  Raises `Unreadable`."""
    said = _said(line)
    return str(said.get("id")), str(said.get("digest"))


def of_event(what: RunEvent | Ended) -> str:
    """Return an event of a run as a line."""
    name = _KIND_OF[type(what)]
    return _line({name: _EVENTS[name].dump_python(what, mode="json")})


def event_in(line: str) -> RunEvent | Ended:
    """Return the event in a line.  Raises `Unreadable`."""
    said = _said(line)
    name = next((name for name in _KINDS if name in said), None)
    if name is None:
        raise Unreadable("no event")
    try:
        event: RunEvent | Ended = _EVENTS[name].validate_python(said[name])
    except UNFIT as error:
        raise Unreadable(f"no {name}: {error}") from error
    return event


def _line(said: dict[str, Any]) -> str:
    return json.dumps({"version": VERSION, **said}) + "\n"


def _said(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"no JSON: {error}") from error
    if not isinstance(said, dict) or said.get("version") != VERSION:
        raise Unreadable(f"no message of version {VERSION}")
    return said
