"""How runs are handed to Ray: where the cluster is, and what a run needs of a node."""

import re
from math import isfinite
from pathlib import Path

from pydantic import Field, field_validator

from sagan_bench.execution.profiles import EngineSettings

OURS = ("CPU", "GPU", "memory", "object_store_memory")
"""Resources of Ray that have settings of their own, or none."""
_HOST = re.compile(r"(?:[\w.-]+|\[[\da-fA-F:]+\]):\d{1,5}")


class Settings(EngineSettings):
    """A profile of kind ``ray``."""

    address: str = Field("auto", description="host:port of the head, or auto: that of this node")
    cpus_per_cell: int = Field(1, ge=1, le=1024, description="CPU cores, and threads, of a run")
    gpus_per_cell: float = Field(0, ge=0, le=1, description="of a GPU; 0.25: four runs share one")
    resources: dict[str, float] = Field({}, description="of one's own, such as those of a node")
    lease_sec: int = Field(
        300, ge=60, le=604_800, description="without the command, then runs write checkpoints"
    )

    @field_validator("address")
    @classmethod
    def _of_the_cluster(cls, address: str) -> str:
        if address.startswith(("ray://", "http://", "https://")):
            raise ValueError(
                f"{address}: the command is to run on a machine of the cluster (ray job submit), "
                "where auto, or HOST:6379, is the address"
            )
        if address != "auto" and not _HOST.fullmatch(address):
            raise ValueError(f"{address}: expected auto, or the head's HOST:6379")
        return address

    @field_validator("gpus_per_cell")
    @classmethod
    def _as_ray_counts(cls, gpus: float) -> float:
        if 0 < gpus < 0.01:
            raise ValueError("expected 0, or at least 0.01 of a GPU")
        return gpus

    @field_validator("resources")
    @classmethod
    def _of_ones_own(cls, resources: dict[str, float]) -> dict[str, float]:
        for name, amount in resources.items():
            if name in OURS or not name:
                raise ValueError(f"{name}: set cpus_per_cell or gpus_per_cell instead")
            if not (isfinite(amount) and 0.001 <= amount < 1e6):
                raise ValueError(f"{name}: expected a number from 0.001")
        return resources

    @property
    def threads(self) -> int:
        """CPU threads of a run: its cores."""
        return self.cpus_per_cell

    @property
    def shared_by(self) -> int:
        """Runs on a GPU."""
        return int(1 / self.gpus_per_cell + 1e-9) if self.gpus_per_cell else 1

    @property
    def needs(self) -> dict[str, float]:
        """What a run takes of a node, by Ray's names."""
        gpus = {"GPU": self.gpus_per_cell} if self.gpus_per_cell else {}
        return {"CPU": float(self.cpus_per_cell), **gpus, **self.resources}

    @property
    def in_words(self) -> str:
        """What a run takes of a node."""
        return ", ".join(f"{amount:g} {name}" for name, amount in self.needs.items())

    def preview(self, folder: Path, runs: int) -> str:
        """Return what Ray would be asked for, for so many runs."""
        at_a_time = min(runs, self.jobs) if self.jobs else f"as many of {runs} as there is room for"
        return (
            f"# actors of Ray at {self.address}: {at_a_time}, each with {self.in_words}\n"
            f"# their code: {folder / '.ray' / 'code-...'}\n"
            f"# without this command they write checkpoints, and end, after {self.lease_sec} s\n"
        )
