"""How fast is it on a card: steps, launches, the large network, scoring."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared import (
    BF16,
    DEVICE,
    FP32,
    Figures,
    Running,
    ms_a_step,
    on_noise,
    on_twins,
    require,
)
from torch import Tensor
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.data import shapes
from sagan_bench.evaluation.features import extract
from sagan_bench.evaluation.protocol import Protocol
from sagan_bench.evaluation.reference import reference
from sagan_bench.evaluation.scoring import score

SPEEDS = {
    "fp32": (FP32,),
    "tf32": ("training.precision=tf32",),
    "bf16": (BF16,),
    "bf16 compiled": (BF16, "training.compile=true"),
}


def speed(found: Figures) -> None:
    """Milliseconds of a step in the real loop, and graphs where compiled."""
    broken: list[str] = []
    for preset in ("quick", "celeba64"):
        for name, sets in SPEEDS.items():
            torch.compiler.reset()
            counters.clear()
            found[f"{preset} {name}, ms"] = ms_a_step(on_twins(preset, *sets))
            broken += counters["graph_break"]
        found[f"{preset} graphs"] = counters["stats"]["unique_graphs"]
    require(not broken, f"graphs break: {broken}")


def compiled_tf32(found: Figures) -> None:
    """Compiled networks with TF32 products."""
    running = on_twins("quick", "training.precision=tf32", "training.compile=true")
    found["ms"] = ms_a_step(running)


ON_THE_CARD = ("kernel", "gpu_memcpy", "gpu_memset")
PROFILED = 10


def launches(found: Figures) -> None:
    """Kernels of a step, and the share of its time in which the card works."""
    for preset in ("quick", "celeba64"):
        running = on_twins(preset, BF16, "run.log_every=1000000")
        ms = ms_a_step(running)
        work = _profiled(running)
        busy = sum(event["dur"] for event in work) / PROFILED / 1000
        names = Counter(event["name"][:60] for event in work)
        found[preset] = {
            "launches": len(work) / PROFILED,
            "ms": ms,
            "busy_ms": round(busy, 3),
            "busy_share": round(busy / ms, 3),
            "most often": {name: count / PROFILED for name, count in names.most_common(8)},
        }
        require(len(work) > 0, "the profiler saw no kernel")


def _profiled(running: Running) -> list[dict[str, Any]]:
    """Return what the card did in some steps."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        running.steps(PROFILED)
    trace = Path("trace.json")
    seen.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text())["traceEvents"]
    trace.unlink()
    return [event for event in events if event.get("cat") in ON_THE_CARD]


def repeatable(found: Figures) -> None:
    """The same 20 steps twice: which tensors of G differ?"""
    for sets in ((FP32,), (BF16,)):
        first, second = (_weights_after(on_twins("quick", *sets), 20) for _ in range(2))
        differ = [name for name in first if not torch.equal(first[name], second[name])]
        found[sets[0]] = {"differ": len(differ), "of": len(first), "such as": differ[:3]}


def _weights_after(running: Running, steps: int) -> dict[str, Tensor]:
    running.steps(steps)
    return {name: each.clone() for name, each in running.state.generator.state_dict().items()}


def paper_network(found: Figures) -> None:
    """The authors' network at its batch of 256."""
    running = on_noise("imagenet128-official", BF16)
    found["ms"] = ms_a_step(running, warm=3, steps=5)
    found["gib"] = round(torch.cuda.max_memory_allocated(DEVICE) / 2**30, 2)


SCORED = 2048


def scoring(found: Figures) -> None:
    """Figures of the same images by features of the card and of the CPU."""
    real, made = (
        shapes.draw(np.arange(start, start + SCORED), seed=0, size=32)[0] for start in (0, SCORED)
    )
    figures: dict[str, dict[str, Any]] = {}
    for device in (DEVICE, torch.device("cpu")):
        extractor = EXTRACTORS["efficientnet-lite0"](device)
        known = reference(real, None, _protocol(), extractor, Path("cache"))
        images = torch.from_numpy(made)
        began = time.perf_counter()
        features = extract(extractor, images)
        extracted = time.perf_counter()
        scores = score(images, known, _protocol(), extractor, features=features)
        ended = time.perf_counter()
        seconds = {"extract": extracted - began, "metrics": ended - extracted}
        figures[device.type] = scores.metrics
        found[device.type] = {"metrics": scores.metrics, "seconds": seconds}
        found[device.type]["images_per_sec, features"] = SCORED / seconds["extract"]
        found[device.type]["images_per_sec"] = SCORED / (ended - began)
    bad = [
        name
        for name, wanted in figures["cpu"].items()
        if not np.isclose(figures["cuda"][name], wanted, rtol=1e-3, atol=1e-3)
    ]
    require(not bad, f"figures differ: {bad}")


def _protocol() -> Protocol:
    return Protocol.fitted(
        **EXTRACTORS["efficientnet-lite0"].facts(),
        data="benchmark",
        split="train",
        n_real=SCORED,
        n_fake=SCORED,
        sampling_seed=0,
        label_law="none",
        weights="raw",
        ema_decay=None,
        batchnorm="none",
    )
