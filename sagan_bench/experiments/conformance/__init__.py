"""The conformance kit: what must hold of a component before figures made with it mean anything.

A check is a function of a `Subject`, which says what it saw or raises; each group has a file.  What
breaks mathematics is an error, what is merely unusual a warning, unless the component declares it
``deliberate``.  Networks are small, and on the CPU.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from sagan_bench.config.section import Section
from sagan_bench.core.errors import UserError
from sagan_bench.core.extensions import KINDS, Extension
from sagan_bench.data.store import cache_root
from sagan_bench.experiments.conformance._alone import ALONE
from sagan_bench.experiments.conformance._calls import CALLS
from sagan_bench.experiments.conformance._costs import SIDE, Costs, of_block
from sagan_bench.experiments.conformance._extracting import EXTRACTOR
from sagan_bench.experiments.conformance._families import FAMILY
from sagan_bench.experiments.conformance._findings import (
    UNUSUAL,
    Check,
    Finding,
    Severity,
    Subject,
    examined,
)
from sagan_bench.experiments.conformance._gradients import GRADIENTS
from sagan_bench.experiments.conformance._hooks import HOOKS
from sagan_bench.experiments.conformance._kinds import KIND, widths
from sagan_bench.experiments.conformance._losses import LOSS
from sagan_bench.experiments.conformance._maps import MAPS
from sagan_bench.experiments.conformance._measuring import METRIC, SOURCE
from sagan_bench.experiments.conformance._parts import CHANNELS, replaces
from sagan_bench.experiments.conformance._places import PLACES
from sagan_bench.experiments.conformance._tracking import TRACKER
from sagan_bench.runs.environment import installed

__all__ = [
    "CHANNELS",
    "CHECKS",
    "SIDE",
    "UNUSUAL",
    "Costs",
    "Finding",
    "Severity",
    "Subject",
    "check",
    "check_component",
    "costs",
    "examined",
    "require",
]

logger = logging.getLogger(__name__)

CHECKS: dict[str, Sequence[Check]] = {
    "ATTENTION": (*ALONE, *PLACES, *GRADIENTS, *MAPS, *HOOKS, *CALLS, *KIND),
    "FAMILIES": FAMILY,
    "LOSSES": LOSS,
    "METRICS": METRIC,
    "EXTRACTORS": EXTRACTOR,
    "SOURCES": SOURCE,
    "TRACKERS": TRACKER,
}
"""The checks of a kind of component, by the name of its registry."""


def check(extension: Extension) -> list[Finding]:
    """Return what the checks find of all components of a file."""
    return [
        finding
        for registry, name in extension.components
        for finding in check_component(registry, name)
    ]


def check_component(registry: str, name: str) -> Iterator[Finding]:
    """Yield what the checks find of a component, as they do.

    Args:
        registry: the name of its kind, e.g. ``ATTENTION``.
        name: its own.
    """
    if registry not in CHECKS:
        what = "there is no check of this kind"
        yield Finding(KINDS[registry].what, name, "none", Severity.SKIPPED, what)
        return
    subject = Subject(registry, name)
    if wrong := _unlike_its_kind(registry, subject.component):
        yield Finding(KINDS[registry].what, name, "kind", Severity.ERROR, *wrong)
        return
    checks = CHECKS[registry]
    if registry == "ATTENTION" and not getattr(subject.component, "has_block", True):
        checks = (widths,)
    elif registry == "ATTENTION" and replaces(subject):
        checks = [check for check in checks if check not in (*MAPS, *HOOKS)]
    yield from examined(subject, checks)


def _unlike_its_kind(registry: str, component: Any) -> tuple[str, str] | None:
    """Return in what a class is none of its kind, and what to do; None if it is one."""
    name = KINDS[registry].base or "Family"  # whose base needs torch
    base = getattr(import_module(f"sagan_bench.{KINDS[registry].package}._base"), name)
    if not (isinstance(component, type) and issubclass(component, base)):
        own = getattr(component, "__name__", "it")
        return f"{own} does not extend {name}", f"write class {own}({name})"
    settings = getattr(component, "Settings", Section)
    if not (isinstance(settings, type) and issubclass(settings, Section)):
        return "its Settings do not extend Section", "write class Settings(Section)"
    knows = getattr(component, "knows", ())
    is_known = isinstance(knows, tuple) and not set(knows) - {"z", "labels", "step"}
    if registry == "ATTENTION" and not is_known:
        return f"knows = {knows!r}", 'give a tuple of "z", "labels", "step", as in ("z",)'
    return None


def costs(components: Iterable[tuple[str, str]]) -> dict[str, Costs]:
    """Return what blocks cost, by name, of those among components that can be built."""
    names = [name for registry, name in components if registry == "ATTENTION"]
    of_each = {name: of_block(Subject("ATTENTION", name)) for name in names}
    return {name: cost for name, cost in of_each.items() if cost}


def require(extension: Extension) -> None:
    """Check a file before anything trains with it, once for each content; warnings are logged.

    Raises:
        UserError: a component of it has an error.
    """
    passed = cache_root() / "checked" / f"{extension.sha256}-{installed()}"
    if passed.exists():
        return
    findings = check(extension)
    for finding in findings:
        if finding.severity == Severity.WARNING:
            logger.warning("%s %s: %s", finding.kind, finding.component, finding.text)
    errors = [each for each in findings if each.severity == Severity.ERROR]
    if errors:
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if errors[1:] else ""
        raise UserError(
            f"{extension.file}: {first.kind} {first.component}, check {first.check}: {first.text}"
            f"{more}; see: check {extension.file}"
        )
    with suppress(OSError):  # checked again next time
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()
