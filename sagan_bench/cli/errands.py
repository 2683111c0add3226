"""Errands for ``ablate``, ``tune`` and ``doctor``: what a node of a cluster is asked."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sagan_bench.cli.console import say
from sagan_bench.cli.running import Where, words_of
from sagan_bench.cli.signals import stopping
from sagan_bench.core.errors import UserError, machine_error
from sagan_bench.core.registry import ENGINES
from sagan_bench.core.stops import Stopped
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.sources import open_source
from sagan_bench.data.store import cache_root, known_fingerprint
from sagan_bench.execution import errands
from sagan_bench.execution.engine import Place
from sagan_bench.execution.errands import Answer, Errand
from sagan_bench.session.examination import Finding

if TYPE_CHECKING:
    from sagan_bench.config.schema import Host, RunConfig

SECONDS_TO_SEE = 60.0
"""Within which what a node has written is seen here."""


def host_of(where: Where, folder: Path, config: "RunConfig") -> "Host":
    """Return what a node offers to a configuration, with its images made ready.

    Raises:
        UserError: the node will not do, or left no answer.
    """
    unready = known_fingerprint(DataSpec.of(config.data)) is None
    answer = _of_experiment(where, folder, config, unready=unready)
    if answer.host is None:
        raise UserError(f"{answer.node} did not say what it has; give the same command again")
    say(f"asked a node of {where.engine} ({answer.node}): {words_of(answer.host)}", error=True)
    return answer.host


def prepare(where: Where, folder: Path, config: "RunConfig") -> None:
    """Have images that are not ready yet made so by a node.  Raises `UserError` as `host_of`."""
    if known_fingerprint(DataSpec.of(config.data)) is None:
        _of_experiment(where, folder, config, unready=True)


def _of_experiment(where: Where, folder: Path, config: "RunConfig", *, unready: bool) -> Answer:
    """Have a node looked at and, where they are ``unready``, the images made ready there."""
    spec = DataSpec.of(config.data)
    from_cache = open_source(spec).definition is None
    with errands.marked([folder, *([cache_root()] if from_cache else [])]) as marks:
        if unready:
            say(f"a node of {where.engine} makes {spec.source} ready", error=True)
        threads = where.profile.settings.threads if where.profile.settings else 1
        errand = Errand(marks, config.model_dump(mode="json"), unready, threads)
        answer = _sent(where, folder, errand)
    errands.refuse(answer)
    deadline = time.monotonic() + SECONDS_TO_SEE
    while unready and known_fingerprint(spec) is None:
        if time.monotonic() > deadline:
            raise UserError(
                f"{answer.node} has made {spec.source} ready, and it is not in {cache_root()} "
                "here; give the same command again, or set SAGAN_BENCH_CACHE to a folder that "
                "nodes share"
            )
        time.sleep(1.0)
    return answer


def _sent(where: Where, folder: Path, errand: Errand) -> Answer:
    """Have an errand done, and say what is waited for.  Ctrl-C takes it back."""
    said = ""
    with stopping() as stop:

        def tell(text: str) -> None:
            nonlocal said
            if text != said:
                say(f"a node of {where.engine} is asked: {text}", error=True)
            said = text
            if reason := stop():
                raise Stopped(reason, None)

        place = Place(folder, where.device, None, 1)
        kind, settings = where.profile.kind, where.profile.settings
        answer: Answer = ENGINES[kind].send(place, settings, errand, tell)
        return answer


# --- doctor ---


def examined(where: Where, folder: Path) -> Iterator[Finding]:
    """Yield what is found of an engine that makes runs elsewhere: here, and then on a node.

    Args:
        where: runs would be made.
        folder: for messages, in the folder where runs would be.
    """
    place = Place(folder, where.device, None, 1)
    here = [*ENGINES[where.profile.kind].examined(place, where.profile.settings)]
    yield from here
    if not all(finding.ok for finding in here if finding.needed):
        return
    try:
        with errands.marked([folder.parent, cache_root()]) as marks:
            answer = _sent(where, folder, Errand(marks, examine=True))
    except UserError as error:
        yield Finding("node", False, True, str(error))
        return
    except OSError as error:
        yield Finding("folders", False, True, str(machine_error(error)))
        return
    yield _versions(answer)
    for name, seen in (("runs", folder.parent), ("cache", cache_root())):
        gone = str(seen.absolute()) in {str(Path(mark).parent) for mark in answer.unseen}
        text = errands.unseen(answer.node, seen.absolute()) if gone else f"{seen} is seen there"
        yield Finding(f"node {name}", not gone, True, text)
    for finding in answer.findings:
        if finding.name != "software":
            yield finding._replace(name=f"node {finding.name}")
    if answer.refused:
        yield Finding("node", False, True, answer.refused)


def _versions(answer: Answer) -> Finding:
    if answer.differing:
        text = f"{answer.node} has {errands.differences(answer)}; {errands.MEND_VERSIONS}"
        return Finding("node software", False, "torch" in answer.differing, text)
    versions = ", ".join(f"{name} {version}" for name, version in answer.versions.items())
    return Finding("node software", True, True, f"{answer.node} as here: {versions}")
