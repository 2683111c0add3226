"""The verb ``doctor``: what works on this machine."""

import json

import typer

from sagan_bench.cli.options import Json
from sagan_bench.cli.signals import INTERNAL


def doctor(as_json: Json = False) -> None:
    """Say what works here: device, precision, extractor weights, data, disk."""
    from sagan_bench.cli.examination import examine

    findings = examine()
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'ok' if finding.ok else '!!':>3}  {finding.name:<20} {finding.text}")
    if not all(finding.ok for finding in findings if finding.needed):
        raise typer.Exit(INTERNAL)
