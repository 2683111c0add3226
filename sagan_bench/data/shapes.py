"""The procedural data set ``twins``: two shapes far apart that agree in class, hue and size.

An image of ``twins`` has a pale two-tone gradient behind one shape in its left half and one in its
right half. Class, hue and size are drawn once for both; position and rotation once for each. Every
random number is a hash of (seed, index, name of the number), so that any image can be had alone and
batching, threads and order change nothing. Lengths and areas are in units of the image's side: the
same parameters give the same picture at every size.

:func:`recolour_right` and :func:`swap_right` break the rule on purpose, for calibration.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

TWINS_VERSION: int = 1
"""Raised whenever any byte of any image changes."""
TRAIN_IMAGES = 50_000
"""The training images are indices 0 to 49,999."""
TEST_IMAGES = 10_000
"""The test images are indices 50,000 to 59,999."""

RADIUS = (0.145, 0.195)
"""Range of the radius of the circle around a shape; no shape leaves it at any rotation."""
MARGIN = 0.045
"""Least gap between that circle and the image's border or middle line (1.4 pixels at 32 px)."""
SATURATION, VALUE = 0.9, 0.9
"""HSV saturation and value of every shape: its chroma, max(RGB) - min(RGB), is 0.81."""
PALE_SATURATION, PALE_VALUE = (0.02, 0.12), (0.86, 1.0)
"""Ranges of the two background tones: their chroma stays below 0.12."""

Floats = NDArray[np.float64]
Pixels = NDArray[np.floating]  # float32

_STREAMS = (  # a stream's number is its place: add at the end only
    *("label", "hue", "radius"),
    *("left-x", "left-y", "left-rotation", "right-x", "right-y", "right-rotation"),
    *("first-hue", "first-saturation", "first-value"),
    *("second-hue", "second-saturation", "second-value", "gradient"),
    *("altered", "new-hue", "new-class"),
)
_CHUNK_PIXELS = 2**18  # keeps the temporaries of one class within a core's cache


def _disc(u: Pixels, v: Pixels) -> Pixels:
    return np.sqrt(u * u + v * v) - 1


def _ring(u: Pixels, v: Pixels) -> Pixels:
    return np.abs(np.sqrt(u * u + v * v) - 0.76) - 0.24


def _square(u: Pixels, v: Pixels) -> Pixels:
    return np.maximum(np.abs(u), np.abs(v)) - 0.5**0.5


def _box(u: Pixels, v: Pixels, half_length: float) -> Pixels:
    """A box whose corners lie on the unit circle; ``u`` and ``v`` are absolute values."""
    return np.maximum(u - half_length, v - (1 - half_length**2) ** 0.5)


def _bar(u: Pixels, v: Pixels) -> Pixels:
    return _box(np.abs(u), np.abs(v), 0.92)


def _cross(u: Pixels, v: Pixels) -> Pixels:
    u, v = np.abs(u), np.abs(v)
    return np.minimum(_box(u, v, 0.97), _box(v, u, 0.97))


def _triangle(u: Pixels, v: Pixels) -> Pixels:
    return np.maximum(-v, np.abs(u) * 0.75**0.5 + v * 0.5) - 0.5


def _star(u: Pixels, v: Pixels) -> Pixels:
    """Five points at radius 1, five notches at 0.5: the plane folded onto half a point."""
    fifth = math.pi / 5
    for angle in (0, 6 * fifth, -fifth, 0):
        cos, sin = math.cos(angle), math.sin(angle)
        beyond = np.minimum(u * cos - v * sin, 0) * 2
        u, v = u - beyond * cos, v + beyond * sin
    run, rise = 0.5 * math.sin(fifth), 1 - 0.5 * math.cos(fifth)
    length = math.hypot(run, rise)
    return u * (rise / length) + (v - 1) * (run / length)


def _heart(u: Pixels, v: Pixels) -> Pixels:
    """A square on its corner and a disc on each upper side, within the unit circle."""
    half_side, lift = 0.5605, 0.207
    centre = half_side * 0.5**0.5
    u, v = np.abs(u), v + lift
    square = (u + np.abs(v)) * 0.5**0.5 - half_side
    return np.minimum(square, np.sqrt((u - centre) ** 2 + (v - centre) ** 2) - half_side)


def _crescent(u: Pixels, v: Pixels) -> Pixels:
    return np.maximum(_disc(u, v), 0.8 - np.sqrt((u - 0.55) ** 2 + v * v))


def _arrow(u: Pixels, v: Pixels) -> Pixels:
    """A triangular head pointing to +v and a shaft."""
    u = np.abs(u)
    head = np.maximum(0.05 - v, (u + v - 1) * 0.5**0.5)
    return np.minimum(head, np.maximum(u - 0.3, np.abs(v + 0.45) - 0.5))


