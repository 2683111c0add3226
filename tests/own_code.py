"""How much code a file is."""

import ast
from pathlib import Path


def lines_of_code(file: Path) -> int:
    """Return the lines of a Python file without blank ones, comments and docstrings."""
    text = file.read_text()
    without = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for number in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in without
        for number, line in enumerate(text.splitlines(), 1)
    )
