"""A component's own settings, as the configuration carries them."""

import json
from typing import Any

from pydantic import AfterValidator, GetCoreSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from sagan_bench.config.wording import in_words
from sagan_bench.core.names import closest
from sagan_bench.core.registry import Registry


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
        return own_settings(components[info.data[field]], options, field)

    return AfterValidator(differing)


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
