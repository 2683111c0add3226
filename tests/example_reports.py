"""Studies to report on, as their runs would have left them: records, curves, grids and maps."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from example_studies import HOST
from PIL import Image

from sagan_bench.analysis.question import Facts
from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import RunConfig
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.data import shapes
from sagan_bench.evaluation.protocol import Protocol
from sagan_bench.experiments import studies
from sagan_bench.experiments.study import Study, StudyManifest
from sagan_bench.models.placed import Placed
from sagan_bench.report import collect, publish
from sagan_bench.report.document import Document
from sagan_bench.report.pictures import Files
from sagan_bench.runs.records import (
    Attempt,
    BlockReading,
    Cost,
    DataSummary,
    Environment,
    Record,
    Score,
)
from sagan_bench.runs.run_directory import RunDirectory

Values = Mapping[str, Sequence[float | None]]
"""Variant -> its twin_rate by seed; None is a run that diverged."""
CLEAR: Values = {
    "no-attention": [0.31, 0.35, 0.28, 0.33, 0.30],
    "sagan": [0.52, 0.49, 0.55, 0.50, 0.56],
}
STEPS, LOOKS, ROWS, SIDE = 600, 6, 60, 32
BEGAN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
ENVIRONMENT = Environment(
    python="3.11.7", sagan_bench="0.1.0", torch="2.11.0", platform="Linux-x86_64", cpu="a CPU",
    device="cpu", threads=1, git_commit="0" * 40, git_dirty=False, command="cli.py ablate",
)  # fmt: skip


def protocol(**changed: Any) -> Protocol:
    fields: dict[str, Any] = {
        "data": "d" * 16, "split": "train", "n_real": 2000, "n_fake": 2048, "sampling_seed": 0,
        "label_law": "none", "weights": "ema", "ema_decay": 0.999, "batchnorm": "standing-64x64",
        "isc_splits": 2, "kid_subsets": 3, "kid_subset_size": 50, "torch_fidelity": "0.4.0",
    }  # fmt: skip
    return Protocol(**EXTRACTORS["efficientnet-lite0"].facts(), **(fields | changed))


def score(value: float, step: int, *, final: bool = True, **changed: Any) -> Score:
    how = protocol(**changed)
    fid = 260 - 150 * value
    metrics = {
        "fid": fid, "isc_mean": 2 + value, "kid_mean": fid / 900, "precision": value / 2,
        "recall": value / 3, "twin_rate": value, "hue_match": 0.5 + value / 2,
    }  # fmt: skip
    return Score(
        step=step, weights=how.weights, sampling_seed=how.sampling_seed, n_fake=how.n_fake,
        fingerprint=how.fingerprint(), protocol=how.model_dump(mode="json"), final=final,
        metrics=metrics if final else {"twin_rate": value},
        floor={"fid": 1.8, "twin_rate": 1.0} if final else {},
    )  # fmt: skip


def leave_run(
    path: Path,
    config: RunConfig,
    value: float | None,
    *,
    status: str | None = None,
    reason: str | None = None,
    pictures: bool = True,
    variant: str | None = None,
    scores: Sequence[Score] | None = None,
) -> Path:
    """Leave a run that ended with this twin_rate; None is one that diverged half-way."""
    steps = config.run.steps
    over = status or ("finished" if value is not None else "diverged")
    step = steps if over == "finished" else steps // 2
    random = np.random.default_rng([config.seed, len(config.variant)])
    on_the_way = [s * step // LOOKS for s in range(1, LOOKS + 1)]
    blocks = _blocks(config)
    path.mkdir(parents=True)
    final = [score(value or 0, steps), score((value or 0) * 0.8, steps, weights="raw",
             ema_decay=None)] if over == "finished" else []  # fmt: skip
    curve = [score((value or 0.1) * s / steps, s, final=False, n_fake=512) for s in on_the_way]
    record = Record(
        run=path.name,
        name=config.name,
        variant=variant or config.variant,
        seed=config.seed,
        status=over,
        reason=reason or (f"step {step}: the loss of D is NaN" if over == "diverged" else None),
        step=step,
        steps=steps,
        config=config.model_dump(mode="json") | ({"variant": variant} if variant else {}),
        config_digest="0" * 12,
        data=DataSummary(fingerprint="f" * 16, manifest={"kind": "twins", "image_size": SIDE}),
        scores=(*curve, *(final if scores is None else scores)),
        blocks=tuple(
            BlockReading(network=network, name=name, step=step, **_reading(random, 1.0))
            for network, name in blocks
        ),
        cost=Cost(
            train_sec=200 + 40 * len(blocks) + 10 * random.random(), score_sec=30.0,
            images_per_sec=700 - 60 * len(blocks), peak_memory_gib=0.9, parameters_g=1_000_000,
            parameters_d=900_000 + 10_000 * len(blocks), flops_per_step=10**10,
        ),
        environment=ENVIRONMENT,
        attempts=(Attempt(
            started=BEGAN, ended=BEGAN + timedelta(minutes=4), from_step=0, to_step=step,
            outcome=over, threads=1,
        ),),
    )  # fmt: skip
    _leave_curves(path, step, blocks, random)
    if pictures:
        _leave_pictures(path, step, config.seed, blocks, random)
    directory = RunDirectory(path, digest=record.config_digest, config=record.config)
    directory.write(record.model_copy(update={"files": directory.seals()}))
    return path


def _blocks(config: RunConfig) -> list[tuple[Any, str]]:
    attention = config.model.attention
    return [("generator", f"attention{side}") for side in attention.generator] + [
        ("discriminator", f"attention{side}") for side in attention.discriminator
    ]


def _reading(random: np.random.Generator, share: float) -> dict[str, float]:
    return {
        "gamma": share * (0.4 + 0.1 * random.random()), "ratio": share * 0.3,
        "entropy": 4.1 - share, "entropy_max": 4.16, "distance_px": 12 - 2 * share,
    }  # fmt: skip


def _leave_curves(path: Path, step: int, blocks: Any, random: np.random.Generator) -> None:
    rows = []
    for s in range(step // ROWS, step + 1, step // ROWS):
        gammas = {f"gamma.{net}.{name}": 0.5 * s / STEPS for net, name in blocks}
        losses = {"loss_d": 1 + random.normal(0, 0.1), "loss_g": random.normal(0, 0.2)}
        rows.append({"step": s, **losses, **gammas, "images_per_sec": 700.0})
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    looks = [
        {"step": s * step // LOOKS}
        | {f"{net}.{name}": _reading(random, s / LOOKS) for net, name in blocks}
        for s in range(1, LOOKS + 1)
    ]
    if blocks:
        text = "".join(json.dumps(row) + "\n" for row in looks)
        (path / "diagnostics.jsonl").write_text(text)


def _leave_pictures(
    path: Path, step: int, seed: int, blocks: Any, random: np.random.Generator
) -> None:
    (path / "samples").mkdir()
    (path / "samples" / "real.png").write_bytes(_grid(0))
    at = [step // 3, 2 * step // 3, step]
    for share, when in enumerate(at, 1):
        grid = _grid(1 + seed, share)
        (path / "samples" / f"step-{when:08d}.png").write_bytes(grid)
    if blocks:
        (path / "diagnostics").mkdir()
        for when in at:
            maps = path / "diagnostics" / f"step-{when:08d}.npz"
            np.savez_compressed(maps, **_maps(seed, blocks, random))


def _maps(seed: int, blocks: Any, random: np.random.Generator) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for net, name in blocks:
        side = int(name.removeprefix("attention"))
        beta = random.random((4, 5, side, side)) ** 6
        arrays[f"beta.{net}.{name}"] = (beta / beta.sum((2, 3), keepdims=True)).astype(np.float16)
        points = ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))
        arrays[f"queries.{net}.{name}"] = np.array([(int(side * y), int(side * x))
                                                    for y, x in points])  # fmt: skip
        arrays[net] = shapes.draw(np.arange(4), seed=seed, size=SIDE)[0]
    return arrays


@cache
def _grid(seed: int, thirds: int = 3) -> bytes:
    """Return the PNG of 64 twins, eight in a row, as a run leaves it; pale while it trains."""
    images = shapes.draw(np.arange(64), seed=seed, size=SIDE)[0]
    images = (255 - (255 - images.astype(int)) * thirds // 3).astype(np.uint8)
    step, sheet = SIDE + 2, np.full((3, 8 * (SIDE + 2) + 2, 8 * (SIDE + 2) + 2), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = 2 + step * (i // 8), 2 + step * (i % 8)
        sheet[:, y : y + SIDE, x : x + SIDE] = image
    written = io.BytesIO()
    Image.fromarray(sheet.transpose(1, 2, 0)).save(written, format="PNG")
    return written.getvalue()


def leave_study(
    folder: Path,
    values: Values = CLEAR,
    *,
    baseline: str = "no-attention",
    changed: Mapping[str, Any] | None = None,
    sets: Iterable[str] = (),
    pictures: bool = True,
) -> Path:
    """Leave a study whose runs are all over, and return its folder."""
    names = list(values)
    seeds = max(map(len, values.values()))
    fields = {
        "name": "quick", "question": "Does self-attention help here?", "preset": "brief",
        "baseline": baseline, "variants": [name for name in names if name != baseline],
        "seeds": list(range(seeds)), "on": {"twins": {"metric": "twin_rate", "min_effect": 0.05}},
    } | dict(changed or {})  # fmt: skip
    asked = Study.model_validate(fields)
    facts = {}
    for name, of in values.items():
        config = settings(name, 0, sets)
        places = tuple(
            Placed(network=net, side=int(block.removeprefix("attention")), channels=64)
            for net, block in _blocks(config)
        )
        facts[name] = Facts(
            blocks=places, parameters_g=10**6, parameters_d=10**6, flops_per_step=10**10
        )
        for seed, value in enumerate(of):
            path = folder / f"{name}-s{seed}-{'0' * 12}"
            leave_run(path, settings(name, seed, sets), value, pictures=pictures)
    StudyManifest(study=asked, host={}, data_fingerprint="f" * 16, facts=facts).write(folder)
    return folder


def settings(variant: str, seed: int, sets: Iterable[str] = ()) -> RunConfig:
    """Return the configuration of a cell."""
    return _settings(variant, tuple(sets)).model_copy(update={"seed": seed})


@cache
def _settings(variant: str, sets: tuple[str, ...]) -> RunConfig:
    given = [f"run.steps={STEPS}", "run.eval_images=512", *sets]
    return resolve(HOST, preset="brief", variant=variant, sets=given).config


class Example(NamedTuple):
    """A study's folder, what a report says of it, and the page."""

    folder: Path
    document: Document
    pictures: Files
    page: Path


def rendered(root: Path) -> Example:
    """Leave a study in which attention clearly helps and all runs of g-only diverged; render it."""
    folder = leave_study(root / "quick", {**CLEAR, "g-only": [None] * 5})
    document, pictures = collect.of_study(folder)
    return Example(folder, document, pictures, publish.publish(document, pictures, root / "report"))


def many(variants: int, seeds: int) -> dict[str, list[float | None]]:
    """Return values of so many different shipped variants, the first of them no-attention."""
    parts = list(studies.load("presence").all_variants)
    parts += ["g-only", "d-only", "feat4", "feat8", "residual", "wider", "uniform-attention"]
    parts += ["feat4+residual", "feat8+residual", "attention-icml", "gamma-init-1", "wider-x2"]
    rates = ["", "+learning-rate-half", "+learning-rate-double"]
    names = [part + rate for rate in rates for part in parts if part != "sagan" or not rate]
    names = names[:variants]  # the preset as it is adds nothing to another
    random = np.random.default_rng(0)
    return {
        name: [float(v) for v in np.clip(random.normal(0.3 + 0.01 * i, 0.03, seeds), 0, 1)]
        for i, name in enumerate(names)
    }
