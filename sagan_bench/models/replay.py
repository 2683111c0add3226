"""A network that is run again and again on the same inputs while one part of it is changed.

What runs before that part is run once, and what runs after it is known by the order of the calls.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def standing_in(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Within, ``forward`` is called in the place of a module's own."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward  # the class's is seen again


class Around(NamedTuple):
    """What a network does before and after some of its modules."""

    at: int
    """The number of the call with which the first of them began."""
    before: tuple[nn.Module, ...]
    """The outermost modules that had ended by then, each called once."""
    norms: tuple[_BatchNorm, ...]
    """BatchNorm's layers that began later: of all statistics only theirs can change."""

    @contextmanager
    def once(self) -> Iterator[None]:
        """Within, on one batch, what comes before runs once: later calls are given its outputs."""
        with ExitStack() as stack:
            for module in self.before:
                stack.enter_context(standing_in(module, _remembering(module.forward)))
            yield


@torch.no_grad()
def around(network: nn.Module, modules: Sequence[nn.Module], *inputs: Tensor | None) -> Around:
    """Return what a network does around some of its modules, by the order of calls on inputs."""
    calls: list[tuple[nn.Module, bool]] = []
    with ExitStack() as stack:
        for each in network.modules():
            for hook in (
                each.register_forward_pre_hook(lambda m, _given: calls.append((m, True))),
                each.register_forward_hook(lambda m, _given, _made: calls.append((m, False))),
            ):
                stack.callback(hook.remove)
        network(*inputs)
    first = min(calls.index((module, True)) for module in modules)
    made, later = calls[:first], calls[first:]
    begun = [module for module, begins in calls if begins]
    ended = [m for m, begins in made if not begins and begun.count(m) == 1]
    inner = {id(part) for module in ended for part in module.modules() if part is not module}
    norms = dict.fromkeys(m for m, begins in later if begins and isinstance(m, _BatchNorm))
    return Around(first, tuple(m for m in ended if id(m) not in inner), tuple(norms))


def _remembering(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls another once, and then gives copies of the tensor it made."""
    made: list[Any] = []

    def remembered(*given: Any, **named: Any) -> Any:
        if not made:
            made.append(forward(*given, **named))
        kept = made[0]
        return kept.clone() if isinstance(kept, Tensor) else kept

    return remembered
