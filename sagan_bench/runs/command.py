"""A run of another program: the template of its command, and the command of one run."""

import math
import shlex
import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.runs.environment import environment, without_secrets
from sagan_bench.runs.program import Program
from sagan_bench.runs.records import Record, Status

SEED, OUT, VARIANT = "seed", "out", "variant"
OURS = (SEED, OUT, VARIANT)
"""Placeholders that have a value in every run."""

RESULT, PROGRESS = "result.json", "progress.jsonl"
"""What a program leaves in its folder, and what it may."""

Value = str | int | float | bool
"""Of a placeholder."""
A_WORD = "a text, a finite number, true or false"


def fits_a_word(value: object) -> bool:
    """Return whether a value may be that of a placeholder."""
    is_plain = isinstance(value, str | int) and "\0" not in str(value)
    return is_plain or (isinstance(value, float) and math.isfinite(value))


@dataclass(frozen=True)
class Command:
    """A run that another program makes.

    Attributes:
        program: its template, the values of this variant, and which figures it must give.
        variant: its name.
        seed: of its training.
        device: where it runs.
        threads: of the CPU that it may use; None leaves that to it.
        real: folder of real pictures, against which those that it draws are scored.
        measured: the metrics that this makes; the others it gives itself.
    """

    program: Program
    variant: str
    seed: int
    device: str = "cpu"
    threads: int | None = None
    real: str | None = None
    measured: tuple[str, ...] = ()

    @property
    def given(self) -> list[str]:
        """The metrics that it gives itself."""
        return [name for name in self.program.better if name not in self.measured]

    @property
    def digest(self) -> str:
        """What its folder is named by."""
        return self.program.digest

    def placed(self, device: str, threads: int, cells_on_device: int) -> "Command":
        """Return it as it runs at a place that so many runs share."""
        program = self.program.model_copy(update={"cells_on_device": cells_on_device})
        return replace(self, program=program, device=device, threads=threads)

    def words(self, path: Path) -> list[str]:
        """Return the words of the command of the run in ``path``.

        Raises:
            UserError: it is no template, or a value does not fit into it.
        """
        ours = {SEED: self.seed, VARIANT: self.variant, OUT: str(folder_of(path))}
        values = {**{key: _text(value) for key, value in self.program.values.items()}, **ours}
        try:
            return [word.format_map(values) for word in split(self.program.source)]
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise UserError(f"the command {self.program.source}: {error}") from error

    def record(self, path: Path, status: Status = Status.FAILED) -> Record:
        """Return the record of a run in ``path`` before its first step."""
        where = environment(self.device, threads=self.threads)
        name = path.resolve().name
        return self.program.record(name, self.variant, self.seed, status, environment=where)


def folder_of(path: Path) -> Path:
    """Return the program's own folder in that of a run, ``{out}``; it is absolute."""
    return path.absolute() / "out"


def split(template: str) -> list[str]:
    """Return the words of a template, as a shell would split it.

    Raises:
        UserError: a quote is not closed, there is nothing, or a word holds a secret.
    """
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise UserError(f"the command {template}: {error}; close the quotation") from error
    if not words or "\0" in template:
        raise UserError(
            "the command is empty; give one, such as 'python train.py --seed {seed} --out {out}'"
        )
    if secret := next((word for word in words if without_secrets(word) != word), None):
        raise UserError(
            f"the command has {without_secrets(secret)}, and commands are stored: give a password "
            "or the options of a URL in an environment variable, which the program inherits"
        )
    return words


def placeholders(template: str) -> list[str]:
    """Return the placeholders of a template.  Raises `UserError` where it is no template."""
    try:
        fields = (
            field for word in split(template) for _, field, *_ in string.Formatter().parse(word)
        )
        return list(dict.fromkeys(field for field in fields if field is not None))
    except ValueError as error:
        raise UserError(
            f"the command {template}: {error}; write a brace that is no placeholder twice"
        ) from error


@dataclass(frozen=True)
class Template:
    """The command of a study, and the values of its placeholders by variant."""

    text: str
    values: Mapping[str, Mapping[str, Value]]

    @cached_property
    def names(self) -> list[str]:
        """Its placeholders."""
        return placeholders(self.text)

    def check(self) -> None:
        """Refuse a placeholder without a value, and a value without a placeholder.

        Raises:
            UserError: which, and of which variant.
        """
        for name in (SEED, OUT):
            if name not in self.names:
                raise UserError(f"the command has no {{{name}}}, of which it is to make its run")
        for variant, values in self.values.items():
            for name in values:
                self._check_used(variant, name)
            known = [*OURS, *values]
            for name in (name for name in self.names if name not in known):
                hint = closest(name, known)
                raise UserError(
                    f"the command has {{{name}}}, and [variant.{variant}] no {name}; {hint}"
                )

    def _check_used(self, variant: str, name: str) -> None:
        where = f"[variant.{variant}] {name}"
        if name in OURS:
            raise UserError(f"{where}: {{{name}}} has a value in every run; choose another name")
        if name not in self.names:
            spare = [other for other in self.names if other not in (*OURS, *self.values[variant])]
            has = f" but {{{spare[0]}}}" if spare else ""
            raise UserError(f"{where}: the command has no {{{name}}}{has}; use it, or leave it out")

    def of(self, variant: str) -> dict[str, Value]:
        """Return the values that make a variant what it is."""
        own = dict(self.values.get(variant, {}))
        return own | ({VARIANT: variant} if VARIANT in self.names else {})


def _text(value: object) -> object:
    """Return a value as a command line has it."""
    return str(value).lower() if isinstance(value, bool) else value
