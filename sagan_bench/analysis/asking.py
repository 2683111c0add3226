"""What is asked of runs that no study names: by whoever compares them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.comparison import Findings, findings
from sagan_bench.analysis.gathering import gathered, read_whole
from sagan_bench.analysis.lengths import SideBySide, are_of_one_length, side_by_side
from sagan_bench.analysis.question import Measure, Question
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics import leading, shown
from sagan_bench.runs.run import Run


def of_runs(
    paths: Iterable[Path],
    baseline: str | None,
    metric: str | None = None,
    min_effect: float | str | None = None,
    at_step: int | None = None,
) -> Findings | SideBySide:
    """Return what can be said of runs that no study names; side by side if lengths differ.

    Raises:
        UserError: as `about`, or as `side_by_side`.
    """
    read, unread = read_whole(paths)
    if are_of_one_length(read):
        if at_step is not None:
            raise UserError("--at-step: it is for runs of different length; leave it out")
        return about(gathered(read, unread, loose=True), baseline, metric, min_effect)
    if min_effect is not None:
        raise UserError(
            "--min-effect: runs of different length stand side by side and are not compared; "
            "leave it out"
        )
    beside = side_by_side(read, unread, metric=metric, at_step=at_step)
    if baseline is None:
        return beside
    return beside.led_by(_named(baseline, beside.variants))


def about(
    runs: RunSet,
    baseline: str | None,
    metric: str | None = None,
    min_effect: float | str | None = None,
    *,
    name: str = "runs",
    where: str = "",
    looks: int = 0,
) -> Findings:
    """Return what can be said of runs that no study names: each variant against ``baseline``.

    Without a baseline nothing is compared.

    Args:
        runs: that may be compared.
        baseline: variant, or a run or folder of it.
        metric: by which; by default the first of ours, else the only one.
        min_effect: smallest difference that matters; by default a share.
        name: of what is asked.
        where: the user declares all of it there as fixed before the runs; empty where it is not.
        looks: how often results were looked at before more runs were added, as the user says.

    Raises:
        UserError: no finished run, or runs that may not be compared.
    """
    if baseline is not None:
        baseline = _named(baseline, runs.variants)
    measure = _measure(runs, metric, min_effect)
    others = [name for name in runs.variants if name != baseline]
    pairs = tuple((name, baseline) for name in others if baseline)
    do = "does" if len(others) == 1 else "do"
    text = f"How {do} {', '.join(others)} differ from {baseline}?" if pairs else "What was run?"
    question = Question(name, text, measure, pairs, bool(where), where=where, looks=looks)
    return findings(runs, question)


def _measure(runs: RunSet, metric: str | None, min_effect: float | str | None) -> Measure:
    """Return the measure that is meant: by default the first of ours, else the only one.

    Raises:
        UserError: there is no such metric, or several of which none is ours.
    """
    ours = [name for name in leading() if name in runs.metrics]
    if metric is None and not ours and runs.program and len(runs.metrics) > 1:
        raise UserError(f"say with --metric NAME which decides: {', '.join(runs.metrics)}")
    theirs = runs.metrics or list(runs.program.better) if runs.program else []
    metric = metric or next(iter((*ours, *theirs)), leading()[-1])
    if metric not in METRICS and metric not in theirs:
        raise UserError(f"--metric {metric}: {closest(metric, theirs or list(shown()))}")
    if metric not in runs.better:
        raise UserError(f"{metric}: say which values are better, lower or higher")
    better = None if metric in METRICS else runs.better[metric]
    least = "5%" if min_effect is None else min_effect
    try:
        return Measure(metric=metric, min_effect=least, better=better)
    except ValidationError as error:
        wanted = "expected a number from 0, or a share such as '5%'"
        raise UserError(f"--min-effect {min_effect}: {wanted}") from error


def _named(baseline: str, variants: Mapping[str, Sequence[Run]]) -> str:
    """Return the variant that is meant: by its name, by one of its runs, or by its folder."""
    folder = Path(baseline)
    for is_meant in (
        lambda run: baseline == run.variant,
        lambda run: folder.resolve() == run.path.resolve(),
        lambda run: folder.name in (run.path.name, run.variant.partition("/")[0]),
    ):
        named = {name for name, runs in variants.items() if any(map(is_meant, runs))}
        if len(named) == 1:
            return named.pop()
    which = f"it could be {' or '.join(sorted(named))}" if named else "there is no run of it"
    raise UserError(
        f"--baseline {baseline}: {which}; the variants are {', '.join(variants) or 'none'}"
    )
