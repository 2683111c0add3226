"""What another program leaves of its run: ``result.json`` and, on the way, ``progress.jsonl``."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_validator

from sagan_bench.config.wording import in_words
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.stored import json_object, parsed, refuse_special
from sagan_bench.runs.command import PROGRESS, RESULT
from sagan_bench.runs.program import Program
from sagan_bench.runs.records import Score

Figure = Annotated[float, Strict()]
Whole = Annotated[int, Strict(), Field(ge=0, le=2**63 - 1)]
_TAIL = 4096
"""Bytes at the end of a file of progress, or of a log, that are read."""


class Result(BaseModel):
    """What a program says of its run when it is over.

    Attributes:
        metrics: name -> value in the end; null where there is none, and NaN has diverged.
        curve: metric -> (step, value) on the way.
        steps: taken in all.
        seconds: of training, all attempts.
        flops_per_step: that a step computes.
        status: whether it came to a result, or diverged.
        reason: why it diverged.
        pictures: folder of what it drew in the end, in its own, where the study scores that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: dict[str, Figure | None] = {}
    curve: dict[str, list[tuple[Whole, Figure]]] = {}
    steps: Annotated[Whole, Field(ge=1)] | None = None
    seconds: Annotated[Figure, Field(ge=0, allow_inf_nan=False)] | None = None
    flops_per_step: Annotated[Whole, Field(ge=1)] | None = None
    status: Literal["finished", "diverged"] = "finished"
    reason: str | None = None
    pictures: Annotated[str, Field(pattern=r"^[^\x00]+$")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        for key in given if isinstance(given, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"'{key}' is no key of it; {closest(key, [*cls.model_fields])}")
        return given

    @model_validator(mode="after")
    def _steps_in_turn(self) -> "Result":
        for metric, points in self.curve.items():
            steps = [step for step, _ in points]
            if len(set(steps)) < len(steps):
                raise ValueError(f"curve.{metric}: a step is there twice")
            if self.steps is not None and max(steps, default=0) > self.steps:
                raise ValueError(f"curve.{metric}: a step beyond the {self.steps} of steps")
        return self

    @property
    def last_step(self) -> int:
        """The step of the end: as it says, or that of the last point of a curve, or 1."""
        on_the_way = [step for points in self.curve.values() for step, _ in points]
        return self.steps or max([1, *on_the_way])

    def why_diverged(self) -> str | None:
        """Return why it diverged; None if it did not."""
        if self.status == "diverged":
            return self.reason or "it says so"
        lost = [f"{name} is {v}" for name, v in self.metrics.items() if v is not None and _lost(v)]
        return ", ".join(lost) or None

    def scores(self, program: Program, given: Collection[str]) -> Iterator[Score]:
        """Yield the figures that the study knows: those on the way, then those ``given``."""
        on_the_way: dict[int, dict[str, float | None]] = defaultdict(dict)
        for metric, points in self.curve.items():
            for step, value in points:
                on_the_way[step][metric] = value
        for step, metrics in sorted(on_the_way.items()):
            if known := {name: value for name, value in metrics.items() if name in program.better}:
                yield program.score(step, known, final=False)
        if given and self.why_diverged() is None:
            yield program.score(self.last_step, {name: self.metrics[name] for name in given})


def _lost(value: float) -> bool:
    return value != value or value in (float("inf"), float("-inf"))


def read(folder: Path, needed: Collection[str]) -> Result:
    """Return what a program left in its folder, with the metrics that are ``needed`` of it.

    Raises:
        UserError: nothing, or what is no result: at which key, and why; or a metric is missing.
    """
    file = folder / RESULT
    try:
        result = Result.model_validate(json_object(file, with_nan=True))
    except FileNotFoundError:
        raise UserError(f"it ended well and left no {RESULT} in {folder}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{file}: {where}{': ' if where else ''}{in_words(first)}") from error
    missing = [name for name in needed if name not in result.metrics]
    if missing and result.why_diverged() is None:
        hint = closest(missing[0], list(result.metrics)) if result.metrics else "it is empty"
        raise UserError(f"{file}: metrics has no '{missing[0]}', which the study needs; {hint}")
    return result


def tail(file: Path, begin: int = 0) -> bytes:
    """Return the last bytes of a file, none before ``begin``.  Raises `OSError`."""
    with file.open("rb") as opened:
        opened.seek(max(begin, opened.seek(0, os.SEEK_END) - _TAIL))
        return opened.read()


class Progress(NamedTuple):
    """How far a program says that it is; ``steps`` is 0 where it does not say of how many."""

    step: int
    steps: int


def progress(folder: Path) -> Progress:
    """Return what the last whole line of its progress says; (0, 0) where that is nothing."""
    try:
        refuse_special(folder / PROGRESS)
        lines = tail(folder / PROGRESS).split(b"\n")[:-1]
    except (OSError, UserError):
        return Progress(0, 0)
    for line in reversed(lines):
        try:
            row = parsed(line)
        except ValueError:
            continue
        if isinstance(row, dict) and _is_count(row.get("step")):
            return Progress(row["step"], row["steps"] if _is_count(row.get("steps")) else 0)
    return Progress(0, 0)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63
