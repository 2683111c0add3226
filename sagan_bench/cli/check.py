"""The verb ``check``: whether components do what figures made with them take for granted."""

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagan_bench.cli.console import say
from sagan_bench.cli.options import Json, load_own
from sagan_bench.cli.signals import USAGE
from sagan_bench.core.errors import UserError

if TYPE_CHECKING:
    from sagan_bench.experiments.conformance import Costs, Finding

PREFIXES = {
    "attention": "ATTENTION",
    "family": "FAMILIES",
    "loss": "LOSSES",
    "metric": "METRICS",
    "extractor": "EXTRACTORS",
    "source": "SOURCES",
    "tracker": "TRACKERS",
}
"""What stands before the name of a component that is known already -> its registry."""


def check(
    what: Annotated[
        list[str], typer.Argument(help="Files of components, or names: attention:full, loss:hinge")
    ],
    as_json: Json = False,
) -> None:
    """Check components before anything trains with them: mathematics, gradients, state, costs."""
    from sagan_bench.experiments import conformance

    with redirect_stdout(sys.stderr):  # what the user's own code prints is no finding
        components = [component for each in what for component in _components(each)]
        findings = [f for known in components for f in conformance.check_component(*known)]
        costs = conformance.costs(components)
    if as_json:
        spent = {name: cost._asdict() for name, cost in costs.items()}
        print(json.dumps({"findings": list(map(asdict, findings)), "costs": spent}, indent=2))
    else:
        _print(findings, costs)
    if any(finding.severity == conformance.Severity.ERROR for finding in findings):
        raise typer.Exit(USAGE)


def _components(what: str) -> Sequence[tuple[str, str]]:
    """Return (registry, name) of a file's components, or of one by its kind and name.

    Raises:
        UserError: there is no such file, kind or component; or the file does not run.
    """
    from sagan_bench.core import extensions

    kind, colon, name = what.partition(":")
    if not colon or what.endswith(".py"):
        return load_own([Path(what)])[0].components
    if kind not in PREFIXES:
        raise UserError(f"check {what}: before the colon stands one of {', '.join(PREFIXES)}")
    load_own(())
    extensions.KINDS[PREFIXES[kind]][name]  # or it says which there are
    return [(PREFIXES[kind], name)]


def _print(findings: "Sequence[Finding]", costs: "dict[str, Costs]") -> None:
    from sagan_bench.cli.tables import print_table
    from sagan_bench.experiments.conformance import CHANNELS, SIDE

    rows = [[f.component, f.check, f.severity.value, f.text] for f in findings]
    words = ("component", "check", "finding", "what")
    print_table("", words, rows, left=words)
    for name, cost in costs.items():
        say(
            f"{name}: {cost.parameters:,} parameters, {cost.flops / 1e6:.3g} MFLOPs forward, "
            f"{cost.saved_bytes / 2**20:.3g} MiB kept for the backward pass, of an image at side "
            f"{SIDE} with {CHANNELS} channels"
        )
    counts = {level: sum(f.severity == level for f in findings) for level in ("error", "warning")}
    say(f"errors: {counts['error']}, warnings: {counts['warning']}, of {len(findings)} checks")
    for name in dict.fromkeys(f.component for f in findings):
        skipped = [f.check for f in findings if f.component == name and f.severity == "skipped"]
        if skipped:
            do = "check does" if len(skipped) == 1 else "checks do"
            say(f"{name}: {len(skipped)} {do} not apply: {', '.join(skipped)}")
