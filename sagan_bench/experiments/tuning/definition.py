"""What a tuning is: which variants, what is searched and how, and what its folder keeps of it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from sagan_bench.analysis.design import FIRST_LOOKS, Design
from sagan_bench.analysis.question import Measure, Settings
from sagan_bench.analysis.verdicts import Pair
from sagan_bench.config.belonging import refuse_untaken
from sagan_bench.config.layers import Resolved, decide, of_experiment
from sagan_bench.config.meanings import source_of
from sagan_bench.config.naming import refuse_misnamed
from sagan_bench.config.schema import FOLLOWS, Host, RunConfig
from sagan_bench.config.variants import SIDES, presets, variant_settings
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest, kind_of
from sagan_bench.core.registry import METRICS, SAMPLERS
from sagan_bench.core.trees import flatten
from sagan_bench.evaluation.metrics import shown
from sagan_bench.experiments.manifest import Experiment, Manifest, below
from sagan_bench.experiments.tuning.space import Parameter, Space

MEMORY = "tuning.json"
SPEED = "images_per_sec"
"""An objective that is no metric of images."""
MOST_SEARCHES, MOST_TRIALS = 1_000, 1_000_000
UNTUNED = "-untuned"
TOP = 3
"""Trials of a search that are trained again."""
HYPERBAND_TRIALS = 10
"""Trials that each bracket of Hyperband needs before its sampler knows anything."""

Pruner = Literal["percentile", "median", "hyperband", "none"]
PRUNERS: tuple[Pruner, ...] = get_args(Pruner)


class Seeds(NamedTuple):
    """Training seeds of one search; no two searches and no two uses share one."""

    search: int
    chosen_on: tuple[int, ...]
    """Set A: on which the best of the best is chosen."""
    reported_on: tuple[int, ...]
    """Set B: on which nothing was chosen."""


def untuned(variant: str) -> str:
    """Return the name under which a variant with the preset's own values is compared."""
    return variant + UNTUNED


def tuned(side: str) -> str:
    """Return the variant of either side."""
    return side.removesuffix(UNTUNED)


def pairs_of(variants: Sequence[str], baseline: str) -> tuple[Pair, ...]:
    """Return what a tuning compares: each variant with the baseline, and with itself untuned."""
    others = ((name, baseline) for name in variants if name != baseline)
    return (*others, *((name, untuned(name)) for name in variants))


def better(objective: str) -> Literal["lower", "higher"]:
    """Return which values of an objective are better."""
    return "higher" if objective == SPEED else METRICS[objective].better


