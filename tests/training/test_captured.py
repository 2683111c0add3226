"""A step on static inputs is the loop's: on the CPU as it is, on a pretended card as a graph."""

import copy
import importlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from example_runs import SMALL
from pretended_card import OnCard
from pretended_graph import PretendedGraph, card_that_captures
from torch import Tensor, nn

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.data import feeding
from sagan_bench.data.store import Split, Store
from sagan_bench.session import experiment
from sagan_bench.session.events import Stopped
from sagan_bench.training import checkpoint
from sagan_bench.training.captured import WARM_UP, CapturedStep
from sagan_bench.training.loop import Diverged, Step, train
from sagan_bench.training.state import TrainState
from sagan_bench.training.timing import TIMED, seconds_per_flop

HOST = Host(bf16=True, extractor="efficientnet-lite0")
CPU, CARD = torch.device("cpu"), torch.device("cuda:0")
ODD = Path(__file__).parents[1] / "planted" / "odd"
CLASSES = ("model.architecture=resnet", "model.classes=10")
PLAIN = tuple(f"model.spectral_norm.{network}=none" for network in ("generator", "discriminator"))
CRITIC = ("training.n_critic=2", "data.flip=true")
RECIPES = {
    "n_critic": CRITIC,
    "classes": (*CRITIC, *CLASSES),
    "gradient penalty": (*CRITIC, *CLASSES, *PLAIN, "training.loss=wgan-gp"),
    "micro-batches": ("training.micro_batch=2",),
    "bf16": ("training.precision=bf16",),
}
Event = Step | Diverged


def make(*sets: str) -> RunConfig:
    base = [
        "model.width=8", "model.z_dim=8", "training.batch_size=4", "run.steps=50",
        "run.log_every=4", "training.precision=fp32",
    ]  # fmt: skip
    return resolve(HOST, sets=[*base, *sets]).config


def captured(config: RunConfig) -> RunConfig:
    training = config.training.model_copy(update={"cuda_graph": True})
    return config.model_copy(update={"training": training})


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    """Neither images on one pretended card for the next, nor a block of one's own."""
    feeding._on_gpu.clear()
    yield
    feeding._on_gpu.clear()
    extensions.forget("annealed")


def store() -> Store:
    drawn = np.random.default_rng(0).integers(0, 256, (24, 3, 32, 32), dtype=np.uint8)
    return cast(Store, SimpleNamespace(train=Split(drawn, np.arange(24, dtype=np.int64) % 10)))


def told(events: list[Event]) -> list[tuple[int, Any]]:
    """Return all that events say but how long they took."""
    return [
        (
            event.step,
            event.reason
            if isinstance(event, Diverged)
            else event.row and {k: v for k, v in event.row.items() if k != "images_per_sec"},
        )
        for event in events
    ]


