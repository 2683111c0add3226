"""What a study is: a question as data, the measure it is answered by, and what is compared.

A study is a TOML file (``ablations/*.toml``).
"""

import re
from collections.abc import Collection, Iterable
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from sagan_bench.analysis.design import Design, UntilConclusive
from sagan_bench.analysis.question import Facts, Measure, Paper, Settings
from sagan_bench.config.layers import Resolved, at_seed, decide, of_experiment
from sagan_bench.config.meanings import (
    own_variants,
    sentence,
    source_of,
)
from sagan_bench.config.naming import refuse_misnamed
from sagan_bench.config.schema import FOLLOWS, NAME, Host, RunConfig
from sagan_bench.config.seeds import several
from sagan_bench.config.variants import (
    NOTHING,
    SIDES,
    VARIANTS,
    Meant,
    parts,
    presets,
    variant_settings,
)
from sagan_bench.core.names import closest, kind_of
from sagan_bench.core.registry import METRICS
from sagan_bench.core.trees import flatten
from sagan_bench.evaluation.metrics import RUNS
from sagan_bench.experiments.manifest import Experiment, Manifest
from sagan_bench.runs.command import A_WORD, Command, Template, fits_a_word
from sagan_bench.runs.program import Better, Program, why_no_metric

MEMORY = "study.json"
OF_COMMANDS = ("command", "better", "real")
"""Fields of studies whose runs another program makes."""
FLAGS = {"set": ", as --set, --steps and --data are", "preset": ", as --preset is"}
"""Options that give what is not for commands."""