class Tuning(Experiment):
    """Searches of one or more variants in one space, at one budget.

    ``searches`` of each variant at most are independent; search k has the same seeds for every
    variant.  ``horizon`` is for how many the tuning began, if that is fewer: prices are by it.
    """

    GROWS: ClassVar[tuple[str, ...]] = ("own.",)
    YOUNG: ClassVar[tuple[str, ...]] = (*Experiment.YOUNG, "horizon", "to_the_end", "first_seed")

    preset: str
    variants: tuple[str, ...] = Field(min_length=1)
    searches: int = Field(1, ge=1, le=MOST_SEARCHES)
    horizon: int | None = None
    to_the_end: bool = Field(False, description="search on where there is little hope")
    space: Space
    objectives: tuple[str, ...] = Field(min_length=1)
    sampler: Annotated[str, AfterValidator(SAMPLERS.check)] = "tpe"
    pruner: Pruner = "median"
    settings: Settings = Field(default={}, description="settings that the user adds to all trials")
    seeds_a: int = Field(2, ge=1, le=MOST_SEARCHES)
    seeds_b: int = Field(2, ge=1, le=MOST_SEARCHES)
    first_seed: int = Field(0, ge=0, description="of training; the others follow it")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.preset not in (there := presets(self.names)):
            raise UserError(
                f"no preset is called '{self.preset}'; {closest(self.preset, [*there])}"
            )
        for variant in self.variants:
            _refuse_unknown(variant)
        if len(set(self.variants)) < len(self.variants):
            raise UserError(f"--variants {','.join(self.variants)}: one is there twice")
        for objective in self.objectives:
            if objective not in METRICS and objective != SPEED:
                known = [*shown(), SPEED]
                raise UserError(f"--objective {objective}: {closest(objective, known)}")
        self._refuse_objectives()
        if both := sorted(self.space.parameters.keys() & self.settings.keys()):
            raise UserError(f"--set {both[0]}: it is searched; give a --space without it")
        return self

    def _refuse_objectives(self) -> None:
        named = ",".join(self.objectives)
        if len(set(self.objectives)) < len(self.objectives):
            raise UserError(f"--objective {named}: one is there twice")
        if self.objectives[0] not in METRICS:
            raise UserError(
                f"--objective {named}: the first one chooses the winner, and {self.objectives[0]} "
                "says nothing of its images; name it after another, such as fid"
            )
        evaluation = {key.removeprefix("evaluation."): value for key, value in self.fixed.items()}
        for objective in (name for name in self.objectives if name in METRICS):
            if not METRICS[objective].wanted(evaluation, self.data_kind):
                raise UserError(
                    f"--objective {objective}: it is measured with --set "
                    f"{METRICS[objective].switch()} only"
                )

    @property
    def prunes(self) -> bool:
        """Whether trials are scored on the way, to be broken off where that looks hopeless."""
        return self.pruner != "none"

    @cached_property
    def data_kind(self) -> str:
        """The kind of the data: what stands before the colon."""
        source = self.settings.get("data.source") or source_of(self.preset, self.names)
        return kind_of(str(source))

    @property
    def measure(self) -> Measure:
        """The primary metric, and the smallest effect that matters."""
        usual, first = self.space.measure(self.data_kind), self.objectives[0]
        others = first in METRICS and first != usual.metric
        return Measure(metric=first, min_effect="5%") if others else usual

    @cached_property
    def fixed(self) -> Settings:
        """What all trials have: the space's budget, what goes with the data, the user's own."""
        return self.space.budget | self.space.measure(self.data_kind).set | self.settings

    @property
    def steps(self) -> int:
        """The budget of a trial in generator updates."""
        return int(self.fixed["run.steps"])

    @property
    def eval_every(self) -> int:
        """Steps between scores on the way: the last of ``evals`` is the final score."""
        return self.steps // self.space.evals + 1

    @property
    def baseline(self) -> str:
        """What the other variants are held against."""
        return "no-attention" if "no-attention" in self.variants else self.variants[0]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """What is compared, with what: variants, and what each is worth without its tuning."""
        return pairs_of(self.variants, self.baseline)

    @property
    def design(self) -> Design:
        """When searches, which are to it what seeds are to a study, are looked at."""
        horizon = self.horizon or max(self.searches, FIRST_LOOKS[0])
        return Design(len(self.pairs), horizon, self.searches, futility=not self.to_the_end)

    def seeds(self, search: int) -> Seeds:
        """Return the training seeds of the search with this index, from 0."""
        each = 1 + self.seeds_a + self.seeds_b
        first = self.first_seed + search * each
        after = first + 1 + self.seeds_a
        return Seeds(first, tuple(range(first + 1, after)), tuple(range(after, first + each)))

    def requested(
        self,
        variant: str,
        seed: int,
        params: Mapping[str, Any] | None = None,
        *,
        watched: bool = False,
    ) -> Resolved:
        """Return the configuration of a run as it is requested.

        Args:
            variant: wins over everything else: what it names is what it is about.
            seed: of training.
            params: values of a trial; None is the preset's own.
            watched: score on the way, as trials are that may be pruned.

        Raises:
            UserError: an unknown key, or a value out of range.
        """
        by_rule = self.data_kind == "twins" and METRICS[self.objectives[0]].extractor is None
        scored = {
            "run.eval_every": self.eval_every if watched else "none",
            "run.eval_metrics": "rule" if by_rule else "all",
        }
        return of_experiment(
            self.preset,
            variant,
            (f"space {self.space.name}", self.fixed),
            ("tune", scored),
            ("the trial", params or {}),
            seed=seed,
            names=self.names,
        )

    def config(self, variant: str, seed: int, host: Host, **rest: Any) -> RunConfig:
        """Return the configuration of a run, no ``auto`` left.  Raises as `requested`."""
        return decide(self.requested(variant, seed, **rest), host).config

    def parameters(self, variant: str, host: Host) -> dict[str, Parameter]:
        """Return what is searched of a variant.  Raises `UserError` if nothing is."""
        parameters = self.space.of_variant(variant, self.config(variant, 0, host))
        if not parameters:
            raise UserError(f"space {self.space.name}: {variant} has none of its parameters")
        return parameters

    @property
    def definition(self) -> dict[str, Any]:
        """What it searches and decides by; variants and searches may be added."""
        fixed = self.model_dump(mode="json", exclude={"variants", "searches", *self.YOUNG})
        for parameter in fixed["space"]["parameters"].values():
            del parameter["why"]  # words
        del fixed["space"]["says"], fixed["space"]["presets"]
        leaves = dict(flatten(fixed)) | self.of_ones_own
        leaves |= {"first_seed": self.first_seed} if self.first_seed else {}
        free = {f"settings.{key}" for key in ("data.source", *FOLLOWS)}
        return {key: value for key, value in leaves.items() if key not in free}

    def extended(self, requested: "Tuning") -> "Tuning":
        """Return this tuning with the variants and searches of what is asked for now."""
        is_further = requested.searches > self.searches
        more = {
            "variants": tuple(dict.fromkeys((*self.variants, *requested.variants))),
            "searches": max(self.searches, requested.searches),
            "horizon": self.horizon or (self.design.horizon if is_further else None),
            "to_the_end": self.to_the_end or requested.to_the_end,
            "settings": self.settings | requested.settings,  # a path may have moved
            "own": self.own | requested.own,
        }
        return Tuning.model_validate(self.model_dump() | more)

    def refuse_misnamed(self) -> None:
        """Refuse settings that make trials another variant than theirs; what is searched may."""
        kind = self.data_kind
        origins = dict.fromkeys(self.space.budget, f"space {self.space.name}, budget")
        origins |= dict.fromkeys(
            self.space.measure(kind).set, f"space {self.space.name}, on.{kind}"
        )
        origins |= dict.fromkeys(self.settings, "--set")
        meant = {*SIDES} & (self.space.measure(kind).set.keys() - self.settings.keys())
        configs = [self.requested(variant, 0).config for variant in self.variants]
        for config in configs:
            refuse_misnamed(config, origins, meant)
        searched = [*self.fixed, *self.space.parameters]
        refuse_untaken(searched, configs, f"space {self.space.name}")

    def refuse_pruner(self, trials: int) -> None:
        """Refuse a pruner that could not work.  Raises `UserError`: which, and what would."""
        if len(self.objectives) > 1 and self.prunes:
            raise UserError(
                f"--pruner {self.pruner}: several objectives give no order by which to prune; "
                "leave it out"
            )
        brackets = hyperband_brackets(self.steps // self.eval_every)
        if self.pruner == "hyperband" and trials < HYPERBAND_TRIALS * brackets:
            raise UserError(
                f"--pruner hyperband: with {self.space.evals} scores of a trial it has {brackets} "
                f"brackets, and each needs {HYPERBAND_TRIALS} trials; give --trials "
                f"{HYPERBAND_TRIALS * brackets} or more, or --pruner median"
            )


def hyperband_brackets(budget: int, factor: int = 3) -> int:
    """Return Hyperband's brackets: floor(log_factor(budget)) + 1, in steps between two scores."""
    brackets = 1
    while factor**brackets <= budget:
        brackets += 1
    return brackets


def _refuse_unknown(variant: str) -> None:
    try:
        variant_settings(variant)
    except UserError as error:
        raise UserError(
            f"{error}; a variant of a study's own, [variant.NAME], is not tuned: tune one that is "
            "shipped, with its values by --set"
        ) from error


class TuningManifest(Manifest):
    """What the folder of a tuning keeps, and how far it was to go; a look is at its set B."""

    FILE = MEMORY
    WHAT = "tuning"

    tuning: Tuning
    storage: str | None = Field(None, description="URL without its password; null: the journal")
    trials: int = Field(ge=1, le=MOST_TRIALS, description="of each search, in all")
    confirm: bool = True

    @model_validator(mode="after")
    def _can_be_configured(self) -> Self:
        for variant in self.tuning.variants:
            self.tuning.requested(variant, 0)  # refuses settings that cannot be
        return self

    @property
    def extractor(self) -> str:
        """Where the features come from by which runs are scored."""
        config = self.tuning.config(self.tuning.variants[0], 0, self.auto)
        return config.evaluation.extractor


def masked(url: str | None) -> str | None:
    """Return a storage's URL without its password, and without options, which may hold one.

    Raises:
        UserError: it is none.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    if url is None:
        return None
    try:
        return make_url(url).set(query={}).render_as_string(hide_password=True)
    except (ArgumentError, ValueError) as error:  # such as a port that is no number
        raise UserError(
            "--storage: that is no URL of a database; expected such as sqlite:///trials.db"
        ) from error


def folder_of(tuning: Tuning, runs: Path, name: str | None) -> Path:
    """Return ``runs/<name>``; by default ``tune-<variants>``, and the data's kind if given."""
    moved = f"-{tuning.data_kind}" if "data.source" in tuning.settings else ""
    return below(runs, name or f"tune-{'-'.join(tuning.variants)}{moved}")
