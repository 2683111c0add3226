import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sagan_bench.data import shapes
from sagan_bench.data.shapes import CLASSES, Parameters, draw, parameters, render

MANY = parameters(np.arange(20_000), seed=0)
FEW = parameters(np.arange(200), seed=0)
WHOLE = draw(np.arange(300), seed=5, size=16)
GOLDEN_LABELS = [1, 4, 3, 9, 2, 8, 4, 2]
GOLDEN_HASH = "292b8196ac812431c16142ca29bc47791980d31eab3d9057a6f23d4e9b44fe9e"


def chroma(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images.max(axis=1) - images.min(axis=1)


def every_class(drawn: Parameters, number: int) -> Parameters:
    return replace(drawn, kind=np.full_like(drawn.kind, number))


def turned(drawn: Parameters, by: float) -> Parameters:
    return replace(drawn, rotation=drawn.rotation + by)


def test_bytes_are_pinned_by_version() -> None:
    images, labels = draw(np.arange(8), seed=0, size=32)
    assert labels.tolist() == GOLDEN_LABELS
    assert hashlib.sha256(images.tobytes()).hexdigest() == GOLDEN_HASH
    assert shapes.TWINS_VERSION == 1  # raise it with the hash


def test_types_and_split() -> None:
    images, labels = draw(np.array([7, 3]), seed=1, size=33)
    assert images.shape == (2, 3, 33, 33)
    assert images.dtype == np.uint8
    assert labels.shape == (2,)
    assert labels.dtype == np.int64
    assert len(CLASSES) == len(set(CLASSES)) == 10
    assert (shapes.TRAIN_IMAGES, shapes.TEST_IMAGES) == (50_000, 10_000)


@given(st.lists(st.integers(0, 299), min_size=1, max_size=8))
def test_any_image_can_be_drawn_alone(order: list[int]) -> None:
    images, labels = draw(np.array(order), seed=5, size=16)
    assert np.array_equal(images, WHOLE[0][order])
    assert np.array_equal(labels, WHOLE[1][order])


def test_chunks_and_threads_change_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_CHUNK_PIXELS", 7 * 16**2)
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda part: draw(part, seed=5, size=16), np.split(np.arange(300), 10))
    assert np.array_equal(np.concatenate([images for images, _ in parts]), WHOLE[0])


def test_seeds_and_indices_give_distinct_images() -> None:
    images = np.concatenate([draw(np.arange(1000), seed=s, size=16)[0] for s in (0, 1, -1)])
    assert len({image.tobytes() for image in images}) == 3000


def test_no_image_of_the_test_split_is_in_the_training_split() -> None:
    radius = parameters(np.arange(60_000), seed=0).radius
    assert len(np.unique(radius)) == 60_000


def test_laws_are_uniform() -> None:
    counts = np.bincount(MANY.label, minlength=10)
    assert ((counts - 2000) ** 2 / 2000).sum() < 27.9  # chi-squared, 9 degrees, p = 0.001
    turns = [MANY.hue[:, 0], *(MANY.rotation / (2 * np.pi)).T, MANY.gradient / (2 * np.pi)]
    low, high = shapes.RADIUS
    for value in [*turns, (MANY.radius - low) / (high - low)]:
        counts, _ = np.histogram(value, 20, (0, 1))
        assert counts.sum() == 20_000
        assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # 19 degrees


def test_twins_agree_in_class_and_hue() -> None:
    assert np.array_equal(MANY.kind[:, 0], MANY.kind[:, 1])
    assert np.array_equal(MANY.hue[:, 0], MANY.hue[:, 1])


def test_everything_else_is_independent() -> None:
    cos, sin = np.cos(MANY.rotation), np.sin(MANY.rotation)
    hue = np.exp(2j * np.pi * MANY.hue[:, 0])
    room = 0.5 - MANY.radius - shapes.MARGIN  # positions as shares of what the size leaves
    height = (MANY.centre[:, :, 1] - 0.5) / room[:, None]
    drawn = [MANY.label, hue.real, hue.imag, MANY.radius, *height.T, *cos.T, *sin.T]
    table = np.corrcoef(np.stack(drawn))
    assert np.abs(table - np.eye(len(drawn))).max() < 0.03  # 4.2 / sqrt(20,000)


def test_circles_stay_within_their_half() -> None:
    x, y = MANY.centre[:, :, 0], MANY.centre[:, :, 1]
    near = (MANY.radius + shapes.MARGIN)[:, None] - 1e-12
    assert (x - [0, 0.5] >= near).all()
    assert ([0.5, 1] - x >= near).all()
    assert ((y >= near) & (1 - y >= near)).all()


