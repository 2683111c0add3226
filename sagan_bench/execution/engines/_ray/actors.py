"""What is asked of all actors of an experiment, by whoever comes."""

from contextlib import suppress

from sagan_bench.execution.engines._ray.cluster import (
    SECONDS_FOR_AN_ANSWER,
    Actor,
    Broken,
    Cluster,
    Lost,
    Unavailable,
)


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
