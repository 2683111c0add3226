"""One step as one CUDA graph, against the same step taken one operation at a time."""

import time
from collections.abc import Callable
from typing import Any

import torch
from shared import BF16, DEVICE, FP32, Figures, configured, require

from sagan_bench.core import precision
from sagan_bench.training.draws import Noise
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Recipe

WARM, REPLAYED = 3, 10


class OneStep:
    """A step of ``quick`` on inputs that stay where they are, so that it can be captured.

    Args:
        products: the setting of the precision.
    """

    def __init__(self, products: str) -> None:
        config = configured("quick", products)
        self.state = TrainState(config, DEVICE)
        for adam in (self.state.optimizer_g, self.state.optimizer_d):
            for group in adam.param_groups:
                group["capturable"] = True
        self.recipe = Recipe(config, self.state)
        size, side, z_dim = config.training.batch_size, config.data.image_size, config.model.z_dim
        real = torch.empty(size, 3, side, side, device=DEVICE)
        self.real = real.contiguous(memory_format=torch.channels_last)
        self.z_d, self.z_g = torch.empty(2, size, z_dim, device=DEVICE)
        self.finite = torch.ones((), dtype=torch.bool, device=DEVICE)

    def feed(self, number: int) -> None:
        """Put the inputs of one step in their place."""
        stream = torch.Generator().manual_seed(number)
        for place in (self.real, self.z_d, self.z_g):
            place.copy_(torch.randn(place.shape, generator=stream), non_blocking=True)

    def take(self) -> None:
        """Update D, G and its average, and note whether all was finite."""
        measured = self.recipe.update_d(self.real, Noise(self.z_d))
        measured |= self.recipe.update_g(Noise(self.z_g))
        self.finite &= torch.stack(list(measured.values())).isfinite().all()

    def eagerly(self, numbers: range) -> None:
        """Take steps the usual way."""
        for number in numbers:
            self.feed(number)
            self.take()

    def captured(self) -> torch.cuda.CUDAGraph:
        """Take `WARM` steps, and return the next as a graph, not run yet."""
        side = torch.cuda.Stream(DEVICE)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.eagerly(range(WARM))
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.take()
        return graph


def whole_step_graph(found: Figures) -> None:
    """Replays of a captured step, against the same steps taken one operation at a time."""
    precision.use("fp32")
    cudnn: Any = torch.backends.cudnn
    cudnn.deterministic = True
    replayed, eager, again = (OneStep(FP32) for _ in range(3))
    graph = replayed.captured()
    for number in range(WARM, WARM + REPLAYED):
        replayed.feed(number)
        graph.replay()
    for other in (eager, again):
        other.eagerly(range(WARM + REPLAYED))
    floor, off = _apart(again, eager), _apart(replayed, eager)
    finite = bool(replayed.finite) and bool(eager.finite)
    found |= {"differs by": off, "two eager runs by": floor, "finite": finite}
    found["eager_ms"] = _ms(eager.take)
    found["graph_ms"] = _ms(graph.replay)
    in_bf16 = OneStep(BF16)
    found["graph_ms, bf16"] = _ms(in_bf16.captured().replay)
    require(finite, "something was not finite")
    require(off <= max(1e-5, 2 * floor), f"G differs by {off}; two eager runs by {floor}")


def _apart(one: OneStep, other: OneStep) -> float:
    """Return the largest relative difference of a tensor of G."""
    pairs = zip(
        one.state.generator.state_dict().values(),
        other.state.generator.state_dict().values(),
        strict=True,
    )
    tiny = torch.finfo(torch.float32).tiny
    return max(
        float((a.double() - b.double()).norm() / b.double().norm().clamp_min(tiny))
        for a, b in pairs
    )


def _ms(step: Callable[[], None], repeats: int = 100) -> float:
    for _ in range(10):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        step()
    torch.cuda.synchronize()
    return round(1000 * (time.perf_counter() - began) / repeats, 3)
