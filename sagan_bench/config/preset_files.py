"""Files of presets of one's own, in the form of ``presets.toml``."""

from pathlib import Path

from sagan_bench.config.layers import assemble
from sagan_bench.config.meanings import own_presets
from sagan_bench.config.variants import PRESETS, Meant
from sagan_bench.core.errors import UserError
from sagan_bench.core.stored import load_toml


def load(file: Path) -> Meant:
    """Return the presets in a file; each is a run by itself.

    Raises:
        UserError: it cannot be read, or a name, key or value cannot be: which.
    """
    tables = load_toml(file)
    try:
        names = {PRESETS: own_presets(tables)}
        for name in names[PRESETS]:
            assemble(name, "sagan", names=names)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    if not tables:
        raise UserError(f"{file}: there is no preset; expected a table such as [mine]")
    return names
