"""Everything that runs on a GPU, on a pretended one: what a machine without a card can show.

Numbers are real, tensors of card and host may not mix, and what waits for the card is counted by
line (`pretended_card`, whose docstring lists what cannot be seen so: kernels, the choice of
scaled_dot_product_attention, autocast's list, TF32, streams, capture, memory, compiled programs,
NCCL).  Fast tests of the pretence itself come first; the rest is of the slow tier.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from example_runs import SMALL
from example_tunings import FILE as SPACE
from example_tunings import SMALLER
from pretended_card import MixedDevicesError, OnCard, Seen, card

import sagan_bench
from sagan_bench.config.layers import override, resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.config.variants import presets, variants
from sagan_bench.core import system
from sagan_bench.data import feeding
from sagan_bench.data.store import Split, Store
from sagan_bench.execution.slots import slots
from sagan_bench.models.build import attention_blocks
from sagan_bench.runs import records
from sagan_bench.session import experiment, exporting, sampling
from sagan_bench.session.events import Stopped
from sagan_bench.training.diagnostics import diagnose
from sagan_bench.training.generation import noise, standing
from sagan_bench.training.loop import Step, train
from sagan_bench.training.state import TrainState
from sagan_bench.training.timing import out_of_memory, seconds_per_flop

HOST = Host(bf16=True, extractor="efficientnet-lite0", tf32=True)
ROOT = Path(sagan_bench.__file__).parents[1]
PLAIN = [f"model.spectral_norm.{network}=none" for network in ("generator", "discriminator")]
RESNET = ["model.architecture=resnet", "model.classes=10"]


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    """Images that one pretended card holds are not those of the next."""
    feeding._on_gpu.clear()
    yield
    feeding._on_gpu.clear()


# The pretence


def test_devices_do_not_mix_and_arrays_are_not_made_on_a_card() -> None:
    with card(count=2) as seen:
        here, there, other = torch.ones(2), *(torch.ones(2, device=f"cuda:{n}") for n in (0, 1))
        assert str(there.device) == "cuda:0"
        assert isinstance(there * 2 + torch.tensor(1.0), OnCard)
        for mixed in ((here, there), (there, other)):
            with pytest.raises(MixedDevicesError):
                torch.add(*mixed)
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            there.numpy()
        assert (there + 1).cpu().tolist() == [2, 2]
        assert seen.opened == {0, 1}
    with pytest.raises((AssertionError, RuntimeError)):
        torch.ones(2, device="cuda")


def test_waits_are_counted_and_what_is_sent_without_waiting_is_not() -> None:
    with card() as seen:
        x = torch.ones(2, device="cuda")
        here = torch.ones(2)
        here.pin_memory().to("cuda", non_blocking=True)
        x.sum()
        assert not seen.waits
        for waits in (
            lambda: x.sum().item(), lambda: bool(x.any()), x.tolist, x.cpu, x.nonzero,
            lambda: here.to("cuda"), lambda: here.to("cuda", non_blocking=True), lambda: x[x > 0],
            lambda: torch.tensor([1.0], device="cuda"), lambda: x[torch.tensor([0])],
            lambda: x.copy_(here), torch.cuda.synchronize,
        ):  # fmt: skip
            seen.clear()
            waits()
            assert sum(seen.waits.values()) == 1


def test_a_card_told_by_its_index_must_be_started_first() -> None:
    with card(count=2) as seen:
        with pytest.raises(RuntimeError, match="Invalid device argument"):
            system.forget_peak_memory(torch.device("cuda:1"))
        system.forget_peak_memory(system.open_device("cuda:1"))
        system.sent(torch.ones(2), torch.device("cuda:1"))
        assert seen.opened == {1}


# Steps


def images(side: int, classes: int) -> Store:
    drawn = np.random.default_rng(0).integers(0, 256, (24, 3, side, side), dtype=np.uint8)
    split = Split(drawn, np.arange(24, dtype=np.int64) % max(1, classes))
    return cast(Store, SimpleNamespace(train=split))


def steps(config: RunConfig, device: torch.device, seen: Seen | None = None) -> list[Step]:
    """Return the events of three steps; on a card nothing may wait but the last one's row."""
    store = images(config.data.image_size, config.model.classes)
    state, events = TrainState(config, device), []
    for event in train(config, state, store):
        assert isinstance(event, Step)
        events.append(event)
        if seen and event.step > 1:  # images are moved to the card in the first
            assert list(seen.waits.values()) == ([1] if event.row else [])
        if seen:
            seen.clear()
    return events


