"""Pickled dictionaries of arrays, numbers and texts, read without trusting a byte of them.

The unpickler of Python makes room for whatever a file says, and NumPy takes a type with whatever
flags: one flipped bit of either can cost 17 GB, or the process. So the opcodes are looked through
first, and arrays are made here, of the bytes that are there.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_OPCODES = frozenset((
    "PROTO", "FRAME", "BININT", "BININT1", "BININT2", "BINFLOAT", "BINPUT", "LONG_BINPUT",
    "BINGET", "LONG_BINGET", "MARK", "STOP", "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_DICT",
    "EMPTY_LIST", "EMPTY_TUPLE", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "TUPLE", "TUPLE1",
    "TUPLE2", "TUPLE3", "MEMOIZE", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "SHORT_BINSTRING",
    "SHORT_BINBYTES", "SHORT_BINUNICODE", "LONG1", "BINSTRING", "BINBYTES", "BINUNICODE",
    "BINBYTES8", "BINUNICODE8", "BYTEARRAY8",
))  # fmt: skip
"""Those that dictionaries of arrays, numbers and texts need."""

_CODE = re.compile("[biuf][1248]")


def unpickled(data: bytes) -> Any:
    """Return what ``data`` hold; arrays are NumPy's where they stand in a dictionary.

    Raises:
        Exception: Any, where the data are damaged or hostile; none of them has cost memory.
    """
    _check(data)
    content = _Unpickler(data).load()
    if not isinstance(content, dict):
        return content
    return {
        key: value.array if isinstance(value, _Array) else value for key, value in content.items()
    }


def _check(data: bytes) -> None:
    """Raise where ``data`` hold other opcodes than they need, or numbers that cannot be theirs."""
    try:
        for number, (opcode, argument, place) in enumerate(pickletools.genops(data), 1):
            if opcode.name not in _OPCODES:
                raise pickle.UnpicklingError(f"it holds {opcode.name} at byte {place}")
            # A memo has no more entries than there were opcodes that made something to be kept.
            most = {"BINPUT": number, "LONG_BINPUT": number, "FRAME": len(data)}.get(opcode.name)
            if most is not None and int(argument or 0) > most:
                raise pickle.UnpicklingError(f"it counts to {argument} at byte {place}")
    except ValueError as error:
        raise pickle.UnpicklingError(f"it holds no pickle that is whole: {error}") from error


class _Unpickler(pickle.Unpickler):
    """Reads arrays, numbers and texts; anything that could run code is refused."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._encoded = _Encoder(len(data))

    def find_class(self, module: str, name: str) -> Any:
        makers: dict[tuple[str, str], Callable[..., Any] | None] = {
            ("numpy", "ndarray"): None,
            ("numpy", "dtype"): _Type,
            ("_codecs", "encode"): self._encoded,
        }
        for core in ("numpy.core", "numpy._core"):
            makers[f"{core}.multiarray", "_reconstruct"] = _Array
            makers[f"{core}.numeric", "_frombuffer"] = _of_buffer
        if (module, name) not in makers:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        maker = makers[module, name]
        return maker and _Maker(maker)


class _Encoder:
    """Makes bytes of what Python 3 wrote for Python 2 as text; all of them are in the file."""

    def __init__(self, most: int) -> None:
        self._left = most

    def __call__(self, text: str, encoding: str) -> bytes:
        self._left -= len(text)
        if encoding != "latin1" or self._left < 0:
            raise pickle.UnpicklingError(f"it holds texts in {encoding!r} that are not in it")
        return text.encode(encoding)


class _Maker:
    """Something to call, and nothing else: it takes no state."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes what it may only call")


class _Type:
    """In place of NumPy's ``dtype``: plain numbers only."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code, self.order = _text(code), "="
        if not _CODE.fullmatch(self.code):
            raise pickle.UnpicklingError(f"it holds an array of {self.code!r}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1])
        if self.order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("it holds an array of parts")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """In place of an array of NumPy that has not got its state: no more than its bytes."""

    def __init__(self, *_: object) -> None:
        self.array: NDArray[Any] = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, content = state
        self.array = _of_buffer(content, kind, shape, "F" if by_columns else "C").array


def _of_buffer(content: bytes, kind: _Type, shape: tuple[int, ...], order: Any) -> _Array:
    made, dtype = _Array(), kind.dtype
    if not isinstance(content, bytes | bytearray) or math.prod(shape) * dtype.itemsize != len(
        content
    ):
        raise pickle.UnpicklingError("it holds an array that has not as many numbers as it says")
    made.array = np.frombuffer(content, dtype).reshape(shape, order=order)
    return made


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
