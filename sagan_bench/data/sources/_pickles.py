"""Pickled dictionaries of arrays, numbers and texts, read without trusting a byte of them.

The unpickler of Python makes room for whatever a file says, and NumPy takes a type with whatever
flags: one flipped bit of either can cost 17 GB, or the process. So the opcodes are looked through
first, and arrays are made here, of the bytes that are there.
"""

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FIXED = {
    pickle.PROTO: 1, pickle.FRAME: 8, pickle.BININT: 4, pickle.BININT1: 1, pickle.BININT2: 2,
    pickle.BINFLOAT: 8, pickle.BINPUT: 1, pickle.LONG_BINPUT: 4, pickle.BINGET: 1,
    pickle.LONG_BINGET: 4,
} | dict.fromkeys((
    pickle.MARK, pickle.STOP, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.EMPTY_DICT,
    pickle.EMPTY_LIST, pickle.EMPTY_TUPLE, pickle.APPEND, pickle.APPENDS, pickle.SETITEM,
    pickle.SETITEMS, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.MEMOIZE,
    pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD,
), 0)  # fmt: skip
_COUNTED = {
    pickle.SHORT_BINSTRING: 1, pickle.SHORT_BINBYTES: 1, pickle.SHORT_BINUNICODE: 1,
    pickle.LONG1: 1, pickle.BINSTRING: 4, pickle.BINBYTES: 4, pickle.BINUNICODE: 4,
    pickle.BINBYTES8: 8, pickle.BINUNICODE8: 8, pickle.BYTEARRAY8: 8,
}  # fmt: skip
_SHAPES = {code[0]: (width, False) for code, width in _FIXED.items()} | {
    code[0]: (width, True) for code, width in _COUNTED.items()
}
"""By opcode the bytes of what follows it, or those of the count of what follows."""
_PUTS = (pickle.BINPUT[0], pickle.LONG_BINPUT[0])
_STOP, _GLOBAL, _FRAME = pickle.STOP[0], pickle.GLOBAL[0], pickle.FRAME[0]

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
    place = opcodes = 0
    while place < len(data):
        code, place, opcodes = data[place], place + 1, opcodes + 1
        if code == _STOP:
            return
        if code == _GLOBAL:
            place = _behind_a_line(data, _behind_a_line(data, place))
            continue
        if code not in _SHAPES:
            raise pickle.UnpicklingError(f"it holds {bytes([code])!r} at byte {place - 1}")
        width, counts = _SHAPES[code]
        value = int.from_bytes(data[place : place + width], "little")
        place += width
        if counts:
            place += value
        # A memo has no more entries than there were opcodes that made something to be kept.
        elif (code in _PUTS and value > opcodes) or (code == _FRAME and place + value > len(data)):
            raise pickle.UnpicklingError(f"it counts to {value} at byte {place - width}")
    raise pickle.UnpicklingError("it ends in the middle")


def _behind_a_line(data: bytes, place: int) -> int:
    end = data.find(b"\n", place)
    return len(data) if end < 0 else end + 1


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
