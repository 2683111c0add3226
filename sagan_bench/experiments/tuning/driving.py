"""Searches under way: ask, run, report, prune, tell; then the best again on fresh seeds.

One process drives.  A trial's run follows from its number, so that one that a killed driver left
goes on from its checkpoint and is told once.
"""

import math
import time
from collections import deque
from collections.abc import Sequence
from statistics import fmean

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import METRICS
from sagan_bench.core.stops import StopReason
from sagan_bench.evaluation.protocol import label
from sagan_bench.execution.engine import Ended, Engine
from sagan_bench.experiments import driver
from sagan_bench.experiments.driver import Watch, What
from sagan_bench.experiments.tuning import looking
from sagan_bench.experiments.tuning import storage as kept
from sagan_bench.experiments.tuning.confirmation import Confirmation, confirmation
from sagan_bench.experiments.tuning.definition import TuningManifest, better
from sagan_bench.experiments.tuning.searched import Importance, SearchFindings, search_findings
from sagan_bench.experiments.tuning.trials import (
    DIVERGED,
    PRESETS_OWN,
    Search,
    TrialRun,
    trials,
    value,
)
from sagan_bench.runs.records import Record, Status
from sagan_bench.runs.run import Run
from sagan_bench.session.events import Scored, Stop
from sagan_bench.training.checkpoint import Checkpoints


