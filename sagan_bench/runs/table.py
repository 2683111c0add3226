"""Records as a table: one row per run and score."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sagan_bench.core.trees import flatten
from sagan_bench.runs.records import Record, Score
from sagan_bench.runs.run import by_protocol
from sagan_bench.runs.run_directory import read_all

if TYPE_CHECKING:
    import pandas as pd

_OF_RUN = {
    "run": "string",
    "name": "string",
    "variant": "string",
    "seed": "Int64",
    "status": "string",
    "reason": "string",
    "step": "Int64",
    "steps": "Int64",
    "config_digest": "string",
}
_OF_SCORE = {
    "fingerprint": "string",
    "weights": "string",
    "sampling_seed": "Int64",
    "final": "boolean",
    "n_fake": "Int64",
}
_OF_COST = {
    "train_sec": "Float64",
    "data_sec": "Float64",
    "score_sec": "Float64",
    "images_per_sec": "Float64",
    "peak_memory_gib": "Float64",
    "parameters_g": "Int64",
    "parameters_d": "Int64",
    "flops_per_step": "Int64",
}
_OF_ENVIRONMENT = {
    "device": "string",
    "device_name": "string",
    "cpu": "string",
    "threads": "Int64",
    "torch": "string",
    "git_commit": "string",
    "git_dirty": "boolean",
}
_COLUMNS = {
    "run": "string",
    "path": "string",
    **_OF_RUN,
    "data_fingerprint": "string",
    "attempts": "Int64",
    "ended": "string",
    **_OF_SCORE,
    "score_step": "Int64",
    "warnings": "string",
    **_OF_COST,
    **_OF_ENVIRONMENT,
}


def frame(paths: Iterable[Path]) -> "pd.DataFrame":
    """Return a tidy table of runs: one row per run and score, one for a run without scores.

    Columns: the fields of run, score, cost and environment under their own names (``step`` is the
    run's, ``score_step`` the score's); each metric under its key; ``floor.<metric>``,
    ``protocol.<key>`` and ``config.<section>.<key>``, lists there as comma-joined text. Status is
    as of now. Missing is ``pandas.NA``.

    A run whose record cannot be read is left out, and that is logged.

    Raises:
        UserError: No record can be read.
    """
    import pandas as pd  # not at the top: --help need not wait for it

    rows = [row for path, record in read_all(paths) for row in _rows_of(path, record)]
    names = {name for row in rows for name in row} - set(_COLUMNS)
    others = sorted(names, key=lambda name: ("." in name, name))  # metrics first

    def column(name: str) -> Any:
        measured = "." not in name or name.startswith("floor.")
        values: Any = [row.get(name) for row in rows]
        dtype: Any = _COLUMNS.get(name, "Float64" if measured else None)
        if dtype == "Int64" and any(map(_is_long, values)):
            dtype = object  # pandas would wrap it around
        return pd.array(values, dtype=dtype)

    return pd.DataFrame({name: column(name) for name in (*_COLUMNS, *others)})


def latest(record: Record) -> list[Score]:
    """Return the scores of the last step that has some: the final ones, else those on the way."""
    step = max((score.step for score in record.scores), default=None)
    scores = [score for score in record.scores if score.step == step]
    return [score for score in scores if score.final] or scores


def ends(record: Record) -> list[list[Score]]:
    """Return the final scores of each step at which the run has ended, the latest last."""
    steps = sorted({score.step for score in record.scores if score.final})
    return [[s for s in record.scores if s.final and s.step == step] for step in steps]


def listed(record: Record) -> list[list[Score]]:
    """Return the latest scores by which a run is listed, of averaged weights: a list a protocol.

    A list is of all sampling seeds; a run without scores has one that is empty.
    """
    scores = latest(record)
    return by_protocol([score for score in scores if score.weights == "ema"] or scores) or [[]]


def ended(record: Record) -> datetime | None:
    """Return when the last attempt ended; None of one that goes on, or was killed."""
    return record.attempts[-1].ended if record.attempts else None


def _is_long(value: Any) -> bool:
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _rows_of(path: Path, record: Record) -> Iterator[dict[str, Any]]:
    of_run = {
        **record.model_dump(include=set(_OF_RUN)),
        "path": str(path),
        "data_fingerprint": record.data.fingerprint if record.data else None,
        "attempts": len(record.attempts),
        "ended": over.isoformat() if (over := ended(record)) else None,
        **record.cost.model_dump(include=set(_OF_COST)),
        **record.environment.model_dump(include=set(_OF_ENVIRONMENT)),
        **_factors("config", record.config),
    }
    for score in record.scores:
        yield of_run | _of_score(score)
    if not record.scores:
        yield of_run


def _of_score(score: Score) -> dict[str, Any]:
    return {
        **score.model_dump(include=set(_OF_SCORE)),
        "n_fake": score.n_fake or None,  # another program does not say
        "score_step": score.step,
        "warnings": "; ".join(score.warnings),
        **{name: value for name, value in score.metrics.items() if name not in _COLUMNS},
        **_factors("floor", score.floor),
        **_factors("protocol", score.protocol),
    }


def _factors(prefix: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    leaves = flatten(tree, f"{prefix}.")
    return {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in leaves}
