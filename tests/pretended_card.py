"""A pretended accelerator on a machine without one: numbers of the CPU, rules of a card.

    with card(count=2) as seen: ...  # torch.cuda.is_available() is True within

A tensor on the card is an `OnCard`: it says that it is on ``cuda:0`` and holds a tensor of the CPU.
An operation on tensors of several devices raises, as on a card; numbers of 0 dimensions may join.
`Seen` has, by line of this project, what waits for the card and what is sent to it without waiting;
and on which cards something was opened.

It cannot see what C++ chooses by device, for C++ sees tensors of the CPU: kernels and their errors,
the backend of scaled_dot_product_attention, autocast's list of a GPU, TF32, streams and races,
pinned memory that is freed too soon, capture (see `pretended_graph`), memory and its end, compiled
and exported programs, generators of a card, NCCL.
"""

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from unittest import mock

import torch
from torch.optim import swa_utils
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map

HOST = torch.device("cpu")
PACKAGE = "/sagan_bench/"
MAY_MIX = {"aten::copy_", "aten::index", "aten::index_put_", "aten::_index_put_impl_"}
READ_BY_HOST = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal",
    "aten::_unique2", "aten::unique_dim", "aten::masked_select", "aten::repeat_interleave",
}  # fmt: skip
"""Their results, or the shapes of these, are needed on the host."""
FROM_DATA = {torch.tensor, torch.as_tensor, torch.asarray}
FACTORIES = FROM_DATA | {
    getattr(torch, name)
    for name in (
        "empty", "zeros", "ones", "full", "rand", "randn", "randint", "randperm", "arange",
        "linspace", "eye", "empty_strided", "scalar_tensor", "empty_like", "zeros_like",
        "ones_like", "full_like", "rand_like", "randn_like",
    )
}  # fmt: skip


@dataclass
class Seen:
    """What happened between host and card.

    Attributes:
        waits: (kind, line) -> how often the host waited for the card, or for a copy to it.
        sent: line -> how often something was sent without waiting.
        opened: the indices of cards on which something was opened or laid.
    """

    waits: Counter[tuple[str, str]] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    opened: set[int] = field(default_factory=set)

    def wait(self, kind: str) -> None:
        """Note a wait, at the line of this project that caused it."""
        self.waits[kind, _line()] += 1

    def clear(self) -> None:
        """Forget what happened so far, but for what is open."""
        self.waits.clear()
        self.sent.clear()


def _line() -> str:
    for frame in reversed(traceback.extract_stack()):
        if PACKAGE in frame.filename:
            return f"{frame.filename.rpartition(PACKAGE)[2]}:{frame.lineno}"
    return "elsewhere"


class MixedDevicesError(RuntimeError):
    """An operation on tensors of several devices."""


class OnCard(torch.Tensor):
    """A tensor that says it is on a card; ``elem`` is what it holds, on the CPU."""

    elem: torch.Tensor
    place: torch.device
    seen: Seen

    @staticmethod
    def __new__(cls, elem: torch.Tensor, place: torch.device, seen: Seen) -> Self:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            elem.shape,
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            layout=elem.layout,
            device=HOST,
        )
        made.elem, made.place, made.seen = elem, place, seen
        seen.opened.add(place.index)
        return made

    def __init__(self, *_: object) -> None: ...

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return self.place.type == "cuda"

    def numpy(self, *_: object, **__: object) -> Any:
        raise TypeError(f"can't convert {self.place} device type tensor to numpy")

    __array__ = numpy

    def __reduce_ex__(self, protocol: Any) -> Any:
        return held(self.detach()).__reduce_ex__(protocol)  # as what torch.load puts on the CPU

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"OnCard({tuple(self.shape)}, {self.dtype}, {self.place})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        ours = [each for each in tensors if isinstance(each, OnCard)]
        theirs = [each for each in tensors if not isinstance(each, OnCard) and each.dim()]
        place, seen, name = ours[0].place, ours[0].seen, func._schema.name
        _refuse_mixing(name, ours, theirs)
        if name in READ_BY_HOST:
            seen.wait("read")
        elif theirs and name == "aten::copy_":
            seen.wait("to the card" if isinstance(args[0], OnCard) else "to the host")
        elif theirs and name in MAY_MIX:
            seen.wait("indices to the card")
        elif name in MAY_MIX - {"aten::copy_"} and any(
            each.dtype in (torch.bool, torch.uint8) for each in ours[1:]
        ):
            seen.wait("read")  # how many are chosen
        known = {id(each.elem): each for each in ours}

        def wrapped(out: Any) -> Any:
            if not isinstance(out, torch.Tensor):
                return out
            if name == "aten::copy_" and not isinstance(args[0], OnCard):
                return out
            return known[id(out)] if id(out) in known else OnCard(out, place, seen)

        found = func(*tree_map(held, args), **tree_map(held, kwargs))
        if torch.Tag.inplace_view in func.tags:  # squeeze_ and its like change what a tensor is
            with no_dispatch():
                func(*args, **kwargs)
        return tree_map(wrapped, found)


