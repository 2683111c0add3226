"""Trackers told of a run so that nothing they do changes it."""

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from sagan_bench.core import extensions
from sagan_bench.core.registry import TRACKERS
from sagan_bench.evaluation.protocol import label_in
from sagan_bench.runs.records import Score, Status
from sagan_bench.session.trackers._base import RunFacts, Tracker

_log = logging.getLogger(__name__)


class Trackers:
    """Those of a run: one that raises is told nothing more, and the run goes on.

    Args:
        names: of `TRACKERS`.
        run: that begins, or goes on.
    """

    def __init__(self, names: Iterable[str], run: RunFacts) -> None:
        self._told = dict[str, Tracker]()
        for name in names:
            with self._harmless(name):
                tracker = TRACKERS[name]()
                tracker.begin(run)
                self._told[name] = tracker

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Tell values by name."""
        self._tell(lambda tracker: tracker.scalars(step, dict(values)))

    def scores(self, scores: Iterable[Score]) -> None:
        """Tell what is known of scores, in the mean over sampling seeds."""
        by_step: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for score in scores:
            for metric, value in score.metrics.items():
                if value is not None:
                    by_step[score.step][_name(metric, score)].append(value)
        for step, values in by_step.items():
            self.scalars(step, {name: fmean(each) for name, each in values.items()})

    def pictures(self, step: int, path: Path) -> None:
        """Tell of a grid of samples."""
        self._tell(lambda tracker: tracker.pictures(step, path))

    def end(self, status: Status) -> None:
        """Tell how the attempt ended, and nothing more."""
        self._tell(lambda tracker: tracker.end(status))
        self._told.clear()

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for name, tracker in [*self._told.items()]:
            with self._harmless(name):
                what(tracker)

    @contextmanager
    def _harmless(self, name: str) -> Iterator[None]:
        """Log an error within the block, once, and leave chance and threads as they were."""
        before = random.getstate(), np.random.get_state(), torch.get_num_threads()
        try:
            with torch.random.fork_rng(devices=[]):
                yield
        except (Exception, SystemExit) as error:  # noqa: BLE001  # the user's own
            self._told.pop(name, None)
            _log.warning(
                "tracker %s: %s; it is told nothing more, and the run goes on",
                name,
                extensions.told(error),
            )
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            if torch.get_num_threads() != before[2]:
                torch.set_num_threads(before[2])


def _name(metric: str, score: Score) -> str:
    """Return what a figure is called: raw weights are said, averaged ones are the usual."""
    when = "final" if score.final else "on the way"
    weights = "" if score.weights == "ema" else f" {score.weights} weights"
    return f"{when}{weights}/{label_in(metric, score.protocol)}"
