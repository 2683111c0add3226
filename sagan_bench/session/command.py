"""A run that another program makes: its command, to its end, whatever that is."""

import os
import re
import shlex
import signal
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from sagan_bench.core import system
from sagan_bench.core.cpu import THREADS
from sagan_bench.core.errors import MachineError, UserError
from sagan_bench.core.groups import ProcessGroup
from sagan_bench.core.stops import StopReason
from sagan_bench.evaluation.pictures import Folders, score_folders
from sagan_bench.runs import records, result
from sagan_bench.runs.command import RESULT, Command, folder_of
from sagan_bench.runs.environment import attempt_here
from sagan_bench.runs.log import LOG, heading
from sagan_bench.runs.records import Record, Score, Status
from sagan_bench.runs.result import Result
from sagan_bench.runs.run_directory import RunDirectory
from sagan_bench.session.events import Progress, Scored, Stop, Stopped, Watch, followed
from sagan_bench.session.failures import end_attempt

BY_A_SHELL = 128
"""A shell's exit code where a signal ended its program is that of the signal, plus this."""
SECONDS_TO_HEAR = 0.5
"""After a program has ended without a result, until it is taken for what the program did."""
_STOPPING = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
"""Those that a machine sends, of which a shell may tell."""
_OUT_OF_MEMORY = re.compile(r"\bMemoryError\b|\bOutOfMemoryError\b|out of memory", re.IGNORECASE)
_LAST_LINES = 3
_MOST_CHARACTERS = 400


def run(command: Command, *, out: Path, watch: Watch, stop: Stop) -> Record:
    """Make the run of a command; what it resumes from is its own business.

    Args:
        command: with its place.
        out: the run's directory; the program's own is in it.
        watch: sees how far it says that it is, and its scores.
        stop: asked often; a reason is passed on to the program as a signal.

    Returns:
        The record; the one on disk if that has a result.

    Raises:
        UserError: a directory that cannot be used, or no such program.
        Stopped: ``stop`` asked for it.
    """
    blank = command.record(out)
    with RunDirectory(out, digest=command.digest, config=blank.config) as directory:
        earlier = records.read(out) if directory.record_file.exists() else None
        if earlier and earlier.status.is_result:
            return earlier
        return _Session(command, directory, blank, earlier, watch, stop).run()