class Study(Experiment):
    """A question, the runs that answer it, and the measure.

    Every variant that is nobody's baseline is compared with its own (``against``), else with
    ``baseline``.
    """

    GROWS: ClassVar[tuple[str, ...]] = ("against.", "variant.", "own.")
    YOUNG: ClassVar[tuple[str, ...]] = (
        *OF_COMMANDS, "variant", "own", "presets", "until_conclusive",
    )  # fmt: skip

    name: str = Field(pattern=NAME)
    question: str
    preset: str = "quick"
    baseline: str | None = None
    variants: tuple[str, ...] = ()
    against: dict[str, str] = Field(default={}, description="variant -> a baseline of its own")
    seeds: Annotated[tuple[int, ...], BeforeValidator(several)] = Field(min_length=1)
    on: dict[str, Measure] = Field(description="kind of data, or 'other' -> what decides there")
    set: Settings = Field(default={}, description="settings of every cell")
    comparable: bool = Field(True, description="false: too small to conclude anything from")
    paper: Paper | None = None
    command: str | None = Field(None, description="makes a cell, where another program does")
    variant: dict[str, dict[str, Any]] = Field(
        default={}, description="variant -> what it sets, or values of its command's placeholders"
    )
    better: dict[str, Better] = Field(
        default={}, description="of further metrics that a command gives: which values are"
    )
    real: str | None = Field(
        None, description="folder of real pictures, against which those of a command are scored"
    )

    until_conclusive: UntilConclusive | None = Field(
        None, description="true, or a table: seeds are added until each pair has its answer"
    )

    _typed: frozenset[str] = PrivateAttr(frozenset())
    """Settings that come from the command line."""

    @field_validator("until_conclusive", mode="before")
    @classmethod
    def _as_table(cls, given: Any) -> Any:
        return {True: {}, False: None}.get(given, given) if isinstance(given, bool) else given

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.pairs:
            raise ValueError("nothing is compared: give a baseline and variants, or [against]")
        if len(set(self.variants)) < len(self.variants):
            raise ValueError("variants must be different")
        if any(seed < 0 for seed in self.seeds) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds must be different numbers from 0")
        if self.until_conclusive and not self.comparable:
            raise ValueError("until_conclusive: these runs are too small to conclude from")
        if self.command is not None:
            self._refuse_settings()
            self._template.check()
            self._refuse_collapse(self._directions)
            return self
        for key in (key for key in OF_COMMANDS if getattr(self, key)):
            raise ValueError(f"{key} is for studies of a command; give --command, or leave it out")
        names = self.names
        if self.preset not in (known := presets(names)):
            raise ValueError(
                f"no preset is called '{self.preset}'; {closest(self.preset, [*known])}"
            )
        compared = {part for name in self.all_variants for part in parts(name, names)}
        for name in self.variant.keys() - compared:
            raise ValueError(f"[variant.{name}] is not compared: list it in variants")
        for variant in self.all_variants:
            variant_settings(variant, names)
        self._refuse_collapse(METRICS)  # and data that it has no measure for
        return self

    def _refuse_collapse(self, metrics: Collection[str]) -> None:
        collapse = self.measure.collapse
        if collapse and collapse.metric not in metrics:
            raise ValueError(f"lost: {collapse.metric}: {closest(collapse.metric, list(metrics))}")

    @property
    def names(self) -> Meant:
        """What names of its own mean.  Raises `UserError` if they cannot be."""
        is_ours = self.command is None and self.variant
        own = {VARIANTS: own_variants(self.variant, "variant")} if is_ours else NOTHING
        return {**super().names, **own} or NOTHING

    def _refuse_settings(self) -> None:
        """Refuse what means nothing to the runs of a command."""
        usual = type(self).model_fields["preset"].default
        given = {"set": self.set, "preset": self.preset != usual, "paper": self.paper}
        given |= {"on.*.set": self.measure.set, "with": self.own}
        for key in (key for key, value in given.items() if value):
            raise ValueError(
                f"{key} is for runs that this package makes{FLAGS.get(key, '')}; what a command is "
                "to know stands in the command, and in [variant.NAME]"
            )
        for name in self.all_variants:
            if not re.fullmatch(NAME, name):
                raise ValueError(f"variant {name!r}: expected letters, digits, '_', '.', '+', '-'")
        for name in self.variant.keys() - set(self.all_variants):
            raise ValueError(f"[variant.{name}]: {closest(name, self.all_variants)}")
        for name, values in self.variant.items():
            for key in (key for key, value in values.items() if not fits_a_word(value)):
                raise ValueError(f"variant.{name}.{key}: expected {A_WORD}")
        for why in filter(None, map(why_no_metric, self._directions)):
            raise ValueError(f"a metric cannot be called so: {why}")
        if self.real is not None and not self._measured:
            raise ValueError("real: no metric is made from pictures; leave it out, or name one")

    @property
    def _template(self) -> Template:
        return Template(self.command or "", {v: self.variant.get(v, {}) for v in self.all_variants})

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
    def cells(self) -> frozenset[tuple[str, int]]:
        """What is to be run: (variant, seed)."""
        return frozenset(self.in_turn)

    @property
    def in_turn(self) -> tuple[tuple[str, int], ...]:
        """The cells in the order they run: all variants at one seed, then the next seed."""
        seeds = dict.fromkeys((*self.order, *self.seeds))
        names = self.all_variants
        return tuple((name, seed) for seed in seeds for name in names)

    @property
    def order(self) -> tuple[int, ...]:
        """The seeds in turn; of a study that grows, from its first on, up to its last look."""
        if self.design is None:
            return self.seeds
        return tuple(range(self.seeds[0], self.seeds[0] + self.design.looks[-1]))

    @property
    def design(self) -> Design | None:
        """How it grows until it is conclusive; None if it has the seeds that it has."""
        until = self.until_conclusive
        return until.design(len(self.pairs), self.measure.paired) if until else None

    @property
    def settings(self) -> Settings:
        """The settings of every cell: the study's, over those that go with its data."""
        return self.measure.set | self.set

    @property
    def data_kind(self) -> str:
        """The kind of the data: what stands before the colon; ``other`` is another program's."""
        if self.command is not None:
            return "other"
        source = self.set.get("data.source") or source_of(self.preset, self.names)
        return kind_of(str(source))

    @property
    def measure(self) -> Measure:
        """What decides on this study's data."""
        measure = self.on.get(self.data_kind) or self.on.get("other")
        if measure is None:
            data = f" for data of kind '{self.data_kind}': add [on.{self.data_kind}] or"
            raise ValueError(
                f"no measure{': add' if self.command is not None else data} [on.other] with metric "
                "and min_effect"
            )
        return measure

    def requested(self, variant: str, seed: int) -> Resolved:
        """Return the configuration of a cell as it is requested.

        A variant wins over the study's settings: what it names is what it is about.  Settings of a
        block are of the variants whose block has them.

        Raises:
            UserError: an unknown key, a value out of range, or settings that make it no longer that
                variant; but for the sides of blocks, which a study may say for each kind of data.
        """
        kind = self.data_kind if self.data_kind in self.on else "other"
        own, typed = dict[str, Any](), dict[str, Any]()
        for key, value in self.set.items():
            (typed if key in self._typed else own)[key] = value
        resolved = of_experiment(
            self.preset,
            variant,
            (f"study {self.name}, on.{kind}", self.measure.set),
            (f"study {self.name}", own),
            ("--set", typed),
            seed=seed,
            names=self.names,
        )
        meant = {key for key in SIDES if key in self.measure.set.keys() - self.set.keys()}
        refuse_misnamed(resolved.config, resolved.origins, meant)
        return resolved

    def config(self, variant: str, seed: int, host: Host) -> Resolved:
        """Return the configuration of a cell, no ``auto`` left.  Raises as `requested`."""
        return decide(self.requested(variant, seed), host)

    def configs(self, host: Host) -> list[RunConfig]:
        """Return the configurations of all cells, in turn.  Raises as `requested`.

        Each variant is resolved once, with the greatest seed: the others differ by it alone.
        """
        cells = self.in_turn
        greatest = max(seed for _, seed in cells)
        of = {name: self.config(name, greatest, host).config for name in self.all_variants}
        return [at_seed(of[name], seed) for name, seed in cells]

    def run_of(self, variant: str, seed: int) -> Command:
        """Return the command of a cell.  Raises `UserError` if that is none."""
        values = dict(self._template.of(variant))
        program = Program(source=self.command or "", values=values, better=self._directions)
        return Command(program, variant, seed, real=self.real, measured=self._measured)

    @property
    def _measured(self) -> tuple[str, ...]:
        """The metrics that are made from pictures that a command leaves: ours."""
        ours = (name for name in self._directions if name in METRICS) if self.real else ()
        return tuple(name for name in ours if METRICS[name].extractor == RUNS)

    @property
    def _directions(self) -> dict[str, Better]:
        """Which values are better, of each metric that a command is to give."""
        measure = self.measure
        better = measure.better or METRICS[measure.metric].better
        return {**self.better, measure.metric: better}

    @property
    def definition(self) -> dict[str, Any]:
        """What it computes and decides by; seeds and variants may be added."""
        own = {"preset"} if self.command is None else {"command", "variant"}
        include = own | {"against", "baseline", "comparable"}
        fixed = self.model_dump(mode="json", include=include)
        if self.command is not None:
            fixed |= {"better": self._directions, "measured": list(self._measured)}
        deciding = {"metric", "min_effect", "lost", "paired"}
        decides = self.measure.model_dump(mode="json", include=deciding)
        if self.until_conclusive:
            pairs = [" v ".join(pair) for pair in self.pairs]  # they share the error
            decides["until_conclusive"] = {"pairs": pairs}
        leaves = dict(flatten(fixed | decides)) | self.settings
        leaves |= self.of_ones_own
        for name, table in self.names.get(VARIANTS, {}).items():
            leaves[f"variant.{name}"] = sentence({**table, "says": ""})
        return {key: value for key, value in leaves.items() if key not in ("data.source", *FOLLOWS)}

    def extended(self, requested: "Study", seeds: Iterable[int]) -> "Study":
        """Return this study with the seeds, and with the variants of what is asked for now."""

        def joined(ours: Iterable[Any], more: Iterable[Any]) -> tuple[Any, ...]:
            return tuple(dict.fromkeys((*ours, *more)))

        begun = self.until_conclusive
        grown = {
            "seeds": joined(self.seeds, seeds),
            "variants": joined(self.variants, requested.variants),
            "against": self.against | requested.against,
            "set": self.set | requested.set,  # a path may have moved
            "real": requested.real,
            "variant": self.variant | requested.variant,
            "own": self.own | requested.own,
            "until_conclusive": begun and begun.further(requested.until_conclusive),
        }
        return self.model_copy(update=grown)


class StudyManifest(Manifest):
    """What the folder of a study keeps."""

    FILE = MEMORY
    WHAT = "study"

    study: Study
    facts: dict[str, Facts] = Field(default={})

    @classmethod
    def of_command(cls, study: Study) -> Self:
        """Return the manifest of a study of a command, which has neither data nor ``auto``."""
        return cls(study=study, host={}, data_fingerprint="")
