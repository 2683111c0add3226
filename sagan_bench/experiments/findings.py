"""What can be said of a study's runs."""

from collections.abc import Sequence
from pathlib import Path

from sagan_bench.analysis import asking
from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.comparison import Findings, findings
from sagan_bench.analysis.gathering import gather
from sagan_bench.analysis.lengths import SideBySide
from sagan_bench.analysis.question import Question
from sagan_bench.core import garbage
from sagan_bench.core.errors import UserError
from sagan_bench.core.stored import damaged
from sagan_bench.experiments import study
from sagan_bench.experiments.ledger import ledger
from sagan_bench.experiments.study import Study, StudyManifest
from sagan_bench.runs.finding import find_runs


@garbage.none_expected()
def of_study(folder: Path) -> Findings:
    """Return what can be said of a study's runs.  Raises `UserError` as `collected`."""
    memory, runs = collected(folder)
    return findings(runs, question(memory, folder))


@garbage.none_expected()
def of_places(
    places: Sequence[Path],
    baseline: str | None = None,
    metric: str | None = None,
    min_effect: float | str | None = None,
    at_step: int | None = None,
) -> Findings | SideBySide:
    """Return what can be said of runs in folders: by the question of the one study there, or so.

    Runs of different length that no study names stand side by side, without a baseline too.

    Args:
        places: of studies, and of runs.
        baseline: the variant that the others are held to; needed where there is no study alone.
        metric: by which; one's own choice after the runs is post hoc.
        min_effect: smallest difference that matters, in its units, or as in ``"5%"``.
        at_step: of runs of different length: at which scores on the way stand side by side.

    Raises:
        UserError: no baseline is known, or runs that may not be compared.
    """
    studies = [place for place in places if (place / study.MEMORY).exists()]
    if len(places) == len(studies) == 1:
        memory = StudyManifest.of(studies[0])
        if memory and is_own_question(memory.study, baseline, metric, min_effect):
            if at_step is not None:
                raise UserError("--at-step: it is for runs that no study names; leave it out")
            return of_study(studies[0])
        baseline = baseline or (memory.study.baseline if memory else None)
    runs = [run for place in places for run in find_runs(place)]
    said = asking.of_runs(runs, baseline, metric, min_effect, at_step)
    if baseline is None and isinstance(said, Findings):
        raise UserError("compare: say with --baseline NAME which variant the others are held to")
    return said


def is_own_question(
    own: Study,
    baseline: str | None = None,
    metric: str | None = None,
    min_effect: float | str | None = None,
) -> bool:
    """Return whether a study was made to compare just that; None is its own choice."""
    chosen = baseline is None or {base for _, base in own.pairs} == {baseline}
    decides = own.measure
    return chosen and metric in (None, decides.metric) and min_effect in (None, decides.min_effect)


def collected(folder: Path) -> tuple[StudyManifest, RunSet]:
    """Return what a study's folder keeps, and its runs.

    Raises:
        UserError: there is no study, no finished run, or runs that may not be compared.
    """
    memory = study.StudyManifest.of(folder)
    if memory is None:
        raise UserError(f"no study is in {folder}; begin one with `ablate`")
    runs = gather(find_runs(folder), planned=memory.study.cells)
    if memory.study.paper and (bare := runs.variants.keys() - memory.facts.keys()):
        raise damaged(folder / study.MEMORY, f"facts: {min(bare)} is missing")
    return memory, runs


def question(memory: StudyManifest, folder: Path | None = None) -> Question:
    """Return what a study asks of its runs; with its folder, what others ask of the same data."""
    own = memory.study
    return Question(
        name=own.name,
        text=own.question,
        measure=own.measure,
        pairs=own.pairs,
        declared=True,
        comparable=own.comparable,
        looks=memory.looks,
        design=own.design,
        order=own.order,
        planned=own.cells,
        facts=memory.facts,
        paper=own.paper,
        ledger=ledger(folder, memory) if folder else None,
    )
