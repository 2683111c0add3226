"""Probes of made-up figures, as a run of a study would have left them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from example_findings import question, run_of, runs_of

from sagan_bench.analysis.comparison import Findings, findings
from sagan_bench.runs.probe import Arm, Outcome, Probe
from sagan_bench.runs.run import Run

PAIR = [("sagan", "no-attention")]


def outcome(value: float | None, metric: str = "twin_rate", changed: float = 0.5) -> Outcome:
    return Outcome(metrics={metric: value}, changed=changed)


def probe_of(
    run: Run,
    applied: float | None = None,
    sham: float | None = 0.5,
    *,
    untouched: float = 0.5,
    frozen: float | None = None,
    changed: float = 0.5,
    without: Mapping[str, float] = {},
    metric: str = "twin_rate",
    has_maps: bool = True,
    **fields: Any,
) -> Probe:
    """Return a probe with a primary arm, where there are maps, and of blocks left out."""
    arms = [
        Arm(
            network="generator", blocks=(name,), intervention="none", keeps_rms=False,
            applied=outcome(value, metric), sham=outcome(0.5, metric),
        )
        for name, value in without.items()
    ]  # fmt: skip
    if has_maps:
        arms.append(Arm(
            network="generator", blocks=("attention16",), intervention="uniform", keeps_rms=True,
            primary=True, applied=outcome(applied, metric, changed), sham=outcome(sham, metric),
            frozen=outcome(applied if frozen is None else frozen, metric),
            sham_frozen=outcome(sham, metric),
        ))  # fmt: skip
    known: dict[str, Any] = {
        "run": run.record.run, "config_digest": run.record.config_digest, "step": run.record.step,
        "weights": "ema", "weights_sha256": "0" * 64, "images": 512, "asked": (),
        "fingerprint": "f" * 16, "protocol": {}, "device": "cpu", "torch": "2", "seconds": 1.0,
        "blocks": (), "untouched": outcome(untouched, metric), "discriminator": "it has no block",
        "arms": tuple(arms),
    }  # fmt: skip
    return Probe(**known | fields)


def findings_of(
    ours: Sequence[float],
    theirs: Sequence[float],
    probes: Sequence[Mapping[str, Any] | None],
    *,
    more: Sequence[tuple[Run, Probe | None]] = (),
    **changed: Any,
) -> Findings:
    """Return findings of sagan against no-attention, the former's runs with these probes."""
    measure = {"measure": changed.pop("measure")} if "measure" in changed else {}
    sagan = [run_of("sagan", seed, value) for seed, value in enumerate(ours)]
    plain = [run_of("no-attention", seed, value) for seed, value in enumerate(theirs)]
    known = {
        run.path: probe_of(run, **given)
        for run, given in zip(sagan, probes, strict=True)
        if given is not None
    } | {run.path: probe for run, probe in more}
    runs = replace(runs_of([*sagan, *plain, *(run for run, _ in more)]), probes=known)
    return findings(runs, question(PAIR, **measure, **changed))
