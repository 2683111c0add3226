"""Which pictures a report shows, chosen by rule, and how they get into the page."""

import io
import logging
import re
import zipfile
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from sagan_bench.core.errors import UserError
from sagan_bench.core.stored import UNFIT, first_trouble
from sagan_bench.report import maps
from sagan_bench.report.document import AnyDocument, Picture, PictureKind
from sagan_bench.report.probed import CHANGES
from sagan_bench.report.readings import Findings
from sagan_bench.runs import probe as stored
from sagan_bench.runs.rows import read_sealed
from sagan_bench.runs.run import Run

UNREADABLE = (*UNFIT, OSError, EOFError, SyntaxError, MemoryError, zlib.error)
"""What pictures and arrays raise that are cut, or something else."""

_log = logging.getLogger(__name__)

Files = Mapping[str, bytes]
"""Name in the folder of the data -> content."""

MANY = 12
"""Variants from which on a page shows half of each grid and one image with its maps."""
GRIDS, LOOKS = "samples/step-*.png", "diagnostics/step-*.npz"
"""What a run leaves on the way, within its folder."""
QUALITY = 88
"""Of WebP in the page; the files beside it are lossless."""
COLUMNS, GAP_PX = 8, 2
"""Of a sample grid, as `sagan_bench.session.probes` draws it."""


REAL: dict[str, Any] = {
    "kind": "real",
    "variant": None,
    "seed": None,
    "alt": "Real images of the training data",
    "caption": "what the generators should look like",
}


def chosen(
    findings: Findings, runs: Sequence[Run]
) -> tuple[tuple[Picture, ...], Files, Mapping[str, Run]]:
    """Return the pictures of a report, their files, and of each file the run that it is of.

    All variants are shown at one training seed, so that they drew the same noise: the seed whose
    runs are nearest the medians of their variants.  A variant without that seed shows its own
    median run, and one without any finished run the last grid before it was lost.
    """
    shared, pictures, files = _shared_seed(findings), list[Picture](), dict[str, bytes]()
    run_of = dict[str, Run]()
    by_key = {(run.variant, run.seed): run for run in runs}

    def add(file: str, content: bytes, **about: Any) -> None:
        files[file] = content
        pictures.append(Picture(file=file, **about))

    for number, variant in enumerate(findings.variants):
        seed, why = _seed_of(variant.values, shared)
        run = by_key.get((variant.name, seed))
        if run is None or not (grid := grid_of(run)):
            continue
        own: dict[str, Any] = {"variant": variant.name, "seed": seed}
        value = variant.values.get(seed)
        figure = "no figure" if value is None else f"{findings.primary.label} {value:.3g}"
        stem = f"{number:02d}-{slug(variant.name)}-s{seed}"
        if not pictures and (real := grid_of(run, "samples/real.png")):
            add("real.png", real, **REAL)
        alt = f"Samples of {variant.name}, seed {seed}, {figure}"
        caption = f"seed {seed}, {figure}; {why}"
        at = step_of(last_of(run, GRIDS))
        file = f"samples-{stem}.png"
        add(file, grid, kind="samples", alt=alt, caption=caption, step=at, **own)
        run_of[file] = run
        at = step_of(last_of(run, LOOKS))
        for block, picture in maps_of(run, rows_of(len(findings.variants))).items():
            whose = "its own samples" if block.startswith("generator.") else "real images"
            looks = f"Where {block} of {variant.name} looks, from five query points, over {whose}"
            about = {"alt": looks, "caption": f"{block}, seed {seed}, over {whose}", **own}
            file = f"attention-{stem}-{slug(block)}.png"
            add(file, _png(picture), kind="attention", block=block, step=at, **about)
            run_of[file] = run
        if (content := _probe_of(run)) is not None:
            add(f"probe-{stem}.png", kind="probe", **content, **own)
    return tuple(pictures), files, run_of


def rows_of(variants: int) -> int:
    """Return how many images a picture of maps has in a page of so many variants."""
    return 1 if variants > MANY else 3


def _shared_seed(findings: Findings) -> int | None:
    """Return the seed at which the finished runs are nearest their medians, by rank."""
    ranks: dict[int, list[float]] = {}
    for variant in findings.variants:
        ok = sorted((value, seed) for seed, value in variant.values.items() if value is not None)
        for rank, (_, seed) in enumerate(ok):
            ranks.setdefault(seed, []).append(abs(rank - (len(ok) - 1) / 2))
    most = max(map(len, ranks.values()), default=0)
    everywhere = {seed: sum(off) for seed, off in ranks.items() if len(off) == most}
    return min(everywhere, key=lambda seed: (everywhere[seed], seed)) if everywhere else None


def _seed_of(values: Mapping[int, float | None], shared: int | None) -> tuple[int, str]:
    ok = {seed: value for seed, value in values.items() if value is not None}
    if not ok:
        return min(values), "every run was lost: its last grid"
    middle = median(ok.values())
    if shared in ok:
        return shared, f"median of the variant {middle:.3g}"
    own = min(ok, key=lambda seed: (abs(ok[seed] - middle), seed))
    return own, "its median run: other noise than the rest"


def last_of(run: Run, pattern: str) -> str:
    """Return the path within the run of the last of its files of a kind; empty if it has none."""
    return str(max((p.relative_to(run.path) for p in run.path.glob(pattern)), default=""))


