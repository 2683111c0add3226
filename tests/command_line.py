"""The command line, run in this process."""

import pytest

from sagan_bench import cli


def run(*arguments: object) -> int:
    """Return the exit code of a command."""
    with pytest.raises(SystemExit) as exit_:
        cli.main(list(map(str, arguments)))
    return int(exit_.value.code or 0)
