"""A finished run scored once more, under another protocol or with other seeds."""

from collections.abc import Collection
from itertools import product
from pathlib import Path
from typing import Any

import torch

from sagan_bench.config.schema import WEIGHTS, RunConfig, Weights
from sagan_bench.core import cpu, extensions, system
from sagan_bench.core.errors import UserError
from sagan_bench.core.progress import OnProgress
from sagan_bench.core.stored import fitting
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import Manifest, Store
from sagan_bench.evaluation.conditions import protocol
from sagan_bench.evaluation.metrics import chosen
from sagan_bench.evaluation.scoring import Scorer
from sagan_bench.models.build import plain_generator
from sagan_bench.runs import records
from sagan_bench.runs.records import Record, Score
from sagan_bench.runs.run import Run
from sagan_bench.runs.run_directory import RunDirectory, read_now
from sagan_bench.session.events import Scored, Stop, Watch, followed
from sagan_bench.session.scoring import scored_sampler
from sagan_bench.training import checkpoint


def evaluate(
    path: Path,
    config: RunConfig,
    *,
    weights: Collection[Weights] = (),
    watch: Watch = lambda event: None,
    stop: Stop = lambda: None,
) -> Record:
    """Score a finished run under ``config.evaluation`` and add the scores to its record.

    A score of the same protocol, weights and seed replaces the one before.  The weights are those
    of the run's end, with the statistics they were exported with.

    Args:
        path: of the run.
        config: its own, but for how it is scored now.
        weights: which are scored; by default those by which it was (`scored_by`).
        watch: sees every event.
        stop: asked often.

    Raises:
        UserError: the run has no exported weights, or its data cannot be had or has changed.
        Stopped: ``stop`` asked for it; the scores made so far are kept.
    """
    record = records.read(path)
    extensions.require(config.needed, path)
    device = system.open_device(config.run.device)
    _refuse_other_statistics(config, path, record)
    store = prepared(config, path, record, followed("data", watch, stop, path))
    with RunDirectory(path, digest=record.config_digest, config=record.config) as directory:
        record = records.read(path)
        states = exported(directory)
        torch.set_num_threads(record.attempts[-1].threads or cpu.cores())
        with system.memory_for("scoring", device):
            samples = {
                kind: scored_sampler(
                    config,
                    plain_generator(config, states[kind], device, directory.weights).eval(),
                )
                for kind in weights or scored_by(record)
            }
            scorer = Scorer(config, store, device, followed("score", watch, stop, path))
            step, n_fake = states["step"], config.evaluation.n_fake
            for score in scorer.scores(samples, step=step, n_fake=n_fake, final=True):
                store.verification.finish()
                record = record.model_copy(update={"scores": _with(record.scores, score)})
                directory.write(record)
                watch(Scored(score))
    return record


def scored_by(record: Record) -> tuple[Weights, ...]:
    """Return the weights by which a run was scored at its end; the averaged ones if by none."""
    finals = {score.weights for score in record.scores if score.final and score.step == record.step}
    return tuple(kind for kind in WEIGHTS if kind in finals) or ("ema",)


def lacking(run: Run, config: RunConfig, weights: Collection[Weights] = ()) -> tuple[int, ...]:
    """Return the sampling seeds of ``config`` for which a run lacks a score under it, or a metric.

    ``weights`` are as those of `evaluate`.

    Raises:
        UserError: the run's record is damaged, or its data have nothing to score against.
    """
    data, seeds = run.record.data, config.evaluation.sampling_seeds
    if data is None:
        return seeds
    manifest = fitting(lambda: Manifest.model_validate(data.manifest), run.path / records.RECORD)
    groups = chosen(config, manifest.kind)
    by_pixels = groups.pop(None, [])
    step = run.record.step
    finals = (score for score in run.record.scores if score.final and score.step == step)
    metrics = {score.fingerprint: score.metrics.keys() for score in finals}

    def has(seed: int, kind: Weights, extractor: str | None) -> bool:
        n_fake = config.evaluation.n_fake
        how = protocol(config, manifest, kind, seed, n_fake, extractor).fingerprint()
        wanted = [*groups[extractor], *(by_pixels if extractor == first else [])]
        return {metric.name for metric in wanted} <= metrics.get(how, set[str]())

    first, whole = next(iter(groups)), list(product(weights or scored_by(run.record), groups))
    return tuple(seed for seed in seeds if not all(has(seed, *of) for of in whole))


def _refuse_other_statistics(config: RunConfig, path: Path, record: Record) -> None:
    batches, exported_with = (
        each.evaluation.bn_batches for each in (config, Run(path, record).config)
    )
    if batches != exported_with:
        raise UserError(
            f"evaluation.bn_batches = {batches}: the weights of {path} were exported with "
            f"statistics over {exported_with} batches; leave it as it is"
        )


def prepared(config: RunConfig, path: Path, record: Record, progress: OnProgress) -> Store:
    """Return the images; refuse those that the run was not trained on."""
    store = prepare(DataSpec.of(config.data), progress=progress, skip_bad=config.run.skip_bad)
    if record.data and store.manifest.fingerprint() != record.data.fingerprint:
        raise UserError(
            f"the images at {config.data.source} are not those that {path} was trained on"
        )
    return store


def exported(directory: RunDirectory) -> dict[str, Any]:
    """Return the weights by which the run was scored, and their step."""
    if not directory.weights.exists():
        path = directory.path
        raise UserError(
            f"{path} has no exported weights; finish the run first: it is {read_now(path).status}"
        )
    return checkpoint.load(directory.weights)


def _with(scores: tuple[Score, ...], new: Score) -> tuple[Score, ...]:
    """Return ``scores`` and ``new``, which takes the place of its like but for other metrics.

    The order of scores stands, for it says by which protocol a run was scored first.
    """

    def identity(score: Score) -> tuple[object, ...]:
        return score.fingerprint, score.sampling_seed, score.step, score.final

    kept = {identity(score): score for score in scores}
    like = kept.get(identity(new), new)
    whole = {
        figures: getattr(like, figures) | getattr(new, figures) for figures in ("metrics", "floor")
    }
    kept[identity(new)] = new.model_copy(update=whole)
    return tuple(kept.values())
