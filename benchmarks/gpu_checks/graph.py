"""A captured step, `training.cuda_graph`, against the loop that takes one operation at a time."""

import copy
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from shared import (
    BF16,
    CAPTURED,
    DEVICE,
    FP32,
    Figures,
    ms_a_step,
    on_twins,
    require,
    shown_twins,
)
from torch import Tensor

from sagan_bench.config.schema import RunConfig
from sagan_bench.core import precision
from sagan_bench.data.store import Store
from sagan_bench.training.captured import WARM_UP
from sagan_bench.training.loop import Step, train
from sagan_bench.training.state import TrainState

STEPS = 200
FIRST, SECOND = WARM_UP + 10, 2 * (WARM_UP + 10)
"""Steps after which weights are held to the loop's; one run goes on from a state of the first."""
TOLERANCE = 1e-4
"""One step moves a weight by a learning rate, 1e-4 or more of about 0.05."""
PARTS = ("generator", "discriminator", "ema")
BY_ROUNDING = (".conv.bias", "key.bias")
"""Before BatchNorm or a softmax nothing depends on a bias: what moves it is rounding."""


class Course(NamedTuple):
    """What came of a training: its rows, and weights by step and name."""

    rows: list[dict[str, float]]
    weights: dict[int, dict[str, Tensor]]


def whole_step_graph(found: Figures) -> None:
    """The loop twice, and captured, also where it goes on; then the times of both."""
    cudnn: Any = torch.backends.cudnn
    cudnn.deterministic = True
    hold_to_the_loop(found, FP32, "training.n_critic=2")
    cudnn.deterministic = False
    for preset, products in (("quick", FP32), ("quick", BF16), ("celeba64", BF16)):
        found[f"{preset} {products}, ms"] = {
            name: ms_a_step(on_twins(preset, products, *sets))
            for name, sets in (("loop", ()), ("captured", (CAPTURED,)))
        }


def hold_to_the_loop(found: Figures, *sets: str, steps: int = STEPS) -> None:
    """Train ``quick`` by the loop and captured; fail if they differ by more than rounding does."""
    config, store = shown_twins("quick", f"run.steps={steps}", *sets)
    training = config.training.model_copy(update={"cuda_graph": True})
    captured = config.model_copy(update={"training": training})
    precision.use(config.training.precision)
    loop, again, replayed = (course(each, store) for each in (config, config, captured))
    others = {
        "captured": replayed,
        "gone on with": course(captured, store, goes_on_at=FIRST),
        "the loop again": again,
    }
    for name, other in others.items():
        found[name] = {"bit-equal": bit_equal(other.weights[steps], loop.weights[steps])} | {
            f"differs after {step}": apart(weights, loop.weights[step])
            for step, weights in other.weights.items()
        }
    found["rows differ by"] = compare_rows(replayed.rows, loop.rows)
    for step in (FIRST, SECOND):
        key = f"differs after {step}"
        allowed = max(TOLERANCE, 2 * found["the loop again"][key])
        for name in ("captured", "gone on with"):
            off = found[name][key]
            require(off <= allowed, f"{name}: {key} by {off}, more than {allowed}")


def course(config: RunConfig, store: Store, *, goes_on_at: int | None = None) -> Course:
    """Train to the end; optionally in a state that takes over from another after some steps."""
    state = TrainState(config, DEVICE)
    events = train(config, state, store)
    begun = list(islice(events, goes_on_at or 0))
    if goes_on_at:
        saved = copy.deepcopy(state.state_dict())
        state = TrainState(config, DEVICE)
        state.load_state_dict(saved)
        events = train(config, state, store)
    rows, weights = [], {}
    for event in chain(begun, events):
        require(isinstance(event, Step), f"training ended with {event}")
        if isinstance(event, Step) and event.row:
            rows.append({"step": event.step, **event.row})
        # The events of the state that was taken over from are of steps before its last.
        if event.step == state.step and event.step in (FIRST, SECOND, config.run.steps):
            weights[event.step] = weights_of(state)
    return Course(rows, weights)


def weights_of(state: TrainState) -> dict[str, Tensor]:
    """Return copies of the weights and buffers of G, D and the average, by part and name."""
    return {
        f"{part}.{name}": value.clone()
        for part in PARTS
        for name, value in getattr(state, part).state_dict().items()
    }


def bit_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Return whether all is."""
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Return the largest relative difference of a tensor, but for those moved by rounding."""
    tiny = torch.finfo(torch.float32).tiny
    return max(
        float((value.double() - theirs[name].double()).norm())
        / max(float(theirs[name].double().norm()), tiny)
        for name, value in ours.items()
        if not name.endswith(BY_ROUNDING)
    )


def compare_rows(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, float]:
    """Return by how much each measurement differs at most; fail if rows are not of one shape."""
    shapes = [[(row["step"], *sorted(row)) for row in rows] for rows in (ours, theirs)]
    require(bool(ours) and shapes[0] == shapes[1], f"rows are of other steps or names: {shapes}")
    names = theirs[0].keys() - {"step", "images_per_sec"}
    pairs = list(zip(ours, theirs, strict=True))
    return {name: max(abs(a[name] - b[name]) for a, b in pairs) for name in sorted(names)}
