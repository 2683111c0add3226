"""Text of anywhere as it may be shown: no control character in it is obeyed."""

import logging
import re

_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of text
    "\u2028\u2029\ufeff\ufff9-\ufffb\ud800-\udfff]"  # separators, marks, halves of characters
)


def shown(text: str, *, lines: bool = False) -> str:
    r"""Return text that a terminal shows as it is: a control character as ``\x1b`` or ``\u202e``.

    Args:
        text: from anywhere.
        lines: whether it has lines of its own; else a line feed is a control character too.
    """
    if text.isprintable():
        return text
    if lines:
        return "\n".join(map(shown, text.split("\n")))
    return _CONTROL.sub(_escaped, text)


def _escaped(control: re.Match[str]) -> str:
    code = ord(control[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class ShownFormatter(logging.Formatter):
    """Formats what is logged as `shown` text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, and the lines of its traceback if it has one."""
        return shown(super().format(record), lines=True)