def check(config: RunConfig, name: str = "cuda", gib: float = 80.0) -> None:
    """Take three steps on a pretended card, without a wait, to the figures of the CPU."""
    with card(name, gib=gib) as seen:
        found = steps(config, torch.device(name, 0), seen)[-1].row
    expected = steps(config, torch.device("cpu"))[-1].row
    assert found
    assert expected
    within = 2e-2 if config.training.precision == "bf16" else 2e-3
    for key in expected.keys() - {"images_per_sec"}:
        assert found[key] == pytest.approx(expected[key], rel=2e-2, abs=within), key


def small(*sets: str, **chosen: str) -> RunConfig:
    base = [
        "model.width=8", "model.z_dim=8", "training.batch_size=4", "run.steps=3", "run.log_every=3",
    ]  # fmt: skip
    if "precision" not in str(variants().get(chosen.get("variant", "sagan"))):
        base.append("training.precision=fp32")
    return resolve(HOST, sets=[*base, *sets], **chosen).config


@pytest.mark.slow
@pytest.mark.parametrize("preset", presets())
def test_a_step_of_every_preset(preset: str) -> None:
    check(small("model.width=16", preset=preset))


@pytest.mark.slow
@pytest.mark.parametrize("variant", sorted(variants().keys() - {"compile"}))
def test_a_step_of_every_variant(variant: str) -> None:
    side = {"feat64": 128, "feat32": 64, "seed-sides": 64}.get(variant, 32)
    check(small(f"data.image_size={side}", variant=variant))


@pytest.mark.slow
@pytest.mark.parametrize(
    "sets",
    [
        ["training.precision=bf16"],
        ["training.precision=tf32"],
        ["training.precision=fp64"],
        ["training.n_critic=2", "data.flip=true"],
        ["training.micro_batch=2"],
        [*RESNET],
        [*RESNET, "training.precision=bf16"],
        [*RESNET, "training.micro_batch=2", "training.n_critic=2", "data.flip=true"],
        [*PLAIN, "training.loss=wgan-gp"],
        [*PLAIN, *RESNET, "training.loss=wgan-gp", "training.micro_batch=2"],
        ["model.attention.kind=pooled", "training.precision=bf16"],
    ],
    ids=" ".join,
)
def test_a_step_of_every_recipe(sets: list[str]) -> None:
    check(small(*sets))


@pytest.mark.slow
def test_images_that_do_not_fit_are_read_ahead() -> None:
    check(small("data.flip=true"), gib=1e-6)


@pytest.mark.slow
def test_the_step_names_no_type_of_device() -> None:
    """Pinned memory is CUDA's; elsewhere what is sent may wait."""
    config = small("data.flip=true")
    with card("mps"):
        found = steps(config, torch.device("mps", 0))[-1].row
    assert found


@pytest.mark.slow
def test_a_step_is_timed_on_a_card() -> None:
    with card():
        assert seconds_per_flop(small(), torch.device("cuda:0")) > 0


@pytest.mark.slow
def test_what_ran_out_of_memory_in_gs_update_is_advised() -> None:
    config = small("training.batch_size=12")

    def refuse(_module: object, given: tuple[torch.Tensor, ...]) -> None:
        if torch.is_grad_enabled() and len(given[0]) > 4:
            raise torch.AcceleratorError("CUDA error: out of memory")

    with card():
        state = TrainState(config, torch.device("cuda:0"))
        state.generator.register_forward_pre_hook(refuse)
        with pytest.raises(torch.AcceleratorError):
            list(train(config, state, images(32, 0)))
        assert "; 4 fit: add --micro-batch 4 " in str(out_of_memory(config, state))


# Looks


@pytest.mark.slow
@pytest.mark.parametrize("sets", [[], RESNET], ids=["dcgan", "resnet"])
def test_standing_networks_are_made_on_the_card(sets: list[str]) -> None:
    config = small(*sets)
    with card() as seen:
        state = TrainState(config, torch.device("cuda:0"))
        seen.clear()
        plain = standing(config, state.ema, 2)
        assert not seen.waits
        assert {each.device.type for each in plain.parameters()} == {"cuda"}
    expected = standing(config, TrainState(config, torch.device("cpu")).ema, 2).state_dict()
    for name, value in plain.state_dict().items():
        assert torch.allclose(value.elem, expected[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "pooled", "uniform", "residual"])
def test_a_blocks_diagnostics_are_read_twice(kind: str) -> None:
    config = small(f"model.attention.kind={kind}", "model.attention.generator=[8,16]")
    z, found = noise(0, 0, 16, 8), []
    with card() as seen:
        for device in (torch.device("cuda:0"), torch.device("cpu")):
            state = TrainState(config, device)
            there = system.sent(z, device)
            seen.clear()
            found.append(diagnose(state.generator, there))
            blocks = len(attention_blocks(state.generator))
            assert sum(seen.waits.values()) <= 2 * blocks
            assert seen.waits or device.type == "cpu"
    for name, block in found[1].items():
        assert found[0][name].figures() == pytest.approx(block.figures(), rel=1e-4)


