"""Runs that another program made, or a table tells of, in the shape of ours."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from sagan_bench.core.errors import UserError
from sagan_bench.runs.environment import environment
from sagan_bench.runs.records import Cost, Record, Score, Status

PROGRAM = "program"
"""The only key of such a run's configuration, with a `Program` behind it."""


Better = Literal["lower", "higher"]
RESERVED = frozenset({
    "ahead", "attempts", "baseline", "better", "command", "data", "device", "digest",
    "distance_px", "divergence_high", "divergence_low", "divergence_rate", "effect", "ended",
    "entropy", "fingerprint", "flops_per_step", "gamma", "hedges_g", "id", "images_per_sec",
    "interval", "interval_alone", "interval_alone_high", "interval_alone_low", "interval_high",
    "interval_low", "label", "level", "max", "mean", "median", "metric", "metrics", "min",
    "min_effect", "n", "n_baseline", "n_baseline_diverged", "n_baseline_failed",
    "n_baseline_ok", "n_diverged", "n_failed", "n_ok", "p", "p_better", "p_better_interval",
    "p_better_interval_high", "p_better_interval_low", "p_bonferroni", "p_rank", "pair",
    "pairs", "parameters", "peak_memory_gib", "places", "protocol", "ratio", "reading",
    "reason", "run", "says", "score_sec", "sd", "seed", "seeds_needed", "seeds_range",
    "shared_device", "shown_per_flop", "standing", "status", "step", "steps", "study",
    "threads", "train_sec", "variant", "verdict",
})  # fmt: skip
"""Names of what else stands in tables of runs and of comparisons; no metric is called so."""


class ProgramProtocol(BaseModel):
    """How another program made its figures: only which values are better is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    extractor: ClassVar[str] = PROGRAM
    sampling_seed: ClassVar[int] = 0

    by: Literal["program"] = "program"
    better: dict[str, Better]

    def label(self, metric: str) -> str:
        """Return a metric's name for readers, as it is given: how it was measured is not known."""
        return metric


class Program(BaseModel):
    """What made a run.

    Attributes:
        source: the template of its command, or the name of the table.
        values: of the command's placeholders, without seed and folder.
        better: which values are, of each metric that it gives.
        cells_on_device: runs that shared a device, so that their seconds tell of each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    values: dict[str, JsonValue] = {}
    better: dict[str, Better]
    cells_on_device: int = Field(default=1, ge=1)

    @property
    def digest(self) -> str:
        """What a run's folder is named by: 12 hexadecimal digits of source and values."""
        content = json.dumps([self.source, self.values], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def settings(self) -> dict[str, Any]:
        """All that changes what a run computes, but for the seed."""
        return {PROGRAM: self.source, **self.values}

    def score(self, step: int, metrics: Mapping[str, float | None], *, final: bool = True) -> Score:
        """Return the figures that it gave at a step, as a score of its own protocol.

        Raises:
            UserError: a metric cannot be called so.
        """
        for name in metrics:
            if why := why_no_metric(name):
                raise UserError(f"metric {name}: {why}; call it otherwise")
        protocol = ProgramProtocol(better=self.better).model_dump(mode="json")
        text = json.dumps(protocol, sort_keys=True)
        return Score(
            step=step, weights="ema", sampling_seed=0, n_fake=0, protocol=protocol,
            fingerprint=hashlib.sha256(text.encode()).hexdigest()[:12], metrics=dict(metrics),
            final=final,
        )  # fmt: skip

    def record(
        self,
        run: str,
        variant: str,
        seed: int,
        status: Status,
        scores: Sequence[Score] = (),
        *,
        steps: int = 1,
        cost: Cost | None = None,
        **more: Any,
    ) -> Record:
        """Return the record of a run of it that took ``steps``, 1 where that is not known."""
        step = max((score.step for score in scores), default=0)
        more = {"environment": environment("cpu"), **more}
        return Record(
            run=run, name=variant, variant=variant, seed=seed, status=status, step=step,
            steps=steps, config={PROGRAM: self.model_dump(mode="json")}, config_digest=self.digest,
            scores=tuple(scores), cost=cost or Cost(), **more,
        )  # fmt: skip


def has_length(record: Record) -> bool:
    """Return whether it is known how many steps a run took: another program may not say."""
    return PROGRAM not in record.config or record.steps > 1


def why_no_metric(name: str) -> str | None:
    """Return why a metric cannot be called so; None if it can."""
    if name in RESERVED:
        return f"{name!r} is the name of something else in reports"
    return None if name.isprintable() and name.strip() else f"{name!r} is no name"


def program_of(record: Record) -> Program | None:
    """Return what made a run; None if we did."""
    stored = record.config.get(PROGRAM)
    return None if stored is None else Program.model_validate(stored)
