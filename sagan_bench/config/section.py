"""How a part of a configuration is declared, and how it grows without renaming what ran."""

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_serializer

LATER: dict[str, Any] = {"later": True}


def later(neutral: Any, **rest: Any) -> Any:
    """Declare a field that is younger than digests: left out of them while it is ``neutral``.

    So a new field leaves the digests of existing runs as they are.  Its neutral value must mean
    what was computed before there was the field, and can never change.
    """
    return Field(neutral, json_schema_extra=LATER, **rest)


class Section(BaseModel):
    """A part of the configuration: immutable, and it refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Growing(Section):
    """A section with fields younger than records, stored only where they are not the default.

    So what is written of a run of before is what was written of it then.
    """

    young: ClassVar[tuple[str, ...]] = ("options",)

    @model_serializer(mode="wrap")
    def _stored(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        fields = type(self).model_fields
        usual = {key for key in self.young if getattr(self, key) == fields[key].default}
        return {key: value for key, value in handler(self).items() if key not in usual}