def step_of(name: str) -> int | None:
    """Return the step in the name of what a run left on the way; None if there is none."""
    found = re.search(r"step-(\d+)\.\w+$", name)
    return int(found[1]) if found else None


def grid_of(run: Run, pattern: str = GRIDS) -> bytes:
    """Return the last of a run's pictures; nothing if there is none, or, logged, a damaged one."""
    name = last_of(run, pattern)
    content = _sealed(run, name)
    if content and (why := unshowable(content)):
        _log.warning("%s: left out of the report: %s", run.path / name, why)
        return b""
    return content


def _sealed(run: Run, name: str) -> bytes:
    try:
        return read_sealed(run.path, name, run.record) if name else b""
    except UserError as error:
        _log.warning("left out of the report: %s", error)
        return b""


def unshowable(content: bytes) -> str | None:
    """Return why the content of a file is no picture; None if it is one."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        return first_trouble(error)
    return None


def maps_of(run: Run, images: int, pattern: str = LOOKS) -> dict[str, Image.Image]:
    """Return each block's maps at the last of a run's looks, as a picture; none if damaged.

    Args:
        run: whose.
        images: rows of a picture at most.
        pattern: of the files within the run.
    """
    name = last_of(run, pattern)
    if not (content := _sealed(run, name)):
        return {}
    try:
        with np.load(io.BytesIO(content)) as arrays:
            return dict(maps.sheets(arrays, images))
    except (*UNREADABLE, zipfile.BadZipFile) as error:
        _log.warning("%s: left out of the report: %s", run.path / name, first_trouble(error))
        return {}


# --- Probes ------------------------------------------------------------------------------------

ROWS = {**CHANGES, "untouched": "as it is", "sham": "the sham of that", "none": "without the block"}


def _probe_of(run: Run) -> dict[str, Any] | None:
    """Return content, alternative text and caption of the picture of a run's probe, if any."""
    try:
        probe = None if run.program else stored.read(run.path)
    except UserError:
        return None  # told where probes are gathered
    if probe is None or probe.picture is None or probe.step != run.record.step:
        return None
    if not (content := stored.picture_of(run.path, probe)):
        return None
    if why := unshowable(content):
        _log.warning("%s: left out of the report: %s", run.path / stored.PICTURE, why)
        return None
    blocks, rows = " + ".join(probe.picture.blocks), probe.picture.rows
    told = ", ".join(ROWS.get(row, row) for row in rows)
    return {
        "content": content,
        "alt": f"The same noise drawn by {run.variant}, seed {run.seed}, its map changed: {told}",
        "caption": f"{blocks}, seed {run.seed}; rows from above: {told}",
    }


# --- Into the page -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A picture in the page.

    Attributes:
        picture: what it shows.
        uri: of its pixels.
        width: in pixels.
        height: in pixels.
    """

    picture: Picture
    uri: str
    width: int
    height: int

    @property
    def of(self) -> str:
        """What it shows but for the step, which its frames over training share."""
        return "|".join(filter(None, (self.picture.variant, self.picture.block))) or "real"

    @property
    def noise(self) -> str:
        """What pictures share that may be laid over each other; empty if none may."""
        if self.picture.variant is None:
            return ""
        return "|".join(filter(None, (str(self.picture.seed), self.picture.block)))


def shown(
    document: AnyDocument, content: Callable[[str], bytes], *kinds: PictureKind
) -> list[Shown]:
    """Return the pictures of a page that are of these kinds."""
    many = len(document.findings.variants) > MANY
    return [
        Shown(picture, *preview(content(picture.file), picture.kind, many))
        for picture in document.pictures
        if picture.kind in kinds
    ]


def frames(
    document: AnyDocument, content: Callable[[str], bytes], kind: PictureKind
) -> list[Shown]:
    """Return the frames over training of a page's pictures of a kind, as they are stored."""
    has_block = kind == "attention"
    return [
        Shown(picture, *embedded(content(picture.file)))
        for picture in document.pictures
        if picture.kind == "film" and (picture.block is not None) == has_block
    ]


def preview(content: bytes, kind: str, many: bool) -> tuple[str, int, int]:
    """Return a picture as the data URI of a WebP, with its width and height in pixels.

    Where there are many variants, the upper half of a sample grid only.
    """
    with Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGB")
    if many and kind in ("real", "samples"):
        image = image.crop((0, 0, image.width, _half(image)))
    return embedded(webp(image, QUALITY))


def webp(image: Image.Image, quality: int) -> bytes:
    """Return a picture as the content of a WebP file."""
    written = io.BytesIO()
    image.save(written, format="WEBP", quality=quality, method=4)
    return written.getvalue()


def embedded(content: bytes) -> tuple[str, int, int]:
    """Return the content of a WebP file as a data URI, with its width and height in pixels."""
    with Image.open(io.BytesIO(content)) as opened:
        width, height = opened.size
    return "data:image/webp;base64," + b64encode(content).decode(), width, height


def _half(image: Image.Image) -> int:
    step = (image.width - GAP_PX) // COLUMNS
    rows = max(1, round((image.height - GAP_PX) / step) // 2)
    return min(image.height, rows * step + GAP_PX)


def _png(image: Image.Image) -> bytes:
    written = io.BytesIO()
    image.save(written, format="PNG")
    return written.getvalue()


def slug(text: str) -> str:
    """Return a text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", text)[:40].strip("-.") or "x"