_SHAPES = (_disc, _ring, _square, _triangle, _star, _cross, _heart, _crescent, _bar, _arrow)
"""By label: the signed distance from a shape's edge, in radii of the circle around it."""
CLASSES: tuple[str, ...] = tuple(shape.__name__[1:] for shape in _SHAPES)
"""Names of the shapes, in the order of their labels."""


@dataclass(frozen=True)
class Parameters:
    """What is drawn: ``n`` images, index 0 of an axis of length 2 being left and index 1 right.

    Attributes:
        index: (n,) int64, the images' numbers.
        kind: (n, 2) int64 positions in :data:`CLASSES`; both sides are equal in the data set.
        hue: (n, 2) HSV hues in turns, in [0, 1); both sides are equal in the data set.
        radius: (n,) radii of the circles around the shapes, in sides.
        centre: (n, 2, 2) centres of those circles as (x, y), in sides, y downwards.
        rotation: (n, 2) rotations in radians, in [0, 2 pi).
        tones: (n, 2, 3) RGB colours in [0, 1] at the two ends of the background's gradient.
        gradient: (n,) direction of the gradient in radians.
    """

    index: NDArray[np.int64]
    kind: NDArray[np.int64]
    hue: Floats
    radius: Floats
    centre: Floats
    rotation: Floats
    tones: Floats
    gradient: Floats

    @property
    def label(self) -> NDArray[np.int64]:
        """Class of each image, (n,) int64: that of the left shape."""
        return self.kind[:, 0]


def parameters(index: NDArray[np.integer], *, seed: int) -> Parameters:
    """Return what the images ``index``, (n,) integers of at least 0, show under ``seed``."""
    numbers = np.asarray(index, dtype=np.int64)

    def uniform(stream: str) -> Floats:
        return _uniform(numbers, seed, stream)

    def within(stream: str, low: Floats | float, high: Floats | float) -> Floats:
        return low + np.subtract(high, low) * uniform(stream)

    def tone(end: str) -> Floats:
        hue, saturation = uniform(f"{end}-hue"), within(f"{end}-saturation", *PALE_SATURATION)
        return _rgb(hue, saturation, within(f"{end}-value", *PALE_VALUE))

    kind = (uniform("label") * len(CLASSES)).astype(np.int64)
    radius = within("radius", *RADIUS)
    near = radius + MARGIN
    left = within("left-x", near, 0.5 - near), within("left-y", near, 1 - near)
    right = within("right-x", 0.5 + near, 1 - near), within("right-y", near, 1 - near)
    sides = ("left", "right")
    return Parameters(
        index=numbers,
        kind=np.stack([kind, kind], axis=1),
        hue=np.stack([uniform("hue")] * 2, axis=1),
        radius=radius,
        centre=np.stack([np.stack(left, axis=1), np.stack(right, axis=1)], axis=1),
        rotation=np.stack([within(f"{side}-rotation", 0, 2 * np.pi) for side in sides], axis=1),
        tones=np.stack([tone("first"), tone("second")], axis=1),
        gradient=within("gradient", 0, 2 * np.pi),
    )


