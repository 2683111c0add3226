"""Findings of made-up values, without a disk: one run a value, scored as a real one."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from example_reports import ENVIRONMENT, protocol, settings

from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.comparison import Findings, findings
from sagan_bench.analysis.question import Measure, Question
from sagan_bench.analysis.verdicts import Lost
from sagan_bench.config.schema import RunConfig
from sagan_bench.evaluation.protocol import Protocol
from sagan_bench.report import caveats
from sagan_bench.report.document import Document
from sagan_bench.report.findings import findings as in_words
from sagan_bench.runs.records import BlockReading, Cost, Record, Score
from sagan_bench.runs.run import Run

Values = Mapping[str, Sequence[float | Lost]]
"""Variant -> the primary metric of each seed, or why there is none."""
STEPS = 600
TWIN_RATE = Measure(metric="twin_rate", min_effect=0.05)


@cache
def _protocol(weights: str) -> Protocol:
    return protocol(weights="ema") if weights == "ema" else protocol(weights="raw", ema_decay=None)


@cache
def _dumped(weights: str) -> tuple[str, dict[str, Any]]:
    how = _protocol(weights)
    return how.fingerprint(), how.model_dump(mode="json")


def _score(weights: str, step: int, final: bool, **metrics: float | None) -> Score:
    fingerprint, how = _dumped(weights)
    return Score(
        step=step, weights=weights, sampling_seed=0, n_fake=2048, fingerprint=fingerprint,
        protocol=how, metrics=metrics, final=final,
    )  # fmt: skip


@cache
def _config(variant: str, shared: bool) -> tuple[RunConfig, dict[str, Any]]:
    config = settings(variant, 0, ["run.cells_on_device=2"] if shared else [])
    return config, config.model_dump(mode="json")


def run_of(
    variant: str,
    seed: int,
    value: float | Lost,
    *,
    raw: float | None = None,
    fid: float = 100.0,
    curve: Sequence[tuple[int, float]] = (),
    flops: int = 10**10,
    seconds: float = 200.0,
    shared: bool = False,
    metric: str = "twin_rate",
) -> Run:
    """Return a run that ended with a value, or without one."""
    statuses: dict[float | Lost, str] = {Lost.DIVERGED: "diverged", Lost.FAILED: "failed"}
    status = statuses.get(value, "finished")
    other = {"fid": fid} if metric == "twin_rate" else {"twin_rate": 0.5}
    scores = [_score("ema", step, False, **{metric: v}) for step, v in curve]
    if status == "finished":
        known = {metric: None if isinstance(value, Lost) else value}
        scores.append(_score("ema", STEPS, True, **known, **other))
        if raw is not None:
            scores.append(_score("raw", STEPS, True, **{metric: raw}))
    config, dumped = _config(variant, shared)
    record = Record(
        run=f"{variant}-s{seed}", name=variant, variant=variant, seed=seed, status=status,
        step=STEPS, steps=STEPS, config={**dumped, "seed": seed}, config_digest="0" * 12,
        scores=tuple(scores), environment=ENVIRONMENT,
        blocks=(BlockReading(network="generator", name="a", step=STEPS, gamma=0.5, ratio=0.3),)
        if config.model.attention.generator else (),
        cost=Cost(flops_per_step=flops, train_sec=seconds, parameters_g=10**6, parameters_d=10**6),
    )  # fmt: skip
    return Run(Path(record.run), record)


def runs_of(runs: Sequence[Run]) -> RunSet:
    return RunSet(tuple(runs), (), 0, {0: _protocol("ema")})


def question(
    pairs: Sequence[tuple[str, str]], measure: Measure = TWIN_RATE, **changed: Any
) -> Question:
    fields: dict[str, Any] = {"name": "mine", "text": "Does it?", "declared": True} | changed
    return Question(measure=measure, pairs=tuple(pairs), **fields)


def findings_of(
    values: Values, pairs: Sequence[tuple[str, str]], measure: Measure = TWIN_RATE, **changed: Any
) -> Findings:
    runs = [
        run_of(variant, seed, value, metric=measure.metric)
        for variant, own in values.items()
        for seed, value in enumerate(own)
    ]
    return findings(runs_of(runs), question(pairs, measure, **changed))


def document_of(numbers: Findings) -> Document:
    """Return a report's document of findings, without pictures and curves."""
    words = in_words(numbers)
    runs = numbers.runs.attempted
    status = "smoke" if not numbers.question.comparable else "complete"
    return Document(
        name="mine", made_with="0", finished_at=None, config={}, data={}, environments=(),
        status="partial" if numbers.missing else status,
        warnings=tuple(caveats.of_study(words, runs, 0)), repeat=None, findings=words, labels={},
        floor={}, says={}, placed={}, runs=(), series=(), pictures=(), paper=None,
    )  # fmt: skip
