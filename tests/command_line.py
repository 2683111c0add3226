"""The command line, run in this process."""

import pytest

from sagan_bench import cli
from sagan_bench.core import extensions


def run(*arguments: object) -> int:
    """Return the exit code of a command."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(list(map(str, arguments)))
    return int(exit_.value.code or 0)


def forget() -> None:
    """Know nobody's code any more, as another process."""
    for name in list(extensions._known):
        extensions.forget(name)
    for kind in extensions.KINDS.values():
        kind._recalled.clear()
