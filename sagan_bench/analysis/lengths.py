"""Runs of different length beside each other: their figures, of which nothing is claimed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any

from sagan_bench.analysis.collection import of_known_length
from sagan_bench.analysis.gathering import NAMES, refuse_clashes, refuse_other_makers
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.evaluation.metrics import ordered
from sagan_bench.evaluation.protocol import label_in
from sagan_bench.runs.records import Score
from sagan_bench.runs.run import Run


@dataclass(frozen=True)
class Figures:
    """A metric of runs by one protocol: figures of two are two of these.

    Attributes:
        metric: its key.
        protocol: of the first sampling seed.
        fingerprints: of the protocol at each sampling seed of which figures are the mean.
        curves: number of a run -> step -> value, by step; runs without a figure are absent.
    """

    metric: str
    protocol: Mapping[str, Any]
    fingerprints: tuple[str, ...]
    curves: Mapping[int, Mapping[int, float]]

    @property
    def label(self) -> str:
        """The metric's name for readers."""
        return label_in(self.metric, self.protocol)

    def at(self, steps: Mapping[int, int]) -> dict[int, float | None]:
        """Return run -> value at its step, None where it has none."""
        return {run: self.curves.get(run, {}).get(step) for run, step in steps.items()}


@dataclass(frozen=True)
class SideBySide:
    """Runs of different length.

    Attributes:
        runs: finished or lost, of one length and configuration a label.
        begun: still to be finished.
        unread: how many could not be read.
        metric: the only one that is shown; None for all.
        at_step: at which scores on the way stand beside each other; None if there is no such step.
    """

    runs: tuple[Run, ...]
    begun: tuple[Run, ...]
    unread: int
    metric: str | None = None
    at_step: int | None = None

    @cached_property
    def variants(self) -> dict[str, list[Run]]:
        """The runs of each label."""
        by_label: dict[str, list[Run]] = {}
        for run in self.runs:
            by_label.setdefault(run.variant, []).append(run)
        return by_label

    def led_by(self, label: str) -> "SideBySide":
        """Return it with the runs of a label before the others."""
        return replace(self, runs=tuple(sorted(self.runs, key=lambda run: run.variant != label)))

    @cached_property
    def final(self) -> tuple[Figures, ...]:
        """What was measured at the end of each run, by averaged weights."""
        return self._figures({n: run.final("ema") for n, run in enumerate(self.runs)})

    @cached_property
    def on_the_way(self) -> tuple[Figures, ...]:
        """What was measured while runs trained: of averaged weights and fewer images."""
        return self._figures(dict(enumerate(map(_on_the_way, self.runs))))

    @cached_property
    def common_steps(self) -> tuple[int, ...]:
        """The steps at which every run that finished has a score on the way, in order."""
        steps = [
            {step for of in self.on_the_way for step in of.curves.get(number, ())}
            for number, run in enumerate(self.runs)
            if not run.lost
        ]
        return tuple(sorted(set.intersection(*steps))) if steps else ()

    @cached_property
    def differing(self) -> dict[str, dict[str, Any]]:
        """Return setting -> label -> value of all that changes results and is not alike in all."""
        settings = {name: _told(runs[0]) for name, runs in self.variants.items()}
        keys = dict.fromkeys(key for of in settings.values() for key in of)
        rows = {key: {name: of.get(key) for name, of in settings.items()} for key in keys}
        return {
            key: row
            for key, row in rows.items()
            if len({*map(_text, row.values())}) > 1
            and not (key.startswith("own.") and None in row.values())  # what names it says so
        }

    def _figures(self, scores: Mapping[int, Sequence[Score]]) -> tuple[Figures, ...]:
        known = {metric for of in scores.values() for score in of for metric in score.metrics}
        theirs = any(run.program for run in self.runs)
        wanted = [m for m in ordered(known, theirs=theirs) if self.metric in (None, m)]
        groups = [list(_of_group(group)) for group in _groups(scores)]
        return tuple(
            Figures(metric, group[0][1].protocol, _fingerprints(group), curves)
            for metric in wanted
            for group in groups
            if (curves := _curves(metric, group))
        )


def _told(run: Run) -> dict[str, Any]:
    """Return what a run is told apart by: length, images, preset, and all that changes results."""
    told: dict[str, Any] = {"run.steps": run.record.steps}
    if run.record.data:
        told["data"] = f"{run.record.data.manifest.get('kind')} {run.record.data.fingerprint[:12]}"
    preset = None if run.program else run.config.preset
    return {**told, **({"preset": preset} if preset else {}), **run.settings}


