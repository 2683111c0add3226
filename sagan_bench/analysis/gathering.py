"""Records of runs -> those that may be put side by side; whatever may not is refused here."""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from sagan_bench.analysis.collection import RunSet, of_known_length
from sagan_bench.config.diff import differences, listed
from sagan_bench.core.errors import UserError
from sagan_bench.core.stored import fitting
from sagan_bench.evaluation.protocol import AnyProtocol, stored
from sagan_bench.runs import probe
from sagan_bench.runs.probe import PROBE, Probe
from sagan_bench.runs.records import RECORD, Score
from sagan_bench.runs.run import Run, family
from sagan_bench.runs.run_directory import read_now, readable

_log = logging.getLogger(__name__)

BOTH = "{}: {} and {}"
INIT = "training.init_sha256"
NAMES: tuple[Callable[[Run], str], ...] = (
    lambda run: run.record.variant + _tuned(run),
    lambda run: run.record.name + _tuned(run),
    lambda run: f"{run.path.resolve().parent.name}/{run.record.variant}{_tuned(run)}",
)
"""What runs that no study names may go by; the first that tells them apart."""


def _tuned(run: Run) -> str:
    """Return what a name says of a run that began with another's weights."""
    return " (fine-tuned)" if run.settings.get(INIT) else ""


def whole(path: Path) -> Run:
    """Return a run whose record was looked at in all its parts, the nested ones too.

    Raises:
        UserError: See :func:`sagan_bench.runs.records.read`.
    """
    run = scored(path)
    run.settings  # noqa: B018  # refuses a damaged one
    return run


def scored(path: Path) -> Run:
    """Return a run, the protocols of whose final scores were looked at.  Raises as `whole`."""
    run = Run(path, read_now(path))
    for score in run.record.scores:
        if score.final:
            protocol_of(score, path)
    return run


def protocol_of(score: Score, path: Path) -> AnyProtocol:
    """Return the protocol of a score in the record of ``path``.  Raises `UserError` if damaged."""
    return fitting(lambda: stored(score.protocol), path / RECORD)


def gather(
    paths: Iterable[Path],
    *,
    loose: bool = False,
    planned: Collection[tuple[str, int]] | None = None,
) -> RunSet:
    """Read runs and check that they may be compared.

    Args:
        paths: of runs.
        loose: no study names them: where variants clash, runs go by the name that their user gave
            them, else by the folder they are in.
        planned: variants and seeds of a plan; other runs are left out, and so are the scores of
            sampling seeds that runs were not begun with, which are added after looking.

    A run whose record cannot be read is left out, and that is logged.

    Raises:
        UserError: no record can be read; a run twice, two configurations of one variant, different
            budgets, or figures of different protocols, with the difference.
    """
    return gathered(*read_whole(paths), loose=loose, planned=planned)


def read_whole(paths: Iterable[Path]) -> tuple[list[Run], int]:
    """Return the runs that can be read, and how many cannot, which is logged.

    Raises:
        UserError: no record can be read.
    """
    places = dict.fromkeys(paths)
    read = [run for _, run in readable(places, whole)]
    return read, len(places) - len(read)


def gathered(
    read: Iterable[Run],
    unread: int,
    *,
    loose: bool = False,
    planned: Collection[tuple[str, int]] | None = None,
) -> RunSet:
    """Return runs that were read, and what was probed of them.  All else as of `gather`."""
    runs = together(read, loose=loose, planned=planned)
    return replace(runs, unread=unread, probes=_probes(runs.attempted))


def _probes(runs: Iterable[Run]) -> dict[Path, Probe | None]:
    """Return what was probed of runs; of a damaged file None, and that is logged."""
    probes: dict[Path, Probe | None] = {}
    for path in (run.path for run in runs if not run.program and (run.path / PROBE).exists()):
        try:
            probes[path] = probe.read(path)
        except UserError as error:
            _log.warning("left out of what probes say: %s", error)
            probes[path] = None
    return probes


def together(
    read: Iterable[Run],
    *,
    loose: bool = False,
    planned: Collection[tuple[str, int]] | None = None,
) -> RunSet:
    """Check that runs may be compared.  Arguments and errors as of `gather`."""
    runs, unplanned = list[Run](), list[Path]()
    for run in read:
        if planned is None or (run.variant, run.seed) in planned:
            runs.append(run)
        else:
            unplanned.append(run.path)
    over = [run for run in runs if run.record.status.is_over]
    over.sort(key=lambda run: run.seed)
    if loose:
        over = _disambiguated(over)
    refuse_other_makers(over)
    refuse_clashes(over)
    _refuse_other_budgets(over)
    begun = tuple(run for run in runs if not run.record.status.is_over)
    main, others = _common_protocols(over, declared=planned is not None)
    return RunSet(tuple(over), begun, 0, main, others, tuple(unplanned))


