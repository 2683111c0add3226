"""What a tuning brought: beside the preset's own values, in words and in pictures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sagan_bench.core.registry import SECTIONS
from sagan_bench.experiments.tuning.confirmation import Candidate
from sagan_bench.experiments.tuning.definition import untuned
from sagan_bench.experiments.tuning.searched import SearchFindings
from sagan_bench.report.document import Picture, TuningDocument, TuningFindings
from sagan_bench.report.films import films
from sagan_bench.report.formats import number
from sagan_bench.report.pictures import (
    GRIDS,
    REAL,
    Files,
    frames,
    grid_of,
    last_of,
    shown,
    slug,
    step_of,
)
from sagan_bench.report.sections._base import Block, Film, Pictures, Section, Text
from sagan_bench.report.svg import Theme
from sagan_bench.runs.run import Run

RULE = (
    "The first search of each variant, at the first seed of set B, averaged weights: the same "
    "place in two grids of one seed is the same noise."
)


@SECTIONS.register("untuned")
class Untuned(Section):
    """What a tuning brought: beside the preset's own values, in words and in pictures."""

    order = 8
    title = "Beside what it began from"
    of = ("tuning",)
    fields = True

    def collect(self, source: Any) -> dict[str, Any]:
        """Return the pictures, and leave their files to the source."""
        pictures, files, runs = chosen(source.findings, source.runs)
        film, more = films(pictures, runs)
        source.files.update({**files, **more})
        return {"pictures": (*pictures, *film)}

    def render(self, document: TuningDocument, theme: Theme) -> Iterator[Block]:
        """Yield what each variant and its preset draw, and what the answer leaves out of them."""
        numbers = document.findings
        pairs = zip(numbers.comparisons, numbers.sentences, strict=True)
        several = len(numbers.variants) > 1
        said = [Text(f"{s}.") for c, s in pairs if several and c.baseline == untuned(c.variant)]
        grids = shown(document, theme.content, "real", "samples") if document.pictures else []
        if said or grids:
            film = Film(frames(document, theme.content, "samples"))
            drawn = (Text(RULE), Pictures(grids), film) if grids else ()
            yield self.block(*said, *drawn)


def chosen(
    numbers: TuningFindings, runs: Sequence[Run]
) -> tuple[tuple[Picture, ...], Files, Mapping[str, Run]]:
    """Return what the winner and the preset's own values of each first search draw on set B.

    Beside the pictures and their files: of each file the run that it is of.
    """
    pictures, files, run_of = list[Picture](), dict[str, bytes](), dict[str, Run]()
    by_name = {(run.path.parent.name, run.path.name.rpartition("-")[0]): run for run in runs}

    def add(file: str, content: bytes, **about: Any) -> None:
        files[file] = content
        pictures.append(Picture(file=file, **about))

    for variant in numbers.variants:
        search = numbers.first(variant)
        own = search.presets if search.winner != search.presets else None
        for name, values in ((variant, search.winner), (untuned(variant), own)):
            run = values and by_name.get((search.id, f"t{values.number:04}-s{_seed(values)}"))
            if not values or not run or not (grid := grid_of(run)):
                continue
            if not pictures and (real := grid_of(run, "samples/real.png")):
                add("real.png", real, **REAL)
            seed, says = _seed(values), _says(values, search, numbers)
            about = {"variant": name, "seed": seed, "caption": f"seed {seed}, {says}"}
            file = f"samples-{slug(name)}-s{seed}.png"
            alt = f"Samples of {name}, seed {seed}, {says}"
            at = step_of(last_of(run, GRIDS))
            add(file, grid, kind="samples", alt=alt, step=at, **about)
            run_of[file] = run
    return tuple(pictures), files, run_of


def _seed(values: Candidate) -> int | None:
    return min(values.on_b, default=None)


def _says(values: Candidate, search: SearchFindings, numbers: TuningFindings) -> str:
    reached = values.on_b.get(min(values.on_b))
    figure = "no figure" if reached is None else f"{numbers.labels[0]} {number(reached)}"
    whose = "the preset's own values" if values.is_presets else f"trial {values.number}"
    return f"{figure}; {whose}{', chosen' if values.number == search.chosen else ''}"
