"""A step on inputs that stay where they are: on a card one CUDA graph, replayed."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

from sagan_bench.core import system
from sagan_bench.core.errors import UserError, causes
from sagan_bench.data.feeding import Batch
from sagan_bench.training.draws import Noise
from sagan_bench.training.step import Inputs, Measured, WholeStep

WARM_UP = 3
"""Steps of a run, or of one that goes on, before a card captures one: libraries choose kernels in
the first, the optimizers make their state, and the average begins as a copy."""


class CapturedStep:
    """A `WholeStep` whose inputs are copied to where the first ones were.

    On the CPU it is taken as it is, to the same bits.  On a card the first `WARM_UP` steps are,
    beside the current stream, as a capture needs; the next is recorded as a CUDA graph, and from
    then on replayed: n_critic updates of D, G's, its average and whether all was finite, in one
    launch.  What Python does in a step is done for the last time at its capture.  Gradients are
    made and freed within the graph, in memory of its own.

    Source: PyTorch, "Whole-network capture" (notes/cuda.html).
    """

    def __init__(self, step: WholeStep, device: torch.device) -> None:
        self.step, self.device = step, device
        self.inputs: Inputs | None = None
        self.warmed = 0
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.measured: Measured | None = None

    def __call__(self, inputs: Inputs) -> Measured:
        """Take the step; on a card what it measured stays until the next one.

        Raises:
            UserError: the step cannot be captured, or memory does not suffice to.
        """
        placed = self._placed(inputs)
        if self.stream is None:
            return self.step(placed)
        if self.warmed < WARM_UP:
            self.warmed += 1
            with _beside(self.stream):
                return self.step(placed)
        if self.graph is None or self.measured is None:
            self.graph, self.measured = self._capture(placed, self.stream)
        self.graph.replay()
        return self.measured

    def _placed(self, inputs: Inputs) -> Inputs:
        """Copy inputs to their places, which the first ones make; return these."""
        if self.inputs is None:
            critic = [
                (Batch(real.images.clone(), real.labels.clone()), _like(noise))
                for real, noise in inputs.critic
            ]
            self.inputs = Inputs(critic, _like(inputs.generator))
            return self.inputs
        for places, given in zip(_parts(self.inputs), _parts(inputs), strict=True):
            for place, tensor in zip(_present(places), _present(given), strict=True):
                place.copy_(tensor)
        return self.inputs

    def _capture(
        self, inputs: Inputs, stream: torch.cuda.Stream
    ) -> tuple[torch.cuda.CUDAGraph, Measured]:
        """Record one step without taking it; where that fails, nothing has changed."""
        graph, state = torch.cuda.CUDAGraph(), self.step.state
        try:
            with (
                _capturable(state.optimizer_g, state.optimizer_d),
                # Of this thread alone: those that read and draw ahead may do as they like.
                torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
            ):
                return graph, self.step(inputs)
        except (RuntimeError, MemoryError) as error:
            raise _refusal(error, self.device) from error


def _like(noise: Noise) -> Noise:
    """Return a copy that stays."""
    labels, share = (None if each is None else each.clone() for each in (noise.labels, noise.share))
    return Noise(noise.z.clone(), labels, share)


def _parts(inputs: Inputs) -> Iterator[Batch | Noise]:
    for real, noise in inputs.critic:
        yield real
        yield noise
    yield inputs.generator


def _present(part: Iterable[Tensor | None]) -> Sequence[Tensor]:
    return [each for each in part if each is not None]


@contextmanager
def _beside(stream: torch.cuda.Stream) -> Iterator[None]:
    """Work on a stream of one's own, after what the current one has, and before what it will."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        current.wait_stream(stream)


@contextmanager
def _capturable(*optimizers: Optimizer) -> Iterator[None]:
    """Let optimizers be captured.

    Fused ones always could, and compute the same; the mark is not left to checkpoints.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in groups:
            group["capturable"] = False


def _refusal(error: BaseException, device: torch.device) -> UserError:
    """Return what to tell of a capture that failed: the step itself has worked before."""
    chain = list(causes(error))
    if any(map(system.is_out_of_memory, chain)):
        return UserError(
            f"out of memory on {device} while a step was captured, which by itself fits: a graph "
            "has memory of its own; leave out training.cuda_graph, or let fewer runs share the "
            "card (--jobs), or add --micro-batch"
        )
    first = str(chain[-1]).strip().partition("\n")[0]
    return UserError(
        f"training.cuda_graph: this step cannot be captured: {first}; a block, family or loss that "
        "reads a number of the card, or sends one there, needs the ordinary loop: leave out "
        "training.cuda_graph"
    )
