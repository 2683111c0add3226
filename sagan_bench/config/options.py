"""A component's own settings, as the configuration carries them."""

import json
from typing import Any

from pydantic import AfterValidator, GetCoreSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

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
        component = components[info.data[field]]
        known = component.Settings.model_fields
        if unknown := next((key for key in options if key not in known), None):
            hint = closest(unknown, list(known)) if known else "it has none"
            text = f"no setting of {field} {component.name} is called {unknown!r}; {hint}"
            error = PydanticCustomError("unknown_setting", text)
            at = InitErrorDetails(type=error, loc=(unknown,), input=options[unknown])
            raise ValidationError.from_exception_data(component.name, [at])
        settings = component.Settings.model_validate(options)
        return Options(settings.model_dump(exclude_defaults=True))

    return AfterValidator(differing)
