"""What a study is: a question as data, the measure it is answered by, and what is compared.

A study is a TOML file (``ablations/*.toml``); `Memory` is what its folder keeps of it, so that it
goes on as it began.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from sagan_bench.analysis.question import Facts, Measure, Paper, Settings
from sagan_bench.config.diff import ABSENT, Difference, differences, listed
from sagan_bench.config.layers import Resolved, assemble, decide
from sagan_bench.config.schema import MOST_WHOLE, NAME, Host, Section
from sagan_bench.config.variants import presets, shipped, variant_settings
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write
from sagan_bench.core.names import closest, kind_of
from sagan_bench.core.stored import first_trouble, fitting, json_object, load_toml, sealed, table_of
from sagan_bench.core.trees import flatten

MEMORY = "study.json"
DEFAULT_STUDY = "quick"
MOST_SEEDS = 10_000
M = TypeVar("M", bound=BaseModel)
_HOST = TypeAdapter(Host)


class Study(Section):
    """A question, the runs that answer it, and the measure.

    Every variant that is nobody's baseline is compared with its own (``against``), else with
    ``baseline``.
    """

    name: str = Field(pattern=NAME)
    question: str
    preset: str = "quick"
    baseline: str | None = None
    variants: tuple[str, ...] = ()
    against: dict[str, str] = Field(default={}, description="variant -> a baseline of its own")
    seeds: tuple[int, ...] = Field(min_length=1)
    on: dict[str, Measure] = Field(description="kind of data, or 'other' -> what decides there")
    set: Settings = Field(default={}, description="settings of every cell")
    comparable: bool = Field(True, description="false: too small to conclude anything from")
    paper: Paper | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.pairs:
            raise ValueError("nothing is compared: give a baseline and variants, or [against]")
        if any(seed < 0 for seed in self.seeds) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must be different numbers from 0")
        if self.preset not in presets():
            raise ValueError(
                f"no preset is called '{self.preset}'; {closest(self.preset, list(presets()))}"
            )
        for variant in self.all_variants:
            variant_settings(variant)
        self.measure  # noqa: B018  # refuses data that it has no measure for
        return self

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """What is compared: (variant, its baseline), in the order given."""
        baselines = {self.baseline, *self.against.values()}
        compared = [*self.variants, *(v for v in self.against if v not in self.variants)]
        return tuple(
            (variant, self.against.get(variant, self.baseline or ""))
            for variant in compared
            if variant in self.against or (self.baseline and variant not in baselines)
        )

    @property
    def all_variants(self) -> tuple[str, ...]:
        """Every variant that has cells: each baseline before what is compared with it."""
        return tuple(
            dict.fromkeys(name for variant, base in self.pairs for name in (base, variant))
        )

    @property
    def settings(self) -> Settings:
        """The settings of every cell: the study's, over those that go with its data."""
        return self.measure.set | self.set

    @property
    def data_kind(self) -> str:
        """The kind of the data: what stands before the colon."""
        source = self.set.get("data.source") or dict(flatten(presets()[self.preset]))["data.source"]
        return kind_of(str(source))

    @property
    def measure(self) -> Measure:
        """What decides on this study's data."""
        found = self.on.get(self.data_kind) or self.on.get("other")
        if found is None:
            raise ValueError(
                f"no measure for data of kind '{self.data_kind}': add [on.{self.data_kind}] or "
                "[on.other] with metric and min_effect"
            )
        return found

    def asked(self, variant: str, seed: int) -> Resolved:
        """Return the configuration of a cell as it was asked for.

        A variant wins over the study's settings: what it names is what it is about.

        Raises:
            UserError: an unknown key, or a value out of range.
        """
        return assemble(
            self.preset,
            variant,
            (f"study {self.name}", self.settings),
            (f"variant {variant}", variant_settings(variant)),
            ("the cell", {"seed": seed}),
        )

    def config(self, variant: str, seed: int, host: Host) -> Resolved:
        """Return the configuration of a cell, without ``auto``.  Raises `UserError` as `asked`."""
        return decide(self.asked(variant, seed), host)


def studies() -> dict[str, Path]:
    """Return the files of the shipped studies by name."""
    files = sorted(shipped("ablations").glob("*.toml"))
    return {file.stem: file for file in files if file.stem != "variants"}


def load(study: str, **changed: Any) -> Study:
    """Return a shipped study by name, or one from a file.

    Args:
        study: its name, or the path of a TOML file.
        changed: fields that replace the file's; ``set`` is merged into it.

    Raises:
        UserError: there is no such study, or it cannot be: which field, and why.
    """
    file = file_of("study", study, studies())
    written = flattened(load_toml(file), file, "set")
    settings = written["set"] | changed.pop("set", {})
    return validated(Study, file, {"name": file.stem, **written, **changed, "set": settings})


def file_of(what: str, name: str, known: Mapping[str, Path]) -> Path:
    """Return the file of a shipped study or space, or the one at a path.

    Raises:
        UserError: there is neither; with the closest name.
    """
    file = known.get(name) or Path(name)
    if name not in known and not file.is_file():
        raise UserError(
            f"no {what} is called '{name}'; {closest(name, list(known))}; or give a TOML file"
        )
    return file


