"""TensorBoard's logs, in the folder of each run."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import TRACKERS
from sagan_bench.runs.records import Status
from sagan_bench.session.trackers._base import RunFacts, Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"
"""Of the logs, in the folder of a run."""


@TRACKERS.register("tensorboard")
class TensorBoard(Tracker):
    """Writes to ``RUN/tensorboard/``: ``tensorboard --logdir runs`` shows all runs below."""

    @classmethod
    def require(cls) -> None:
        """Refuse where TensorBoard is not installed."""
        _writer()

    def begin(self, run: RunFacts) -> None:
        """Open a log, from which TensorBoard shows nothing of before beyond the run's step."""
        self.writer = _writer()(str(run.folder / FOLDER), purge_step=run.step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write each value."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def pictures(self, step: int, path: Path) -> None:
        """Write a grid of samples."""
        with Image.open(path) as grid:
            pixels = np.asarray(grid.convert("RGB"))
        self.writer.add_image("samples", pixels, step, dataformats="HWC")

    def end(self, status: Status) -> None:
        """Close the log."""
        self.writer.close()


def _writer() -> type["SummaryWriter"]:
    """Return what writes logs.  Raises `UserError` if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            "tracker tensorboard: TensorBoard is missing; pip install 'sagan-bench[tensorboard]'"
        ) from error
    return SummaryWriter
