"""Presets and variants of one's own: which tables may be some, and what a record keeps of them."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sagan_bench.config.belonging import is_setting
from sagan_bench.config.digest import LABELS
from sagan_bench.config.naming import shipped_part
from sagan_bench.config.options import Options, settings_in
from sagan_bench.config.schema import DataConfig, RunConfig, field_types
from sagan_bench.config.variants import (
    DEFAULT_PRESET,
    PRESETS,
    VARIANTS,
    WORDS,
    Meant,
    parts,
    presets,
    variants,
    whole_presets,
)
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.stored import table_of
from sagan_bench.core.trees import flatten

NAME = re.compile(r"\w[\w-]*")
_OF_VARIANTS = ("model.", "training.")
"""What a variant sets: data, scores and how it is run are the same for all that are compared."""


def own_variants(tables: Any, where: str) -> dict[str, dict[str, Any]]:
    """Return the variants in tables by name, their settings by dotted key.

    Raises:
        UserError: a name that cannot be, or what a variant does not set: which, and where.
    """
    known = {}
    for name, table in table_of(tables, where).items():
        at = f"{where}.{name}"
        _refuse_name(name, at, "variant", variants())
        if "-like-" in name:
            raise UserError(f"{at}: names with -like- are those of controls; choose another name")
        settings = _settings(table, at, "; a value for a command needs a command")
        for key in settings.keys() - set(WORDS):
            if not key.startswith(_OF_VARIANTS):
                raise UserError(
                    f"{at}: {key} is no variant's, but the same for all that are compared; a "
                    f"variant sets {'* or '.join(_OF_VARIANTS)}*: give it to the study, in [set]"
                )
        if not settings.keys() - set(WORDS):
            raise UserError(f"{at}: it sets nothing; give it a setting, or list sagan instead")
        known[name] = settings
    return known


def own_presets(tables: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the presets in tables by name, with those that they extend; raises likewise."""
    known = {}
    for at, table in tables.items():
        name = at
        _refuse_name(name, at, "preset", presets())
        table = dict(table_of(table, at))
        base = table.pop("extends", None)
        if base is not None and base not in (names := [*presets(), *tables]):
            raise UserError(f"{at}: extends = {base!r}; {closest(str(base), names)}")
        settings = _settings(table, at)
        if label := next((key for key in LABELS if key in settings), None):
            raise UserError(f"{at}: {label} is what runs are called; leave it out")
        known[name] = settings | ({} if base is None else {"extends": base})
    return whole_presets(known, presets())


def chosen_preset(names: Meant, name: str | None) -> str:
    """Return the name of the preset that is meant: the only one of one's own, or the default.

    Raises:
        UserError: there are several, and none is named.
    """
    own = [*names.get(PRESETS, {})]
    if name is None and len(own) > 1:
        raise UserError(f"there are presets {', '.join(own)}: choose one with --preset")
    return next(iter(own), DEFAULT_PRESET) if name is None else name


def only_preset(names: Meant, name: str) -> dict[str, dict[str, Any]]:
    """Return the preset of that name, where it is of one's own; else nothing."""
    own = names.get(PRESETS, {})
    return {name: own[name]} if name in own else {}


def source_of(preset: str, names: Meant) -> str:
    """Return the data of a preset."""
    usual = DataConfig.model_fields["source"].default
    return str(presets(names)[preset].get("data.source", usual))


def _refuse_name(name: str, where: str, what: str, shipped: Iterable[str]) -> None:
    if not NAME.fullmatch(name):
        raise UserError(f"{where}: expected a name of letters, digits, '_' and '-'")
    if name.lower() in shipped:
        raise UserError(f"{where}: there is a {what} {name.lower()} already; choose another name")


def _settings(table: Any, where: str, hint: str = "") -> dict[str, Any]:
    """Return what a table sets, by dotted key.  Raises `UserError` if it is none, or of a key."""
    settings = settings_in(table_of(table, where))
    if not isinstance(settings.get("says", ""), str):
        raise UserError(f"{where}: says is no text: what it is, in words")
    for key in settings.keys() - set(WORDS):
        if not is_setting(key):
            known = closest(key, [*field_types()])
            raise UserError(f"{where}: no setting is called '{key}'; {known}{hint}")
    return settings


def sentence(table: Mapping[str, Any]) -> str:
    """Return what a variant or preset of one's own is: its words, and what it sets."""
    sets = ", ".join(f"{k} = {json.dumps(v)}" for k, v in table.items() if k not in WORDS)
    return f"{table['says']}: {sets}" if table.get("says") else f"Sets {sets}"


def of_labels(config: RunConfig, alone: RunConfig, names: Meant) -> Options:
    """Return what the names in a configuration's labels mean, of those that are not shipped.

    Args:
        config: the values of its variants are its own.
        alone: its preset without anything else.
        names: presets and variants of one's own.
    """
    own = names.get(VARIANTS, {})
    there = [part for part in parts(shipped_part(config.variant), names) if part in own]
    meant = {VARIANTS: {part: _stored(own[part], config) for part in there}}
    if config.preset in names.get(PRESETS, {}):
        meant[PRESETS] = {config.preset: _stored(names[PRESETS][config.preset], alone)}
    return Options((kind, tables) for kind, tables in meant.items() if tables)


def _stored(table: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    """Return a table with its values as a record has them; a component's own defaults are not."""
    leaves = dict(flatten(config.model_dump(mode="json")))
    values = {key: leaves[key] for key in table if key in leaves}
    return {"says": sentence(table), **values}
