"""The pictures of a report over training: what its grids and maps looked like on the way."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from sagan_bench.report.document import Picture
from sagan_bench.report.pictures import (
    GRIDS,
    LOOKS,
    Files,
    grid_of,
    maps_of,
    rows_of,
    step_of,
    webp,
)
from sagan_bench.runs.run import Run

FRAMES = 8
"""Of a picture at most, the last one not among them."""
BYTES = {"samples": 250_000, "attention": 120_000}
"""Of the frames of all grids, and of all maps, of a page: fewer frames where these are larger."""
QUALITY = 60
PATTERNS = {"samples": GRIDS, "attention": LOOKS}

Maps = Callable[[Run, str], Mapping[str, Image.Image]]
Frames = Mapping[int, bytes]
"""Step -> the picture as WebP."""


def films(pictures: Sequence[Picture], runs: Mapping[str, Run]) -> tuple[list[Picture], Files]:
    """Return the frames of a report's grids and maps, and their files.

    Args:
        pictures: of the report.
        runs: file of a picture -> the run that it is of.
    """
    shown, files = list[Picture](), dict[str, bytes]()
    rows = rows_of(len({picture.variant for picture in pictures} - {None}))
    for kind, most in BYTES.items():
        own = [picture for picture in pictures if picture.kind == kind and picture.file in runs]
        for picture, frames in zip(own, _fitting(own, runs, most, rows), strict=True):
            for step, content in frames.items():
                file = f"film-{picture.file.removesuffix('.png')}-{step:08d}.webp"
                files[file] = content
                shown.append(picture.model_copy(update={
                    "kind": "film", "file": file, "step": step,
                    "alt": f"{picture.alt}, at step {step:,}", "caption": f"step {step:,}",
                }))  # fmt: skip
    return shown, files


def _fitting(
    pictures: Sequence[Picture], runs: Mapping[str, Run], most: int, rows: int
) -> list[Frames]:
    """Return as many frames of each picture as there is room for in ``most`` bytes."""
    made: dict[tuple[str, int], bytes | None] = {}
    looked = dict[tuple[Path, str], Mapping[str, Image.Image]]()

    def maps(run: Run, pattern: str) -> Mapping[str, Image.Image]:
        """Return the maps of a look, drawn once for all its blocks."""
        if (run.path, pattern) not in looked:
            looked[run.path, pattern] = maps_of(run, rows, pattern)
        return looked[run.path, pattern]

    def frame(picture: Picture, step: int) -> bytes | None:
        if (picture.file, step) not in made:
            made[picture.file, step] = _frame(picture, runs[picture.file], step, maps)
        return made[picture.file, step]

    for count in range(FRAMES, 0, -1):
        found: list[Frames] = []
        for picture in pictures:
            steps = _spread(_steps(picture, runs[picture.file]), count)
            frames = {step: frame(picture, step) for step in steps}
            found.append({step: content for step, content in frames.items() if content})
        if sum(len(content) for frames in found for content in frames.values()) <= most:
            return found
    return [{} for _ in pictures]


def _spread(steps: Sequence[int], count: int) -> list[int]:
    """Return so many of the steps, the first among them, evenly by their order."""
    if len(steps) <= count:
        return list(steps)
    return [steps[i * len(steps) // count] for i in range(count)]


def _steps(picture: Picture, run: Run) -> list[int]:
    """Return the steps before a picture's own at which its run left one."""
    steps = (step_of(path.name) for path in run.path.glob(PATTERNS[picture.kind]))
    last = picture.step or 0
    return sorted(step for step in steps if step is not None and step < last)


def _frame(picture: Picture, run: Run, step: int, maps: Maps) -> bytes | None:
    pattern = PATTERNS[picture.kind].replace("*", f"{step:08d}")
    if picture.block is None:
        grid = grid_of(run, pattern)
        return webp(Image.open(io.BytesIO(grid)).convert("RGB"), QUALITY) if grid else None
    image = maps(run, pattern).get(picture.block)
    return webp(image, QUALITY) if image else None