class Searcher:
    """Asks and tells for one search, and says which run comes next.

    Args:
        search: what is searched.
        storage: opened for writing.
        retry: make runs on fresh seeds that failed once more; those on set A only while it is
            still to choose.
    """

    def __init__(self, search: Search, storage: BaseStorage, *, retry: bool = False) -> None:
        self.search, self.tuning, self.retry = search, search.manifest.tuning, retry
        self.study = kept.begun(
            storage, search.study_name, self.tuning, search.index, search.definition
        )
        self.reported = search.is_reported
        """Set B was begun before."""
        self.accepting = True
        self.open: dict[str, optuna.Trial] = {}
        """Of the runs of trials under way."""
        self.resumed: deque[tuple[optuna.Trial, TrialRun]] = deque()
        self.lost = False
        """A trial was interrupted: it goes on with the next command, and no best is chosen yet."""
        self._over: dict[str, Record] = {}
        self._tried: set[str] = set()
        self._values: dict[tuple[str, int], list[float]] = {}
        self._standing: Confirmation | None = None
        """How far the best have been trained again; None once a run has ended since."""
        self._begin()

    def _begin(self) -> None:
        """Queue the preset's own values, or pick up the trials that were never told."""
        begun = self.study.get_trials()
        if not begun:
            parameters = self.search.parameters
            own = self.search.own_values()
            self.study.enqueue_trial({key: parameters[key].stored(v) for key, v in own.items()})
        self.begun = sum(trial.state != TrialState.WAITING for trial in begun)
        for trial in begun:
            if trial.state == TrialState.RUNNING:
                self._pick_up(optuna.Trial(self.study, trial._trial_id))

    def _pick_up(self, trial: optuna.Trial) -> None:
        """Tell a trial that a killed driver left, if its run is over; else let it go on."""
        run = self._run(trial)
        if run is None:
            return
        record = run.record()
        if record and self.tuning.prunes:  # what was scored but not reported before the kill
            for step, measured in Run(run.path, record).curve(self.tuning.objectives[0]):
                self._report_once(trial, step, measured)
        if record and _is_decided(record, record.reason):
            self._tell(trial, run, record)
        else:
            self.resumed.append((trial, run))

    def _report_once(self, trial: optuna.Trial, step: int, measured: float) -> None:
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        if step not in frozen.intermediate_values:  # else: scored once more after a kill
            trial.report(measured, step)

    def _run(self, trial: optuna.Trial) -> TrialRun | None:
        """Return the run of a trial; None, and told, if its values cannot be together."""
        suggested = self.search.parameters.items()
        params = {key: parameter.suggest(key, trial) for key, parameter in suggested}
        try:
            return self.search.run(trial.number, params, self.search.seeds.search)
        except UserError as error:
            self._fail(trial, str(error))
            return None

    # --- What comes next ---

    def next(self) -> TrialRun | None:
        """Return the next run, which is then under way; None if there is none just now."""
        if self.resumed:
            return self._begun(*self.resumed.popleft())
        while self.accepting and self.begun < self.search.manifest.trials:
            trial = self.study.ask()
            self.begun += 1
            if run := self._run(trial):
                return self._begun(trial, run)
        return None if self.open else self._next_confirmed()

    def _begun(self, trial: optuna.Trial, run: TrialRun) -> TrialRun:
        self.open[run.id] = trial
        return run

    def _next_confirmed(self) -> TrialRun | None:
        """Return a run on fresh seeds."""
        if self.lost or not self.search.manifest.confirm:
            return None
        run = next((run for run in self.confirmation().missing if run.id not in self._tried), None)
        if run:
            self._tried.add(run.id)
        return run

    def confirmation(self) -> Confirmation:
        """Return how far the best have been trained again."""
        if self._standing is None:
            begun = trials(self.study, self.search.parameters)
            self._standing = confirmation(self.search, begun, self._record)
        return self._standing

    @property
    def chooses_again(self) -> bool:
        """Whether, set B begun, it will choose among more: of a timeout, or of an older tuning."""
        more = self.begun < self.search.manifest.trials
        on_a = self.search.seeds.chosen_on
        own = any(r.seed in on_a and r.number == PRESETS_OWN for r in self.confirmation().missing)
        return self.reported and (more or own)

    @property
    def so_far(self) -> SearchFindings:
        """What can be said of it by now."""
        begun = trials(self.study, self.search.parameters)
        weighed = Importance("", None, None)
        return search_findings(self.search, begun, self.confirmation(), weighed)

    def _record(self, run: TrialRun) -> Record | None:
        if run.id not in self._over:
            record = run.record()
            if record is None or not record.status.is_over:
                return None
            again = self.retry and not (self.reported and run.seed in self.search.seeds.chosen_on)
            if again and record.status == Status.FAILED and run.id not in self._tried:
                return None
            self._over[run.id] = record
        return self._over[run.id]

    # --- What happened ---

    def take(self, run: TrialRun, what: What) -> StopReason | None:
        """Take notice of an event; returns why the run should be cancelled, or None."""
        if isinstance(what, Scored) and run.id in self.open:
            return self._report(self.open[run.id], run, what)
        if isinstance(what, Ended):
            self._standing = None
            if trial := self.open.pop(run.id, None):
                self._ended(trial, run, what)
        return None

    def _report(self, trial: optuna.Trial, run: TrialRun, what: Scored) -> StopReason | None:
        """Report a score on the way, once all sampling seeds are in; returns whether to prune."""
        score, objective = what.score, self.tuning.objectives[0]
        measured = score.metrics.get(objective)
        if score.final or score.weights != "ema" or measured is None or not self.tuning.prunes:
            return None
        values = self._values.setdefault((run.id, score.step), [])
        values.append(measured)
        if len(values) < len(run.config.evaluation.sampling_seeds):
            return None
        self._report_once(trial, score.step, fmean(values))
        return StopReason.PRUNED if trial.should_prune() else None

    def _ended(self, trial: optuna.Trial, run: TrialRun, ended: Ended) -> None:
        record = run.record()
        if record and _is_decided(record, ended.reason):
            self._tell(trial, run, record)
        elif ended.status == Status.FAILED:
            self._fail(trial, ended.reason)
        else:
            self.lost = True

    def _tell(self, trial: optuna.Trial, run: TrialRun, record: Record) -> None:
        """Tell how a trial ended; the attributes first, because telling closes it."""
        cost, objectives = record.cost, self.tuning.objectives
        trial.set_user_attr("steps", record.step)
        trial.set_user_attr("seconds", (cost.train_sec or 0) + (cost.score_sec or 0))
        if record.status == Status.FINISHED:
            values = {name: value(record, name) for name in objectives}
            if lacking := [name for name, measured in values.items() if measured is None]:
                extractor = run.config.evaluation.extractor
                self._fail(trial, f"the run has no {label(lacking[0], extractor)}")
            else:
                self._constrain(trial, 0.0)
                self.study.tell(trial, [v for v in values.values() if v is not None])
        elif record.status == Status.DIVERGED:
            trial.set_user_attr("reason", record.reason)
            self._constrain(trial, max(1 - record.step / record.steps, 1 / record.steps))
            self.study.tell(trial, [self._worst(index) for index in range(len(objectives))])
        elif record.status == Status.FAILED:
            self._fail(trial, record.reason)
        else:
            self.study.tell(trial, state=TrialState.PRUNED)
            Checkpoints(run.path / "checkpoints").clear()

    def _fail(self, trial: optuna.Trial, reason: str | None) -> None:
        trial.set_user_attr("reason", reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def _constrain(self, trial: optuna.Trial, violation: float) -> None:
        if DIVERGED not in trial.constraints:  # else: killed just before it was told
            trial.set_constraint(DIVERGED, violation)

    def _worst(self, index: int) -> float:
        """Return what stands for the value of a diverged trial: the worst that was measured.

        The violated constraint is what tells the sampler; a value there must be, and an invented
        one would decide the scale of a model of all values.
        """
        objective = self.tuning.objectives[index]
        worst = min if better(objective) == "higher" else max
        begun = trials(self.study, self.search.parameters)
        measured = [trial.values[index] for trial in begun if trial.values]
        if index == 0:
            measured += [score for trial in begun for _, score in trial.curve]
        return worst(measured, default=METRICS[objective].beyond if objective in METRICS else 0.0)


def _is_decided(record: Record, stopped: str | None) -> bool:
    """Return whether a trial will not go on: its run is over, or was ``stopped`` to prune it."""
    return record.status.is_over or stopped == StopReason.PRUNED


def drive(
    manifest: TuningManifest,
    searchers: Sequence[Searcher],
    engine: Engine,
    watch: Watch[TrialRun],
    stop: Stop,
    timeout_sec: float | None = None,
) -> None:
    """Run searches until each pair has its answer, as many runs at a time as there is room for.

    Args:
        manifest: of the tuning.
        searchers: of all its searches.
        engine: where runs are made; left open.
        watch: sees each run that begins (None) and every event of it.
        stop: asked often; a reason stops all runs after a checkpoint.
        timeout_sec: no trial begins later; those under way end, and the best are confirmed.

    Raises:
        Stopped: ``stop`` asked for it.
    """
    deadline = math.inf if timeout_sec is None else time.monotonic() + timeout_sec
    work = _Searches(manifest, searchers, deadline)
    driver.drive(work, engine, watch, stop, searchers[0].search.folder)


class _Searches:
    """Those up to the next look, side by side: that with the fewest trials begun comes first."""

    def __init__(
        self, manifest: TuningManifest, searchers: Sequence[Searcher], deadline: float
    ) -> None:
        self.manifest, self.searchers, self.deadline = manifest, searchers, deadline
        self.owner: dict[str, Searcher] = {}
        self.wanted = self._wanted()

    def _wanted(self) -> list[Searcher]:
        """Return the searches that open pairs need."""
        wanted = looking.wanted(self.manifest, [searcher.so_far for searcher in self.searchers])
        return [s for s in self.searchers if (s.search.variant, s.search.index) in wanted]

    def next(self) -> TrialRun | None:
        """Return the next run of the search that is furthest behind."""
        for searcher in sorted(self.wanted, key=lambda searcher: searcher.begun):
            searcher.accepting = time.monotonic() < self.deadline
            if run := searcher.next():
                self.owner[run.id] = searcher
                return run
        return None

    def take(self, run: TrialRun, what: What) -> StopReason | None:
        """Pass an event on to the search that it belongs to; where a search has ended, look."""
        why = self.owner[run.id].take(run, what)
        if isinstance(what, Ended) and looking.has_ended(self.manifest, self.owner[run.id].so_far):
            self.wanted = self._wanted()
        return why
