"""What tuning costs beside its runs, how soon trials are read again, and which pruner is worth it.

python benchmarks/tuning.py overhead --of runs/tune-sagan
python benchmarks/tuning.py reload
python benchmarks/tuning.py pruners --folder /tmp/pruners --jobs 2
python benchmarks/tuning.py orders --folder /tmp/pruners
"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import optuna
import typer

from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import cpu
from sagan_bench.core.stops import StopReason
from sagan_bench.execution.engine import Ended, Engine, Event, Job
from sagan_bench.execution.engines.processes import Processes
from sagan_bench.execution.slots import Slot
from sagan_bench.experiments.tuning import planning, space, storage
from sagan_bench.experiments.tuning.definition import Pruner, Tuning, TuningManifest
from sagan_bench.experiments.tuning.driving import Searcher, drive
from sagan_bench.experiments.tuning.findings import of_tuning
from sagan_bench.experiments.tuning.searched import SearchFindings
from sagan_bench.experiments.tuning.trials import Outcome, Trial, searches
from sagan_bench.runs.finding import find_runs
from sagan_bench.runs.records import Record, Score, Status, read
from sagan_bench.session.events import Scored

PROGRAM = Path(__file__).parents[1] / "cli.py"
PRUNERS: tuple[Pruner, ...] = ("none", "percentile", "median", "hyperband")
SETS = 30
app = typer.Typer(add_completion=False)


def here(config: RunConfig) -> Host:
    """Return what ``auto`` means, whatever the machine."""
    return Host(bf16=False, extractor="efficientnet-lite0")


def begun(folder: Path, trials: int, **changed: Any) -> TuningManifest:
    """Return the memory of a tuning in the shipped space, its data prepared."""
    fields = {"preset": "quick", "variants": ("sagan",), "objectives": ("fid",)}
    tuning = Tuning(**{"space": space.load("quick"), **fields, **changed})
    return planning.with_data(planning.plan(tuning, folder, here, trials=trials), folder)


def report(what: str, **figures: Any) -> None:
    """Print one line of JSON."""
    print(json.dumps({"benchmark": what, "cpu": cpu.name(), "cores": cpu.cores(), **figures}))


def silent(run: Job, what: Any) -> None:
    """Watch nothing."""


class Replayed:
    """An engine that repeats finished runs from their records, score by score, in no time.

    A run that is not there is made in another engine, and cannot be cancelled there: so its
    record is whole whoever asks for it next.
    """

    detaches = False

    def __init__(self, records: dict[str, Record], other: Engine | None = None) -> None:
        self.records, self.other = records, other
        self.playing: dict[str, Iterator[Event]] = {}
        self.cancelled: set[str] = set()
        self.made = 0

    @property
    def free(self) -> int:
        """One at a time of those repeated, as many as the other engine has room for."""
        return int(not self.playing and (self.other is None or self.other.free > 0))

    def submit(self, job: Job) -> None:
        """Begin to repeat a run, or to make it."""
        if record := self.records.get(job.digest):
            self.playing[job.id] = self._events(job, record)
        elif self.other:
            self.made += 1
            self.other.submit(job)
        else:
            raise KeyError(job.id)

    def poll(self, timeout_sec: float) -> list[Event]:
        """Return the next event of each run that is repeated, and those of the other engine."""
        events = [next(playing) for playing in [*self.playing.values()]]
        for event in events:
            if isinstance(event.what, Ended):
                del self.playing[event.job]
        if self.other:
            events += self.other.poll(0.0 if events else timeout_sec)
        return events

    def cancel(self, job: str, why: str) -> None:
        """End a run that is repeated at its next score."""
        if why == StopReason.PRUNED:
            self.cancelled.add(job)

    def close(self) -> None:
        """End the other engine."""
        if self.other:
            self.other.close()

    def _events(self, job: Job, record: Record) -> Iterator[Event]:
        for score in record.scores:
            yield Event(job.id, Scored(score))
            if job.id in self.cancelled and not score.final:
                cut = {"status": "interrupted", "reason": StopReason.PRUNED, "step": score.step}
                self._write(job, record.model_copy(update=cut))
                yield Event(job.id, Ended(Status.INTERRUPTED, StopReason.PRUNED))
        self._write(job, record)
        yield Event(job.id, Ended(record.status, record.reason))

    @staticmethod
    def _write(job: Job, record: Record) -> None:
        job.path.mkdir(parents=True, exist_ok=True)
        (job.path / "record.json").write_bytes(record.to_json())


class Invented(Replayed):
    """An engine whose runs were all made already: with scores that fall, and no training."""

    def __init__(self) -> None:
        super().__init__({})

    def submit(self, job: Job) -> None:
        """Invent the record of the run."""
        self.playing[job.id] = self._events(job, invented(job))


def invented(job: Job) -> Record:
    """Return a record such as the run would leave, with scores that depend on its values."""
    rate, worth = job.ours.run, 1e4 * job.ours.training.lr_g
    ways = range(rate.eval_every, rate.steps, rate.eval_every) if rate.eval_every else ()

    def score(step: int, *, final: bool) -> Score:
        value = worth + 1e3 / step
        fields = {"weights": "ema", "sampling_seed": 0, "n_fake": 256, "fingerprint": "f"}
        metrics = {"fid": value, "kid_mean": value, "isc_mean": 1.0, "twin_rate": 0.0}
        return Score(step=step, final=final, protocol={}, metrics=metrics, floor=metrics, **fields)

    return Record(
        run=job.path.name,
        name=job.ours.name,
        variant=job.ours.variant,
        seed=job.ours.seed,
        status="finished",
        step=rate.steps,
        steps=rate.steps,
        config=job.ours.model_dump(mode="json"),
        config_digest=job.digest,
        scores=(*(score(step, final=False) for step in ways), score(rate.steps, final=True)),
        cost={"train_sec": 60.0, "score_sec": 20.0, "images_per_sec": 200.0},
        environment={"python": "3", "platform": "x", "device": "cpu", "command": "x"},
    )


@app.command()
def overhead(trials: int = 40, of: Annotated[Path | None, typer.Option()] = None) -> None:
    """Seconds a trial takes beside its run, and their share of a trial of a tuning in ``of``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "t"
        memory = begun(folder, trials)
        began, busy = time.perf_counter(), time.process_time()
        planning.run(memory, folder, Invented(), silent, lambda: None)
        taken, worked = time.perf_counter() - began, time.process_time() - busy
        runs = len(find_runs(folder))
    figures: dict[str, Any] = {"runs": runs, "seconds_a_run": round(taken / runs, 4)}
    figures["cpu_seconds_a_run"] = round(worked / runs, 4)
    if of:
        costs = [read(path).cost for path in find_runs(of)]
        own = statistics.mean((cost.train_sec or 0) + (cost.score_sec or 0) for cost in costs)
        figures |= {"seconds_of_a_run": round(own, 1), "share": round(taken / runs / own, 5)}
    report("overhead", **figures)


