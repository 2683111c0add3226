"""The verb ``doctor``: what works on this machine, or on the nodes of a cluster."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sagan_bench.cli.options import Json, Runs
from sagan_bench.cli.placing import ENGINE, Wanted, with_place
from sagan_bench.cli.running import Where
from sagan_bench.cli.signals import INTERNAL

if TYPE_CHECKING:
    from sagan_bench.session.examination import Finding


@with_place(*ENGINE)
def doctor(wanted: Wanted, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Say what works here, or on a cluster: device, precision, extractor weights, data, disk."""
    where = Where.of(wanted)
    findings = []
    for finding in _findings(where, runs):
        findings.append(finding)
        if not as_json:
            ok = "ok" if finding.ok else "!!"
            print(f"{ok:>3}  {finding.name:<24} {finding.text}", flush=True)
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    if not all(finding.ok for finding in findings if finding.needed):
        raise typer.Exit(INTERNAL)


def _findings(where: Where, runs: Path) -> "Iterator[Finding]":
    """Yield what is found where runs are made; a node writes into a folder that goes again."""
    if where.profile.settings is None:
        from sagan_bench.session.examination import examine

        yield from examine()
        return
    from sagan_bench.cli.errands import examined

    runs = runs.absolute()
    there = next(folder for folder in (runs, *runs.parents) if folder.is_dir())
    made = tempfile.TemporaryDirectory(prefix=".doctor-", dir=there, ignore_cleanup_errors=True)
    with made as folder:
        yield from examined(where, Path(folder))
