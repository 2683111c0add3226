"""What the folder of an experiment keeps of it, so that it goes on as it began."""

import re
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from sagan_bench.config.diff import ABSENT, differences, listed
from sagan_bench.config.schema import NAME, Host, RunConfig
from sagan_bench.config.section import Section
from sagan_bench.config.variants import NOTHING, PRESETS, WORDS, Meant
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write
from sagan_bench.core.progress import OnProgress, unwatched
from sagan_bench.core.stored import first_trouble, fitting, json_object, sealed
from sagan_bench.data import building
from sagan_bench.data.listing import DataSpec

_HOST = TypeAdapter(Host)


class Experiment(Section):
    """What asks for many runs: a study, or a tuning."""

    GROWS: ClassVar[tuple[str, ...]] = ()
    """Beginnings of keys of its definition that may be added, or left out, while it goes on."""
    YOUNG: ClassVar[tuple[str, ...]] = ("own", "presets")
    """Fields that are younger than experiments, and left out where they say nothing."""

    own: dict[str, dict[str, Any]] = Field(
        default={}, description="file of one's own components -> its hash, and what it has"
    )

    presets: dict[str, dict[str, Any]] = Field(
        default={}, description="its preset, where that is one's own -> what it sets"
    )

    @model_validator(mode="before")
    @classmethod
    def _recalled(cls, given: Any) -> Any:
        """Know the components of its files by their facts: it is read without their code."""
        extensions.recall(given.get("own") if isinstance(given, dict) else None)
        return given

    @model_serializer(mode="wrap")
    def _stored(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {key: value for key, value in fields.items() if key not in self.YOUNG or value}

    def with_own(self, configs: Iterable[RunConfig]) -> Self:
        """Return it with the files that configurations of its runs name components of."""
        own = dict(self.own)
        for config in configs:
            own |= config.own
        return self.model_copy(update={"own": own})

    @property
    def names(self) -> Meant:
        """What names of its own mean."""
        return {PRESETS: self.presets} if self.presets else NOTHING

    @property
    def of_ones_own(self) -> dict[str, Any]:
        """The hashes of its files and the settings of its preset, as its definition has them."""
        hashes = {
            f"own.{name}": described["sha256"]
            for name, described in self.own.items()
            if not extensions.only_follows(described)
        }
        sets = (
            (f"presets.{name}.{key}", value)
            for name, table in self.presets.items()
            for key, value in table.items()
            if key not in (*WORDS, "data.source")
        )
        return hashes | dict(sets)

    @property
    @abstractmethod
    def definition(self) -> dict[str, Any]:
        """Dotted key -> value of what it computes and decides by: what may not change.

        Paths are not part of it, because images enter by their content.
        """


class Manifest(BaseModel):
    """What a folder keeps: the experiment as it began, and how it was extended.

    ``host`` is what ``auto`` meant then, so that nothing mixes precisions or extractors; ``looks``
    counts the times that it was extended when results could be seen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    FILE: ClassVar[str]
    WHAT: ClassVar[str]
    """What it keeps, in a word, which is the field that holds it too."""

    schema_version: Literal[1] = 1
    host: dict[str, Any]
    data_fingerprint: str
    looks: int = 0

    @classmethod
    def begun(
        cls, experiment: Experiment, host: Host, data_fingerprint: str, **fields: Any
    ) -> Self:
        """Return the manifest of an experiment that begins now."""
        kept = {cls.WHAT: experiment, "host": asdict(host), "data_fingerprint": data_fingerprint}
        return cls.model_validate(kept | fields)

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

    def write(self, folder: Path) -> None:
        """Store it, in one step."""
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / self.FILE, sealed(self.model_dump(mode="json")))

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

    def refuse_other(self, requested: Experiment, folder: Path) -> None:
        """Refuse to go on with an experiment that would compute or decide something else.

        Raises:
            UserError: it differs; in what.
        """
        begun: Experiment = getattr(self, self.WHAT)
        differ = [
            pair
            for pair in differences(begun.definition, requested.definition)
            if not (pair.key.startswith(requested.GROWS) and ABSENT in (pair.here, pair.there))
        ]
        if differ:
            raise UserError(
                f"another {self.WHAT} is in {folder}: {listed(differ)}; choose another --name, or "
                "take the change back"
            )

    def with_data(self, config: RunConfig, folder: Path, progress: OnProgress = unwatched) -> Self:
        """Prepare the data of all runs, and return the manifest with their fingerprint.

        Raises:
            UserError: they cannot be used, or are not what the experiment was begun with.
        """
        spec, skip_bad = DataSpec.of(config.data), config.run.skip_bad
        store = building.prepare(spec, progress=progress, skip_bad=skip_bad)
        fingerprint = store.manifest.fingerprint()
        if self.data_fingerprint not in ("", fingerprint):
            raise UserError(
                f"the images at {config.data.source} are not those that the {self.WHAT} in "
                f"{folder} was begun with; choose another --name for a {self.WHAT} of these"
            )
        return self.model_copy(update={"data_fingerprint": fingerprint})


def below(runs: Path, name: str) -> Path:
    """Return the folder of that name.  Raises `UserError` if it is not a name but a path."""
    if not re.fullmatch(NAME, name) or name.endswith("\n"):
        raise UserError(
            f"--name {name}: expected letters, digits, '_', '.', '+' and '-'; choose another "
            "folder with --runs"
        )
    return runs / name
