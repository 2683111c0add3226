"""What is searched, as data: parameters with bounds and reasons, the budget, and what decides.

A space is a TOML file (``ablations/spaces/*.toml``).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from sagan_bench.analysis.question import Measure, Settings
from sagan_bench.config.belonging import has, is_setting, value_of
from sagan_bench.config.limits import MOST_WHOLE
from sagan_bench.config.options import in_full
from sagan_bench.config.schema import RunConfig, field_types
from sagan_bench.config.section import Section
from sagan_bench.config.variants import presets, shipped, variant_settings
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.registry import ATTENTION
from sagan_bench.core.stored import load_toml, shortened, table_of
from sagan_bench.experiments.written import file_of, flattened, validated

if TYPE_CHECKING:
    import optuna


class Parameter(Section):
    """One dimension of a space.

    ``real`` and ``log`` (real, on a logarithmic scale) have bounds; ``integer`` has bounds and a
    step; ``categorical`` has choices, which may be lists.
    """

    kind: Literal["real", "log", "integer", "categorical"]
    low: float | None = None
    high: float | None = None
    step: int = Field(1, ge=1, description="between integers")
    choices: tuple[Any, ...] = ()
    why: str = Field(min_length=1, description="the reason for these bounds")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "categorical":
            if len({*map(json.dumps, self.choices)}) < len(self.choices):
                raise ValueError("a choice is there twice")
            if len(self.choices) < 2 or self.low is not None or self.high is not None:
                raise ValueError("a categorical parameter has two choices or more, and no bounds")
            return self
        if self.low is None or self.high is None or self.low >= self.high or self.choices:
            raise ValueError("give low and high, low below high, and no choices")
        if self.kind == "log" and self.low <= 0:
            raise ValueError("a logarithmic scale begins above 0")
        if self.kind == "integer" and (self.high - self.low) % self.step:
            raise ValueError("high is not a whole number of steps above low")
        return self

    def suggest(self, key: str, trial: "optuna.Trial") -> Any:
        """Return what the sampler proposes, or proposed before."""
        if self.kind == "categorical":
            return json.loads(trial.suggest_categorical(key, [*map(json.dumps, self.choices)]))
        low, high = float(self.low or 0), float(self.high or 0)
        if self.kind == "integer":
            return trial.suggest_int(key, int(low), int(high), step=self.step)
        return trial.suggest_float(key, low, high, log=self.kind == "log")

    def stored(self, value: Any) -> Any:
        """Return a value as Optuna keeps it: it knows no lists."""
        return json.dumps(value) if self.kind == "categorical" else value

    def read(self, stored: Any) -> Any:
        """Return the value behind what Optuna keeps.  Raises ValueError if it is no choice."""
        if self.kind != "categorical":
            return stored
        value = json.loads(stored)
        if value not in self.choices:
            raise ValueError(f"{stored} is none of the choices")
        return value

    def contains(self, value: Any) -> bool:
        """Return whether the sampler could propose this value."""
        if self.kind == "categorical":
            return value in self.choices
        if not isinstance(value, int | float):
            return False
        low, high = float(self.low or 0), float(self.high or 0)
        whole = self.kind != "integer" or (value - low) % self.step == 0
        return low <= value <= high and whole

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must be possible: every choice, or both bounds."""
        if self.kind == "categorical":
            return self.choices
        whole = int if self.kind == "integer" else float
        return whole(self.low or 0), whole(self.high or 0)


class Space(Section):
    """Parameters by dotted key of the configuration, and the budget that a trial has."""

    name: str = Field(pattern=r"^[\w][\w.+-]*$")
    says: str
    presets: tuple[str, ...] = Field(min_length=1, description="the presets that it fits")
    evals: int = Field(
        ge=2, le=100_000, description="scores of a trial: on the way, then the final one"
    )
    budget: Settings = Field(description="settings of every trial; run.steps is the budget")
    on: dict[str, Measure] = Field(description="kind of data, or 'other' -> what decides there")
    parameters: dict[str, Parameter] = Field(min_length=1)

    @model_validator(mode="after")
    def _known(self) -> Self:
        for key in self.parameters:
            if not is_setting(key):
                raise ValueError(f"no setting is called '{key}'; {closest(key, [*field_types()])}")
            if key.startswith(("run.", "evaluation.", "data.")) or key == "seed":
                raise ValueError(f"{key} is how a trial is run and scored, not what is searched")
        if "run.steps" not in self.budget:
            raise ValueError("budget: run.steps is missing")
        steps = self.budget["run.steps"]
        if type(steps) is not int or not 1 <= steps <= MOST_WHOLE:
            raise ValueError(f"budget: run.steps = {shortened(steps)}: expected a number from 1")
        for preset in self.presets:
            if preset not in presets():
                raise ValueError(f"presets: {preset}; {closest(preset, list(presets()))}")
        return self

    def measure(self, kind: str) -> Measure:
        """Return what decides on such data.  Raises `UserError` if nothing is said of it."""
        measure = self.on.get(kind) or self.on.get("other")
        if measure is None:
            raise UserError(
                f"space {self.name}: no measure for data of kind '{kind}'; add [on.{kind}] or "
                "[on.other] with metric and min_effect"
            )
        return measure

    def of_variant(self, variant: str, config: RunConfig) -> dict[str, Parameter]:
        """Return the parameters that a variant has.

        It lacks what it decides itself, and all of attention if it has no block.

        Args:
            variant: its name.
            config: its configuration.
        """
        own, attention = variant_settings(variant), config.model.attention
        sides = attention.generator or attention.discriminator
        blocks = sides and ATTENTION[attention.kind].has_block
        return {
            key: parameter
            for key, parameter in self.parameters.items()
            if key not in own
            and (blocks or not key.startswith("model.attention."))
            and has(config, key)
        }

    def own_values(self, parameters: Mapping[str, Parameter], config: RunConfig) -> Settings:
        """Return the configuration's own values: those of the first trial.

        Raises:
            UserError: one is outside the space.
        """
        values = {key: value_of(config, key) for key in parameters}
        for key, parameter in parameters.items():
            if not parameter.contains(values[key]):
                raise UserError(
                    f"space {self.name}: the preset's own {key} = {json.dumps(values[key])} is "
                    "outside; widen the space, so that the search can begin with it"
                )
        return values


def spaces() -> dict[str, Path]:
    """Return the files of the shipped spaces by name."""
    files = sorted((shipped("ablations") / "spaces").glob("*.toml"))
    return {file.stem: file for file in files}


def space_for(preset: str) -> Space:
    """Return the shipped space of a preset.  Raises `UserError` if there is none."""
    known = [load(name) for name in spaces()]
    shipped_for = next((space for space in known if preset in space.presets), None)
    if shipped_for is None:
        has = ", ".join(name for space in known for name in space.presets)
        raise UserError(f"no space is shipped for preset {preset}, only for {has}; give --space")
    return shipped_for


def load(space: str) -> Space:
    """Return a shipped space by name, or one from a file.

    Raises:
        UserError: there is no such space, or it cannot be: which field, and why.
    """
    file = file_of("space", space, spaces())
    written = flattened(load_toml(file), file, "budget")
    named = table_of(written.get("parameters", {}), f"{file}: parameters")
    written["parameters"] = {in_full(key): value for key, value in named.items()}
    return validated(Space, file, {"name": file.stem, **written})