def draw(
    index: NDArray[np.integer], *, seed: int, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images, (n, 3, size, size) uint8, and labels, (n,) int64, of the given indices.

    An image depends on (seed, its index, size) alone. Safe to call from several threads.

    Args:
        index: (n,) integers of at least 0, in any order.
        seed: Names the data set; another seed is another set from the same law.
        size: Side of the images in pixels, at least 16.

    Raises:
        ValueError: ``size`` is below 16.
    """
    drawn = parameters(index, seed=seed)
    return render(drawn, size), drawn.label


def render(drawn: Parameters, size: int) -> NDArray[np.uint8]:
    """Return the images, (n, 3, size, size) uint8, that ``drawn`` describes.

    Only correctly rounded operations (+, -, *, /, sqrt) reach the pixels, one element at a time, so
    that bytes depend neither on the batch nor, but for sines of the parameters, on the machine.

    Raises:
        ValueError: ``size`` is below 16: the margin would be thinner than a smoothed edge.
    """
    if size < 16:
        raise ValueError(f"twins are drawn at 16 px or more, not at {size} px")
    count = len(drawn.index)
    images = np.empty((count, 3, size, size), dtype=np.uint8)
    step = max(1, _CHUNK_PIXELS // size**2)
    for start in range(0, count, step):
        rows = slice(start, start + step)
        canvas = _background(drawn.tones[rows], drawn.gradient[rows], size)
        for side in (0, 1):
            _paint(canvas, drawn, rows, side)
        images[rows] = canvas  # truncates: the canvas is half a level brighter
    return images


def recolour_right(drawn: Parameters, share: float, *, seed: int) -> Parameters:
    """Return ``drawn`` with the right shape of a random ``share`` of the images in another hue.

    The new hue is uniform over those at least 60 degrees away. Which images are chosen depends on
    (seed, index) alone, and a larger share only adds to a smaller one's.
    """
    hue = drawn.hue.copy()
    shift = (1 + 4 * _uniform(drawn.index, seed, "new-hue")) / 6
    chosen = _uniform(drawn.index, seed, "altered") < share
    hue[chosen, 1] = (hue[chosen, 1] + shift[chosen]) % 1
    return replace(drawn, hue=hue)


def swap_right(drawn: Parameters, share: float, *, seed: int) -> Parameters:
    """Return ``drawn`` with the right shape of a random ``share`` of the images of another class.

    The new class is uniform over the nine others; radius, hue, position and rotation stay. The same
    images are chosen as by :func:`recolour_right` with the same seed.
    """
    kind = drawn.kind.copy()
    others = len(CLASSES) - 1
    shift = 1 + (_uniform(drawn.index, seed, "new-class") * others).astype(np.int64)
    chosen = _uniform(drawn.index, seed, "altered") < share
    kind[chosen, 1] = (kind[chosen, 1] + shift[chosen]) % len(CLASSES)
    return replace(drawn, kind=kind)


def _uniform(index: NDArray[np.int64], seed: int, stream: str) -> Floats:
    """Return a number in [0, 1) for each index, from SplitMix64 (Steele et al., 2014)."""
    state = np.array([seed % 2**64], dtype=np.uint64)
    for key in (np.uint64(_STREAMS.index(stream)), index.astype(np.uint64)):
        state = _mix(_mix(state) + key)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _rgb(hue: Floats, saturation: float | Floats, value: float | Floats) -> Floats:
    """Return the (n, 3) RGB colours in [0, 1] of n HSV colours, hue in turns."""
    sector = (hue + np.array([[5], [3], [1]]) / 6) % 1 * 6
    return (value * (1 - saturation * np.clip(np.minimum(sector, 4 - sector), 0, 1))).T


def _background(tones: Floats, gradient: Floats, size: int) -> Pixels:
    """Return canvases, (n, 3, size, size), from tone 0 to tone 1, in levels plus one half."""
    across = np.stack([np.cos(gradient), np.sin(gradient)], axis=1)
    across /= np.abs(across).sum(axis=1, keepdims=True)  # tone 1 is reached at the far corner
    slope = 255 * (tones[:, 1] - tones[:, 0])
    middle = 127.5 * (tones[:, 0] + tones[:, 1]) + 0.5
    along = (np.arange(size) + 0.5) / size - 0.5
    x_part = (slope * across[:, :1])[:, :, None] * along + middle[:, :, None]
    y_part = (slope * across[:, 1:])[:, :, None] * along
    return x_part.astype(np.float32)[:, :, None, :] + y_part.astype(np.float32)[:, :, :, None]


def _paint(canvas: Pixels, drawn: Parameters, rows: slice, side: int) -> None:
    """Paint the shapes of one side over ``canvas``, class by class."""
    size = canvas.shape[-1]
    columns = slice(0, (size + 1) // 2) if side == 0 else slice(size // 2, size)
    colour = 255 * _rgb(drawn.hue[rows, side], SATURATION, VALUE) + 0.5
    for number, distance in enumerate(_SHAPES):
        chosen = np.flatnonzero(drawn.kind[rows, side] == number)
        radius = drawn.radius[rows][chosen]
        centre, rotation = drawn.centre[rows, side][chosen], drawn.rotation[rows, side][chosen]
        outside = distance(*_frame(centre, rotation, radius, size, columns))
        pixels_a_radius = (radius * size).astype(np.float32)[:, None, None]
        coverage = np.clip(0.5 - outside * pixels_a_radius, 0, 1)[:, None]
        below = canvas[chosen, :, :, columns]
        above = colour[chosen].astype(np.float32)[:, :, None, None]
        canvas[chosen, :, :, columns] = below + coverage * (above - below)


def _frame(
    centre: Floats, rotation: Floats, radius: Floats, size: int, columns: slice
) -> tuple[Pixels, Pixels]:
    """Return the pixels' coordinates, each (n, rows, columns), in the frame of n shapes."""
    along = (np.arange(size) + 0.5) / size
    x, y = along[columns] - centre[:, :1], along - centre[:, 1:]
    cos, sin = (np.cos(rotation) / radius)[:, None], (np.sin(rotation) / radius)[:, None]
    x_cos, x_sin, y_cos, y_sin = (
        part.astype(np.float32) for part in (x * cos, x * sin, y * cos, y * sin)
    )
    u = x_cos[:, None, :] + y_sin[:, :, None]
    v = y_cos[:, :, None] - x_sin[:, None, :]
    return u, v