def _disambiguated(runs: Sequence[Run]) -> list[Run]:
    """Return the runs under the first kind of label by which those of one label are alike."""
    for label in NAMES:
        labelled = [replace(run, label=label(run)) for run in runs]
        try:
            refuse_clashes(labelled)
        except UserError:
            continue
        return labelled
    return list(runs)


def refuse_clashes(runs: Sequence[Run]) -> None:
    """Raise `UserError` if a run is there twice, or a variant in two configurations."""
    _refuse_twice(runs)
    _refuse_other_configs(runs)


def _refuse_twice(runs: Sequence[Run]) -> None:
    seen: dict[tuple[str, int], Path] = {}
    for run in runs:
        other = seen.setdefault((run.variant, run.seed), run.path)
        if other != run.path:
            raise UserError(
                f"two runs of {run.variant} at seed {run.seed}: {other} and {run.path}; one seed "
                "is one run: leave one out"
            )


def _refuse_other_configs(runs: Sequence[Run]) -> None:
    first: dict[str, tuple[Run, str]] = {}
    for run in runs:
        text = json.dumps(run.settings, sort_keys=True)
        other, its_text = first.setdefault(run.variant, (run, text))
        if text == its_text:  # as nearly all are: what differs is looked for where something does
            continue
        if differs := listed(differences(other.settings, run.settings), BOTH):
            raise UserError(
                f"runs of {run.variant} that are not alike: {differs}; {other.path} and "
                f"{run.path}; compare runs of one configuration"
            )


def refuse_other_makers(runs: Sequence[Run]) -> None:
    """Raise `UserError` if some runs are ours, and some another program's."""
    ours = [run.path for run in runs if run.program is None]
    theirs = [run.path for run in runs if run.program]
    if ours and theirs:
        raise UserError(
            f"figures of different protocols are never compared: {theirs[0]} was made by another "
            f"program, and {ours[0]} was not; compare runs of one program"
        )


def _refuse_other_budgets(runs: Sequence[Run]) -> None:
    runs = of_known_length(runs)
    for run in runs:
        if run.record.steps != runs[0].record.steps:
            raise UserError(
                f"different budgets: {runs[0].path} has {runs[0].record.steps} steps and "
                f"{run.path} {run.record.steps}; compare runs of equal length"
            )


def _common_protocols(
    runs: Sequence[Run], *, declared: bool
) -> tuple[dict[int, AnyProtocol], dict[str, dict[int, AnyProtocol]]]:
    """Return the protocol by sampling seed under which every finished run was scored.

    Where there are several, it is the one that the first run was scored by first; by each of the
    other extractors likewise.

    Args:
        runs: that are over.
        declared: only sampling seeds that each was begun with count.
    """
    scored = [run for run in runs if not run.lost]
    if not scored:
        return {}, {}
    by_run = [
        {
            score.fingerprint: stored(score.protocol)
            for score in run.final("ema")
            if not declared or score.sampling_seed in run.sampling_seeds
        }
        for run in scored
    ]
    common = [p for fingerprint, p in by_run[0].items() if all(fingerprint in of for of in by_run)]
    if not common:
        for run, of in zip(scored, by_run, strict=True):
            if not of.keys() & by_run[0].keys():
                _refuse_protocols(scored[0], run)
        raise UserError("the runs share no protocol; score them alike with `evaluate`")
    by_extractor: dict[str, dict[int, AnyProtocol]] = {}
    first: dict[str, str] = {}
    for protocol in common:
        its_family = family(protocol.model_dump(mode="json"))
        if first.setdefault(protocol.extractor, its_family) == its_family:
            by_seed = by_extractor.setdefault(protocol.extractor, {})
            by_seed[protocol.sampling_seed] = protocol
    return by_extractor.pop(common[0].extractor), by_extractor


def _refuse_protocols(first: Run, other: Run) -> None:
    here, there = (run.final("ema") for run in (first, other))
    if not here or not there:
        bare = first if not here else other
        if bare.record.is_unscored:
            raise UserError(f"{bare.path} has no final score; run `evaluate` on it")
        raise UserError(
            f"{bare.path} has no final score of averaged weights; run `evaluate` on it with "
            "--weights ema"
        )
    differs = listed(differences(here[0].protocol, there[0].protocol), BOTH)
    raise UserError(
        f"figures of different protocols are never compared: {differs}; {first.path} and "
        f"{other.path}; score them alike with `evaluate`"
    )
