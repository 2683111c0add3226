"""What a run's record says as of now: its attempts, scores, readings and costs."""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

import torch

from sagan_bench.core import system
from sagan_bench.models.build import Layout
from sagan_bench.runs.environment import attempt_here, environment
from sagan_bench.runs.records import Attempt, Cost, DataSummary, Record, Status
from sagan_bench.session.planning import Plan


class CostMeter:
    """What a run has taken, earlier attempts included.

    Args:
        earlier: the cost of the attempts before.
        layout: of the networks.
        device: whose memory counts.
        data_sec: what preparing the data took in this attempt.
    """

    def __init__(
        self, earlier: Cost, layout: Layout, device: torch.device, data_sec: float
    ) -> None:
        self.earlier, self.layout, self.device = earlier, layout, device
        self.sec = {"data": data_sec, "train": 0.0, "score": 0.0}
        self.rates: list[float] = []
        """Real images/s, a row each."""

    @contextmanager
    def timed(self, phase: Literal["train", "score"]) -> Iterator[None]:
        """Count the time of what is done within."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.sec[phase] += time.perf_counter() - began

    def cost(self) -> Cost:
        """Return the cost as of now."""
        earlier, peak = self.earlier, system.peak_memory_gib(self.device)
        return Cost(
            train_sec=(earlier.train_sec or 0) + self.sec["train"],
            data_sec=(earlier.data_sec or 0) + self.sec["data"],
            score_sec=(earlier.score_sec or 0) + self.sec["score"],
            images_per_sec=statistics.median(self.rates) if self.rates else None,
            peak_memory_gib=max(peak, earlier.peak_memory_gib or 0),
            parameters_g=self.layout.parameters("generator"),
            parameters_d=self.layout.parameters("discriminator"),
            flops_per_step=self.layout.flops_per_step,
        )


class RecordKeeper:
    """Makes the record of a run in memory; who may write it is another's business.

    Args:
        planned: what the run is.
        earlier: the record of the attempts before; None if this is the first.
        costs: of this attempt.
        threads: of this process's CPU.
        processes: that train the run.
    """

    def __init__(
        self, planned: Plan, earlier: Record | None, costs: CostMeter, threads: int, processes: int
    ) -> None:
        self.planned, self.costs = planned, costs
        self.earlier = earlier.attempts if earlier else ()
        self.step = earlier.step if earlier else 0
        self.scores = list(earlier.scores if earlier else ())
        self.blocks = earlier.blocks if earlier else ()
        self.attempt = attempt_here(self.step, threads, processes)
        self.environment = environment(
            str(costs.device),
            device_name=system.device_name(costs.device),
            threads=threads,
            cuda=torch.version.cuda,
        )

    def go_on_from(self, step: int, rates: Sequence[float]) -> None:
        """Take back what came after ``step``; ``rates`` are those of the rows up to it."""
        self.step = step
        self.attempt = self.attempt.model_copy(update={"from_step": step})
        self.costs.rates = list(rates)
        self.scores = [score for score in self.scores if score.step <= step]
        self.blocks = tuple(block for block in self.blocks if block.step <= step)

    def drop_final_scores(self) -> None:
        """Take back final scores of this step, which are made anew."""
        self.scores = [
            score for score in self.scores if not (score.final and score.step == self.step)
        ]

    def record(self, status: Status, reason: str | None = None) -> Record:
        """Return the record as of now, without the seals of files."""
        config, manifest = self.planned.config, self.planned.store.manifest
        return Record(
            run=self.planned.path.resolve().name,
            name=config.name,
            variant=config.variant,
            seed=config.seed,
            status=status,
            reason=reason,
            step=self.step,
            steps=config.run.steps,
            config=config.model_dump(mode="json"),
            config_digest=self.planned.digest,
            data=DataSummary(
                fingerprint=manifest.fingerprint(), manifest=manifest.model_dump(mode="json")
            ),
            scores=tuple(self.scores),
            blocks=self.blocks,
            cost=self.costs.cost(),
            environment=self.environment,
            attempts=(*self.earlier, self._attempt(status)),
        )

    def _attempt(self, status: Status) -> Attempt:
        if status == Status.RUNNING:
            return self.attempt
        ended = {"ended": datetime.now(UTC), "to_step": self.step, "outcome": status}
        return self.attempt.model_copy(update=ended)
