"""What a study could see, and what it would take, before its first run."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.design import FIRST_LOOKS
from sagan_bench.analysis.foresight import Sight, foreseen_at
from sagan_bench.analysis.gathering import gather
from sagan_bench.analysis.spread import of_variants
from sagan_bench.analysis.verdicts import ALPHA
from sagan_bench.core.errors import UserError
from sagan_bench.experiments.grid import Plan
from sagan_bench.experiments.study import MEMORY, Study, StudyManifest
from sagan_bench.runs.records import RECORD

GIVEN = "as given"
SMALLEST = 1e-100
"""Spread; what is smaller, or as much larger than 1, is a slip."""
FEWEST = 5
"""Runs of a variant from which on their spread is taken for that of others."""


@dataclass(frozen=True)
class Expected:
    """What each look could see.

    Attributes:
        metric: in whose units.
        spread: standard deviation of a variant's runs.
        origin: of the spread.
        sights: by look; of a study that does not grow, of its seeds and those of usual looks.
        device_hours: that all cells up to each look take; null where that is not known.
    """

    metric: str
    spread: float
    origin: str
    sights: tuple[Sight, ...]
    device_hours: tuple[float | None, ...]


def foreseen(
    planned: Plan, spread: float | None = None, per_flop: float | None = None
) -> Expected | None:
    """Return what a planned study could see; None where no spread is known.

    Args:
        planned: the study, and the folder beside which earlier ones are.
        spread: as given; else that of the study's own runs, or of an earlier study of such data.
        per_flop: seconds, as timed here; else those of the runs that the spread is of.

    Raises:
        UserError: the spread is none.
    """
    if spread is not None and not SMALLEST < spread < 1 / SMALLEST:
        raise UserError(
            f"--spread {spread:g}: expected the standard deviation of a variant's runs, above 0, "
            "such as 0.04"
        )
    study, earlier = planned.manifest.study, _earlier(planned)
    if spread is None and earlier is None:
        return None
    sd, origin = (earlier.spread, earlier.origin) if spread is None and earlier else (spread, GIVEN)
    least, is_share = study.measure.least
    if is_share:
        least *= abs(earlier.mean) if earlier else 0.0
        share = f"{study.measure.min_effect} of a mean"
        known = f"of {earlier.mean:.3g}, {least:.3g}" if earlier else "that is not known: left out"
        origin += f"; what matters is {share} {known}"
    if study.design:
        levels = {n: study.design.price(n) for n in study.design.looks}
    else:
        sizes = sorted({len(study.seeds), *FIRST_LOOKS})
        levels = {n: ALPHA / len(study.pairs) for n in sizes if n > 1}
    sights = tuple(
        foreseen_at(n, level, sd or 0.0, least, paired=study.measure.paired)
        for n, level in levels.items()
    )
    cell = planned.seconds_a_cell(per_flop or (earlier and earlier.per_flop))
    hours = tuple(cell and cell * sight.n * len(study.all_variants) / 3600 for sight in sights)
    return Expected(study.measure.metric, sd or 0.0, origin, sights, hours)


class _Earlier(NamedTuple):
    """What runs of such data say; ``mean`` is of the baselines, ``per_flop`` seconds or None."""

    is_own: bool
    runs: int
    spread: float
    mean: float
    per_flop: float | None
    place: str

    @property
    def origin(self) -> str:
        return f"of {self.runs} runs in {self.place}"


def _earlier(planned: Plan) -> _Earlier | None:
    """Return what the study's own runs say, else the study beside it with most runs."""
    beside = [file.parent for file in sorted(planned.folder.parent.glob(f"*/{MEMORY}"))]
    folders = dict.fromkeys((planned.folder, *beside))
    known = [of for folder in folders if (of := _said_by(folder, planned))]
    return max(known, key=lambda of: (of.is_own, of.runs, of.place), default=None)


def _said_by(folder: Path, planned: Plan) -> _Earlier | None:
    """Return what the runs of a study say, if they are of such data."""
    study = planned.manifest.study
    try:
        memory = StudyManifest.of(folder)
        if memory is None or not _is_alike(memory.study, study):
            return None
        paths = [path.parent for path in folder.glob(f"*/{RECORD}")]
        runs = gather(paths, planned=memory.study.cells)
        runs = replace(runs, collapse=study.measure.collapse)
        spreads = [of for of in of_variants(runs, study.measure.metric) if of.runs >= FEWEST]
    except UserError:
        return None  # what cannot be read says nothing
    if not spreads:
        return None
    baselines = {base for _, base in study.pairs}
    usual = [of.mean for of in spreads if of.variant in baselines] or [of.mean for of in spreads]
    return _Earlier(
        is_own=folder == planned.folder,
        runs=sum(of.runs for of in spreads),
        spread=math.sqrt(fmean(of.sd**2 for of in spreads)),
        mean=fmean(usual),
        per_flop=_per_flop(runs, memory),
        place=str(folder),
    )


def _per_flop(runs: RunSet, memory: StudyManifest) -> float | None:
    """Return the seconds of training a FLOP, of a command's runs a run; None if not recorded."""
    rates = [
        run.record.cost.train_sec / (facts.flops_per_step * run.record.steps if facts else 1)
        for run in runs.attempted
        if run.record.cost.train_sec
        for facts in [memory.facts.get(run.variant)]
    ]
    return median(rates) if rates else None


def _is_alike(other: Study, study: Study) -> bool:
    return (
        other.measure.metric == study.measure.metric
        and other.data_kind == study.data_kind
        and other.comparable
    )
