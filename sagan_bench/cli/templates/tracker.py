"""A tracker of my own: what a run tells, as lines of a file, to be changed.

python cli.py check FILE                what must hold before it is told anything
python cli.py train --with FILE         a run that is followed with it
"""

import json
from collections.abc import Mapping
from pathlib import Path

from sagan_bench.core.registry import TRACKERS
from sagan_bench.runs.records import Status
from sagan_bench.session.trackers import RunFacts, Tracker


@TRACKERS.register("my-tracker")
class MyTracker(Tracker):
    """Told what becomes of a run; whatever it does or raises, the run stays the same."""

    def begin(self, run: RunFacts) -> None:
        """Open what is written to; a run that goes on tells again what comes after run.step."""
        self.file = run.folder / "my-tracker.jsonl"
        self._write({"run": run.name, "seed": run.seed, "goes on from": run.step})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take values by name, e.g. loss_d, or final/FID[effnet-lite0]."""
        self._write({"step": step, **values})

    def pictures(self, step: int, path: Path) -> None:
        """Take the file of a grid of samples."""
        self._write({"step": step, "samples": path.name})

    def end(self, status: Status) -> None:
        """Take notice that it is finished, diverged, interrupted or failed."""
        self._write({"ended": status})

    def _write(self, line: dict[str, object]) -> None:
        with self.file.open("a", encoding="utf-8") as out:
            print(json.dumps(line), file=out)