@app.command()
def reload(trials: int = 200, repeats: int = 3) -> None:
    """Seconds from a cold start until a tuning of so many finished trials is shown."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "t"
        planning.run(begun(folder, trials), folder, Invented(), silent, lambda: None)
        command = [sys.executable, str(PROGRAM), "tune", "show", str(folder), "--json"]
        wall, busy = [], []
        for _ in range(repeats):
            began, before = time.perf_counter(), os.times()
            subprocess.run(command, check=True, capture_output=True)
            after = os.times()
            wall.append(time.perf_counter() - began)
            used = after.children_user + after.children_system
            busy.append(used - before.children_user - before.children_system)
        began = time.perf_counter()
        found = of_tuning(folder)
        warm = time.perf_counter() - began
    report(
        "reload",
        trials=len(found.searches[0].trials),
        seconds_cold=round(statistics.median(wall), 2),
        cpu_seconds_cold=round(statistics.median(busy), 2),
        seconds_read=round(warm, 2),
    )


# --- Pruners -------------------------------------------------------------------------------------


@app.command()
def pruners(
    folder: Annotated[Path, typer.Option(help="Kept, and gone on with")],
    jobs: Annotated[int, typer.Option()] = 2,
    sets: Annotated[int, typer.Option(help="Parameter sets")] = SETS,
) -> None:
    """Steps spent and confirmed FID of each pruner over the same parameter sets.

    Each set is trained once, to its end and scored on the way; each pruner then sees these runs
    score by score, so that all judge the same figures. What they choose is trained on fresh seeds.
    """
    engine = Processes([Slot("cpu", 1, jobs)] * jobs)
    try:
        whole = _searched(folder / "whole", {}, Unpruned(engine), sets, "qmc", "median")
        values = [trial.params for trial in whole.trials]
        records: dict[str, Record] = {}
        for pruner in PRUNERS:
            for path in find_runs(folder):
                if (record := read(path)).status in ("finished", "diverged"):
                    records[record.config_digest] = record
            again = Replayed(records, engine)
            place = folder / pruner
            _searched(place, records, again, sets, "random", pruner, values)
            found = of_tuning(place)
            (one,) = found.searches
            report(
                "pruners",
                pruner=pruner,
                sets=len(one.trials),
                steps=one.budget.steps,
                of_all=round(one.budget.steps / (sets * found.steps), 3),
                pruned=one.budget.trials[Outcome.PRUNED],
                chosen=one.chosen,
                confirmed_fid=one.reported and round(one.reported, 2),
                searched=one.searched and round(one.searched, 2),
                min_effect=round(found.min_effect, 2),
                runs_made=again.made,
            )
    finally:
        engine.close()


@app.command()
def orders(
    folder: Annotated[Path, typer.Option(help="Of `pruners`")],
    repeats: Annotated[int, typer.Option(help="Orders of the trials")] = 100,
) -> None:
    """Steps spent and the best trial lost by each pruner, over random orders of the same runs.

    `pruners` sees one order, and a pruner's decisions depend on it; this trains nothing.
    """
    memory = TuningManifest.of(folder / "whole")
    if memory is None:
        raise typer.BadParameter(f"{folder} is none of `pruners`", param_hint="--folder")
    tuning = memory.tuning
    whole = of_tuning(folder / "whole").searches[0].trials
    full = [trial for trial in whole if trial.values]
    best = min(trial.values[0] for trial in full if trial.values)
    least = float(str(tuning.measure.min_effect).rstrip("%")) / 100 * best
    chance = random.Random(0)
    shuffled = [chance.sample(full, len(full)) for _ in range(repeats)]
    for pruner in PRUNERS:
        now = tuning.model_copy(update={"pruner": pruner})
        told = [_pruned(now, trials, number) for number, trials in enumerate(shuffled)]
        lost = [found - best for _, found in told]
        report(
            "orders",
            pruner=pruner,
            orders=repeats,
            steps_of_all=round(statistics.mean(steps for steps, _ in told), 3),
            best_lost_by=round(statistics.mean(lost), 2),
            lost_by_what_matters=round(sum(one > least for one in lost) / repeats, 3),
        )


def _pruned(tuning: Tuning, trials: Sequence[Trial], number: int) -> tuple[float, float]:
    """Return the share of steps spent on the trials in this order, and the best that is left."""
    study = optuna.create_study(study_name=f"order {number}", pruner=storage.pruner(tuning))
    spent, left = 0, []
    for trial in trials:
        now = study.ask()
        cut = next((step for step, v in trial.curve if _is_cut(now, step, v)), None)
        spent += cut or tuning.steps
        if cut is None and trial.values:
            left.append(trial.values[0])
            study.tell(now, trial.values[0])
        else:
            study.tell(now, state=optuna.trial.TrialState.PRUNED)
    return spent / (tuning.steps * len(trials)), min(left)


def _is_cut(now: optuna.Trial, step: int, value: float) -> bool:
    now.report(value, step)
    return now.should_prune()


class Unpruned:
    """An engine that lets every run end."""

    detaches = False

    def __init__(self, engine: Engine) -> None:
        self.submit, self.poll, self.close = engine.submit, engine.poll, engine.close
        self.engine = engine

    @property
    def free(self) -> int:
        """As of the engine."""
        return self.engine.free

    def cancel(self, job: str, why: str) -> None:
        """Do nothing."""


def _searched(
    folder: Path,
    records: dict[str, Record],
    engine: Engine,
    sets: int,
    sampler: str,
    pruner: Pruner,
    values: Sequence[dict[str, Any]] = (),
) -> SearchFindings:
    """Search in a folder: given values, or those that the sampler proposes, unconfirmed."""
    if values:
        shutil.rmtree(folder, ignore_errors=True)  # repeated in no time
    memory = begun(folder, sets, sampler=sampler, pruner=pruner)
    memory = memory.model_copy(update={"confirm": bool(values)})
    opened = storage.opened(folder, None, writing=True)
    memory.write(folder)
    (search,) = searches(memory, folder)
    if values:
        study = storage.begun(opened, search.study_name, memory.tuning, 0, search.definition)
        for value in values:
            kept = {key: search.parameters[key].stored(v) for key, v in value.items()}
            study.enqueue_trial(kept)
    drive(memory, [Searcher(search, opened)], engine, silent, lambda: None)
    return of_tuning(folder).searches[0]


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    app()
