"""A component's own settings, as the configuration carries them."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import AfterValidator, GetCoreSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from sagan_bench.config.wording import in_words
from sagan_bench.core.names import closest
from sagan_bench.core.registry import EXTRACTORS, METRICS, Registry
from sagan_bench.core.trees import flatten

SHORT = {"block.": "model.attention.options."}
"""What the keys of settings may begin with for short."""


class Options(dict[str, Any]):
    """Settings by name, hashable; whoever has them leaves them as they are."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, handler(dict[str, Any]))


def options_of(components: Registry[Any], field: str) -> AfterValidator:
    """Return the check of the settings of the component that ``field`` names beside them.

    Those that are not the component's defaults stay, so that only they enter digests and records.
    """

    def differing(options: Options, info: ValidationInfo) -> Options:
        if not options or field not in info.data:
            return Options()
        component = components[info.data[field]]
        if (like := component.alike(options)) is None:
            return own_settings(component, options, field)
        own = component.Settings.model_fields.keys() & options.keys()
        theirs = {key: value for key, value in options.items() if key not in own}
        ours = own_settings(component, {key: options[key] for key in own}, field)
        return Options(ours | own_settings(like, theirs, field))

    return AfterValidator(differing)


def in_full(key: str) -> str:
    """Return the key of a setting in full: ``block.heads`` is one of attention's own."""
    short = next((short for short in SHORT if key.startswith(short)), "")
    return SHORT.get(short, "") + key.removeprefix(short)


def settings_in(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings in nested tables by their dotted keys in full."""
    return {in_full(key): value for key, value in flatten(tree)}


def owner(component: Any, name: str, options: Mapping[str, Any]) -> Any:
    """Return whose setting of its own a name is: a component's, or of the one that it is like.

    None where neither has it; one whose code is not loaded may have any.
    """
    having = (component, component.alike(options))
    return next(
        (c for c in having if c and (c.Settings is None or name in c.Settings.model_fields)), None
    )


def own_settings(component: Any, options: Any, what: str, at: tuple[str, ...] = ()) -> Options:
    """Return a component's own settings where they differ from its defaults.

    Args:
        component: its class.
        options: as they are given.
        what: it is, in words.
        at: keys below which they stand.

    Raises:
        ValidationError: of one that it does not have, with the closest, or of a wrong value.
    """
    if component.Settings is None:  # of a component whose code is not loaded
        return Options(options)
    known = component.Settings.model_fields
    given = options if isinstance(options, dict) else {}
    errors = []
    for unknown in (key for key in given if key not in known):
        hint = closest(unknown, list(known)) if known else "it has none"
        text = f"no setting of {what} {component.name} is called {unknown!r}; {hint}"
        error = PydanticCustomError("unknown_setting", text.replace("{", "{{"))
        errors.append(InitErrorDetails(type=error, loc=(*at, unknown), input=given[unknown]))
    try:
        settings = component.Settings.model_validate({} if errors else options)
    except ValidationError as error:
        for wrong in error.errors(include_url=False):
            message = PydanticCustomError("own_setting", in_words(wrong).replace("{", "{{"))
            loc = (*at, *map(str, wrong["loc"]))
            errors.append(InitErrorDetails(type=message, loc=loc, input=wrong["input"]))
    if errors:
        raise ValidationError.from_exception_data(component.name, errors)
    return Options(settings.model_dump(mode="json", exclude_defaults=True))


def of_measuring(options: Options) -> Options:
    """Return own settings of metrics and extractors, where they differ from the defaults."""
    differing = {}
    for name, given in options.items():
        components = METRICS if name in METRICS else EXTRACTORS
        if name not in components:
            known = [*METRICS, *EXTRACTORS]
            raise ValueError(f"no metric or extractor is called {name!r}; {closest(name, known)}")
        what = components.what
        differing[name] = own_settings(components[name], given, what, (name,))
    return Options((name, settings) for name, settings in differing.items() if settings)


def by_dotted_key(meant: Options) -> Options:
    """Return what names mean, each one's settings by dotted key."""
    return Options(
        (kind, {name: settings_in(table) for name, table in tables.items()})
        for kind, tables in meant.items()
    )
