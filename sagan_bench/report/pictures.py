"""Which pictures a report shows, chosen by rule, and how they get into the page."""

import io
import logging
import re
import zipfile
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from sagan_bench.core.errors import UserError
from sagan_bench.core.stored import UNFIT, first_trouble
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
Pixels = NDArray[np.uint8]

MANY = 12
"""Variants from which on a page shows half of each grid and one image with its maps."""
TILE_PX = 96
"""Side of one map in a picture of maps."""
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


def chosen(findings: Findings, runs: Sequence[Run]) -> tuple[tuple[Picture, ...], Files]:
    """Return the pictures of a report and their files.

    All variants are shown at one training seed, so that they drew the same noise: the seed whose
    runs are nearest the medians of their variants.  A variant without that seed shows its own
    median run, and one without any finished run the last grid before it was lost.
    """
    shared, pictures, files = _shared_seed(findings), list[Picture](), dict[str, bytes]()
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
        add(f"samples-{stem}.png", grid, kind="samples", alt=alt, caption=caption, **own)
        for block, picture in _maps(run, images=1 if len(findings.variants) > MANY else 3):
            whose = "its own samples" if block.startswith("generator.") else "real images"
            looks = f"Where {block} of {variant.name} looks, from five query points, over {whose}"
            about = {"alt": looks, "caption": f"{block}, seed {seed}, over {whose}", **own}
            file = f"attention-{stem}-{slug(block)}.png"
            add(file, _png(picture), kind="attention", block=block, **about)
        if (content := _probe_of(run)) is not None:
            add(f"probe-{stem}.png", kind="probe", **content, **own)
    return tuple(pictures), files


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


def _last(run: Run, pattern: str) -> str:
    """Return the path within the run of the last of its files of a kind; empty if it has none."""
    return str(max((p.relative_to(run.path) for p in run.path.glob(pattern)), default=""))


def grid_of(run: Run, pattern: str = "samples/step-*.png") -> bytes:
    """Return the last of a run's pictures; nothing if there is none, or, logged, a damaged one."""
    name = _last(run, pattern)
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


# --- Maps --------------------------------------------------------------------------------------


def _maps(run: Run, images: int) -> Iterator[tuple[str, Image.Image]]:
    """Yield each block's maps at the last look, as a picture."""
    name = _last(run, "diagnostics/step-*.npz")
    if not (content := _sealed(run, name)):
        return
    try:
        with np.load(io.BytesIO(content)) as arrays:
            sheets = list(_sheets(arrays, images))
    except (*UNREADABLE, zipfile.BadZipFile) as error:
        _log.warning("%s: left out of the report: %s", run.path / name, first_trouble(error))
        return
    yield from sheets


def _sheets(arrays: Mapping[str, NDArray[Any]], images: int) -> Iterator[tuple[str, Image.Image]]:
    for key in arrays:
        kind, _, block = key.partition(".")
        if kind != "beta":
            continue
        shown, beta = arrays[block.partition(".")[0]], arrays[key]
        if beta.shape[2] == beta.shape[3]:  # a discriminator of halves has maps of halves
            queries = arrays[f"queries.{block}"]
            yield block, _sheet(shown[:images], beta[:images], queries)


def _sheet(images: Pixels, beta: NDArray[Any], queries: NDArray[Any]) -> Image.Image:
    """Return one row an image: the image with its query points, then a map for each of them.

    Args:
        images: uint8 (N, 3, S, S).
        beta: (N, queries, rows, columns).
        queries: (queries, 2), row and column on the feature map.
    """
    step = TILE_PX + GAP_PX
    sheet = Image.new("RGB", (step * (len(queries) + 1), step * len(images)), "white")
    for row, (image, maps) in enumerate(zip(images, beta, strict=True)):
        plain = Image.fromarray(image.transpose(1, 2, 0)).resize((TILE_PX, TILE_PX), 0)
        marked = plain.copy()
        for query in queries:
            _mark(marked, query, _cells(queries))
        sheet.paste(marked, (0, row * step))
        for column, (query, weights) in enumerate(zip(queries, maps, strict=True), start=1):
            tile = _over(plain, weights.astype(float))
            _mark(tile, query, _cells(queries))
            sheet.paste(tile, (column * step, row * step))
    return sheet


def _cells(queries: NDArray[Any]) -> int:
    """Return the side of the feature map: the centre, the first query, lies at half of it."""
    return int(2 * queries[0][0])


def _over(image: Image.Image, weights: NDArray[np.float64]) -> Image.Image:
    """Return the image in grey under a map, bright where the query looks; scaled to its maximum."""
    weight = weights / max(weights.max(), 1e-12)
    size = image.size
    mask = Image.fromarray((weight * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    strength = np.asarray(mask, dtype=float)[..., None] / 255
    grey = np.asarray(ImageOps.grayscale(image).convert("RGB"), dtype=float) * 0.55
    heat = mpl.colormaps["inferno"](strength[..., 0])[..., :3] * 255
    opacity = 0.1 + 0.7 * strength
    return Image.fromarray((grey * (1 - opacity) + heat * opacity).astype(np.uint8))


def _mark(tile: Image.Image, query: Sequence[int], cells: int) -> None:
    y, x = ((int(part) + 0.5) / cells * TILE_PX for part in query)
    draw = ImageDraw.Draw(tile)
    draw.rectangle((x - 4, y - 4, x + 4, y + 4), outline="black", width=3)
    draw.rectangle((x - 3, y - 3, x + 3, y + 3), outline="cyan", width=1)


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
    """A picture in the page."""

    picture: Picture
    uri: str
    width: int
    height: int


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


def preview(content: bytes, kind: str, many: bool) -> tuple[str, int, int]:
    """Return a picture as the data URI of a WebP, with its width and height in pixels.

    Where there are many variants, the upper half of a sample grid only.
    """
    with Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGB")
    if many and kind in ("real", "samples"):
        image = image.crop((0, 0, image.width, _half(image)))
    written = io.BytesIO()
    image.save(written, format="WEBP", quality=QUALITY, method=4)
    uri = "data:image/webp;base64," + b64encode(written.getvalue()).decode()
    return uri, image.width, image.height


def _half(image: Image.Image) -> int:
    step = (image.width - GAP_PX) // COLUMNS
    rows = max(1, round((image.height - GAP_PX) / step) // 2)
    return min(image.height, rows * step + GAP_PX)


def _png(image: Image.Image) -> bytes:
    written = io.BytesIO()
    image.save(written, format="PNG", optimize=True)
    return written.getvalue()


def slug(text: str) -> str:
    """Return a text as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", text)[:40].strip("-.") or "x"
