"""The engines, one a module; `Engine` says what one does."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sagan_bench.core.registry import ENGINES
from sagan_bench.execution.engine import Engine

if TYPE_CHECKING:
    from sagan_bench.execution.slots import Slot
    from sagan_bench.session.events import Stop


def opened(name: str, slots: "Sequence[Slot]", stop: "Stop") -> Engine:
    """Return the engine of that name, to be closed.  Raises `UserError` if there is none."""
    engine: Engine = ENGINES[name](slots, stop)
    return engine
