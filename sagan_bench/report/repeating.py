"""The command lines that repeat a run, a study and a tuning."""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sagan_bench.config.diff import Difference, in_results
from sagan_bench.config.layers import assemble
from sagan_bench.config.naming import contradictions, fitting, is_anothers, shipped_part
from sagan_bench.config.schema import RunConfig
from sagan_bench.config.variants import clash, variant_settings
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.extensions import FOLDER
from sagan_bench.core.trees import flatten
from sagan_bench.experiments import studies
from sagan_bench.experiments.study import StudyManifest
from sagan_bench.experiments.tuning import space
from sagan_bench.experiments.tuning.definition import TuningManifest
from sagan_bench.report.formats import command
from sagan_bench.runs.program import program_of
from sagan_bench.runs.records import Record

RUN_SETTINGS = (
    "run.steps", "run.threads", "run.score_weights", "run.eval_every", "run.eval_images",
    "run.eval_metrics",
)  # fmt: skip
"""Of the section ``run``, those that a command which repeats a run has to name."""


def of_run(record: Record, folder: Path) -> str | None:
    """Return the command line that repeats a run: what differs from its preset and variant.

    Null where the preset or the variant is not one that ships here, or another program made it.

    Args:
        record: of the run.
        folder: of the run, with copies of files of components.
    """
    if program_of(record):
        return None
    extensions.recall(record.config.get("own"))
    config = RunConfig.model_validate(record.config)
    before = _plain(config.preset, config.variant)
    if before is None:
        return None
    variant = _rightly(config)
    if variant != config.variant:
        before = _plain(config.preset, variant) or before
    words = ["train", "--preset", config.preset, "--variant", variant]
    if config.name != config.variant and not is_anothers(config.name, config):
        words += ["--name", config.name]
    of_files = [name for name, described in config.needed.items() if "module" not in described]
    copies = [str(folder / FOLDER / f"{name}.py") for name in of_files]
    files = [word for copy in copies for word in ("--with", copy)]
    begins = ["--init-from", config.run.init_from] if config.run.init_from else []
    return command(*words, "--seed", config.seed, *begins, *files, *_sets(_results(config), before))


def _rightly(config: RunConfig) -> str:
    """Return the variant by which `train` makes a run: of one that is not its own, what it is."""
    shipped = shipped_part(config.variant)
    own = variant_settings(shipped, config.meant)
    if any(pair.key in own for pair in contradictions(config)) or clash(shipped, config.meant):
        return fitting(config) or "sagan"
    return config.variant


def beyond_preset(config: RunConfig) -> list[Difference] | None:
    """Return what differs in results from the preset alone, but for what each machine decides.

    Null where the preset is not one that ships here.
    """
    try:
        preset = assemble(config.preset, config.variant, names=config.meant).config
    except UserError:
        return None
    return [pair for pair in in_results(preset, config) if pair.here != "auto"]


def _results(config: RunConfig) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a run but for labels, and for how it was run."""
    for key, value in flatten(config.model_dump(mode="json")):
        is_label = key in ("preset", "variant", "name", "seed")
        is_label |= key.startswith(("own.", "meant."))
        if not is_label and (not key.startswith("run.") or key in RUN_SETTINGS):
            yield key, value


@cache
def _plain(preset: str, variant: str) -> dict[str, Any] | None:
    """Return the settings of a shipped variant on a shipped preset; null where one is not."""
    try:
        changed = ("variant", variant_settings(shipped_part(variant)))
        config = assemble(preset, variant, changed).config
    except UserError:
        return None
    return dict(flatten(config.model_dump(mode="json")))


def of_study(memory: StudyManifest, *where: object) -> str | None:
    """Return the command that runs a shipped study again; null where its file is not shipped.

    Args:
        memory: of the study.
        where: options that say where its folder is, if that is known and not the usual place.
    """
    own = memory.study
    if own.name not in studies.shipped() or own.presets or own.variant:
        return None
    shipped = studies.load(own.name)
    words = ["ablate", own.name]
    if own.seeds != shipped.seeds:
        words += ["--seeds", ",".join(map(str, own.seeds))]
    if own.preset != shipped.preset:
        words += ["--preset", own.preset]
    if until := own.until_conclusive:
        words += ["--until-conclusive", "--max-seeds", str(until.max_seeds)]
        words += [] if until.futility else ["--no-futility"]
    return command(*words, *_sets(own.set.items(), shipped.set), *where)


def of_tuning(memory: TuningManifest) -> str | None:
    """Return the command that tunes like this again; null where its space is not shipped."""
    own = memory.tuning
    if own.space.name not in space.spaces() or own.presets:
        return None
    shipped, steps = space.load(own.space.name), own.space.budget["run.steps"]
    budget = shipped.budget | {"run.steps": steps}
    if own.space != shipped.model_copy(update={"budget": budget}):
        return None
    words = ["tune", "--variants", ",".join(own.variants), "--trials", memory.trials]
    words += ["--searches", own.searches, "--preset", own.preset, "--space", own.space.name]
    words += ["--objective", ",".join(own.objectives)]
    words += ["--sampler", own.sampler, "--pruner", own.pruner]
    if budget != shipped.budget:
        words += ["--steps", steps]
    if own.to_the_end:
        words += ["--no-futility"]
    if own.first_seed:
        words += ["--first-seed", own.first_seed]
    return command(*words, *_sets(own.settings.items(), {}))


def _sets(settings: Iterable[tuple[str, Any]], before: dict[str, Any]) -> Iterator[str]:
    """Yield ``--set`` for each setting that is not what it was before."""
    for key, value in settings:
        if key not in before or before[key] != value:
            yield from ("--set", f"{key}={_toml(value)}")


def _toml(value: Any) -> str:
    """Return a value as ``--set`` takes it."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)
