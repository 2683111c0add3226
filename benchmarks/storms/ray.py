"""A real Ray of three nodes on this machine; needs sagan-bench[ray]."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

QUIET = {
    "RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0",
}  # fmt: skip
SECONDS_OF_WARNING = 5


class Ray:
    """A head without cores, and three nodes of a core each."""

    options: Sequence[str] = ()

    def up(self, folder: Path) -> None:
        """Start it in this process."""
        self.study = folder.parent / "runs" / "storm"
        os.environ.update(QUIET, PYTHONPATH=str(Path(__file__).parents[2]))
        from ray.cluster_utils import Cluster  # which reads those

        own = {"object_store_memory": 120 << 20}
        self.own: dict[str, Any] = {**own, "num_cpus": 1}
        self.cluster: Any = Cluster(initialize_head=True, head_node_args={**own, "num_cpus": 0})
        self.nodes = [self.cluster.add_node(**self.own) for _ in range(3)]
        self.options = ("--engine", "ray", "--address", self.cluster.address)

    def down(self) -> None:
        """End it."""
        self.cluster.shutdown()

    def node(self, driver: int) -> str:
        """Kill all processes of a node at the same moment, and let another join."""
        node = self._busy()
        for process in psutil.Process(_raylet(node)).children(recursive=True):
            process.kill()
        self.cluster.remove_node(node, allow_graceful=False)
        self._another_for(node)
        return str(node.node_id[:8])

    def preemption(self, driver: int) -> str:
        """Have a node taken away with a few seconds' warning, and let another join."""
        node = self._busy()
        subprocess.run(
            ["ray", "drain-node", "--address", self.cluster.address, "--node-id", node.node_id,
             "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "storm",
             "--deadline-remaining-seconds", str(SECONDS_OF_WARNING)],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(SECONDS_OF_WARNING)
        self.cluster.remove_node(node)
        self._another_for(node)
        return str(node.node_id[:8])

    def _busy(self) -> Any:
        """Return a node that is at a run."""
        while True:
            for note in self.study.glob("*/.holder.json"):
                with suppress(OSError, ValueError, psutil.Error):
                    holder = psutil.Process(json.loads(note.read_bytes())["pid"])
                    above = {parent.pid for parent in holder.parents()}
                    for node in self.nodes:
                        if _raylet(node) in above:
                            return node
            time.sleep(0.2)

    def _another_for(self, gone: Any) -> None:
        self.nodes.remove(gone)
        self.nodes.append(self.cluster.add_node(**self.own))


def _raylet(node: Any) -> int:
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid
