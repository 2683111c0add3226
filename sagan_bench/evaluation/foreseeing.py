"""What the scoring of a run will take, known before the run trains; imports no torch."""

import hashlib
import json
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_write, json_bytes
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.core.stored import json_object
from sagan_bench.data.store import Manifest, cache_root
from sagan_bench.evaluation import conditions
from sagan_bench.evaluation.metrics import chosen


class ScoringAhead(NamedTuple):
    """What is still to be scored of a run."""

    generated: int
    """Images drawn for the scores of its end, of all weights and sampling seeds."""
    on_the_way: int
    """Images drawn for scores before."""
    real: int
    """Real images whose features are not kept yet; they are then kept for all runs of the data."""
    extractors: tuple[str, ...]
    """Each sees these images."""
    seconds: float | None
    """By what such work took last on this machine; null if it was never timed."""
    at_least: bool
    """Whether only features were timed, and drawing by such networks and metrics never."""

    @property
    def images(self) -> int:
        """All images that an extractor sees."""
        return self.generated + self.on_the_way + self.real


class Where(NamedTuple):
    """What decides how fast images are scored, beside the networks."""

    device: str
    """Type of the device."""
    name: str | None
    """Its model, or the processor's."""
    threads: int
    processes: int = 1
    """Among which generated images are shared out."""


def ahead(config: RunConfig, manifest: Manifest, where: Where, *, done: int = 0) -> ScoringAhead:
    """Return what is to be scored of a run after its first ``done`` steps.

    Args:
        config: resolved.
        manifest: of the real images.
        where: features are computed.
        done: generator updates.

    Raises:
        UserError: as `conditions.protocol`.
    """
    evaluation, run = config.evaluation, config.run
    seeds, looks = len(evaluation.sampling_seeds), 0
    if run.eval_every:
        looks = run.steps // run.eval_every - done // run.eval_every
    generated = evaluation.n_fake * seeds * len(run.score_weights)
    on_the_way = run.eval_images * seeds * looks
    by_rule = run.eval_metrics == "rule"  # in which no extractor has a part
    sizes = {evaluation.n_fake} if generated else set[int]()
    sizes |= {run.eval_images} if on_the_way and not by_rule else set()
    extractors = tuple(name for name in chosen(config, manifest.kind) if name)
    real = {
        name: sum(unseen(config, manifest, where, name, n_fake) for n_fake in sizes)
        for name in extractors
    }
    rest, seconds = speed(drawing(config, manifest.kind, where)), 0.0
    seconds += (rest or 0.0) * (generated + on_the_way)
    extracted = generated + (0 if by_rule else on_the_way)
    speeds = {name: speed(extraction(name, where)) for name in extractors}
    for name, of_one in speeds.items():  # real images are the main process's
        seconds += (of_one or 0.0) * (extracted + where.processes * real[name])
    # Where no extractor has a part, what it takes is drawing alone.
    known = None not in speeds.values() if sizes else bool(on_the_way) and rest is not None
    return ScoringAhead(
        generated=generated,
        on_the_way=on_the_way,
        real=max(real.values()),
        extractors=extractors,
        seconds=seconds if known else None,
        at_least=known and rest is None,
    )


def unseen(config: RunConfig, manifest: Manifest, where: Where, extractor: str, n_fake: int) -> int:
    """Return the real images, held-out ones too, whose features a score has to compute."""
    if (_folder() / real_side(config, manifest, where, extractor, n_fake)).exists():
        return 0
    how = conditions.protocol(config, manifest, "ema", 0, n_fake, extractor)
    others = (facts for name, facts in manifest.splits.items() if name != how.split)
    held_out = min(config.evaluation.n_floor, n_fake, next((of.images for of in others), 0))
    return how.n_real + held_out


# --- What is known of this machine --------------------------------------------------------------


def _folder() -> Path:
    return cache_root() / "features"  # whoever removes it removes what is said of it


def _named(*parts: Any) -> str:
    versions = [version(package) for package in ("torch", "torch-fidelity", "timm")]
    return hashlib.sha256(json.dumps([*parts, *versions]).encode()).hexdigest()[:32]


def real_side(
    config: RunConfig, manifest: Manifest, where: Where, extractor: str, n_fake: int
) -> str:
    """Return the name under which it is noted that features of these real images are kept."""
    how = conditions.protocol(config, manifest, "ema", 0, n_fake, extractor)
    kept = how.model_dump(mode="json", exclude={"weights", "ema_decay", "batchnorm", "z_law"})
    return f"kept-{_named(kept, config.evaluation.n_floor, where.device)}.json"


def extraction(extractor: str, where: Where) -> str:
    """Return the name under which the seconds of an image's features are kept."""
    facts = EXTRACTORS[extractor].facts()
    return f"speed-{_named(facts, *where)}.json"


def drawing(config: RunConfig, kind: str, where: Where) -> str:
    """Return the name under which the seconds of all else of a generated image are kept."""
    names = [metric.name for group in chosen(config, kind).values() for metric in group]
    model = config.model.model_dump(mode="json")
    return f"speed-{_named(model, config.data.image_size, names, *where)}.json"


def speed(name: str) -> float | None:
    """Return the seconds an image took when it was last timed; None if it never was."""
    try:
        value = json_object(_folder() / name).get("seconds_per_image")
    except (OSError, UserError):
        return None
    return value if isinstance(value, float) and 0 <= value < float("inf") else None


def note(name: str, seconds_per_image: float | None = None) -> None:
    """Note that the real side of that name is kept, or what an image took."""
    with suppress(OSError):  # a full disk costs a forecast
        _folder().mkdir(parents=True, exist_ok=True)
        atomic_write(_folder() / name, json_bytes({"seconds_per_image": seconds_per_image}))
