"""One attempt at a run: train, look, score, record; the same code on every process."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from sagan_bench.config.schema import Weights
from sagan_bench.core import precision, system
from sagan_bench.core.distributed import SINGLE_PROCESS, DistributedContext
from sagan_bench.core.errors import MachineError
from sagan_bench.evaluation.sampling import NonFiniteImages
from sagan_bench.runs.records import Cost, Record, Seal, Status
from sagan_bench.session import beginning, probes
from sagan_bench.session.capabilities import threads_for
from sagan_bench.session.events import Progress, Scored, Stop, Stopped
from sagan_bench.session.planning import Plan
from sagan_bench.session.record_keeper import CostMeter, RecordKeeper
from sagan_bench.session.resuming import newest_checkpoint
from sagan_bench.session.scoring import RunScorer
from sagan_bench.session.writer import Writer
from sagan_bench.training.loop import Diverged, Step, train
from sagan_bench.training.state import TrainState
from sagan_bench.training.timing import out_of_memory

LONG_LOOK = 5_000
"""Images that a look on the way may still have to score when the run is asked to stop."""


class RunSession:
    """One attempt at a run, as each of the processes that train it makes it.

    Args:
        planned: the run.
        writer: of this process.
        data_sec: what preparing the data took.
        stop: asked after each step; a reason on any process stops all.
        context: of the processes that train this run, which one this is.
    """

    def __init__(
        self,
        planned: Plan,
        writer: Writer,
        *,
        data_sec: float,
        stop: Stop,
        context: DistributedContext = SINGLE_PROCESS,
    ) -> None:
        config, earlier = planned.config, writer.earlier
        self.planned, self.writer, self.stop, self.context = planned, writer, stop, context
        self.device = system.open_device(config.run.device)
        threads = context.broadcast(threads_for(config, earlier, context))
        torch.set_num_threads(threads)
        precision.use(config.training.precision)
        system.forget_peak_memory(self.device)
        cost = earlier.cost if earlier else Cost()
        costs = CostMeter(cost, planned.layout, self.device, data_sec)
        self.keeper = RecordKeeper(planned, earlier, costs, threads, context.world_size)
        self.scorer = RunScorer(config, planned.store, self.device, self._progress, context)

    def run(self) -> Record:
        """Train, score and return the record, of status ``finished`` or ``diverged``.

        On a process that is not the main one it is without scores and files, and nowhere stored.
        """
        with system.memory_for("loading the networks", self.device):
            self.state = self._restored()
        self.write(Status.RUNNING)
        self.writer.draw_real()
        self.writer.watch(self.scorer.ahead(self.state.step))
        try:
            if diverged := self._train():
                return self.write(Status.DIVERGED, f"step {diverged.step}: {diverged.reason}")
            self.writer.verify(self.planned.store.verification.finish)
            with system.memory_for("scoring", self.device):
                self._score_final()
            if self.planned.config.run.probe:
                scored = self.write(Status.RUNNING)
                self.writer.probe_weights(scored, self.device, self._probed)
        except NonFiniteImages as error:
            return self.write(Status.DIVERGED, f"step {self.keeper.step}: {error}")
        except system.OutOfMemory as error:
            # No checkpoint here: what this step was to be looked at by would never be made.
            kept = self.writer.saved_step
            raise MachineError(f"{error}; the same command goes on from step {kept}") from error
        record = self.write(Status.FINISHED)
        self.writer.end_finished(record)  # only now: a kill before the record would lose the run
        return record

    def write(self, status: Status, reason: str | None = None) -> Record:
        """Return the record as of now, stored where this process writes."""
        return self.writer.write(self.keeper.record(status, reason))

    def _restored(self) -> TrainState:
        """Return the state of the newest checkpoint, with all that came after it taken back.

        Raises:
            UserError: as `newest_checkpoint` and `beginning.read`.
        """
        path, steps = self.planned.path, self.planned.config.run.steps
        state, seals = TrainState(self.planned.config, self.device, self.context), dict[str, Seal]()
        if saved := newest_checkpoint(path, steps, self.context):
            rows = saved.pop("rows", {})  # not before they were stored
            seals = {name: Seal.model_validate(seal) for name, seal in rows.items()}
            state.load_state_dict(saved)
        elif self.planned.config.training.init_sha256:
            state.begin_with(beginning.read(self.planned.config).weights)
        rates = self.writer.go_on_from(state.step, seals)
        self.keeper.go_on_from(state.step, rates)
        return state

    # --- Training ---

    def _train(self) -> Diverged | None:
        events = train(self.planned.config, self.state, self.planned.store)
        while (event := self._next(events)) is not None:
            self.keeper.step = event.step
            self.writer.watch(event)
            if isinstance(event, Diverged):
                return event
            if event.row is not None:
                self._log(event.step, event.row)
            self._after_step(event.step)
        return None

    def _next(self, events: Iterator[Step | Diverged]) -> Step | Diverged | None:
        with self.keeper.costs.timed("train"):
            try:
                return next(events, None)
            except (RuntimeError, MemoryError) as error:
                if not system.is_out_of_memory(error):
                    raise
        # Only here is what the error's frames held free again.
        raise out_of_memory(self.planned.config, self.state)

    def _log(self, step: int, row: Mapping[str, float]) -> None:
        self.keeper.costs.rates.append(row["images_per_sec"])
        peak = system.peak_memory_gib(self.device)
        self.writer.log(step, {**row, "peak_memory_gib": peak})

    def _after_step(self, step: int) -> None:
        self.writer.verify(self.planned.store.verification.check)
        run, is_last = self.planned.config.run, step == self.planned.config.run.steps
        if probes.is_due(run, step):
            with system.memory_for("making sample images", self.device):
                self.keeper.blocks = self.writer.probe(self.state)
        if self.scorer.is_due(step):
            with system.memory_for("scoring", self.device):
                self._score(self.scorer.networks(self.state, final=False), final=False)
        if step % run.checkpoint_every == 0 or is_last:
            self._save_checkpoint()
        self._obey(self.context.any_rank(self.stop()))

    def _save_checkpoint(self) -> None:
        if self.writer.saved_step != self.state.step:
            self.writer.save_checkpoint(self.keeper.record(Status.RUNNING), self.state)

    def _obey(self, reason: str | None) -> None:
        """Raise `Stopped`, with a checkpoint taken, if the run was asked to stop."""
        if reason:
            self._save_checkpoint()
            self._break_off(reason)

    def _break_off(self, reason: str) -> None:
        self.write(Status.INTERRUPTED, reason)
        raise Stopped(reason, self.writer.path)

    # --- Scores ---

    def _score_final(self) -> None:
        self.keeper.drop_final_scores()
        networks = self.scorer.networks(self.state, final=True)
        self.writer.export(self.state.step, networks)
        self._score(networks, final=True)

    def _score(self, networks: Mapping[Weights, nn.Module], *, final: bool) -> None:
        with self.keeper.costs.timed("score"):
            for score in self.scorer.scores(networks, self.state.step, final=final):
                self.keeper.scores.append(score)
                self.writer.watch(Scored(score))

    def _probed(self, done: int, total: int) -> None:
        """Follow the probe on the main process, which alone makes it, and break off if asked to."""
        self.writer.watch(Progress("probe", done, total))
        self._obey(self.stop())

    def _progress(self, done: int, total: int) -> None:
        """Follow the scoring, and break off what would last: the last of all, or many images.

        A look on the way is made again from the checkpoint before it.
        """
        self.writer.watch(Progress("score", done, total))
        if not self.context.is_main_process:  # it scores longest; the others see it go
            return
        if self.state.step == self.planned.config.run.steps:
            self._obey(self.stop())
        elif total - done > LONG_LOOK and self.context.world_size == 1 and (reason := self.stop()):
            self._break_off(reason)
