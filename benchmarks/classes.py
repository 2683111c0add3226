"""Train the residual network on twins with and without their classes, seed by seed.

    OMP_NUM_THREADS=1 python benchmarks/classes.py

Networks are otherwise equal, steps too.  Prints JSON: the scores of each run, and for runs with
classes what the FID within each class is when the images are held against their own class and
against the next one: where the class is obeyed, the first is the lower.
"""

import json
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import typer

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.evaluation.features import extract
from sagan_bench.evaluation.frechet import intra_fid
from sagan_bench.evaluation.sampling import sample_images
from sagan_bench.models.build import plain_generator
from sagan_bench.session import experiment
from sagan_bench.training import checkpoint
from sagan_bench.training.generation import balanced, sampler

CLASSES = 10
SHOWN = ("fid", "twin_rate", "hue_match", "area_match")


def configured(classes: int, seed: int, steps: int, images: int) -> RunConfig:
    """Return a run that two cores finish in minutes."""
    sets = [
        "model.architecture=resnet", f"model.classes={classes}", "model.width=16",
        "data.train_images=5000", "data.test_images=1000", "training.batch_size=32",
        "training.ema_decay=0.99", "training.precision=fp32", f"seed={seed}", "run.threads=1",
        f"run.steps={steps}", f"run.sample_every={steps}", f"evaluation.n_fake={images}",
        "evaluation.n_real=2048", "evaluation.n_floor=512", "evaluation.bn_batches=16",
    ]  # fmt: skip
    return resolve(Host(False, "efficientnet-lite0"), preset="quick", sets=sets).config


def within_classes(config: RunConfig, path: Path) -> dict[str, float | None]:
    """Return the FID within classes, and that against the next class each."""
    weights = checkpoint.load(path / "weights.pt")["ema"]
    generator = plain_generator(config, weights, torch.device("cpu"))
    sample = sampler(generator.eval(), config.model.z_dim, labels=balanced(CLASSES))
    images = sample_images(sample, config.evaluation.n_fake, 0, 64)
    store = prepare(DataSpec.of(config.data))
    extractor = EXTRACTORS[config.evaluation.extractor]()
    fake, real = (extract(extractor, each).pool for each in (images, store.train.images[:2048]))
    labels, real_labels = torch.arange(len(fake)) % CLASSES, store.train.labels[:2048]
    theirs = torch.from_numpy(real_labels.copy())
    return {
        "own_class": intra_fid(fake, labels, real, theirs),
        "next_class": intra_fid(fake, (labels + 1) % CLASSES, real, theirs),
    }


def trained(classes: int, seed: int, steps: int, images: int) -> dict[str, Any]:
    """Train one run, and return what came of it."""
    config = configured(classes, seed, steps, images)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        record = experiment.run(config, out=path)
        row: dict[str, Any] = {"classes": classes, "seed": seed, "status": record.status}
        final = next(score for score in record.scores if score.final and score.weights == "ema")
        row |= {key: final.metrics.get(key) for key in SHOWN}
        row |= within_classes(config, path) if classes else {}
    return row | {"train_sec": record.cost.train_sec}


def main(steps: int = 1500, seeds: int = 3, images: int = 1000, jobs: int = 2) -> None:
    """Train both at each seed, so many at a time, and print what came of each as it comes."""
    prepare(DataSpec.of(configured(0, 0, steps, images).data))
    asked = [(classes, seed, steps, images) for seed in range(seeds) for classes in (CLASSES, 0)]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for done in as_completed([pool.submit(trained, *one) for one in asked]):
            print(json.dumps(done.result()), flush=True)


if __name__ == "__main__":
    typer.run(main)
