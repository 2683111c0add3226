"""What several test modules share: the smallest tuning."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from example_records import record, score
from example_runs import SMALL
from example_studies import HOST

from sagan_bench.config.layers import parse_set
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.execution.engine import Ended, Event, Job
from sagan_bench.experiments.tuning import planning, space
from sagan_bench.experiments.tuning.definition import Tuning, TuningManifest
from sagan_bench.experiments.tuning.findings import Findings, of_tuning
from sagan_bench.runs.records import Score, Status
from sagan_bench.session.events import Scored

FILE = """
says = "The smallest space with a parameter of every kind"
presets = ["quick"]
evals = 6

[budget]
run.steps = 60

[on.twins]
metric = "fid"
min_effect = "5%"

[parameters."training.lr_g"]
kind = "log"
low = 1e-4
high = 1e-3
why = "a test"

[parameters."training.beta1"]
kind = "real"
low = 0.0
high = 0.5
why = "a test"

[parameters."training.n_critic"]
kind = "integer"
low = 1
high = 2
why = "a test"

[parameters."model.attention.generator"]
kind = "categorical"
choices = [[4], [8]]
why = "a test"
"""
SPACE = """
says = "Two parameters"
presets = ["quick"]
evals = 2
[budget]
run.steps = 2
[on.twins]
metric = "fid"
min_effect = "5%"
[parameters."training.lr_g"]
kind = "log"
low = 1e-4
high = 1e-3
why = "a test"
[parameters."training.n_critic"]
kind = "integer"
low = 1
high = 2
why = "a test"
"""
PROTOCOL = {"extractor": "efficientnet-lite0", "n_fake": 256, "n_real": 512}
SMALLER = [text for text in SMALL if not text.startswith("run.steps")]


def small_tuning(
    folder: Path, *sets: str, text: str = FILE, lacking: str = "", **changed: Any
) -> Tuning:
    """The tuning of the space ``text`` with the settings of the smallest run but one."""
    file = folder / "small.toml"
    file.write_text(text)
    settings = dict(map(parse_set, [*SMALLER, "run.eval_images=10", *sets]))
    settings.pop(lacking, None)
    fields = {"preset": "quick", "variants": ("sagan",), "objectives": ("fid",)} | changed
    return Tuning(space=space.load(str(file)), settings=settings, **fields)


def here(config: RunConfig) -> Host:
    return HOST


def planned(asked: Tuning, folder: Path, trials: int = 4, **rest: Any) -> TuningManifest:
    """The memory of a tuning whose data is prepared."""
    return planning.with_data(planning.plan(asked, folder, here, trials=trials, **rest), folder)


Outcome = Callable[[RunConfig, int], float | None]
"""(configuration, step) -> the objective; None diverges; an exception fails."""


class Scripted:
    """An engine whose runs do as a function says: records and events, and no training.

    Each poll takes each run one score further.
    """

    detaches = False

    def __init__(self, outcome: Outcome, slots: int = 2, metric: str = "fid") -> None:
        self.outcome, self.slots, self.metric = outcome, slots, metric
        self.running: dict[str, tuple[Job, Iterator[Event]]] = {}
        self.cancelled: dict[str, str] = {}
        self.submitted: list[Job] = []

    @property
    def free(self) -> int:
        return self.slots - len(self.running)

    def submit(self, job: Job) -> None:
        assert self.free
        assert job.id not in self.running
        self.submitted.append(job)
        self.running[job.id] = (job, self._events(job))

    def poll(self, timeout_sec: float) -> list[Event]:
        events = [next(events) for _, events in [*self.running.values()]]
        for event in events:
            if isinstance(event.what, Ended):
                del self.running[event.job]
        return events

    def cancel(self, job: str, why: str) -> None:
        self.cancelled.setdefault(job, why)

    def close(self) -> None:
        self.running.clear()

    def _events(self, job: Job) -> Iterator[Event]:
        rate, scores = job.ours.run, list[Score]()
        steps = range(rate.eval_every, rate.steps, rate.eval_every) if rate.eval_every else ()
        for step in [*steps, rate.steps]:
            if why := self.cancelled.get(job.id):
                yield self._end(job, Status.INTERRUPTED, step - 1, scores, why)
            try:
                value = self.outcome(job.ours, step)
            except RuntimeError as error:
                yield self._end(job, Status.FAILED, step - 1, scores, str(error))
                return
            if value is None:
                yield self._end(job, Status.DIVERGED, step, scores, f"step {step}: loss is inf")
                return
            final = step == rate.steps
            metrics = {self.metric: value}
            scores.append(score(step=step, metrics=metrics, final=final, protocol=PROTOCOL))
            if not final:
                write_record(job, Status.RUNNING, step, scores)
            yield Event(job.id, Scored(scores[-1]))
        yield self._end(job, Status.FINISHED, rate.steps, scores)

    @staticmethod
    def _end(
        job: Job, status: Status, step: int, scores: Sequence[Score], reason: str | None = None
    ) -> Event:
        write_record(job, status, step, scores, reason)
        return Event(job.id, Ended(status, reason))


def write_record(
    job: Job, status: Status, step: int, scores: Sequence[Score], reason: str | None = None
) -> None:
    job.path.mkdir(parents=True, exist_ok=True)
    left = record(
        run=job.path.name,
        variant=job.ours.variant,
        seed=job.ours.seed,
        status=status,
        reason=reason,
        step=step,
        steps=job.ours.run.steps,
        config=job.ours.model_dump(mode="json"),
        config_digest=job.digest,
        scores=tuple(scores),
        cost={"train_sec": 2.0, "score_sec": 1.0, "images_per_sec": 100.0 / job.ours.model.width},
    )
    (job.path / "record.json").write_bytes(left.to_json())


def tune(
    memory: TuningManifest,
    folder: Path,
    engine: Any,
    stop: Callable[[], str | None] = lambda: None,
    **rest: Any,
) -> Findings:
    """Run a tuning in an engine to its end."""
    planning.run(memory, folder, engine, lambda run, what: None, stop, **rest)
    return of_tuning(folder, rest.get("storage"))
