"""Runs of different length side by side: what a page, a terminal and files say of them.

Nothing is claimed, so there are no words for it: figures, each with its step and its protocol.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any

from sagan_bench.analysis import lengths
from sagan_bench.core.registry import METRICS
from sagan_bench.report.formats import MISSING, decimals, number, plural, shown
from sagan_bench.report.frames import Cell, Column, Frame, Row, Values
from sagan_bench.runs.run import Run

QUESTION = "Runs of different length, side by side"


@dataclass(frozen=True)
class Seat:
    """A run: which, how long it was to be, and how far it came."""

    id: str
    variant: str
    seed: int
    steps: int
    step: int
    status: str


@dataclass(frozen=True)
class Figures:
    """A metric of the runs by one protocol, in the order of the runs; null for none.

    Attributes:
        metric: its key.
        label: its name for readers.
        n_fake: generated images behind each figure; null if that is not known.
        n_real: real images, likewise.
        fingerprint: of the protocols, with ; between those of the sampling seeds.
        values: of the runs.
    """

    metric: str
    label: str
    n_fake: int | None
    n_real: int | None
    fingerprint: str
    values: tuple[float | None, ...]

    @property
    def how(self) -> str:
        """How it was measured, in a few words."""
        return _how(self.n_fake, self.fingerprint)


@dataclass(frozen=True)
class Curve:
    """What the curves of one figure show: a metric for readers, and how it was measured."""

    label: str
    how: str


@dataclass(frozen=True)
class Beside:
    """All that is said of runs of different length.

    Attributes:
        name: of the page.
        question: its heading.
        headline: what it is.
        variants: labels of the runs, in order.
        runs: finished or lost.
        unfinished: names of those still to be finished.
        final: their figures at the end of each, averaged weights.
        at_step: the step of ``on_the_way``; null if there is none that all have.
        steps: at which every finished run has a score on the way.
        on_the_way: figures at that step: averaged weights, fewer images than in the end.
        curves: name of a curve of scores on the way -> metric and protocol.
        differing: setting -> label -> value, of all that is not alike.
    """

    name: str
    question: str
    headline: tuple[str, ...]
    variants: tuple[str, ...]
    runs: tuple[Seat, ...]
    unfinished: tuple[str, ...]
    final: tuple[Figures, ...]
    at_step: int | None
    steps: tuple[int, ...]
    on_the_way: tuple[Figures, ...]
    curves: dict[str, Curve]
    differing: dict[str, dict[str, Any]]

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def beside(numbers: lengths.SideBySide, name: str) -> Beside:
    """Return what is said of runs of different length."""
    runs, at = numbers.runs, numbers.at_step
    ends = {number: run.record.step for number, run in enumerate(runs)}
    there = {} if at is None else dict.fromkeys(range(len(runs)), at)
    steps = [f"{n:,}" for n in sorted({run.record.steps for run in runs})]
    lengths_of = f"{', '.join(steps[:-1])} and {steps[-1]} steps"
    said = f"{plural(len(runs), 'run')} of {lengths_of}, side by side"
    return Beside(
        name=name,
        question=QUESTION,
        headline=(f"{said}: figures, each with its step, and no comparison.",),
        variants=tuple(numbers.variants),
        runs=tuple(map(_seat, runs)),
        unfinished=tuple(run.path.name for run in numbers.begun),
        final=tuple(_figures(numbers.final, ends)),
        at_step=at,
        steps=numbers.common_steps,
        on_the_way=tuple(_figures(numbers.on_the_way, there)),
        curves={
            name: Curve(of.label, _how(of.protocol.get("n_fake"), _of_protocol(of)))
            for name, of in curves(numbers)
        },
        differing=numbers.differing,
    )


def curves(numbers: lengths.SideBySide) -> Iterator[tuple[str, lengths.Figures]]:
    """Yield the scores on the way of each metric and protocol under a name for a figure."""
    seen: Counter[str] = Counter()
    for of in numbers.on_the_way:
        seen[of.metric] += 1
        yield of.metric if seen[of.metric] == 1 else f"{of.metric}-{seen[of.metric]}", of


def _seat(run: Run) -> Seat:
    record = run.record
    return Seat(record.run, run.variant, run.seed, record.steps, record.step, record.status.value)


def _figures(known: Iterable[lengths.Figures], at: Mapping[int, int]) -> Iterator[Figures]:
    """Yield what is known of runs at their steps."""
    for of in known:
        values = tuple(of.at(at).values())
        if any(value is not None for value in values):
            images = (of.protocol.get("n_fake"), of.protocol.get("n_real"))
            yield Figures(of.metric, of.label, *images, _of_protocol(of), values)


def _of_protocol(of: lengths.Figures) -> str:
    return ";".join(of.fingerprints)


def _how(n_fake: int | None, fingerprint: str) -> str:
    return ("" if n_fake is None else f"{n_fake:,} images, ") + f"protocol {fingerprint}"


# --- Tables ------------------------------------------------------------------------------------


def final_frame(said: Beside) -> Frame:
    """Return what the runs of each label reached at their end, and at which step that was."""
    reached = {name: sorted({run.step for run in _of(said, name)}) for name in said.variants}
    step = Column(
        "step", "At step", lambda row: " to ".join(f"{n:,}" for n in _ends(reached[row["variant"]]))
    )
    caption = "At the end of each run, averaged weights, every figure at the step beside it"
    return _frame("final", caption, said, said.final, (step,))


def at_step_frame(said: Beside) -> Frame | None:
    """Return the scores on the way at the step that all have; None if there is none."""
    if said.at_step is None:
        return None
    caption = (
        f"At step {said.at_step:,}, scores on the way, which are not those of the end: averaged "
        "weights, by fewer images"
    )
    return _frame("at-step", caption, said, said.on_the_way, ())


def differing_frame(said: Beside) -> Frame:
    """Return every setting that is not alike in all, with its value in each."""
    columns = (
        Column("setting", "Setting", numeric=False),
        *(Column(name, name, numeric=False) for name in said.variants),
    )
    rows = [
        Row({"setting": key, **{name: shown(value) for name, value in values.items()}})
        for key, values in said.differing.items()
    ]
    caption = "All settings that differ, of length, images and what changes results"
    return Frame("changes", caption, columns, rows)


def per_run(said: Beside) -> list[Values]:
    """Return a row a run: its end, and the step that all have, a column a metric and protocol."""
    columns = [("", of) for of in said.final]
    columns += [(f" at step {said.at_step}", of) for of in said.on_the_way]
    return [
        {**asdict(run)} | {f"{of.label} [{of.fingerprint}]{at}": of.values[n] for at, of in columns}
        for n, run in enumerate(said.runs)
    ]


def whole_frame(said: Beside) -> Frame:
    """Return both tables as one, a row a label, to take away."""
    final, at_step = final_frame(said), at_step_frame(said)
    if at_step is None:
        return final
    on_the_way = [
        replace(c, key=f"way-{c.key}", title=f"{c.title}, at step {said.at_step:,}")
        for c in at_step.columns[2:]
    ]
    rows = [
        Row({**row.values, **{f"way-{key}": value for key, value in there.values.items()}})
        for row, there in zip(final.rows, at_step.rows, strict=True)
    ]
    return replace(final, columns=(*final.columns, *on_the_way), rows=rows)


def _frame(
    name: str, caption: str, said: Beside, known: Sequence[Figures], more: Sequence[Column]
) -> Frame:
    """Return a row a label, with the mean and spread of its runs by each metric and protocol.

    How figures were measured stands once in the caption where it is the same for all.
    """
    ways = list(dict.fromkeys(of.how for of in known))
    caption += f" ({ways[0]})" if (alike := len(ways) == 1) else ""
    columns = (
        Column("variant", "Runs of", lambda row: Cell(row["variant"], look=row["variant"]), False),
        Column("n", "Runs"),
        *more,
        *(
            Column(f"f{n}", of.label + f" ({of.how})" * (not alike), better=_better(of.metric))
            for n, of in enumerate(known)
        ),
    )
    rows = [
        Row(
            {"variant": label, "n": len(_of(said, label))}
            | {f"f{n}": _mean(_values(said, of, label)) for n, of in enumerate(known)},
            variant=label,
        )
        for label in said.variants
    ]
    return Frame(name, caption, columns, rows)


def _mean(values: Sequence[float | None]) -> Cell:
    """Return mean ± sd of the runs that have a figure, and how many those are if not all."""
    known = [value for value in values if value is not None]
    if not known:
        return Cell(MISSING)
    places = decimals(known)
    spread = f" ± {number(stdev(known), places)}" if len(known) > 1 else ""
    some = f" ({len(known)} of {len(values)})" if len(known) < len(values) else ""
    return Cell(number(fmean(known), places) + spread + some, fmean(known))


def _values(said: Beside, of: Figures, label: str) -> list[float | None]:
    both = zip(said.runs, of.values, strict=True)
    return [value for run, value in both if run.variant == label]


def _of(said: Beside, label: str) -> list[Seat]:
    return [run for run in said.runs if run.variant == label]


def _ends(steps: Sequence[int]) -> Sequence[int]:
    return steps if len(steps) < 2 else (steps[0], steps[-1])


def _better(metric: str) -> str | None:
    return METRICS[metric].better if metric in METRICS else None
