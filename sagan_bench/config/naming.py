"""What a configuration may be called: by a variant's name only while it is that variant."""

import json
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, NamedTuple

from sagan_bench.config.diff import ABSENT, Difference, differences, listed
from sagan_bench.config.options import Options
from sagan_bench.config.schema import RunConfig, field_types
from sagan_bench.config.variants import (
    ARCHITECTURE,
    clash,
    contrast_of,
    parts,
    presets,
    refuse_clash,
    variant_settings,
    variants,
)
from sagan_bench.core.errors import UserError
from sagan_bench.core.trees import flatten

OWN = "+own"
"""What the name of a variant ends in where the networks' settings are neither its nor another's."""
_BLOCKS = "model.attention"
_ALWAYS = (_BLOCKS, "model")
"""Sections of which every variant says something: attention, and what is planted."""


class Named(NamedTuple):
    """A configuration under its right name, and why that is not the one that was asked for."""

    config: RunConfig
    note: str


def shipped_part(variant: str) -> str:
    """Return the name without the word that settings are a run's own."""
    return variant.removesuffix(OWN)


def contradictions(config: RunConfig, beside: str | None = None) -> list[Difference]:
    """Return the settings that differ from those of a run's variant: (key, its own, the variant's).

    That is what the variant sets; and of what else makes variants of a network, what its preset has
    of attention and planted differences, and in the sections in which the variant sets something.
    A preset that is not shipped has nothing to differ from.

    Args:
        config: of the run.
        beside: another variant, whose sections are looked at too.
    """
    variant = shipped_part(config.variant)
    wanted = _wanted(config.preset, variant, beside or variant, config.meant)
    leaves = flatten(config.model_dump(mode="json"))
    is_known = config.preset in presets(config.meant)
    said = {k: v for k, v in leaves if not k.startswith(f"{_BLOCKS}.options.") or k in wanted}
    own = {
        k: v for k, v in said.items() if k in wanted or (is_known and k.startswith(f"{_BLOCKS}."))
    }
    return differences(own, wanted)


def described(config: RunConfig) -> list[str]:
    """Return what a run's variant is in sentences, or in what the run is not that variant.

    Raises:
        UserError: its variant is not shipped.
    """
    name, table = shipped_part(config.variant), variants(config.meant)
    variant_settings(name, config.meant)
    if differ := contradictions(config):
        differing = listed(differ, "{} is {}, not {}")
        return [f"Unlike {name} on the preset {config.preset}: {differing}"]
    if why := clash(name, config.meant):
        return [f"Contradicts itself: {why}"]
    return [table[part]["says"] for part in parts(name, config.meant)]


def rightly_named(config: RunConfig, origins: Mapping[str, str]) -> Named:
    """Return a configuration under the name of the variant that it is.

    One whose networks are not its variant's has the name of the variant that they are, else that of
    its own with `OWN` behind it.

    Raises:
        UserError: it changes what its variant sets, or is called by the name of another variant.
    """
    requested, variant = config.variant, shipped_part(config.variant)
    refuse_clash(variant, config.meant)
    differ = contradictions(config)
    _refuse_overruled(config, differ, origins)
    label = variant
    if differ:
        label = fitting(config) or variant + OWN
    name = label if config.name == requested else config.name
    if name != label and is_anothers(name, config):
        raise UserError(
            f"name = {name} ({origins['name']}): that is a variant, and this run is {label}; "
            "choose another --name"
        )
    because = listed(differ, "{} is {}, not {}")
    note = f"this is called {label}: {because} as {variant} has it on the preset {config.preset}"
    renamed = config.model_copy(update={"variant": label, "name": name})
    return Named(renamed, note if label != requested and differ else "")


def fitting(config: RunConfig) -> str | None:
    """Return the shipped variant that a configuration is, whatever it is called; null for none."""
    variant, meant = shipped_part(config.variant), config.meant
    fit = [name for name in variants(meant) if not contradictions(_called(config, name), variant)]
    return max(fit, key=lambda name: len(variant_settings(name, meant)), default=None)


