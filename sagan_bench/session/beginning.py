"""The weights that a run begins with where those are not drawn: another run's (``--init-from``)."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from sagan_bench.config.layers import override
from sagan_bench.config.schema import RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.models.build import skeleton
from sagan_bench.runs.keeping import saved_in
from sagan_bench.runs.records import CHECKPOINTS, RECORD
from sagan_bench.training import checkpoint
from sagan_bench.training.checkpoint import Checkpoints
from sagan_bench.training.kept import ELSEWHERE, bits
from sagan_bench.training.state import NETWORKS

OPTION = "--init-from"
_KEY = "training.init_sha256"


class Beginning(NamedTuple):
    """Weights and buffers by name: of G, of D and of G's average, as training left them."""

    weights: dict[str, Mapping[str, Tensor]]
    step: int
    """Generator updates that they had."""

    @property
    def sha256(self) -> str:
        """SHA-256 over names, types, shapes and bytes, whatever file they are from."""
        digest = hashlib.sha256()
        for part in NETWORKS:
            for name, value in sorted(self.weights[part].items()):
                digest.update(f"{part}.{name} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(bits(value).numpy().data)
        return digest.hexdigest()


def settled(config: RunConfig) -> RunConfig:
    """Return a configuration whose digest holds the weights that it begins with.

    Raises:
        UserError: as `read`, where there is a ``run.init_from``.
    """
    if config.run.init_from is None:
        return config
    return override(config, {_KEY: (OPTION, read(config).sha256)})


def refuse_unnamed(config: RunConfig, path: Path | None = None) -> None:
    """Refuse weights of which nothing but the SHA-256 is said, unless a run goes on at ``path``.

    Raises:
        UserError: there is no ``run.init_from``.
    """
    if not config.training.init_sha256 or config.run.init_from is not None:
        return
    if path is None or not saved_in(path):
        raise UserError(f"{_KEY} says which weights, and not where they are; add {OPTION} RUN")


def read(config: RunConfig) -> Beginning:
    """Return the weights at ``run.init_from``.

    Raises:
        UserError: there are none; they are others than ``training.init_sha256`` says, where it
            says; or they are of other networks: the first layer that differs.
    """
    refuse_unnamed(config)
    found = _found(Path(str(config.run.init_from)))
    _refuse_other_networks(config, found)
    expected, there = config.training.init_sha256, found.sha256
    if expected not in (None, there):
        raise UserError(
            f"{OPTION} {config.run.init_from}: its weights have the SHA-256 {there[:12]}..., and "
            f"{_KEY} is {str(expected)[:12]}...: that run has gone on, or it is another; leave "
            f"{_KEY} out to begin with these"
        )
    return found


def _found(place: Path) -> Beginning:
    """Return the weights of a run, or in a file of a training state.

    Raises:
        UserError: there are none, or D's are not stored there.
    """
    run = place if place.is_dir() else place.parent
    if (run / RECORD).exists():
        saved = Checkpoints(run / CHECKPOINTS).latest()
        if saved is None:
            raise UserError(
                f"{OPTION} {place}: {run} keeps no training state, and nowhere else are D's "
                "weights (weights.pt has G's); begin with a run trained with "
                "--set run.keep_training_state=true"
            )
        return _of(saved[1])
    if not place.is_file():
        raise UserError(f"{OPTION} {place}: no run is there, nor a file of a training state")
    state = checkpoint.load(place)
    if ELSEWHERE in state:
        raise UserError(f"{OPTION} {place}: a part of it is in weights.pt; name the run's folder")
    if lacking := [part for part in NETWORKS if not isinstance(state.get(part), Mapping)]:
        raise UserError(
            f"{OPTION} {place} has no {lacking[0]}; name a run that keeps its training state "
            "(--set run.keep_training_state=true), or one of its checkpoints"
        )
    return _of(state)


def _of(state: Mapping[str, Any]) -> Beginning:
    return Beginning({part: state[part] for part in NETWORKS}, state["step"])


def _refuse_other_networks(config: RunConfig, found: Beginning) -> None:
    """Refuse weights of networks that have other layers.  Raises `UserError`: the first."""
    networks = skeleton(config)
    for part in ("generator", "discriminator"):
        ours = getattr(networks, part).state_dict()
        for name, here, there in _differing(ours, found.weights[part]):
            raise UserError(
                f"{OPTION} {config.run.init_from}: its {part} is another: {name} is {there} there "
                f"and {here} here; choose the preset and the variant of that run"
            )


def _differing(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
) -> Iterator[tuple[str, str, str]]:
    """Yield what differs: name, what it is in ours, and in theirs."""
    for name in (*ours, *(name for name in theirs if name not in ours)):
        here, there = (
            " x ".join(map(str, of[name].shape)) or "a number" if name in of else "not"
            for of in (ours, theirs)
        )
        if here != there:
            yield name, here, there
