"""A run's record, for the terminal."""

from collections.abc import Iterable, Sequence

from sagan_bench.cli.console import say
from sagan_bench.cli.tables import duration, number, print_table
from sagan_bench.runs.records import Record, Score
from sagan_bench.runs.run import family


def print_record(record: Record) -> None:
    """Print a run's scores beside the real-against-real floor, its cost and its warnings."""
    state = f"{record.status}, step {record.step} of {record.steps}"
    if record.reason:
        state += f" ({record.reason})"
    say(f"{record.run}: {state}; trained {duration(record.cost.train_sec or 0)}")
    final = [score for score in record.scores if score.final]
    step = max((score.step for score in final), default=None)
    latest = [score for score in final if score.step == step] or list(record.scores[-1:])
    for scores in _comparable(latest):
        columns = [f"{score.weights} z{score.sampling_seed}" for score in scores]
        header = (f"step {scores[0].step}, n = {scores[0].n_fake}", *columns, "real v real")
        print_table("", header, _score_rows(scores))
    for warning in dict.fromkeys(text for score in latest for text in score.warnings):
        say(f"note: {warning}")


def _comparable(scores: Sequence[Score]) -> list[list[Score]]:
    """Group scores whose protocols differ in the weights or the sampling seed at most."""
    groups: dict[tuple[int, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.step, family(score.protocol)), []).append(score)
    return list(groups.values())


def _score_rows(scores: Sequence[Score]) -> Iterable[Sequence[str]]:
    from sagan_bench.evaluation.protocol import label

    extractor = str(scores[0].protocol.get("extractor"))
    for metric in scores[0].metrics:
        values = [number(score.metrics.get(metric)) for score in scores]
        yield label(metric, extractor), *values, number(scores[0].floor.get(metric))
