"""What a study could see, and what it would take, before its first run."""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from sagan_bench.analysis.foresight import Sight, foreseen_at
from sagan_bench.analysis.gathering import gather
from sagan_bench.analysis.spread import of_variants
from sagan_bench.analysis.verdicts import ALPHA
from sagan_bench.core.errors import UserError
from sagan_bench.experiments.grid import Plan
from sagan_bench.experiments.study import MEMORY, Study, StudyManifest
from sagan_bench.runs.records import RECORD

FEWEST = 5
"""Runs of a variant from which on their spread is taken for that of others."""


@dataclass(frozen=True)
class Expected:
    """What each look could see.

    Attributes:
        metric: in whose units.
        spread: standard deviation of a variant's runs.
        origin: of the spread.
        sights: by look; of a study that does not grow, of all its seeds.
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
        per_flop: seconds, as timed here.
    """
    study = planned.manifest.study
    amount, is_share = study.measure.least
    least = 0.0 if is_share else amount  # the mean that it is a share of is not known yet
    origin = "as given"
    if spread is None:
        spread, origin = _earlier(planned) or (None, "")
    if not spread:
        return None
    levels = {n: study.design.price(n) for n in study.design.looks} if study.design else {
        len(study.seeds): ALPHA / len(study.pairs)
    }  # fmt: skip
    sights = tuple(
        foreseen_at(n, level, spread, least, paired=study.measure.paired)
        for n, level in levels.items()
        if n > 1
    )
    alone = planned.seconds_left(1, per_flop)
    cell = alone / len(planned.missing) if alone and planned.missing else None
    hours = tuple(cell and cell * sight.n * len(study.all_variants) / 3600 for sight in sights)
    return Expected(study.measure.metric, spread, origin, sights, hours)


def _earlier(planned: Plan) -> tuple[float, str] | None:
    """Return the spread of the study's own runs, else of the study beside it with most runs."""
    beside = [file.parent for file in sorted(planned.folder.parent.glob(f"*/{MEMORY}"))]
    known = []
    for folder in dict.fromkeys((planned.folder, *beside)):
        if of := _spread_in(folder, planned.manifest.study):
            runs, spread = of
            known.append((folder == planned.folder, runs, spread, str(folder)))
    if not known:
        return None
    _, count, spread, place = max(known)
    return spread, f"of {count} runs in {place}"


def _spread_in(folder: Path, study: Study) -> tuple[int, float] | None:
    """Return how many runs of a study on such data there are, and how they spread."""
    try:
        memory = StudyManifest.of(folder)
        if memory is None or not _is_alike(memory.study, study):
            return None
        paths = [path.parent for path in folder.glob(f"*/{RECORD}")]
        runs = gather(paths, planned=memory.study.cells)
        spreads = [of for of in of_variants(runs, study.measure.metric) if of.runs >= FEWEST]
    except UserError:
        return None  # what cannot be read says nothing
    if not spreads:
        return None
    return sum(of.runs for of in spreads), math.sqrt(fmean(of.sd**2 for of in spreads))


def _is_alike(other: Study, study: Study) -> bool:
    return (
        other.measure.metric == study.measure.metric
        and other.data_kind == study.data_kind
        and other.comparable
    )