Numbered = Sequence[tuple[int, Score]]


def are_of_one_length(runs: Iterable[Run]) -> bool:
    """Return whether the runs that are over were to take equally many steps."""
    over = [run for run in runs if run.record.status.is_over]
    return len({run.record.steps for run in of_known_length(over)}) < 2


def side_by_side(
    read: Sequence[Run],
    unread: int,
    *,
    metric: str | None = None,
    at_step: int | None = None,
) -> SideBySide:
    """Put runs beside each other, whatever they differ in.

    Args:
        read: of which at least two are over.
        unread: how many others could not be read.
        metric: the only one that is shown; None for all.
        at_step: at which scores on the way stand; None for the last that all have.

    Raises:
        UserError: a run twice, runs of ours and of another program, or no such metric or step; of
            a step with those that all have.
    """
    over = [run for run in read if run.record.status.is_over]
    refuse_other_makers(over)
    labelled = sorted(_labelled(over), key=lambda run: (run.record.steps, run.variant, run.seed))
    begun = tuple(run for run in read if not run.record.status.is_over)
    runs = SideBySide(tuple(labelled), begun, unread, metric)
    if metric and not (runs.final or runs.on_the_way):
        known = {of.metric for of in replace(runs, metric=None).final}
        raise UserError(f"these runs have no {metric}; {closest(metric, sorted(known))}")
    return replace(runs, at_step=_step(runs.common_steps, at_step))


def _step(common: Sequence[int], wanted: int | None) -> int | None:
    if wanted is None or wanted in common:
        return common[-1] if wanted is None and common else wanted
    has = f"they have those at {', '.join(map(str, common))}" if common else "they share no step"
    raise UserError(f"--at-step {wanted}: not every run has a score on the way there; {has}")


def _labelled(runs: Sequence[Run]) -> list[Run]:
    """Return the runs under labels that tell apart what they are and how long they are."""
    for name in (*NAMES, lambda run: run.path.name):
        labelled = _with_length(runs, name)
        try:
            refuse_clashes(labelled)
        except UserError:
            continue
        return labelled
    labelled = _with_length(runs, lambda run: str(run.path))
    refuse_clashes(labelled)
    return labelled


def _with_length(runs: Sequence[Run], name: Any) -> list[Run]:
    """Return the runs under a name, with their length where the name has several."""
    lengths: dict[str, set[int]] = {}
    for run in runs:
        lengths.setdefault(name(run), set()).add(run.record.steps)
    of = {key: len(steps) > 1 for key, steps in lengths.items()}
    return [
        replace(run, label=name(run) + f", {run.record.steps:,} steps" * of[name(run)])
        for run in runs
    ]


def _on_the_way(run: Run) -> list[Score]:
    return [score for score in run.record.scores if not score.final and score.weights == "ema"]


def _groups(scores: Mapping[int, Sequence[Score]]) -> list[list[tuple[int, Score]]]:
    """Return scores, each with its run, of protocols that are alike but for the sampling seed."""
    groups: dict[str, list[tuple[int, Score]]] = {}
    for number, of in scores.items():
        for score in of:
            rest = {key: v for key, v in score.protocol.items() if key != "sampling_seed"}
            groups.setdefault(_text({"intra_class": False, **rest}), []).append((number, score))
    return list(groups.values())


def _of_group(group: Numbered) -> Numbered:
    """Return the scores of the sampling seeds that all runs of a group share.

    Where they share none, those of the first run's: others are then without a figure.
    """
    seeds: dict[int, set[int]] = {}
    for number, score in group:
        seeds.setdefault(number, set()).add(score.sampling_seed)
    common = set.intersection(*seeds.values()) or next(iter(seeds.values()))
    return [pair for pair in group if pair[1].sampling_seed in common]


def _fingerprints(group: Numbered) -> tuple[str, ...]:
    return tuple(dict.fromkeys(score.fingerprint for _, score in group))


def _curves(metric: str, group: Numbered) -> dict[int, dict[int, float]]:
    """Return run -> step -> mean over sampling seeds; a step at which one lacks it is left out."""
    values: dict[int, dict[int, list[float | None]]] = {}
    for number, score in group:
        if metric in score.metrics:
            at = values.setdefault(number, {}).setdefault(score.step, [])
            at.append(score.metrics[metric])
    curves = {
        number: {
            step: fmean(value for value in of if value is not None)
            for step, of in sorted(by_step.items())
            if None not in of
        }
        for number, by_step in values.items()
    }
    return {number: curve for number, curve in curves.items() if curve}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