def flattened(written: dict[str, Any], file: Path, settings: str) -> dict[str, Any]:
    """Return what a file says with its tables of settings as dotted keys: its own, and of data.

    Raises:
        UserError: one of them is no table.
    """
    own = dict(flatten(table_of(written.get(settings, {}), f"{file}: {settings}")))
    measures = {}
    for kind, value in table_of(written.get("on", {}), f"{file}: on").items():
        measure = table_of(value, f"{file}: on.{kind}")
        told = table_of(measure.get("set", {}), f"{file}: on.{kind}.set")
        measures[kind] = {**measure, "set": dict(flatten(told))}
    return {**written, settings: own} | ({"on": measures} if "on" in written else {})


def validated(kind: type[M], file: Path, fields: Mapping[str, Any]) -> M:
    """Return what a file defines.  Raises `UserError` that names the file and each bad field."""
    try:
        return kind.model_validate(fields)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except OverflowError as error:
        raise UserError(f"{file}: a number beyond all bounds") from error
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, problem['loc'])) or f'the {kind.__name__.lower()}'}: "
            + problem["msg"].removeprefix("Value error, ")
            for problem in error.errors()
        ]
        raise UserError(f"{file}: " + "\n".join(lines)) from error


def below(runs: Path, name: str) -> Path:
    """Return the folder of that name.  Raises `UserError` if it is not a name but a path."""
    if not re.fullmatch(NAME, name) or name.endswith("\n"):
        raise UserError(
            f"--name {name}: expected letters, digits, '_', '.', '+' and '-'; choose another "
            "folder with --runs"
        )
    return runs / name


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds in ``0-4`` or ``0,2,7-9``, in the order given.

    Raises:
        UserError: anything else, one twice, or more than a study could run.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,19})\s*(?:-\s*([0-9]{1,19})\s*)?", part)
        if not found:
            raise UserError(f"--seeds {text}: expected numbers and ranges, e.g. 0-4 or 0,2,5-7")
        first, last = int(found[1]), int(found[2] or found[1])
        if last > MOST_WHOLE or len(seeds) + last - first >= MOST_SEEDS:
            raise UserError(
                f"--seeds {text}: at most {MOST_SEEDS:,} seeds, each up to {MOST_WHOLE} (63 bits)"
            )
        seeds += range(first, last + 1)
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}: expected different seeds, e.g. 0-4")
    return tuple(seeds)


class Kept(BaseModel):
    """What a folder keeps of what was begun in it, so that it goes on as it began.

    ``host`` is what ``auto`` meant then, so that nothing mixes precisions or extractors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    FILE: ClassVar[str]
    WHAT: ClassVar[str]

    schema_version: Literal[1] = 1
    host: dict[str, Any]
    data_fingerprint: str
    looks: int = 0

    @property
    def auto(self) -> Host:
        """What ``auto`` means here.  Raises `UserError` if that is damaged."""
        try:
            return _HOST.validate_python(self.host)
        except ValidationError as error:
            raise UserError(
                f"damaged {self.FILE} (host: {first_trouble(error)}); restore it from a copy, or "
                f"give the {self.WHAT} another --name"
            ) from error

    def write(self, folder: Path) -> None:
        """Store it, in one step."""
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / self.FILE, sealed(self.model_dump(mode="json")))

    @classmethod
    def of(cls, folder: Path) -> Self | None:
        """Return what a folder keeps; None if nothing was begun there.

        Raises:
            UserError: it is damaged, or a newer sagan-bench wrote it.
        """
        file = folder / cls.FILE
        try:
            stored = json_object(file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return fitting(lambda: cls.model_validate(stored), file)


class Memory(Kept):
    """What the folder of a study keeps: the study as it began, and how it was extended.

    ``looks`` counts the times that seeds or variants were added when results could be seen.
    """

    FILE = MEMORY
    WHAT = "study"

    study: Study
    facts: dict[str, Facts] = {}

    @classmethod
    def begun(cls, study: Study, host: Host, data_fingerprint: str) -> Self:
        """Return the memory of a study that begins now."""
        return cls(study=study, host=asdict(host), data_fingerprint=data_fingerprint)


def refuse_other(memory: Memory, study: Study, folder: Path) -> None:
    """Refuse to go on in a folder with a study that would compute or decide something else.

    Seeds and variants may be added; a path may move, because images enter by their content.

    Raises:
        UserError: it differs; in what.
    """
    differ = [
        pair
        for pair in differences(_definition(memory.study), _definition(study))
        if not (pair.key.startswith("against.") and ABSENT in (pair.here, pair.there))
    ]
    refuse(differ, "study", folder)


def refuse(differ: Sequence[Difference], what: str, folder: Path) -> None:
    """Raise `UserError` if what is asked for differs from what a folder was begun with."""
    if differ:
        raise UserError(
            f"another {what} is in {folder}: {listed(differ)}; choose another --name, or take the "
            "change back"
        )


def _definition(study: Study) -> dict[str, Any]:
    fixed = study.model_dump(mode="json", include={"preset", "against", "baseline", "comparable"})
    decides = study.measure.model_dump(mode="json", include={"metric", "min_effect"})
    leaves = dict(flatten(fixed | decides)) | study.settings
    return {key: value for key, value in leaves.items() if key != "data.source"}


def joined(ours: Iterable[Any], more: Iterable[Any]) -> tuple[Any, ...]:
    """Return both, each once, in their order."""
    return tuple(dict.fromkeys((*ours, *more)))