@pytest.mark.parametrize(("size", "palest"), [(16, 90), (32, 31), (33, 31)])
@pytest.mark.parametrize("number", range(10), ids=CLASSES)
def test_border_and_middle_show_background_only(number: int, size: int, palest: int) -> None:
    """At 16 px a smoothed edge may tint them, but not to foreground."""
    colour = chroma(render(every_class(FEW, number), size))
    assert colour.max(axis=(1, 2)).min() >= 190
    frame = np.ones((size, size), dtype=bool)
    frame[1:-1, 1:-1] = False
    frame[:, (size - 1) // 2 : size // 2 + 1] = True
    assert colour[:, frame].max() <= palest


@pytest.mark.parametrize("number", range(10), ids=CLASSES)
def test_shapes_are_saturated_on_pale_ground(number: int) -> None:
    images = render(every_class(FEW, number), 64)
    colour = chroma(images)
    assert images.min() == 23  # 255 * 0.9 * (1 - 0.9) = 22.95, rounded
    area = (colour > 119).mean(axis=(1, 2)) / 2  # half covered or more; two shapes
    assert area.min() > 0.02
    assert area.max() < 0.13
    smooth = ((colour > 31) & (colour < 205)).mean(axis=(1, 2)) / 2
    assert smooth.max() < 0.04  # the rest is plain background or plain shape


def test_pixels_have_the_hue_of_the_parameters() -> None:
    recoloured = shapes.recolour_right(FEW, 1.0, seed=0)
    images = render(recoloured, 32).astype(float)
    for side, half in enumerate((images[..., :16], images[..., 16:])):
        flat = half.reshape(200, 3, -1)
        brightest = (flat.max(axis=1) - flat.min(axis=1)).argmax(axis=1)
        red, green, blue = flat[np.arange(200), :, brightest].T
        angle = np.degrees(np.arctan2(3**0.5 * (green - blue), 2 * red - green - blue))
        gap = (angle - 360 * recoloured.hue[:, side] + 180) % 360 - 180
        assert np.abs(gap).max() < 2  # the angle in the colour plane and HSV's differ by 1.2


def test_background_is_a_two_tone_gradient() -> None:
    tones = np.array([[[0.9, 0.9, 1.0], [1.0, 0.9, 0.9]]])
    one = replace(parameters(np.array([0]), seed=0), tones=tones, gradient=np.array([0.0]))
    row = render(one, 32)[0, :, 0].astype(int)  # the first row lies above every shape
    assert np.all(np.diff(row[0]) >= 0)
    assert np.all(np.diff(row[2]) <= 0)
    assert row[:, 0].tolist() == [230, 230, 255]
    assert row[:, -1].tolist() == [255, 230, 230]


@pytest.mark.parametrize("number", range(10), ids=CLASSES)
def test_rotation_shows_unless_the_shape_is_round(number: int) -> None:
    drawn = every_class(FEW, number)
    change = np.abs(render(drawn, 32).astype(int) - render(turned(drawn, np.pi / 5.5), 32))
    if CLASSES[number] in ("disc", "ring"):
        assert change.max() <= 1
    else:
        assert change.max(axis=(1, 2, 3)).min() > 50


def test_ten_classes_are_told_apart_at_32_px() -> None:
    """At any rotations, two classes of one size differ by a fifth of the larger's area."""
    turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    posed = replace(
        parameters(np.arange(48), seed=0),
        radius=np.full(48, shapes.RADIUS[0]),
        centre=np.full((48, 2, 2), [[0.27, 0.52], [0.73, 0.5]]),
        rotation=np.stack([turns, turns], axis=1),
    )
    ink = []
    for number in range(10):
        half = chroma(render(every_class(posed, number), 32))[:, :, :16]
        ink.append(np.clip(half.reshape(48, -1) / 206.0 - 0.15, 0, 1))
    for a in range(10):
        for b in range(a):
            difference = np.abs(ink[a][:1, None] - ink[b][None]).sum(axis=2)
            larger = max(ink[a].sum(axis=1).mean(), ink[b].sum(axis=1).mean())
            assert difference.min() / larger > 0.2, (CLASSES[a], CLASSES[b])


def test_sizes_show_the_same_picture() -> None:
    fine = render(FEW, 128).reshape(200, 3, 32, 4, 32, 4).mean(axis=(3, 5))
    difference = np.abs(fine - render(FEW, 32))
    assert difference.mean() < 1.0
    assert difference.max() < 128  # a tip of a shape


def test_too_small_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="16 px or more, not at 15 px"):
        draw(np.arange(1), seed=0, size=15)


@pytest.mark.parametrize(
    ("change", "field"), [(shapes.recolour_right, "hue"), (shapes.swap_right, "kind")]
)
def test_altered_data_change_the_right_shape_only(
    change: Callable[..., Parameters], field: str
) -> None:
    altered = {share: change(MANY, share, seed=3) for share in (0.0, 0.1, 0.3, 1.0)}
    moved = {s: getattr(p, field) != getattr(MANY, field) for s, p in altered.items()}
    for share, which in moved.items():
        assert not which[:, 0].any()
        assert abs(which[:, 1].mean() - share) < 0.01
    assert (moved[0.1] <= moved[0.3]).all()
    assert moved[1.0][:, 1].all()
    others = {name.name for name in fields(Parameters)} - {field}
    assert all(getattr(altered[1.0], name) is getattr(MANY, name) for name in others)
    assert np.array_equal(altered[1.0].label, MANY.label)
    again = change(parameters(np.array([11]), seed=0), 0.3, seed=3)  # random access holds here too
    assert np.array_equal(getattr(again, field)[0], getattr(altered[0.3], field)[11])


def test_new_hues_are_far_and_new_classes_even() -> None:
    hue = shapes.recolour_right(MANY, 1.0, seed=0).hue
    gap = np.abs((hue[:, 0] - hue[:, 1] + 0.5) % 1 - 0.5)
    assert 60 <= 360 * gap.min() < 61
    assert hue.min() >= 0
    assert hue.max() < 1
    kind = shapes.swap_right(MANY, 1.0, seed=0).kind
    counts = np.bincount((kind[:, 1] - kind[:, 0]) % 10, minlength=10)[1:]
    assert counts.min() > 2000