def on_host(tree: Any) -> Any:
    """Return a copy of a state whose tensors are on the CPU."""
    if isinstance(tree, dict):
        return {key: on_host(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [on_host(value) for value in tree]
    if isinstance(tree, Tensor):
        return (tree.elem if isinstance(tree, OnCard) else tree).detach().clone()
    return copy.copy(tree)


def assert_same(found: Any, expected: Any, where: str = "state") -> None:
    """Hold two states to each other bit for bit."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_same(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            assert_same(ours, theirs, f"{where}[{number}]")
    else:
        same = found.equal(expected) if isinstance(expected, Tensor) else found == expected
        assert same, where


def trained(
    config: RunConfig, device: torch.device, before: Callable[[TrainState], object] = id
) -> tuple[list[tuple[int, Any]], Any]:
    """Return what a training told, and the state at its end."""
    state = TrainState(config, device)
    before(state)
    events = told(list(train(config, state, store())))
    return events, on_host(state.state_dict())


# On the CPU


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_on_the_cpu_50_steps_are_the_loops_bit_for_bit_also_through_a_checkpoint(
    recipe: str, tmp_path: Path
) -> None:
    config = make(*RECIPES[recipe])
    events, expected = trained(config, CPU)
    assert [step for step, row in events if row] == [*range(4, 50, 4), 50]

    first, second = (TrainState(config, CPU) for _ in range(2))
    begun = list(itertools.islice(train(captured(config), first, store()), 26))
    checkpoint.save(tmp_path / "step.ckpt", first.state_dict())
    second.load_state_dict(checkpoint.load(tmp_path / "step.ckpt"))
    gone_on = list(train(captured(config), second, store()))
    assert told(begun + gone_on) == events
    assert_same(on_host(second.state_dict()), expected)


def test_static_inputs_are_those_of_each_step_and_keep_their_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sagan_bench.training.step import Inputs, Measured, WholeStep

    seen: list[list[Tensor]] = []
    take = WholeStep.__call__

    def noted(self: WholeStep, inputs: Inputs) -> Measured:
        seen.append([inputs.generator.z] + [real.images for real, _ in inputs.critic])
        return take(self, inputs)

    monkeypatch.setattr(WholeStep, "__call__", noted)
    config = captured(make(*CRITIC, "run.steps=3"))
    values = []
    for _ in train(config, TrainState(config, CPU), store()):
        values.append([each.clone() for each in seen[-1]])
    for places in zip(*seen, strict=True):
        assert len({place.data_ptr() for place in places}) == 1
    for steps in zip(*values, strict=True):
        assert not any(a.equal(b) for a, b in itertools.combinations(steps, 2))


def break_at(step: int, state: TrainState) -> None:
    """Have G's last bias be no number once so many steps are done."""

    def plant(*_: object) -> None:
        if state.step == step:
            with torch.no_grad():
                state.generator.get_parameter("out.bias").fill_(float("nan"))

    begin = state.begin
    state.begin = lambda step: (plant(), begin(step))[1]  # type: ignore[method-assign, func-returns-value]


def test_a_divergence_is_the_same_at_the_same_step() -> None:
    config = make("run.steps=9")
    plain, static = (
        trained(each, CPU, lambda state: break_at(5, state))[0]
        for each in (config, captured(config))
    )
    assert static == plain
    assert [step for step, _ in static] == [1, 2, 3, 4, 5, 6]
    assert "loss_d = nan" in static[-1][1]


def test_a_block_that_is_told_of_the_step_is_told_of_each() -> None:
    extensions.load(ODD / "annealed.py")
    attention = ("model.attention.kind=planted-annealed", "model.attention.generator=[8]")
    config = make(*attention, "run.steps=9")
    plain, static = (trained(each, CPU) for each in (config, captured(config)))
    assert static[0] == plain[0]
    assert_same(static[1], plain[1])


# On a card


def replayed(
    config: RunConfig, before: Callable[[TrainState], object] = id
) -> tuple[list[tuple[int, Any]], Any, list[PretendedGraph]]:
    """Return what a captured training told, its state at the end, and its graphs."""
    with card_that_captures() as (_, graphs):
        return *trained(captured(config), CARD, before), graphs


def by_the_loop(
    config: RunConfig, before: Callable[[TrainState], object] = id
) -> tuple[list[tuple[int, Any]], Any]:
    feeding._on_gpu.clear()
    with card_that_captures() as (_, graphs):
        found = trained(config, CARD, before)
    assert not graphs
    return found


def assert_replays_are_the_loop(config: RunConfig) -> None:
    events, state, graphs = replayed(config)
    assert [graph.replays for graph in graphs] == [config.run.steps - WARM_UP]
    expected_events, expected = by_the_loop(config)
    assert events == expected_events
    assert_same(state, expected)


def test_replays_of_a_captured_step_are_the_loops_steps() -> None:
    assert_replays_are_the_loop(make("run.steps=6"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_replays_of_every_recipe_are_the_loops_steps(recipe: str) -> None:
    assert_replays_are_the_loop(make(*RECIPES[recipe], "run.steps=10"))


def test_a_replay_is_what_is_timed() -> None:
    with card_that_captures() as (_, graphs):
        assert seconds_per_flop(captured(make()), CARD) > 0
    assert [graph.replays for graph in graphs] == [1 + TIMED]
    with card_that_captures() as (_, graphs):
        assert seconds_per_flop(make(), CARD) > 0
    assert not graphs


@pytest.mark.slow
def test_a_graph_is_told_of_the_step() -> None:
    extensions.load(ODD / "annealed.py")
    attention = ("model.attention.kind=planted-annealed", "model.attention.generator=[8]")
    assert_replays_are_the_loop(make(*attention, "run.steps=8"))


def test_nothing_waits_for_the_card_but_a_row_and_the_capture() -> None:
    config = captured(make("run.steps=8"))
    with card_that_captures() as (seen, _):
        state = TrainState(config, CARD)
        waits = []
        for _event in train(config, state, store()):
            waits.append(sorted(kind for kind, _ in seen.waits.elements()))
            seen.clear()
    assert waits[1:] == [[], [], ["read", "synchronize"], [], [], [], ["read"]]
    assert WARM_UP == 3


@pytest.mark.slow
def test_a_run_that_goes_on_takes_its_first_steps_and_captures_anew() -> None:
    config = make("run.steps=10")
    expected = by_the_loop(config)[1]
    feeding._on_gpu.clear()
    with card_that_captures() as (_, graphs):
        first, second = (TrainState(captured(config), CARD) for _ in range(2))
        list(itertools.islice(train(captured(config), first, store()), 5))
        saved = on_host(first.state_dict())
        assert not any(group["capturable"] for group in saved["optimizer_g"]["param_groups"])
        second.load_state_dict(first.state_dict())
        list(train(captured(config), second, store()))
        found = on_host(second.state_dict())
    assert [graph.replays for graph in graphs] == [2, 2]
    assert_same(found, expected)


def test_a_divergence_in_a_graph_is_read_with_the_row() -> None:
    config = make("run.steps=9")
    found, _, _ = replayed(config, lambda state: break_at(5, state))
    assert found == by_the_loop(config, lambda state: break_at(5, state))[0]
    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 6, 7, 8]


def reads(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
    given[0].sum().item()


def test_a_step_that_reads_from_the_card_is_refused_and_is_as_it_was() -> None:
    config = captured(make("run.steps=8"))
    with card_that_captures():
        state = TrainState(config, CARD)
        state.generator.register_forward_pre_hook(reads)
        events = train(config, state, store())
        list(itertools.islice(events, WARM_UP))
        before = on_host(state.state_dict())
        told = r"cuda_graph: this step cannot be captured: CUDA error: operation not permitted"
        with pytest.raises(UserError, match=rf"{told} .*leave out training\.cuda_graph"):
            next(events)
        assert_same(on_host(state.state_dict()), before)
    assert all(module.training for module in state.discriminator.modules())


def test_memory_that_does_not_suffice_for_a_capture_is_told() -> None:
    config = captured(make("run.steps=8"))
    with card_that_captures():
        state = TrainState(config, CARD)

        def refuse(*_: object) -> None:
            if state.step == WARM_UP:
                raise torch.OutOfMemoryError("CUDA out of memory")

        state.generator.register_forward_pre_hook(refuse)
        with pytest.raises(UserError, match=r"out of memory on cuda:0 while a step was captured"):
            list(train(config, state, store()))


def whole_run(out: Path, config: RunConfig, stops: tuple[int, ...] = ()) -> Any:
    """Make a run, stopped on the way, and return its rows and final scores."""
    for stop in stops:
        at: list[int] = []

        def watch(event: object, at: list[int] = at) -> None:
            at.extend([event.step] if isinstance(event, Step) else [])

        def asked(at: list[int] = at, stop: int = stop) -> str | None:
            return "asked" if at and at[-1] == stop else None

        with pytest.raises(Stopped):
            experiment.run(config, out=out, watch=watch, stop=asked)
    record = experiment.run(config, out=out)
    assert record.status == "finished"
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    kept = rows[0].keys() - {"images_per_sec", "peak_memory_gib"}
    return (
        [{key: row[key] for key in kept} for row in rows],
        {score.weights: score.metrics for score in record.scores if score.final},
    )


@pytest.mark.slow
def test_looks_and_a_stop_between_replays_change_nothing(tmp_path: Path) -> None:
    sets = [*SMALL, "run.steps=10", "run.eval_every=2", "run.eval_images=8", "run.device=cuda"]
    config = resolve(HOST, sets=[*sets, "training.precision=fp32"]).config
    found = []
    for name, each, stops in (("loop", config, ()), ("captured", captured(config), (6,))):
        feeding._on_gpu.clear()
        with card_that_captures() as (_, graphs):
            found.append(whole_run(tmp_path / name, each, stops))
    assert [graph.replays for graph in graphs] == [3, 1]
    assert found[0] == found[1]


# What a real card is asked


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The check of `benchmarks/first_gpu.py`."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks" / "gpu_checks"))
    yield importlib.import_module("graph")
    for name in ("graph", "shared"):
        if name not in known:
            del sys.modules[name]


TINY = (
    "model.width=8", "model.z_dim=8", "training.batch_size=4", "data.train_images=48",
    "data.test_images=16", "training.precision=fp32", "training.n_critic=2",
)  # fmt: skip


@pytest.mark.slow
def test_the_check_for_a_card_passes_where_a_graph_is_the_loop(asked: Any) -> None:
    found: dict[str, Any] = {}
    with card_that_captures() as (_, graphs):
        asked.hold_to_the_loop(found, *TINY, steps=30)
    assert [graph.replays for graph in graphs] == [27, 10, 14]
    assert found["captured"] == {
        "bit-equal": True, "differs after 13": 0, "differs after 26": 0, "differs after 30": 0,
    }  # fmt: skip
    assert found["gone on with"] == {
        "bit-equal": True, "differs after 26": 0, "differs after 30": 0, "differs after 13": 0,
    }  # fmt: skip
    assert set(found["rows differ by"].values()) == {0}
    assert {"loss_d", "grad_norm_g"} <= found["rows differ by"].keys()


@pytest.mark.slow
def test_the_check_for_a_card_fails_where_a_graph_sees_old_inputs(
    asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = CapturedStep._placed
    monkeypatch.setattr(
        CapturedStep, "_placed", lambda self, inputs: self.inputs or placed(self, inputs)
    )
    with card_that_captures(), pytest.raises(Exception, match="captured: differs after 13 by"):
        asked.hold_to_the_loop({}, *TINY, steps=26)
