"""Settings laid over each other: a preset, a variant, files and flags -> one `RunConfig`."""

import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sagan_bench.config.belonging import OPTIONS, given_to, is_own, is_setting
from sagan_bench.config.digest import LABELS
from sagan_bench.config.limits import MOST, MOST_WHOLE
from sagan_bench.config.meanings import chosen_preset, of_labels
from sagan_bench.config.naming import rightly_named, shipped_part
from sagan_bench.config.options import Options, in_full, settings_in
from sagan_bench.config.schema import Host, RunConfig, field_types
from sagan_bench.config.used import ORIGIN as USED
from sagan_bench.config.used import used
from sagan_bench.config.variants import NOTHING, Meant, pick, presets, variant_settings
from sagan_bench.config.wording import in_words
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.stored import load_toml, parsed_toml, shortened
from sagan_bench.core.trees import flatten

STUDYS_OWN = {"question", "seeds", "budget", "parameters"}
"""What a file of a study or a space has, and that of a run never."""


@dataclass(frozen=True)
class Resolved:
    """A configuration, and the origin of each of its values by dotted key.

    ``note`` says why it is not called as it was asked for; empty where it is.
    """

    config: RunConfig
    origins: dict[str, str]
    note: str = ""


def parse_set(text: str) -> tuple[str, Any]:
    """Split ``section.key=value``; the value is read as TOML, or else as a plain word."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: expected section.key=value, e.g. --set training.lr_g=2e-4")
    try:
        return in_full(key.strip()), parsed_toml(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return in_full(key.strip()), value.strip()
    except ValueError as error:
        raise UserError(f"--set {key.strip()}: {error}") from error


def read(
    *,
    preset: str | None = None,
    variant: str | None = None,
    file: Path | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, tuple[str, Any]] | None = None,
    own: Mapping[str, Any] | None = None,
    names: Meant = NOTHING,
) -> Resolved:
    """Return the whole configuration as it was asked for, and who set each value.

    Later wins: defaults, preset, what files of one's own have, variant, file, first-class options,
    ``--set``.

    Args:
        preset: name of a shipped preset; else the file's, else the default.
        variant: name of a shipped variant; else the file's, else ``sagan``.  What it sets cannot be
            set to something else; what else makes variants changes the name (`rightly_named`).
        file: a TOML file with the sections of `RunConfig`.
        sets: texts ``section.key=value``.
        flags: dotted key -> (option as typed, value).
        own: files of components of one's own -> their hash, and what they have.
        names: presets of one's own; of a single one it is the usual.

    Raises:
        UserError: an unknown key or name, or a value out of range: what, who set it, the closest;
            or a value that is not the variant's.
    """
    written = load_toml(file) if file else {}
    if written.keys() & STUDYS_OWN:
        raise UserError(f"{file}: that is a study or a space, no configuration; see: ablate, tune")
    for key in LABELS[:2]:
        if not isinstance(written.get(key, ""), str):
            raise UserError(f"{file}: {key} = {shortened(written[key])}: expected a name")
    preset = chosen_preset(names, written.get("preset") if preset is None else preset)
    variant = written.get("variant", "sagan") if variant is None else variant
    written = {key: value for key, value in written.items() if key not in LABELS[:2]}
    resolved = assemble(
        preset,
        variant,
        (USED, used(own or {})),
        (f"variant {variant}", variant_settings(shipped_part(variant))),
        (str(file), written),
        *((option, {key: value}) for key, (option, value) in (flags or {}).items()),
        ("--set", dict(map(parse_set, sets))),
        names=names,
    )
    config, note = rightly_named(resolved.config, resolved.origins)
    return replace(resolved, config=config, note=note)


Layer = tuple[str, Mapping[str, Any]]
"""Who sets it, and settings."""


def assemble(preset: str, variant: str, *layers: Layer, names: Meant = NOTHING) -> Resolved:
    """Return the configuration of layers over a preset; later wins.

    ``variant`` is only the label: its settings are a layer too, because a study lets them win over
    the command line, and a single run the other way round.  ``names`` are those of one's own.

    Raises:
        UserError: as `read`.
    """
    values, origins = _laid(preset, variant, layers, names)
    config = _validate(values, origins)
    if names:
        alone = _validate(*_laid(preset, variant, (), names))
        config = config.model_copy(update={"meant": of_labels(config, alone, names)})
    there = dict(flatten(config.model_dump()))
    known = {key: origin for key, origin in origins.items() if key in there}
    known |= {key: "its file" for key in there if key.startswith(("own.", "meant."))}
    return Resolved(config, known)


def _laid(
    preset: str, variant: str, layers: Iterable[Layer], names: Meant
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return dotted key -> value of a preset with layers over it, and who set each."""
    types_ = field_types()
    values: dict[str, Any] = {"preset": preset, "variant": variant, "name": variant}
    origins = dict.fromkeys(types_, "default") | dict.fromkeys(LABELS, "chosen")
    first = (f"preset {preset}", pick("preset", preset, presets(names)))
    for origin, layer in (first, *layers):
        for key, value in sorted(settings_in(layer).items(), key=_components_first):
            _refuse_unknown(key, origin, types_)
            if key in LABELS[:2]:  # by now they only name what was chosen
                raise UserError(f"{origin}: choose it with --{key} {value}")
            _lay(values, key, value)
            origins[key] = origin
    return values, origins