def refuse_misnamed(
    config: RunConfig, origins: Mapping[str, str], meant: Collection[str] = ()
) -> None:
    """Refuse a run of a study or tuning that its settings make another variant than it is called.

    Args:
        config: of the run.
        origins: who set each value.
        meant: settings that its study says its preset has on these data.

    Raises:
        UserError: which settings, and the variant that has them.
    """
    variant = shipped_part(config.variant)
    refuse_clash(variant, config.meant)
    differ = [pair for pair in contradictions(config) if pair.key not in meant]
    if not differ:
        return
    against = [
        f"{key} = {json.dumps(here)} ({origins.get(key, 'default')}), which is {json.dumps(there)} "
        "there"
        for key, here, there in differ
    ]
    having = fitting(config)
    out = f"list the variant that has it: {having}" if having else "list a variant that has it"
    raise UserError(
        f"variant {variant} on the preset {config.preset} does not go with "
        f"{', nor with '.join(against)}; leave that out, or {out} (see: list variants)"
    )


def _refuse_overruled(
    config: RunConfig, differ: list[Difference], origins: Mapping[str, str]
) -> None:
    variant = shipped_part(config.variant)
    own = variant_settings(variant, config.meant)
    overruled = [
        f"{key} = {json.dumps(here)} ({origins.get(key, 'default')}), which it sets to "
        f"{json.dumps(there)}"
        for key, here, there in differ
        if key in own
    ]
    if overruled:
        raise UserError(
            f"variant {variant} does not go with {', nor with '.join(overruled)}; leave that out, "
            "or choose --variant sagan and set what you want"
        )


def is_anothers(name: str, config: RunConfig) -> bool:
    """Return whether a name is that of a variant, in whatever case, that a run is not."""
    usual = shipped_part(name.lower())
    try:
        variant_settings(usual, config.meant)
    except UserError:
        return False
    own = shipped_part(config.variant)
    return name.lower().endswith(OWN) or bool(contradictions(_called(config, usual), own))


def _called(config: RunConfig, variant: str) -> RunConfig:
    return config.model_copy(update={"variant": variant})


@cache
def _wanted(preset: str, variant: str, beside: str, meant: Options) -> dict[str, Any]:
    """Return what a variant on a preset has, see `contradictions`."""
    own, laid = variant_settings(variant, meant), dict[str, Any]()
    if preset in presets(meant):
        plain = dict(flatten(RunConfig().model_dump())) | presets(meant)[preset]
        made = {key for name in variants(meant) for key in variant_settings(name, meant)}
        said = {*_ALWAYS, *map(_section, own), *map(_section, variant_settings(beside, meant))}
        made -= {ARCHITECTURE}  # which only variants of a family of one's own have
        networks = (key for key in sorted(made) if key.startswith("model."))
        laid = {key: plain[key] for key in networks if _section(key) in said and key in plain}
    otherwise = dict.fromkeys(_contrasted(own.get(ARCHITECTURE)), ABSENT)
    return {key: _stored(key, value) for key, value in (otherwise | laid | own).items()}


def _contrasted(family: str | None) -> list[str]:
    """Return the settings by which the variants of a family of one's own differ."""
    contrast = contrast_of(family) if family else {}
    return [f"model.options.{key}" for settings in contrast.values() for key in settings]


def _section(key: str) -> str:
    return key.rpartition(".")[0]


def _stored(key: str, value: Any) -> Any:
    """Return the value of a setting as a record has it."""
    if key not in field_types():  # a component's own
        return value
    *path, leaf = key.split(".")
    section: Any = RunConfig
    for part in path:
        section = section.model_fields[part].annotation
    return section.model_validate({leaf: value}).model_dump(mode="json")[leaf]
