"""Runs of different length side by side: figures, what differed, samples and curves."""

from collections.abc import Iterator, Sequence
from typing import Any

from sagan_bench.analysis.lengths import SideBySide
from sagan_bench.core.registry import SECTIONS
from sagan_bench.report import beside
from sagan_bench.report.document import LengthsDocument, Picture, Series
from sagan_bench.report.films import films
from sagan_bench.report.frames import to_csv, to_latex, to_markdown
from sagan_bench.report.pictures import (
    GRIDS,
    REAL,
    frames,
    grid_of,
    last_of,
    shown,
    slug,
    step_of,
)
from sagan_bench.report.sections import _curves
from sagan_bench.report.sections._base import Block, Charts, Export, Film, Pictures, Section, Text
from sagan_bench.report.sections.curves import LOSSES, rows
from sagan_bench.report.svg import Drawn, Theme
from sagan_bench.runs.run import Run

NO_STEP = "There is no step at which every run has a score on the way: only curves are overlaid."
SAMPLES = "Each at the last step of its run, averaged weights, at the lowest seed of its label."


@SECTIONS.register("lengths")
class Lengths(Section):
    """Figures of runs of different length, each with its step, and what differed."""

    order = 10
    title = "Figures"
    of = ("lengths",)
    fields = True

    def collect(self, source: Any) -> dict[str, Any]:
        """Return curves and pictures, and leave their files to the source."""
        numbers: SideBySide = source.lengths
        pictures = list(_pictures(numbers, source.files))
        runs = {_file(i, name, of[0]): of[0] for i, (name, of) in enumerate(_shown(numbers))}
        film, files = films(pictures, runs)
        source.files.update(files)
        return {"series": tuple(_series(numbers)), "pictures": (*pictures, *film)}

    def render(self, document: LengthsDocument, theme: Theme) -> Iterator[Block]:
        """Yield the figures, what differed, the samples and the curves."""
        said = document.findings
        at_step = beside.at_step_frame(said)
        yield self.block(
            beside.final_frame(said),
            at_step or Text(NO_STEP),
            Text("↑ higher and ↓ lower is what is aimed at, — not measured.", "note"),
            exports=tuple(_exports(document)),
        )
        if said.differing:
            frame = beside.differing_frame(said)
            yield Block("changes", "What differed", (frame,))
        if document.pictures:
            grids = shown(document, theme.content, "real", "samples")
            film = Film(frames(document, theme.content, "samples"))
            yield Block("samples", "Samples", (Text(SAMPLES), Pictures(grids), film))
        if charts := list(_charts(document, theme)):
            files = {"curves.csv": to_csv(list(rows(document.series)))}
            exports = (Export(files, "Every curve, thinned as in the page"),)
            yield Block("curves", "Curves", (Charts(charts),), exports=exports)


def _exports(document: LengthsDocument) -> Iterator[Export]:
    """Yield a row a run, and the tables as a paper would print them."""
    said = document.findings
    yield Export({"figures.csv": to_csv(beside.per_run(said))}, "one row a run: all its figures")
    frame = beside.whole_frame(said)
    files = {
        "summary.tex": to_latex(frame, f"{said.name}: {said.headline[0]}"),
        "summary.md": f"{to_markdown(frame)}\n",
    }
    yield Export(files, "both tables, one row a label")


def _series(numbers: SideBySide) -> Iterator[Series]:
    """Yield the scores on the way, a name for each metric and protocol, and the losses."""
    for name, of in beside.curves(numbers):
        for number, curve in of.curves.items():
            run = numbers.runs[number]
            yield Series(
                name=name,
                variant=run.variant,
                seed=run.seed,
                steps=tuple(curve),
                values=tuple(float(f"{value:.5g}") for value in curve.values()),
            )
    of_runs = _curves.series("", numbers.runs)
    yield from (series for series in of_runs if series.name in LOSSES)


def _charts(document: LengthsDocument, theme: Theme) -> Iterator[Drawn]:
    for name, of in document.findings.curves.items():
        how = f"Scores on the way ({of.how}), not the final ones; each curve as long as its runs."
        yield from _curves.charts(document.series, name, of.label, theme, how)
    for name, label in LOSSES.items():
        caption = "One thin line a seed; thick: the median."
        yield from _curves.charts(document.series, name, label, theme, caption)


def _pictures(numbers: SideBySide, files: dict[str, bytes]) -> Iterator[Picture]:
    """Yield the last grid of a run of each label, and leave its file."""
    real = ""
    for number, (name, runs) in enumerate(_shown(numbers)):
        run = runs[0]
        if not (grid := grid_of(run)):
            continue
        if not real and (content := grid_of(run, "samples/real.png")):
            real = "real.png"
            files[real] = content
            yield Picture(file=real, **REAL)
        file = _file(number, name, run)
        files[file] = grid
        caption = f"seed {run.seed}, after {run.record.step:,} steps"
        alt = f"Samples of {name}, {caption}"
        about = {"variant": name, "seed": run.seed, "alt": alt, "caption": caption}
        yield Picture(file=file, kind="samples", step=step_of(last_of(run, GRIDS)), **about)


def _shown(numbers: SideBySide) -> Sequence[tuple[str, Sequence[Run]]]:
    """Return each label and its runs, the one that is shown first."""
    return tuple(numbers.variants.items())


def _file(number: int, name: str, run: Run) -> str:
    return f"samples-{number:02d}-{slug(name)}-s{run.seed}.png"
