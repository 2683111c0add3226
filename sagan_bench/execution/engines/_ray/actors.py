"""The actors of an experiment: how one is made, and what is asked of all, by whoever comes."""

import secrets
from contextlib import suppress
from pathlib import Path

from sagan_bench.data.store import cache_root
from sagan_bench.execution import code
from sagan_bench.execution.engines._ray.cluster import (
    SECONDS_FOR_AN_ANSWER,
    Actor,
    Broken,
    Cluster,
    Lost,
    Unavailable,
)
from sagan_bench.execution.engines._ray.settings import Settings
from sagan_bench.runs.environment import ENGINE, JOB


def begun(cluster: Cluster, folder: Path, prefix: str, device: str, settings: Settings) -> Actor:
    """Ask for an actor, which comes to a node once there is room.

    Args:
        cluster: where.
        folder: ``.ray`` of the experiment, into which its code is copied.
        prefix: of its name.
        device: as it is asked for.
        settings: what it needs.
    """
    name = prefix + secrets.token_hex(4)
    environment = {
        "SAGAN_BENCH_CACHE": str(cache_root().absolute()), ENGINE: "ray", JOB: name,
    }  # fmt: skip
    return cluster.actor(
        name, settings.needs, str(code.copied(folder)), environment,
        folder, device, settings.threads, settings.shared_by, settings.lease_sec,
    )  # fmt: skip


def placed(cluster: Cluster, prefix: str) -> list[tuple[Actor, tuple[str, str, str] | None]]:
    """Return the actors of an experiment, and what each holds; one on no node yet is ended."""
    refs = {cluster.call(actor, "holds"): actor for actor in cluster.named(prefix)}
    answered, placed = cluster.all_answered(list(refs), SECONDS_FOR_AN_ANSWER), []
    for ref, actor in refs.items():
        with suppress(Lost, Unavailable):
            try:
                if ref in answered:
                    placed.append((actor, cluster.answer(ref)))
                    continue
            except Broken:
                pass
            cluster.end(actor)
    return placed


def left(cluster: Cluster, actors: list[Actor], why: str, seconds: float) -> list[Actor]:
    """Have actors end their runs, then themselves; return those that have not in that time."""
    refs = {cluster.call(actor, "leave", why): actor for actor in actors}
    gone = cluster.all_answered(list(refs), seconds)
    return [actor for ref, actor in refs.items() if ref not in gone]
