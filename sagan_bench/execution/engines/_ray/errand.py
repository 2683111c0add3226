"""An errand as a call of an actor of Ray: asked for, waited for, its answer read."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from sagan_bench.core.errors import UserError
from sagan_bench.execution import errands
from sagan_bench.execution.engine import Place
from sagan_bench.execution.engines._keys import key_of
from sagan_bench.execution.engines._ray import actors
from sagan_bench.execution.engines._ray.cluster import Broken, Cluster, Lost, Ref, Unavailable
from sagan_bench.execution.engines._ray.folder import NAME
from sagan_bench.execution.engines._ray.settings import Settings
from sagan_bench.execution.errands import Answer, Errand
from sagan_bench.session.examination import Finding

SECONDS_BETWEEN_LOOKS = 1.0


def sent(place: Place, settings: Settings, errand: Errand, tell: Callable[[str], None]) -> Answer:
    """Have an errand done by an actor, and return its answer.

    Args:
        place: an experiment's; its folder is made if it is not there.
        settings: of the engine.
        errand: what is to be done.
        tell: often told what is waited for; what it raises ends the actor.

    Raises:
        UserError: Ray is not there, or the errand came to no answer.
    """
    folder = place.folder.absolute() / NAME
    text = errands.written(errand, folder)  # which makes the folder
    with closing(Cluster(settings.address)) as cluster:
        prefix = f"errand-{key_of(folder)}-"  # not that of runs
        actor = actors.begun(cluster, folder, prefix, place.device, settings)
        is_up = cluster.call(actor, "holds")

        def go_on() -> None:
            tell("at work")
            cluster.call(actor, "holds")  # else its lease would end it

        try:
            _awaited(cluster, is_up, lambda: tell("waits for room"))
            return errands.answered(_awaited(cluster, cluster.call(actor, "errand", text), go_on))
        finally:
            cluster.end(actor)


def _awaited(cluster: Cluster, ref: Ref, meanwhile: Callable[[], None]) -> Any:
    """Return an answer once it is there.  Raises `UserError` if it never will be."""
    while not cluster.answered([ref], SECONDS_BETWEEN_LOOKS):
        meanwhile()
    try:
        return cluster.answer(ref)
    except (Lost, Broken, Unavailable) as error:
        raise UserError(f"a node of Ray left no answer: {error}; nothing was begun") from error


def examined(place: Place, settings: Settings) -> Iterator[Finding]:
    """Yield what is found here of what the engine needs: a cluster, and room in it."""
    try:
        with closing(Cluster(settings.address)) as cluster:
            yield Finding("Ray", True, True, f"a cluster at {cluster.address}")
            room = cluster.room(settings.needs)
    except UserError as error:
        yield Finding("Ray", False, True, str(error))
        return
    text = f"for {room} runs at a time, each with {settings.in_words}"
    yield Finding("room", room > 0, True, text)