class _Session:
    """One attempt at a run, within its directory."""

    def __init__(
        self, command: Command, directory: RunDirectory, blank: Record, earlier: Record | None,
        watch: Watch, stop: Stop,
    ) -> None:  # fmt: skip
        self.command, self.directory, self.blank = command, directory, blank
        self.watch, self.stop = watch, stop
        self.path, self.folder = directory.path, folder_of(directory.path)
        self.folder.mkdir(exist_ok=True)
        self.log = self.path / LOG
        self.progress = result.progress(self.folder)
        self.earlier = earlier.attempts if earlier else ()
        self.seconds_before = (earlier.cost.train_sec if earlier else None) or 0.0
        self.began, self.sec = time.perf_counter(), 0.0
        self.attempt = attempt_here(self.progress.step, command.threads)

    def run(self) -> Record:
        """Run the program to its end, and return the record."""
        words = self.command.words(self.path)
        self._write(Status.RUNNING)
        code, stopping, printed = self._program(words)
        self.sec = time.perf_counter() - self.began
        if stopping := stopping or self._reason_heard_late(code):
            self._write(Status.INTERRUPTED, stopping)
            raise Stopped(stopping, self.path)
        return self._failed(code, printed) if code else self._ended_well()

    def _program(self, words: list[str]) -> tuple[int, str | None, str]:
        """Return the program's exit code, why it was asked to stop, and its last lines."""
        stopping: str | None = None
        with self.log.open("ab") as log:
            first = f"{heading(self.attempt)}: {shlex.join(words)}\n"
            log.write(first.encode(errors="replace"))
            log.flush()
            begin = log.tell()
            lock, environment = self.path / ".program.lock", _environment(self.command)
            with ProcessGroup(words, lock=lock, log=log, environment=environment) as group:
                while (code := group.wait()) is None:
                    self._look()
                    if not stopping and (stopping := self.stop()):
                        by_hand = stopping == StopReason.INTERRUPTED
                        group.stop(signal.SIGINT if by_hand else signal.SIGTERM)
        self._look()
        return code, stopping, _last_lines(result.tail(self.log, begin))

    def _reason_heard_late(self, code: int) -> str | None:
        """Return why all should stop, where the program heard of it first, and ended.

        A cluster sends its signals to all processes of a job, in any order.
        """
        ended_well = code == 0 and (self.folder / RESULT).exists()  # or on the way
        deadline = time.monotonic() + (0 if ended_well else SECONDS_TO_HEAR)
        while not (reason := self.stop()) and time.monotonic() < deadline:
            time.sleep(SECONDS_TO_HEAR / 10)
        return reason

    def _look(self) -> None:
        """Show how far the program says that it is."""
        now = result.progress(self.folder)
        if now != self.progress:
            self.progress = now
            self.watch(Progress("program", now.step, now.steps))

    def _ended_well(self) -> Record:
        try:
            figures = result.read(self.folder, self.command.given)
            diverged = figures.why_diverged()
            scores = [*figures.scores(self.command.program, self.command.given)]
            if self.command.measured and not diverged:
                scores.insert(0, self._measured(figures))  # its protocol is the main one
        except MachineError:
            raise
        except UserError as error:
            return self._end(str(error), lost=False)
        except Stopped as stopped:
            self._write(Status.INTERRUPTED, str(stopped))
            raise
        status = Status.DIVERGED if diverged else Status.FINISHED
        record = self._write(status, diverged, figures, scores)
        for score in record.scores:
            self.watch(Scored(score))
        return record

    def _measured(self, figures: Result) -> Score:
        """Return the score of the pictures that the program drew in the end."""
        if figures.pictures is None:
            raise UserError(
                f"{self.folder / RESULT} has no 'pictures': the study scores a folder of them "
                f"against {self.command.real}"
            )
        drawn, real = self.folder / figures.pictures, Path(self.command.real or "")
        names, device = self.command.measured, self.command.device
        folders = Folders(drawn, real, metrics=names, device=device)
        with system.memory_for("scoring", torch.device(device)):
            made = score_folders(folders, followed("score", self.watch, self.stop, self.path))
        at_the_end = {"step": figures.last_step, "weights": "ema"}  # as `Program.score`
        return made.model_copy(update=at_the_end)

    def _failed(self, code: int, printed: str) -> Record:
        end = f"; {LOG} ends: {printed}" if printed else f"; {LOG} is empty"
        if number := _signal_of(code):
            name = (
                signal.Signals(number).name if number in [*signal.Signals] else f"signal {number}"
            )
            hint = " (out of memory?)" if number == signal.SIGKILL else ""
            return self._end(f"the program was ended by {name}{hint}{end}", lost=True)
        lost = bool(_OUT_OF_MEMORY.search(printed))
        return self._end(f"the program ended with exit code {code}{end}", lost=lost)

    def _end(self, reason: str, *, lost: bool) -> Record:
        self._write(Status.RUNNING)  # how far it came, and its time
        end_attempt(self.directory, self.blank, reason, lost=lost)
        return records.read(self.path)

    def _write(
        self,
        status: Status,
        reason: str | None = None,
        figures: Result | None = None,
        scores: Sequence[Score] = (),
    ) -> Record:
        """Return the record as of now, stored."""
        progress, attempt = self.progress, self.attempt
        step = figures.last_step if figures else progress.step
        if status != Status.RUNNING:
            ended = {"ended": datetime.now(UTC), "to_step": step, "outcome": status}
            attempt = attempt.model_copy(update=ended)
        own, scoring = figures.seconds if figures else None, None
        if self.command.measured and scores:
            scoring = time.perf_counter() - self.began - self.sec
        cost = {
            "train_sec": self.seconds_before + self.sec if own is None else own,
            "score_sec": scoring,
            "flops_per_step": figures.flops_per_step if figures else None,
        }
        record = self.blank.model_copy(
            update={
                "status": status,
                "reason": reason,
                "step": step,
                "steps": max(step if figures else progress.steps, step, 1),
                "scores": tuple(scores),
                "cost": self.blank.cost.model_copy(update=cost),
                "attempts": (*self.earlier, attempt),
            }
        )
        self.directory.write(record)
        return record


def _environment(command: Command) -> dict[str, str]:
    """Return the environment of a program: ours, with the device and the threads of its slot.

    On the CPU of a machine with GPUs it sees none, because the CPU was then asked for.
    """
    kind, _, index = command.device.partition(":")
    own = {}
    if index:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        own["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(index)] if visible else index
    elif kind == "cpu" and torch.cuda.is_available():
        own["CUDA_VISIBLE_DEVICES"] = ""
    threads = dict.fromkeys(THREADS, str(command.threads)) if command.threads else {}
    return {**os.environ, **own, **threads}


def _signal_of(code: int) -> int:
    """Return the number of the signal that ended a program, by its exit code; 0 if none did."""
    if code < 0:
        return -code
    return next((int(number) for number in _STOPPING if code == BY_A_SHELL + number), 0)


def _last_lines(printed: bytes) -> str:
    """Return the last lines that a program printed, in one."""
    lines = [line.strip() for line in printed.decode(errors="replace").splitlines()]
    text = " | ".join([line for line in lines if line][-_LAST_LINES:])
    return text[-_MOST_CHARACTERS:]
