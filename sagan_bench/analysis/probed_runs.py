"""Which stored probes count: of the weights at hand, all under one protocol."""

from enum import StrEnum

from sagan_bench.analysis.collection import RunSet
from sagan_bench.runs.probe import Outcome, Probe
from sagan_bench.runs.run import Run


class LeftOut(StrEnum):
    """Why a run that is over is not among those of which something is said."""

    LOST = "lost"
    """It diverged or failed: there are no finished weights."""
    NOT_PROBED = "not probed"
    UNREADABLE = "unreadable"
    OTHER_WEIGHTS = "other weights"
    """The run went on after it was probed, or is another one."""
    OTHER_PROTOCOL = "other protocol"
    NO_MAP = "no map"
    """No block of G was changed by its maps."""
    NOT_MEASURED = "not measured"
    """The probe was made without the study's metric."""
    UNDEFINED = "undefined"
    """A figure is null: the metric is undefined, or images were not finite."""


TO_COME = {
    LeftOut.NOT_PROBED, LeftOut.UNREADABLE, LeftOut.OTHER_WEIGHTS, LeftOut.OTHER_PROTOCOL,
    LeftOut.NOT_MEASURED,
}  # fmt: skip
"""What another probe would mend: until then nothing is said, so that nobody stops by looking."""


def probe_of(run: Run, runs: RunSet, fingerprint: str) -> Probe | LeftOut:
    """Return the probe of a run, if it counts beside those of a protocol; else why it does not."""
    if run.lost:
        return LeftOut.LOST
    if run.path not in runs.probes:
        return LeftOut.NOT_PROBED
    probe = runs.probes[run.path]
    if probe is None:
        return LeftOut.UNREADABLE
    if (probe.step, probe.config_digest) != (run.record.step, run.record.config_digest):
        return LeftOut.OTHER_WEIGHTS
    return probe if probe.fingerprint == fingerprint else LeftOut.OTHER_PROTOCOL


def figure(outcome: Outcome | None, metric: str) -> float | None:
    """Return what an outcome has of a metric."""
    return outcome.metrics.get(metric) if outcome else None
