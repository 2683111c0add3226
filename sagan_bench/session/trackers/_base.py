"""What a tracker is: told what becomes of a run, on its main process, and asked nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sagan_bench.runs.records import Status


@dataclass(frozen=True)
class RunFacts:
    """A run as trackers know it.

    Attributes:
        name: of its folder, e.g. ``sagan-s0-dfb71f19e4da``; other in each study, not in all.
        folder: the run's, in which a tracker may keep what it needs to go on, e.g. an id.
        variant: what it is called by.
        seed: of its training.
        digest: of all that changes its result.
        step: the generator updates that it has behind it: 0, or those of the checkpoint from which
            it goes on.  What comes after this step is told again.
        config: all its settings, as JSON has them.
    """

    name: str
    folder: Path
    variant: str
    seed: int
    digest: str
    step: int
    config: Mapping[str, Any]


class Tracker:
    """Takes what a run tells elsewhere; one object follows one attempt at a run.

    A component of `sagan_bench.core.registry.TRACKERS`, made without arguments.  What it is told is
    a copy, and what it draws by chance is not missing from the run.  Where it raises, that is
    logged, it is told nothing more, and the run goes on.  It is called between two steps: the run
    waits for it.
    """

    name: ClassVar[str]
    """Set by the registry."""
    deliberate: ClassVar[tuple[str, ...]] = ()
    """As of other components: nothing of a tracker is unusual."""

    @classmethod
    def require(cls) -> None:
        """Raise `UserError` where something is missing that it needs, before the run begins."""

    def begin(self, run: RunFacts) -> None:
        """Take notice of a run that begins, or goes on."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take values by name after a generator update: a row of ``metrics.jsonl``, or scores.

        Scores are called ``on the way/NAME`` and ``final/NAME``, NAME as in tables:
        ``final/FID[effnet-lite0]``.
        """

    def pictures(self, step: int, path: Path) -> None:
        """Take the file of a grid of samples, a PNG in the run's folder."""

    def end(self, status: Status) -> None:
        """Take notice of how the attempt ended: finished, diverged, interrupted or failed.

        A process that is killed tells nothing.
        """
