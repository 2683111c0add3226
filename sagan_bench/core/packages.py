"""Installed packages that have components: entry points of the group ``sagan_bench``.

    [project.entry-points.sagan_bench]
    mine = "my_package.blocks"

The value is a module that registers components.  It is imported by whoever makes runs, or names
what is in it, and by nobody else.
"""

from functools import cache
from importlib.metadata import entry_points

GROUP = "sagan_bench"


@cache
def modules() -> dict[str, str]:
    """Return the modules with components of installed packages -> the name of the package."""
    named = {}
    for entry in entry_points(group=GROUP):
        module = entry.value.partition(":")[0].strip()
        named[module] = entry.dist.name if entry.dist else entry.name
    return named
