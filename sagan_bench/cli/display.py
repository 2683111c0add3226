"""What a person sees while and after a run: bars, lines, tables."""

from collections.abc import Iterable, Mapping, Sequence

from sagan_bench.cli.bars import Bars
from sagan_bench.cli.console import say
from sagan_bench.cli.tables import duration, number, print_table
from sagan_bench.runs.records import Record, Score
from sagan_bench.session.events import Progress as Phase
from sagan_bench.session.events import Scored
from sagan_bench.training.loop import Diverged, Step

PHASES = {"data": "data", "score": "scoring"}

Event = Phase | Step | Diverged | Scored


class Display(Bars):
    """Follows a run of so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.row: Mapping[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Step):
            self.row = event.row or self.row
            self.advance("training", event.step, self.steps, _training_text(self.row))
        elif isinstance(event, Phase):
            self.advance(PHASES[event.phase], event.done, event.total)


def _training_text(row: Mapping[str, float]) -> str:
    if not row:
        return ""
    gammas = [f"{value:.2f}" for name, value in row.items() if name.startswith("gamma.")]
    text = f"{row['images_per_sec']:.0f} images/s D {row['loss_d']:.2f} G {row['loss_g']:.2f}"
    return text + (f" γ {' '.join(gammas)}" if gammas else "")


def print_record(record: Record) -> None:
    """Print a run's scores beside the real-against-real floor, its cost and its warnings."""
    seconds = duration(record.cost.train_sec or 0)
    state = f"{record.status}, step {record.step} of {record.steps}"
    if record.reason:
        state += f" ({record.reason})"
    say(f"{record.run}: {state}; trained {seconds}")
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
    groups: dict[str, list[Score]] = {}
    for score in scores:
        varying = ("weights", "ema_decay", "sampling_seed")
        shared = {key: value for key, value in score.protocol.items() if key not in varying}
        groups.setdefault(str((score.step, sorted(shared.items()))), []).append(score)
    return list(groups.values())


def _score_rows(scores: Sequence[Score]) -> Iterable[Sequence[str]]:
    from sagan_bench.evaluation.protocol import label

    extractor = str(scores[0].protocol.get("extractor"))
    for metric in scores[0].metrics:
        values = [number(score.metrics.get(metric)) for score in scores]
        yield label(metric, extractor), *values, number(scores[0].floor.get(metric))