def of_experiment(
    preset: str, variant: str, *layers: Layer, seed: int, names: Meant = NOTHING
) -> Resolved:
    """Return the configuration of a run of an experiment: its variant wins over all layers.

    What a component has of its own is laid where the one that is then chosen has it.

    Raises:
        UserError: as `read`.
    """
    decides = (f"variant {variant}", variant_settings(variant, names))
    rest = [(origin, {k: v for k, v in of.items() if not is_own(k)}) for origin, of in layers]
    chosen = dict(flatten(RunConfig().model_dump())) | pick("preset", preset, presets(names))
    for _, layer in (*rest, decides):
        chosen |= settings_in(layer)
    own = [
        (origin, {k: v for k, v in of.items() if is_own(k) and given_to(chosen, k)})
        for origin, of in layers
    ]
    cell = ("the cell", {"seed": seed})
    resolved = assemble(preset, variant, *rest, decides, *own, decides, cell, names=names)
    _refuse_unjudged(resolved)
    _refuse_begun(resolved)
    return _not_kept(resolved)


def _not_kept(resolved: Resolved) -> Resolved:
    """Have a run of an experiment, whose budget is fixed, keep no training state by default."""
    key = "run.keep_training_state"
    if resolved.config.run.keep_training_state != "auto":
        return resolved
    config = override(resolved.config, {key: ("auto, in an experiment", False)})
    return replace(
        resolved, config=config, origins=resolved.origins | {key: "auto, in an experiment"}
    )


def _refuse_begun(resolved: Resolved) -> None:
    """Refuse a run of an experiment that would not begin from its own seed."""
    for key, value in (
        ("run.init_from", resolved.config.run.init_from),
        ("training.init_sha256", resolved.config.training.init_sha256),
    ):
        if value is not None:
            raise UserError(
                f"{key} = {value} ({resolved.origins[key]}): the runs of an experiment begin from "
                "their seeds; leave it out, or use train --init-from"
            )


def _refuse_unjudged(resolved: Resolved) -> None:
    """Refuse a run of an experiment that would end without the scores it is judged by."""
    weights = resolved.config.run.score_weights
    if "ema" not in weights:
        raise UserError(
            f"run.score_weights = {list(weights)} ({resolved.origins['run.score_weights']}): the "
            "runs of an experiment are judged by scores of averaged weights; leave ema in"
        )


def decide(requested: Resolved, host: Host) -> Resolved:
    """Replace every ``auto`` by what the host has.

    Gradient penalties are taken in fp32, because they are differentiated twice.

    Raises:
        UserError: TF32 was asked for where there is none.
    """
    config, decided = requested.config, dict[str, tuple[str, Any]]()
    if config.data.crop == "auto":
        decided["data.crop"] = "auto, by data.source", config.data.crop_px
    if config.training.precision == "auto":
        usable = host.bf16 and not config.training.needs_double_backward
        decided["training.precision"] = "this machine", "bf16" if usable else "fp32"
    if config.training.precision == "tf32" and not host.tf32:
        raise UserError("training.precision = tf32: this device has none; use fp32, bf16 or auto")
    if config.evaluation.extractor == "auto":
        decided["evaluation.extractor"] = "this machine", host.extractor
    origins = {key: origin for key, (origin, _) in decided.items()}
    config = override(config, decided)
    return replace(requested, config=config, origins=requested.origins | origins)


def depends_on_machine(config: RunConfig) -> bool:
    """Return whether `decide` would ask what the host has."""
    training = config.training
    asks = training.precision == "auto" and not training.needs_double_backward
    return asks or training.precision == "tf32" or config.evaluation.extractor == "auto"


