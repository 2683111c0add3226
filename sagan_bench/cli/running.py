"""What ``ablate`` and ``tune`` share: the machine that runs are made on, from data to the end."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sagan_bench.cli.options import pick
from sagan_bench.cli.signals import stopping
from sagan_bench.core.registry import ENGINES

if TYPE_CHECKING:
    from sagan_bench.config.schema import Host, RunConfig
    from sagan_bench.core.progress import OnProgress
    from sagan_bench.execution.engine import Engine
    from sagan_bench.session.events import Stop

T = TypeVar("T")


class Where(NamedTuple):
    """Where runs are made, as the options say."""

    jobs: int | None
    device: str
    engine: str

    @classmethod
    def of(cls, jobs: int | None, device: str, engine: str, in_process: bool) -> "Where":
        """Return what the options say.  Raises `UserError` if no engine is called so."""
        name = "inline" if in_process else pick("--engine", engine, list(ENGINES))
        return cls(jobs, device, name)

    def host(self, config: "RunConfig") -> "Host":
        """Return what the machine offers for a configuration."""
        from sagan_bench.config.layers import override
        from sagan_bench.session.capabilities import capabilities

        return capabilities(override(config, {"run.device": ("--device", self.device)}))


def carry_out(
    folder: Path,
    where: Where,
    runs: int,
    prepared: "Callable[[OnProgress], T]",
    run: "Callable[[T, Engine, Stop, int], None]",
) -> T:
    """Prepare the data of an experiment and make its runs; end the command if asked to stop.

    Args:
        folder: of the experiment, which no other process may run.
        where: its runs are made.
        runs: of the whole experiment; slots beyond would stay empty.
        prepared: prepares the data, and returns what is then to be run.
        run: runs that in an engine, so many at a time.

    Returns:
        What was prepared.
    """
    from sagan_bench.cli.progress import View
    from sagan_bench.execution import engines
    from sagan_bench.execution.slots import slots
    from sagan_bench.experiments.driver import held

    with stopping() as stop, held(folder):
        with View() as view:
            ready = prepared(view.counter("images", stop))
        shared = slots(where.jobs, where.device, runs)
        with closing(engines.opened(where.engine, shared, stop)) as engine:
            run(ready, engine, stop, len(shared))
    return ready
