"""CUDA graphs of a pretended card: what is captured is written down, and a replay does it again.

    with card_that_captures() as (seen, graphs): ...  # as `pretended_card.card`

As on a card, a capture takes no step: the memory that its operations wrote is put back at its end.
A replay does the operations that were written down, on the same memory, without the Python that
they came from: what that would have done otherwise by now is not seen.  Within a capture it raises
to read by the host, and to step an optimizer that is not marked as ``capturable``.

It cannot see streams, or memory that others take meanwhile.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest import mock

import torch
from pretended_card import Seen, card, held
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

REFUSED = "CUDA error: operation not permitted when stream is capturing"


class PretendedStream:
    """A stream, which has an end to wait for and nothing else."""

    def __init__(self, device: Any = None) -> None:
        self.device = device

    def wait_stream(self, other: "PretendedStream") -> None: ...


class PretendedGraph:
    """What was captured: operations, and where their results are."""

    def __init__(self) -> None:
        self.taken: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self.replays = 0

    def replay(self) -> None:
        """Do it again, the results in the same memory."""
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, kept in self.taken:
                for place, new in zip(_tensors(kept), _tensors(func(*args, **kwargs)), strict=True):
                    if _memory(place) != _memory(new):  # no view, and not in place
                        place.copy_(new)


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: PretendedGraph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = graph
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self.made: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        plain = tree_map(_alias, (args, kwargs))
        for tensor in _tensors(plain):
            if _memory(tensor) not in self.made | self.before.keys():
                storage = tensor.untyped_storage()
                self.before[_memory(tensor)] = storage, storage.clone()
        result = func(*args, **kwargs)
        kept = tree_map(_alias, result)
        self.made |= {_memory(tensor) for tensor in _tensors(kept)} - self.before.keys()
        if torch.Tag.inplace_view not in func.tags:  # squeeze_ and its like write nothing
            self.graph.taken.append((func, *plain, kept))
        return result

    def restore(self) -> None:
        """Put back what there was before."""
        for storage, earlier in self.before.values():
            storage.copy_(earlier)


def _alias(each: Any) -> Any:
    """Return what holds the numbers of a tensor, in the shape that it has now."""
    each = held(each)
    return each.detach() if isinstance(each, Tensor) else each


def _tensors(tree: Any) -> list[Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@contextmanager
def _capture(
    seen: Seen, graph: PretendedGraph, *, stream: PretendedStream, capture_error_mode: str
) -> Iterator[None]:
    seen.wait("synchronize")
    recorder = _Recorder(graph)

    def refuse(*_: object) -> None:
        raise torch.AcceleratorError(REFUSED)

    def check(optimizer: Optimizer, *_: object) -> None:
        if not all(group["capturable"] for group in optimizer.param_groups):
            raise RuntimeError("Attempting CUDA graph capture of step(), capturable is False")

    with ExitStack() as stack:
        stack.callback(recorder.restore)
        stack.callback(register_optimizer_step_pre_hook(check).remove)
        stack.enter_context(mock.patch.object(seen, "wait", refuse))
        stack.enter_context(recorder)
        yield


@contextmanager
def card_that_captures() -> Iterator[tuple[Seen, list[PretendedGraph]]]:
    """Pretend that there is a card; yield what happens on it, and the graphs that were begun."""
    graphs: list[PretendedGraph] = []

    def begun() -> PretendedGraph:
        graphs.append(PretendedGraph())
        return graphs[-1]

    current = PretendedStream()
    with card() as seen, ExitStack() as stack:
        for name, pretended in {
            "Stream": PretendedStream, "stream": lambda stream: nullcontext(),
            "current_stream": lambda device=None: current,
            "CUDAGraph": begun, "graph": partial(_capture, seen),
        }.items():  # fmt: skip
            stack.enter_context(mock.patch(f"torch.cuda.{name}", pretended))
        yield seen, graphs