def for_host(configs: Sequence[RunConfig]) -> RunConfig:
    """Return the first of configurations that depends on the machine; the first if none does."""
    return next(filter(depends_on_machine, configs), configs[0])


def resolve(host: Host, **layers: Any) -> Resolved:
    """Return what `read` returns, without ``auto``.  Raises `UserError` as `read` and `decide`."""
    return decide(read(**layers), host)


def override(config: RunConfig, given: Mapping[str, tuple[str, Any]]) -> RunConfig:
    """Return ``config`` with the values of dotted key -> (who set it, value).

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    values = dict(flatten(config.model_dump()))
    for key, (origin, value) in sorted(given.items(), key=_components_first):
        _refuse_unknown(key, origin, field_types())
        _lay(values, key, value)
    return _validate(values, {key: origin for key, (origin, _) in given.items()})


def at_seed(config: RunConfig, seed: int) -> RunConfig:
    """Return a configuration with another seed.  Raises `UserError` if it cannot be there."""
    return _fitting({**dict(config), "seed": seed}, {"seed": "the cell"})


def _components_first(setting: tuple[str, Any]) -> bool:
    """Order settings so that the name of a component comes before what it has of its own."""
    return setting[0] not in OPTIONS


def _lay(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a value; of another component than before, what the one before had of its own goes."""
    if key in OPTIONS and values.get(key) != value:
        for own in [own for own in values if own.startswith(OPTIONS[key])]:
            del values[own]
    is_optional = type(None) in typing.get_args(field_types().get(key))
    values[key] = None if value == "none" and is_optional else value


def _refuse_unknown(key: str, origin: str, types_: Mapping[str, Any]) -> None:
    if not is_setting(key):
        raise UserError(f"{origin}: no setting is called '{key}'; {closest(key, list(types_))}")


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, leaf = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree


def _validate(values: Mapping[str, Any], origins: Mapping[str, str]) -> RunConfig:
    for key, value in values.items():
        if any(not -MOST_WHOLE <= number <= MOST_WHOLE for number in _whole_numbers(value)):
            raise UserError(
                f"{key} = {shortened(value)} ({origins.get(key, 'default')}): whole numbers go up "
                f"to {MOST_WHOLE} (63 bits)"
            )
    config = _fitting(_nested(values), origins)
    key, seeds = "evaluation.sampling_seeds", config.evaluation.sampling_seeds
    if key in origins and (min(seeds) < 0 or len(set(seeds)) < len(seeds)):
        at = f"{key} = {shortened(list(seeds))} ({origins[key]})"
        raise UserError(f"{at}: expected different numbers from 0, e.g. [0, 1]")
    for key, value in flatten(config.model_dump()):
        if key in MOST and key in origins and value is not None and value > MOST[key]:
            raise UserError(f"{key} = {value:,} ({origins[key]}): at most {MOST[key]:,}")
    return _with_own(config)


def _fitting(tree: Mapping[str, Any], origins: Mapping[str, str]) -> RunConfig:
    """Return the configuration of sections.  Raises `UserError` that names each bad value."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        said: dict[str, list[str]] = {}  # of a union, what each of its branches says
        for problem in error.errors():
            key = _setting(problem["loc"])
            given = f"{key} = {shortened(problem['input'])}"
            where = f"{given} ({origins.get(key, 'default')}): " if key else ""
            said.setdefault(where, []).append(in_words(problem))
        lines = (where + "; or ".join(texts) for where, texts in said.items())
        raise UserError("\n".join(lines)) from error


def _with_own(config: RunConfig) -> RunConfig:
    """Return a configuration that says which files its components come from, if not from here."""
    own = {}
    for kind, name in config.components:
        if extension := extensions.that_has(kind, name):
            own[extension.name] = extension.described
        else:
            own |= {
                stem: of for stem, of in config.own.items() if f"{kind}/{name}" in of["components"]
            }
    return config if own == config.own else config.model_copy(update={"own": Options(own)})


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _whole_numbers(part)
    elif isinstance(value, int):
        yield value


def _setting(loc: tuple[int | str, ...]) -> str:
    """Return the dotted key of an error, without list positions and the branches of a union."""
    key = ".".join(str(part) for part in loc if not isinstance(part, int))
    known = field_types()
    while key and key not in known and key.rpartition(".")[0] in known:
        key = key.rpartition(".")[0]
    return key
