"""A tracker that keeps what it is told, draws by chance, and raises where it is asked to."""

import json
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from sagan_bench.core.registry import TRACKERS
from sagan_bench.runs.records import Status
from sagan_bench.session.trackers import RunFacts, Tracker


@TRACKERS.register("diary")
class Diary(Tracker):
    """Lines of JSON in the run's folder."""

    def begin(self, run: RunFacts) -> None:
        self.folder = run.folder
        self._keep("begin", run.step, run.config["run"]["track"])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._keep("scalars", step, list(values))
        values.clear()  # type: ignore[attr-defined]  # it is its own

    def pictures(self, step: int, path: Path) -> None:
        self._keep("pictures", step, path.name)

    def end(self, status: Status) -> None:
        self._keep("end", None, status)

    def _keep(self, *what: object) -> None:
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        torch.set_num_threads(3)
        with (self.folder / "diary.jsonl").open("a") as out:
            print(json.dumps(what), file=out)
        if (self.folder.parent / f"raise-in-{what[0]}").exists():
            raise ValueError("no room in the diary")
