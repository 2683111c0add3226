"""The package from Python, ``import sagan_bench as sb``: for notebooks and scripts.

Functions take names and paths as the command line does, and raise `UserError` where it says one
(docs/python.md).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sagan_bench.analysis.comparison import Findings
from sagan_bench.config.layers import decide, read
from sagan_bench.config.schema import RunConfig, Weights
from sagan_bench.core.errors import UserError
from sagan_bench.experiments.findings import of_places
from sagan_bench.report.findings import findings as in_words
from sagan_bench.report.verdict import SideBySide, Verdict
from sagan_bench.runs import records
from sagan_bench.runs.finding import find_runs
from sagan_bench.runs.records import RECORD, Record
from sagan_bench.runs.rows import METRICS, read_rows
from sagan_bench.runs.run import Run
from sagan_bench.runs.table import frame as table
from sagan_bench.session import experiment
from sagan_bench.session.capabilities import capabilities
from sagan_bench.session.events import Event

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

Place = str | Path


@dataclass(frozen=True)
class TrainedRun:
    """A run in a folder, whatever became of it.

    Attributes:
        path: its folder.
        record: what it left behind, as of when it was loaded.
    """

    path: Path
    record: Record

    @property
    def status(self) -> str:
        """``finished``, ``diverged``, ``interrupted``, ``failed`` or ``running``."""
        return str(self.record.status)

    @cached_property
    def config(self) -> RunConfig:
        """Every setting."""
        return self._run.config

    @property
    def metrics(self) -> dict[str, float | None]:
        """Its final scores, averaged weights, means over sampling seeds; None where undefined."""
        scores = self._run.final("ema")
        names = dict.fromkeys(name for score in scores for name in score.metrics)
        values = {name: [score.metrics.get(name) for score in scores] for name in names}
        return {
            name: None if None in of else fmean(value for value in of if value is not None)
            for name, of in values.items()
        }

    def curve(self, metric: str) -> "pd.Series[float]":
        """Return the scores on the way of a metric, by step; empty if there are none."""
        import pandas as pd

        steps = dict(self._run.curve(metric))
        return pd.Series(steps, name=metric, dtype=float).rename_axis("step")

    def rows(self) -> "pd.DataFrame":
        """Return what was logged while it trained, a row a ``run.log_every`` steps."""
        import pandas as pd

        return pd.DataFrame(read_rows(self.path, METRICS, self.record))

    def images(
        self,
        n: int = 64,
        *,
        seed: int = 0,
        classes: Sequence[int | str] = (),
        truncation: float | None = None,
        weights: Weights = "ema",
        device: str = "auto",
    ) -> "Tensor":
        """Return images of its generator, uint8 (n, 3, S, S), in rows of eight of one class each.

        Args:
            n: how many.
            seed: of the noise.
            classes: numbers or names of those that take turns row by row; all of them if empty.
            truncation: noise from |z| < this; that of the run's scores if None.
            weights: averaged or raw.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

        Raises:
            UserError: it is not finished, or there are no such weights or classes.
        """
        from sagan_bench.session import sampling

        drawn = sampling.load(self.path, weights, device)
        chosen = drawn.classes_called([str(each) for each in classes]) if classes else ()
        return drawn.images(n, seed, chosen, drawn.truncation if truncation is None else truncation)

    @cached_property
    def _run(self) -> Run:
        return Run(self.path, self.record)

    def __repr__(self) -> str:
        known = {name: value for name, value in self.metrics.items() if value is not None}
        figures = ", ".join(f"{name}={value:.4g}" for name, value in list(known.items())[:3])
        return f"<run {self.path}: {self.status}, step {self.record.step}; {figures}>"


def train(
    variant: str = "sagan",
    *,
    preset: str | None = None,
    data: str | None = None,
    seed: int = 0,
    steps: int | None = None,
    sets: Mapping[str, Any] | None = None,
    out: Place | None = None,
    watch: Callable[[Event], None] = lambda event: None,
) -> TrainedRun:
    """Train a run, or go on where it was cut off; one that is finished is loaded.

    Args:
        variant: a name, or several combined by ``+``; see ``python cli.py list variants``.
        preset: where settings begin; the default one if None.
        data: as ``--data`` takes it, e.g. ``folder:photos``.
        seed: of weights, noise and the order of the images.
        steps: generator updates to reach; the preset's if None.
        sets: dotted key -> value, as ``--set`` takes them.
        out: its folder; by default ``runs/NAME-sSEED-DIGEST``.
        watch: sees every event while it trains (`sagan_bench.session.events`).

    Raises:
        UserError: a setting, data or folder that cannot be used.
    """
    flags = {"seed": ("seed", seed), "data.source": ("data", data), "run.steps": ("steps", steps)}
    given = {key: setting for key, setting in flags.items() if setting[1] is not None}
    given |= {key: ("sets", value) for key, value in (sets or {}).items()}
    requested = read(preset=preset, variant=variant, flags=given)
    config = decide(requested, capabilities(requested.config)).config
    folder = None if out is None else Path(out)
    record = experiment.run(config, out=folder, watch=watch)
    return TrainedRun(folder or Path("runs") / record.run, record)


def load(run: Place) -> TrainedRun:
    """Return a run by its folder.  Raises `UserError` if there is none."""
    path = Path(run)
    if not (path / RECORD).exists():
        raise UserError(f"no run is at {path}: a run's folder holds {RECORD}")
    return TrainedRun(path, records.read(path))


def frame(*places: Place) -> "pd.DataFrame":
    """Return the runs at or below some folders as a table: one row a run and score.

    Its columns are those of `sagan_bench.runs.table.frame`.

    Raises:
        UserError: no record can be read.
    """
    return table([run for place in places or ("runs",) for run in find_runs(Path(place))])


def compare(
    *places: Place,
    baseline: str | None = None,
    metric: str | None = None,
    min_effect: float | str | None = None,
    at_step: int | None = None,
) -> Verdict | SideBySide:
    """Return what can be claimed of a study, by its own question, or of any runs.

    Of runs of different length nothing is claimed: what comes back has their figures side by side.

    Args:
        places: folders of a study, or of runs.
        baseline: the variant that the others are held to; needed where there is no study alone.
        metric: by which; one's own choice, made after the runs, is post hoc.
        min_effect: smallest difference that matters, in units of the metric, or as in ``"5%"``.
        at_step: of runs of different length: at which scores on the way stand side by side; the
            last that all have if None.

    Raises:
        UserError: no baseline is known, or runs that may not be compared, with the difference.
    """
    said = of_places([Path(place) for place in places], baseline, metric, min_effect, at_step)
    return Verdict(in_words(said)) if isinstance(said, Findings) else SideBySide(said)