def held(each: Any) -> Any:
    return (
        HOST if isinstance(each, torch.device) else each.elem if isinstance(each, OnCard) else each
    )


def _refuse_mixing(name: str, ours: list[OnCard], theirs: list[torch.Tensor]) -> None:
    if torch._C._current_graph_task_id() != -1:
        # Within a backward pass C++ makes zeros of its own on the device of what is on a card, and
        # that says CPU here.
        theirs = [each for each in theirs if each.any()]
    places = {each.place for each in ours if each.dim()}
    if (theirs and name not in MAY_MIX) or len(places) > 1:
        shapes = [tuple(each.shape) for each in theirs]
        raise MixedDevicesError(f"{name}: tensors of {places}, and of the CPU: {shapes}")


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, place: torch.device, seen: Seen) -> torch.Tensor:
        copied = held(x.detach()).clone(memory_format=torch.preserve_format)
        return OnCard(copied, place, seen)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0].elem, None, None


class _Fetch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: OnCard) -> torch.Tensor:
        ctx.place, ctx.seen = x.place, x.seen
        return x.elem.clone(memory_format=torch.preserve_format)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return OnCard(gradients[0], ctx.place, ctx.seen)


class _Devices(TorchFunctionMode):
    """Answers for the devices that Python code names."""

    def __init__(self, name: str, seen: Seen, current: "list[int]") -> None:
        super().__init__()
        self.name, self.seen, self.current = name, seen, current

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.Tensor.to, torch.Tensor.cuda, torch.Tensor.cpu):
            return self._moved(func, args, kwargs)
        if func is torch.Tensor.pin_memory:
            return self._pinned(args[0].clone())
        if func is torch.Tensor.is_pinned:
            return getattr(args[0], "pretends_to_be_pinned", False)
        if func is torch.Tensor.tolist and isinstance(args[0], OnCard):
            self.seen.wait("read")
            return held(args[0].detach()).tolist()
        if kwargs.pop("pin_memory", False):
            return self._pinned(func(*args, **kwargs))
        if kwargs.get("device") is not None and (
            func in FACTORIES or func.__name__.startswith("new_")
        ):
            return self._made(func, args, kwargs)
        return func(*args, **kwargs)

    def _pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        self.seen.opened.add(self.current[0])  # pinned memory belongs to the current card
        tensor.pretends_to_be_pinned = True  # type: ignore[attr-defined]
        return tensor

    def _place(self, device: Any) -> torch.device:
        """Return a device with its index; a number alone is a card's."""
        if isinstance(device, int):
            return torch.device(self.name, device)
        if isinstance(device, torch.Tensor):
            return device.device
        place = torch.device(device)
        if place.type == self.name and place.index is None:
            return torch.device(self.name, self.current[0])
        return place

    def _made(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        place = self._place(kwargs.pop("device"))
        if place.type not in (self.name, "cpu"):
            return func(*args, device=place, **kwargs)
        if place.type == self.name:
            if kwargs.get("generator") is not None:
                raise RuntimeError("Expected a generator of the card but found one of the CPU")
            if func in FROM_DATA:
                self.seen.wait("to the card")
        like_ours = bool(args) and isinstance(args[0], OnCard)
        with torch._C.DisableTorchFunction():
            made = func(*args, **kwargs) if like_ours else func(*args, device=HOST, **kwargs)
        inner = held(made.detach())
        if place.type != self.name:
            return inner
        return OnCard(inner, place, self.seen).requires_grad_(made.requires_grad)

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensor, *rest = args
        waits = not kwargs.pop("non_blocking", False)
        place, rest = self._asked(func, rest, kwargs)
        if place is not None and place != tensor.device:
            if place.type == self.name:
                pinned = getattr(tensor, "pretends_to_be_pinned", False)
                if waits or not (pinned or isinstance(tensor, OnCard)):
                    self.seen.wait("to the card")
                else:
                    self.seen.sent[_line()] += 1
                tensor = _Send.apply(tensor, place, self.seen)
            elif isinstance(tensor, OnCard):
                self.seen.wait("to the host")
                tensor = _Fetch.apply(tensor)
            else:
                return func(tensor, place, *rest, **kwargs)
        given = {key: value for key, value in kwargs.items() if value is not None}
        dtype = next((each for each in rest if isinstance(each, torch.dtype)), None)
        if dtype is not None:
            given["dtype"] = dtype
        return tensor.to(**given) if given else tensor

    def _asked(
        self, func: Any, rest: list[Any], kwargs: dict[str, Any]
    ) -> tuple[torch.device | None, list[Any]]:
        """Return where a tensor shall go, None if it stays, and what else is asked of it."""
        if func is torch.Tensor.cuda:
            return self._place(self.name), []
        if func is torch.Tensor.cpu:
            return HOST, []
        device = kwargs.pop("device", None)
        if rest and not isinstance(rest[0], bool | torch.dtype):
            device, *rest = rest
        if isinstance(device, torch.Tensor):  # as another tensor is
            rest.append(device.dtype)
        return None if device is None else self._place(device), rest


def _patches(seen: Seen, current: list[int], count: int, gib: float) -> dict[str, Any]:
    """Return what ``torch.cuda`` answers on a machine with cards that nobody has started."""
    started: list[bool] = []

    def index_of(device: Any) -> int:
        index = device if isinstance(device, int) else torch.device(device or "cuda").index
        return current[0] if index is None else index

    def starting(answer: Any) -> Callable[..., Any]:
        def asked(device: Any = None) -> Any:
            started.append(True)
            return answer

        return asked

    def opening(answer: Any) -> Callable[..., Any]:
        def asked(device: Any = None) -> Any:
            started.append(True)
            seen.opened.add(index_of(device))
            return answer

        return asked

    def set_device(device: Any) -> None:
        current[0] = index_of(device)
        opening(None)(device)

    def reset_peak(device: Any = None) -> None:
        if torch.device(device or "cuda").index is None:  # told an index, torch does not start it
            started.append(True)
        if not started:
            raise RuntimeError("Invalid device argument")

    room = int(gib * 2**30)
    return {
        "is_available": lambda: True,
        "device_count": lambda: count,
        "is_initialized": lambda: bool(started),
        "current_device": lambda: current[0],
        "init": starting(None),
        "get_device_capability": starting((9, 0)),
        "get_device_name": starting("Pretended card"),
        "set_device": set_device,
        "mem_get_info": opening((room, room)),
        "synchronize": lambda device=None: seen.wait("synchronize"),
        "empty_cache": lambda: None,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": reset_peak,
    }


@contextmanager
def card(name: str = "cuda", *, count: int = 1, gib: float = 80.0) -> Iterator[Seen]:
    """Pretend that there are ``count`` devices of type ``name``, of so much memory each.

    Within, in this thread: tensors may be sent there.  ``torch.cuda`` answers for them if that is
    what they are called.
    """
    seen, current = Seen(), [0]
    real_autocast = torch.autocast.__init__
    by_device = swa_utils._group_tensors_by_device_and_dtype  # type: ignore[attr-defined]

    def autocast(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        real_autocast(self, "cpu" if device_type == name else device_type, *args, **kwargs)

    def grouped(lists: Any, with_indices: bool = False) -> Any:  # by this AveragedModel sends
        return {
            (getattr(value[0][0][0], "place", key[0]), key[1]): value
            for key, value in by_device(lists, with_indices).items()
        }

    swapped = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, swapped)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        patches = _patches(seen, current, count, gib) if name == "cuda" else {}
        for function, answer in patches.items():
            stack.enter_context(mock.patch(f"torch.cuda.{function}", answer))
        stack.enter_context(mock.patch.object(torch.autocast, "__init__", autocast))
        stack.enter_context(
            mock.patch.object(swa_utils, "_group_tensors_by_device_and_dtype", grouped)
        )
        for check in (
            "_accelerator_graph_capture_health_check",
            "_cuda_graph_capture_health_check",
        ):
            if hasattr(torch.optim.Optimizer, check):  # asks C++ whether it is being captured
                stack.enter_context(mock.patch.object(torch.optim.Optimizer, check))
        stack.enter_context(_Devices(name, seen, current))
        yield seen
