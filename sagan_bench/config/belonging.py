"""Whose a setting is: of all runs, or of one component alone, which is there or not."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sagan_bench.config.options import owner
from sagan_bench.config.schema import RunConfig, field_types
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.registry import ATTENTION, FAMILIES, LOSSES, Registry
from sagan_bench.core.trees import flatten

OPTIONS = {
    "model.attention.kind": "model.attention.options.",
    "model.architecture": "model.options.",
    "training.loss": "training.options.",
}
"""What the keys of a component's own settings begin with, by the key that names it."""
COMPONENTS: dict[str, Registry[Any]] = {
    "model.attention.kind": ATTENTION,
    "model.architecture": FAMILIES,
    "training.loss": LOSSES,
}
"""What there is to choose from, by the key that names it."""


def is_setting(key: str) -> bool:
    """Return whether a setting is called so; what a component has of its own is not looked at."""
    section, _, own = key.rpartition(".")
    of_component = bool(own) and f"{section}." in OPTIONS.values()
    return key in field_types() or of_component or key.startswith("evaluation.options.")


def is_own(key: str) -> bool:
    """Return whether a setting is a component's own."""
    return key.startswith(tuple(OPTIONS.values()))


def _named(key: str) -> str:
    """Return the key that names the component whose own setting this is."""
    return next(named for named, prefix in OPTIONS.items() if key.startswith(prefix))


def _owner(values: Mapping[str, Any], key: str) -> Any:
    """Return the component that has a setting of its own, of those chosen; None if none has."""
    named = _named(key)
    prefix = OPTIONS[named]
    options = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    return owner(COMPONENTS[named][values[named]], key.removeprefix(prefix), options)


def has(config: RunConfig, key: str) -> bool:
    """Return whether a setting is no component's own, or of those that a configuration names."""
    return not is_own(key) or given_to(dict(flatten(config.model_dump(mode="json"))), key)


def given_to(values: Mapping[str, Any], key: str) -> bool:
    """Return likewise whether one has it; one that there is not has all, and is refused later."""
    named = _named(key)
    known = isinstance(values[named], str) and values[named] in COMPONENTS[named]
    return not known or _owner(values, key) is not None


def value_of(config: RunConfig, key: str) -> Any:
    """Return the value of a setting as JSON has it; a component's own may be its default.

    Raises:
        UserError: no setting is called so, or the component that is chosen has none.
    """
    leaves = dict(flatten(config.model_dump(mode="json")))
    if key in leaves:
        return leaves[key]
    if is_own(key):
        if (having := _owner(leaves, key)) is None:
            raise UserError(f"{leaves[_named(key)]} has no setting {key}")
        if having.Settings is None:
            having()  # says that its code is not loaded
        return having.Settings().model_dump(mode="json")[key.rpartition(".")[2]]
    raise UserError(f"no setting is called '{key}'; {closest(key, list(leaves))}")


def refuse_untaken(settings: Iterable[str], configs: Sequence[RunConfig], who: str) -> None:
    """Refuse a component's own settings that none of the runs has.

    Raises:
        UserError: which, and what components these runs have.
    """
    for key in settings:
        if not any(has(config, key) for config in configs):
            named = [value_of(config, _named(key)) for config in configs]
            there = ", ".join(dict.fromkeys(named))
            raise UserError(
                f"{who}: no variant has the setting {key}; what they have there: {there}"
            )
