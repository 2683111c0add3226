"""What is wrong with a value, in words: pydantic's own are about types of Python."""

from collections.abc import Mapping
from typing import Any

A_NUMBER, WHOLE, A_LIST = "a number", "a whole number", "a list such as [8] or [0, 1]"
EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a table",
    "finite_number": "a finite number",
    "float_parsing": A_NUMBER,
    "float_type": A_NUMBER,
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge} or more",
    "int_from_float": WHOLE,
    "int_parsing": WHOLE,
    "int_type": WHOLE,
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le} or less",
    "list_type": A_LIST,
    "literal_error": "{expected}",
    "string_pattern_mismatch": "letters, digits, '_', '.', '+' and '-', as in a file's name",
    "string_type": "a text",
    "too_short": "{min_length} or more values, e.g. [0]",
    "tuple_type": A_LIST,
}
"""Type of pydantic's error -> what was expected, with what its context has."""


def in_words(problem: Mapping[str, Any]) -> str:
    """Return what one of the errors of a `ValidationError` says, for whoever gave the value."""
    expected = EXPECTED.get(problem["type"])
    if expected is None:
        return str(problem["msg"]).removeprefix("Value error, ")
    return f"expected {expected.format(**problem.get('ctx', {}))}"
