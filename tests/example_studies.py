"""What several test modules share: the smallest study."""

from pathlib import Path

from example_runs import SMALL

from sagan_bench.config.layers import parse_set
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.execution.engine import Ended, Event, Job
from sagan_bench.experiments import studies
from sagan_bench.experiments.study import Study
from sagan_bench.runs.records import Status

HOST = Host(bf16=False, extractor="efficientnet-lite0")
FILE = """
question = "Does it run?"
baseline = "no-attention"
variants = ["sagan"]
seeds = [0, 1]
[on.twins]
metric = "twin_rate"
min_effect = 0.05
"""


def small_study(folder: Path, *sets: str, text: str = FILE) -> Study:
    """The study of ``text`` with the settings of the smallest run."""
    file = folder / "small.toml"
    file.write_text(text)
    return studies.load(str(file), set=dict(map(parse_set, [*SMALL, *sets])))


def here(config: RunConfig) -> Host:
    return HOST


class Nothing:
    """An engine whose runs are over as soon as they begin."""

    detaches = False

    def __init__(self, slots: int = 8) -> None:
        self.slots = slots
        self.ended: list[Event] = []

    @property
    def free(self) -> int:
        """Slots without a run."""
        return self.slots - len(self.ended)

    def submit(self, job: Job) -> None:
        """Let it end."""
        self.ended.append(Event(job.id, Ended(Status.FINISHED, None)))

    def poll(self, timeout_sec: float) -> list[Event]:
        """Return what has ended."""
        events, self.ended = self.ended, []
        return events

    def cancel(self, job: str, why: str) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