# Runs


RUN = [*SMALL, "data.flip=true", "run.eval_every=2", "run.eval_images=8", "training.precision=fp32"]


def of_run(*sets: str) -> RunConfig:
    return resolve(HOST, sets=[*RUN, *sets]).config


def rows(path: Path) -> list[dict[str, float]]:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def stopping_at(step: int) -> dict[str, Any]:
    at: list[int] = []

    def watch(event: object) -> None:
        if isinstance(event, Step):
            at.append(event.step)

    return {"watch": watch, "stop": lambda: "asked" if at and at[-1] == step else None}


@pytest.mark.slow
def test_a_whole_run_resumed_on_the_card_and_on_the_cpu(tmp_path: Path) -> None:
    run, alone = tmp_path / "run", tmp_path / "alone"
    experiment.run(of_run("run.device=cpu"), out=alone)
    with card(count=2) as seen:
        on_card = of_run("run.device=cuda:1")
        for stop in (2, 4):
            with pytest.raises(Stopped):
                experiment.run(on_card, out=run, **stopping_at(stop))
        assert seen.opened == {1}
    record = experiment.run(of_run("run.device=cpu"), out=run)
    assert record.status == "finished"
    assert record.environment.device == "cpu"
    for ours, theirs in zip(rows(run), rows(alone), strict=True):
        for key in theirs.keys() - {"images_per_sec", "peak_memory_gib"}:
            assert ours[key] == pytest.approx(theirs[key], rel=1e-2, abs=1e-3), key

    with card() as seen:
        again = tmp_path / "again"
        record = experiment.run(of_run("run.device=cuda"), out=again)
        assert (record.status, record.environment.device_name) == ("finished", "Pretended card")
        assert (again / "samples" / "step-00000006.png").exists()
        assert (again / "diagnostics.jsonl").exists()
        final = [score for score in record.scores if score.final]
        assert [score.weights for score in final] == ["ema"]
        assert all(score.metrics["fid"] is not None for score in final)
        exported = sampling.load(again, "ema")
        assert exported.images(9, 0).shape == (9, 3, 32, 32)
        assert exported.interpolations(1, 0).shape == (8, 3, 32, 32)
        config = override(of_run(), {"evaluation.n_fake": ("--n-fake", 12)})
        assert len(experiment.evaluate(again, config).scores) > len(record.scores)
    on_cpu = {score.weights: score for score in records.read(alone).scores if score.final}
    for score in final:
        expected = on_cpu[score.weights].metrics["fid"]
        assert score.metrics["fid"] == pytest.approx(expected, rel=1e-2)
    exporting.program(sampling.load(again, "ema", "cpu"))


SITE = """\
import atexit, json, os, pathlib
import torch
from pretended_card import card
entered = card(count=2)
seen = entered.__enter__()
told = pathlib.Path(os.environ["PRETENDED"]) / f"{os.getpid()}.json"
atexit.register(lambda: told.write_text(json.dumps(sorted(seen.opened))))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["ablate", "smoke", "--jobs", "3"],
        ["tune", "--space", "small.toml", "--trials", "2", "--jobs", "2", "--no-confirm"],
    ],
    ids=["ablate", "tune"],
)
def test_worker_processes_open_their_own_card_and_no_other(
    command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITE)
    (tmp_path / "opened").mkdir()
    (tmp_path / "small.toml").write_text(SPACE.replace("run.steps = 60", "run.steps = 12"))
    small = [*SMALL, "run.steps=6"] if command[0] == "ablate" else SMALLER
    sets = [part for text in (*small, "run.eval_images=10") for part in ("--set", text)]
    path = os.pathsep.join(map(str, (tmp_path, Path(__file__).parent, ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", "from sagan_bench.cli import main; main()", *command, *sets],
        env=os.environ | {"PYTHONPATH": path, "PRETENDED": str(tmp_path / "opened")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = [records.read(each.parent) for each in tmp_path.glob("runs/**/record.json")]
    assert found
    assert {record.status for record in found} == {"finished"}
    assert {record.environment.device for record in found} == {"cuda:0", "cuda:1"}
    opened = [json.loads(each.read_text()) for each in (tmp_path / "opened").iterdir()]
    assert [] in opened  # the driver
    assert sorted(each for each in opened if each)[-1] == [1]
    assert all(len(each) <= 1 for each in opened)
    shared = {
        record.config["run"]["cells_on_device"]  # type: ignore[index, call-overload]
        for record in found
        if record.environment.device == "cuda:0"
    }
    assert shared == {2 if command[0] == "ablate" else 1}


def test_cells_on_one_card_are_as_many_as_jobs() -> None:
    with card():
        shared = slots(5, "auto", runs=40)
    assert [(slot.device, slot.shared_by) for slot in shared] == [("cuda:0", 5)] * 5
