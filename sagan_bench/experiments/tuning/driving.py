"""Searches under way: ask, run, report, prune, tell; then the best again on fresh seeds.

One process drives.  A trial's run follows from its number, so that one that a killed driver left
goes on from its checkpoint and is told once.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import METRICS
from sagan_bench.execution.engine import Ended, Engine, Event, Job
from sagan_bench.experiments import driver
from sagan_bench.experiments.tuning import storage as kept
from sagan_bench.experiments.tuning.definition import better
from sagan_bench.experiments.tuning.trials import (
    DIVERGED,
    Cell,
    Confirmation,
    Search,
    confirmation,
    trials,
    value,
)
from sagan_bench.runs.records import Record, Status
from sagan_bench.runs.run import Run
from sagan_bench.session.events import Scored, Stop
from sagan_bench.training.checkpoint import Checkpoints

PRUNED = "pruned"

Watch = Callable[["Searcher", Cell, Any], None]
"""Sees each run that begins (None) and every event of it."""


class Searcher:
    """Asks and tells for one search, and says which run comes next.

    Args:
        search: what is searched.
        storage: opened for writing.
        retry: make runs on fresh seeds that failed once more.
    """

    def __init__(self, search: Search, storage: BaseStorage, *, retry: bool = False) -> None:
        self.search, self.tuning, self.retry = search, search.memory.tuning, retry
        self.study = kept.begun(
            storage, search.study_name, self.tuning, search.index, search.definition
        )
        self.total = search.memory.trials
        self.accepting = True
        self.running: dict[str, Cell] = {}
        self.asked: dict[str, optuna.Trial] = {}
        """Of the runs under way, those of trials."""
        self.resumed: deque[tuple[optuna.Trial, Cell]] = deque()
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
        there = self.study.get_trials()
        if not there:
            parameters = self.search.parameters
            own = self.search.own_values()
            self.study.enqueue_trial({key: parameters[key].stored(v) for key, v in own.items()})
        self.begun = sum(one.state != TrialState.WAITING for one in there)
        for one in there:
            if one.state == TrialState.RUNNING:
                self._pick_up(optuna.Trial(self.study, one._trial_id))

    def _pick_up(self, trial: optuna.Trial) -> None:
        """Tell a trial that a killed driver left, if its run is over; else let it go on."""
        cell = self._cell(trial)
        if cell is None:
            return
        record = cell.record()
        if record:
            self._report_earlier(trial, Run(cell.path, record))
        if record and (record.status.is_over or record.reason == PRUNED):
            self._tell(trial, cell, record)
        else:
            self.resumed.append((trial, cell))

    def _report_earlier(self, trial: optuna.Trial, run: Run) -> None:
        """Report what was scored but not reported when the driver was killed."""
        if not self.tuning.prunes:
            return
        reported = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for step, measured in run.curve(self.tuning.objectives[0]):
            if step not in reported:
                trial.report(measured, step)

    def _cell(self, trial: optuna.Trial) -> Cell | None:
        """Return the run of a trial; None, and told, if its values cannot be together."""
        suggested = self.search.parameters.items()
        params = {key: parameter.suggest(key, trial) for key, parameter in suggested}
        try:
            return self.search.cell(trial.number, params, self.search.seeds.search)
        except UserError as error:
            trial.set_user_attr("reason", str(error))
            self.study.tell(trial, state=TrialState.FAIL)
            return None

    # --- What comes next ---

    def next(self) -> Cell | None:
        """Return the next run, which is then under way; None if there is none just now."""
        if self.resumed:
            trial, cell = self.resumed.popleft()
            return self._trial_begun(trial, cell)
        while self.accepting and self.begun < self.total:
            trial = self.study.ask()
            self.begun += 1
            if asked := self._cell(trial):
                return self._trial_begun(trial, asked)
        return None if self.asked else self._next_confirmed()

    def _trial_begun(self, trial: optuna.Trial, cell: Cell) -> Cell:
        self.asked[cell.id] = trial
        self.running[cell.id] = cell
        return cell

    def _next_confirmed(self) -> Cell | None:
        """Return a run on fresh seeds."""
        if self.lost or not self.search.memory.confirm:
            return None
        for cell in self.confirmation().missing:
            if cell.id not in self.running and cell.id not in self._tried:
                self._tried.add(cell.id)
                self.running[cell.id] = cell
                return cell
        return None

    def confirmation(self) -> Confirmation:
        """Return how far the best have been trained again."""
        if self._standing is None:
            found = trials(self.study, self.search.parameters)
            self._standing = confirmation(self.search, found, self._record)
        return self._standing

    @property
    def chooses_again(self) -> bool:
        """Whether runs on set A, which failed, are to be made once more."""
        on_a = self.search.seeds.chosen_on
        return self.retry and any(one.seed in on_a for one in self.confirmation().missing)

    def _record(self, cell: Cell) -> Record | None:
        if cell.id not in self._over:
            record = cell.record()
            if record is None or not record.status.is_over:
                return None
            if self.retry and record.status == Status.FAILED and cell.id not in self._tried:
                return None
            self._over[cell.id] = record
        return self._over[cell.id]

    # --- What happened ---

    def take(self, event: Event) -> str | None:
        """Take notice of an event; returns why the run should be cancelled, or None."""
        cell = self.running[event.job]
        if isinstance(event.what, Scored) and event.job in self.asked:
            return self._report(self.asked[event.job], cell, event.what)
        if isinstance(event.what, Ended):
            del self.running[event.job]
            self._standing = None
            if trial := self.asked.pop(event.job, None):
                self._ended(trial, cell, event.what)
        return None

    def _report(self, trial: optuna.Trial, cell: Cell, what: Scored) -> str | None:
        """Report a score on the way, once all sampling seeds are in; returns whether to prune."""
        score, objective = what.score, self.tuning.objectives[0]
        measured = score.metrics.get(objective)
        if score.final or score.weights != "ema" or measured is None or not self.tuning.prunes:
            return None
        values = self._values.setdefault((cell.id, score.step), [])
        values.append(measured)
        if len(values) < len(cell.config.evaluation.sampling_seeds):
            return None
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        if score.step not in frozen.intermediate_values:  # else: scored once more after a kill
            trial.report(fmean(values), score.step)
        return PRUNED if trial.should_prune() else None

    def _ended(self, trial: optuna.Trial, cell: Cell, ended: Ended) -> None:
        record = cell.record()
        if record and (record.status.is_over or ended.reason == PRUNED):
            self._tell(trial, cell, record)
        elif ended.status == Status.FAILED:
            trial.set_user_attr("reason", ended.reason)
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.lost = True

    def _tell(self, trial: optuna.Trial, cell: Cell, record: Record) -> None:
        """Tell how a trial ended; the attributes first, because telling closes it."""
        cost = record.cost
        trial.set_user_attr("steps", record.step)
        trial.set_user_attr("seconds", (cost.train_sec or 0) + (cost.score_sec or 0))
        if record.status == Status.FINISHED:
            values = [value(record, one) for one in self.tuning.objectives]
            self._tell_values(trial, record, values)
        elif record.status == Status.DIVERGED:
            trial.set_user_attr("reason", record.reason)
            self._constrain(trial, max(1 - record.step / record.steps, 1 / record.steps))
            self.study.tell(trial, [self._worst(i) for i in range(len(self.tuning.objectives))])
        elif record.status == Status.FAILED:
            trial.set_user_attr("reason", record.reason)
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, state=TrialState.PRUNED)
            Checkpoints(cell.path / "checkpoints").clear()

    def _tell_values(
        self, trial: optuna.Trial, record: Record, values: Sequence[float | None]
    ) -> None:
        known = [one for one in values if one is not None]
        if len(known) < len(values):
            lacking = self.tuning.objectives[list(values).index(None)]
            trial.set_user_attr("reason", f"the run has no {lacking}")
            self.study.tell(trial, state=TrialState.FAIL)
            return
        self._constrain(trial, 0.0)
        self.study.tell(trial, known)

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
        there = trials(self.study, self.search.parameters)
        measured = [one.values[index] for one in there if one.values]
        if index == 0:
            measured += [score for one in there for _, score in one.curve]
        return worst(measured, default=METRICS[objective].beyond if objective in METRICS else 0.0)


def drive(
    searchers: Sequence[Searcher],
    engine: Engine,
    watch: Watch,
    stop: Stop,
    timeout_sec: float | None = None,
) -> None:
    """Run searches to their end, as many runs at a time as the engine has room for.

    The search with the fewest trials begun is served first, so that all sides stay abreast.

    Args:
        searchers: begun.
        engine: where runs are made; left open.
        watch: sees each run that begins (None) and every event of it.
        stop: asked often; a reason stops all runs after a checkpoint.
        timeout_sec: no trial begins later; those under way end, and the best are confirmed.

    Raises:
        Stopped: ``stop`` asked for it.
    """
    deadline = math.inf if timeout_sec is None else time.monotonic() + timeout_sec
    driver.drive(_Searches(searchers, watch, deadline), engine, stop, searchers[0].search.folder)


class _Searches:
    """Searches side by side: that with the fewest trials begun comes first."""

    def __init__(self, searchers: Sequence[Searcher], watch: Watch, deadline: float) -> None:
        self.searchers, self.watch, self.deadline = searchers, watch, deadline
        self.owner: dict[str, Searcher] = {}

    def next(self) -> Job | None:
        """Return the next run of the search that is furthest behind."""
        for searcher in sorted(self.searchers, key=lambda searcher: searcher.begun):
            searcher.accepting = time.monotonic() < self.deadline
            if cell := searcher.next():
                self.owner[cell.id] = searcher
                self.watch(searcher, cell, None)
                return Job(cell.id, cell.config, cell.path, cell.digest)
        return None

    def take(self, event: Event) -> str | None:
        """Pass an event on to the search that it belongs to."""
        searcher = self.owner[event.job]
        cell = searcher.running[event.job]
        why = searcher.take(event)
        self.watch(searcher, cell, event.what)
        if isinstance(event.what, Ended):
            del self.owner[event.job]
        return why
