from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from sagan_bench.data import shapes
from sagan_bench.data.shapes import parameters, render
from sagan_bench.evaluation.coherence import coherence

Images = NDArray[np.uint8]
CONDITIONS = (
    "one_component_each",
    "area_in_range",
    "clear_of_middle",
    "hue_pure",
    "hue_match",
    "area_match",
)
N = 1024
DRAWN = parameters(np.arange(N), seed=0)
REAL = render(DRAWN, 32)
RED, GREEN = (220, 20, 20), (20, 220, 20)


def score(images: Images) -> dict[str, float]:
    """Score images of which every value is defined."""
    scores = coherence(torch.from_numpy(np.ascontiguousarray(images)))
    assert None not in scores.values()
    return {name: value for name, value in scores.items() if value is not None}


def picture(*boxes: tuple[slice, slice, tuple[int, int, int]], side: int = 32) -> Images:
    """Return one image of coloured boxes (rows, columns, RGB) on white."""
    image = np.full((1, 3, side, side), 255, dtype=np.uint8)
    for rows, columns, colour in boxes:
        image[0, :, rows, columns] = np.array(colour, dtype=np.uint8)[:, None, None]
    return image


def met(image: Images) -> set[str]:
    """Return the conditions that one image meets."""
    scores = coherence(torch.from_numpy(image))
    return {name for name in CONDITIONS if scores[name] == 1}


LEFT = (slice(4, 12), slice(4, 12), RED)
RIGHT = (slice(16, 24), slice(20, 28), RED)


# Real images


@pytest.mark.parametrize("size", [32, 33, 64, 128])
def test_real_images_keep_the_rule(size: int) -> None:
    scores = score(render(parameters(np.arange(50_000, 50_400), seed=0), size))
    assert scores["twin_rate"] > 0.99
    assert min(scores[name] for name in CONDITIONS) > 0.99
    assert scores["hue_entropy"] > 0.97  # 400 draws of 36 bins: 0.988 expected
    assert scores["distinct_images"] == 400


@pytest.mark.parametrize("number", range(10), ids=shapes.CLASSES)
def test_every_class_keeps_the_rule(number: int) -> None:
    drawn = parameters(np.arange(500), seed=7)
    scores = score(render(replace(drawn, kind=np.full_like(drawn.kind, number)), 32))
    assert scores["twin_rate"] > 0.99
    assert scores["one_component_each"] == scores["area_in_range"] == scores["hue_pure"] == 1
    assert scores["clear_of_middle"] == scores["hue_match"] == 1


def test_real_positions_and_rotations_are_independent() -> None:
    scores = score(REAL)
    assert abs(scores["position_correlation"]) < 0.1
    assert scores["rotation_correlation"] < 0.1
    assert scores["hue_entropy"] > 0.98
    assert scores["distinct_images"] == N


def test_blur_and_noise_of_a_generator_are_forgiven() -> None:
    pixels = ndimage.gaussian_filter(REAL.astype(np.float32), (0, 0, 0.7, 0.7))
    pixels += np.random.default_rng(0).normal(0, 8, pixels.shape)
    assert score(pixels.clip(0, 255).astype(np.uint8))["twin_rate"] > 0.98


# Degenerate generators: each fails the measure meant for it


def test_a_plain_saturated_image() -> None:
    scores = coherence(torch.from_numpy(picture((slice(0, 32), slice(0, 32), RED)).repeat(9, 0)))
    assert scores["twin_rate"] == scores["area_in_range"] == scores["clear_of_middle"] == 0
    assert scores["distinct_images"] == 1


def test_one_disc_in_the_middle() -> None:
    y, x = np.mgrid[:32, :32] - 15.5
    image = picture()
    image[0, :, x**2 + y**2 < 49] = RED
    assert met(image) == set(CONDITIONS) - {"clear_of_middle"}


def test_a_bar_across_the_middle() -> None:
    image = picture((slice(12, 20), slice(4, 28), RED))
    assert met(image) == set(CONDITIONS) - {"clear_of_middle"}
    assert coherence(torch.from_numpy(image))["twin_rate"] == 0


@pytest.mark.parametrize("kind", ["copy", "mirror"])
def test_right_half_made_from_the_left(kind: str) -> None:
    images = REAL.copy()
    images[..., 16:] = images[..., :16] if kind == "copy" else images[..., 15::-1]
    scores = score(images)
    assert scores["twin_rate"] > 0.99  # the rule alone is fooled
    assert scores["position_correlation"] == pytest.approx(1)
    assert scores["rotation_correlation"] == pytest.approx(1)


@pytest.mark.parametrize("sign", [1, -1])
def test_right_rotation_follows_the_left(sign: int) -> None:
    """Alike or opposite, up to a fixed turn, at other positions."""
    rotation = DRAWN.rotation.copy()
    rotation[:, 1] = sign * rotation[:, 0] + 1
    scores = score(render(replace(DRAWN, rotation=rotation), 32))
    assert scores["rotation_correlation"] > 0.75
    assert abs(scores["position_correlation"]) < 0.1


@pytest.mark.parametrize("number", range(2, 10), ids=shapes.CLASSES[2:])
def test_rotation_is_seen_in_every_class_that_has_one(number: int) -> None:
    drawn = replace(DRAWN, kind=np.full_like(DRAWN.kind, number))
    assert score(render(drawn, 32))["rotation_correlation"] < 0.1
    alike = replace(drawn, rotation=drawn.rotation[:, [0, 0]])
    assert score(render(alike, 32))["rotation_correlation"] > 0.85


def test_right_position_follows_the_left() -> None:
    centre = DRAWN.centre.copy()
    centre[:, 1, 1] = centre[:, 0, 1]
    scores = score(render(replace(DRAWN, centre=centre), 32))
    assert scores["position_correlation"] > 0.98
    assert scores["rotation_correlation"] < 0.1


@pytest.mark.parametrize("count", [1, 2, 10])
@pytest.mark.parametrize("noise", [0, 8])
def test_collapse_to_a_few_images(count: int, noise: int) -> None:
    pixels = np.tile(REAL[:count].astype(float), (500 // count, 1, 1, 1))
    pixels += np.random.default_rng(0).normal(0, noise, pixels.shape)
    scores = coherence(torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)))
    assert scores["twin_rate"] == 1  # the rule alone is fooled
    assert scores["distinct_images"] == count
    entropy = scores["hue_entropy"]
    assert entropy is not None
    assert entropy <= np.log(count) / np.log(36) + 1e-9


def test_every_shape_of_one_hue() -> None:
    scores = score(render(replace(DRAWN, hue=np.zeros_like(DRAWN.hue)), 32))
    assert scores["twin_rate"] > 0.99
    assert scores["hue_entropy"] == 0
    assert scores["distinct_images"] == N


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_right_shapes_recoloured(share: float) -> None:
    scores = score(render(shapes.recolour_right(DRAWN, share, seed=0), 32))
    assert scores["hue_match"] == pytest.approx(1 - share, abs=0.03)
    assert scores["twin_rate"] == pytest.approx(1 - share, abs=0.03)
    assert min(scores[name] for name in CONDITIONS if name != "hue_match") > 0.99


def test_right_shapes_of_another_class_show_by_their_area_alone() -> None:
    scores = score(render(shapes.swap_right(DRAWN, 1.0, seed=0), 32))
    assert 0.35 < scores["area_match"] < 0.45
    assert scores["twin_rate"] == pytest.approx(scores["area_match"], abs=0.01)
    assert min(scores[name] for name in CONDITIONS if name != "area_match") > 0.99


def test_nine_empty_images_of_ten() -> None:
    images = REAL.copy()
    images[np.arange(N) % 10 > 0] = 240
    scores = score(images)
    assert scores["twin_rate"] == pytest.approx(0.1, abs=0.001)  # a share of all images
    assert all(scores[name] == pytest.approx(0.1, abs=0.001) for name in CONDITIONS)
    assert scores["distinct_images"] == 1 + len(REAL[::10])


def test_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 3, 32, 32), dtype=np.uint8)
    scores = score(noise)
    assert scores["twin_rate"] == scores["hue_pure"] == scores["area_in_range"] == 0


def test_empty_images_leave_values_undefined() -> None:
    scores = coherence(torch.full((5, 3, 32, 32), 255, dtype=torch.uint8))
    assert scores["hue_entropy"] is None
    assert scores["position_correlation"] is scores["rotation_correlation"] is None
    assert scores["distinct_images"] == 1
    assert all(scores[name] == 0 for name in ("twin_rate", *CONDITIONS))


@pytest.mark.parametrize("count", [1, 3])
def test_correlations_of_one_image_are_undefined(count: int) -> None:
    scores = coherence(torch.from_numpy(REAL[:1].repeat(count, 0)))
    assert scores["position_correlation"] is scores["rotation_correlation"] is None


# Conditions, one by one, on hand-made pictures


def test_a_hand_made_pair_meets_all() -> None:
    assert met(picture(LEFT, RIGHT)) == set(CONDITIONS)
    assert coherence(torch.from_numpy(picture(LEFT, RIGHT)))["twin_rate"] == 1


def test_a_half_without_a_shape_fails_all() -> None:
    assert met(picture(LEFT)) == set()


@pytest.mark.parametrize(
    ("rows", "single"), [(slice(26, 27), True), (slice(26, 28), False), (slice(24, 32), False)]
)
def test_specks_up_to_half_a_percent_are_ignored(rows: slice, single: bool) -> None:
    specks = (rows, slice(2, 7), RED)  # 5, 10 or 40 of 1,024 pixels
    conditions = met(picture(LEFT, specks, RIGHT))
    assert ("one_component_each" in conditions) is single
    assert conditions >= set(CONDITIONS) - {"one_component_each"}


def test_many_specks_are_not_ignored() -> None:
    image = picture(LEFT, RIGHT)
    image[0, :, 26::2, 0:8:4] = np.array(RED)[:, None, None]  # 6 pixels apart from each other
    assert met(image) == set(CONDITIONS) - {"one_component_each"}


def test_corners_connect() -> None:
    below = (slice(12, 16), slice(12, 14), RED)
    assert "one_component_each" in met(picture(LEFT, below, RIGHT))


def test_halves_of_different_images_do_not_connect() -> None:
    images = np.concatenate([picture(LEFT, RIGHT), picture(), picture(LEFT, RIGHT)])
    assert coherence(torch.from_numpy(images))["twin_rate"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("height", "width", "inside"), [(5, 4, False), (7, 3, True), (17, 12, True), (23, 9, False)]
)
def test_areas_from_two_to_twenty_percent(height: int, width: int, inside: bool) -> None:
    pair = [(slice(4, 4 + height), slice(x, x + width), RED) for x in (2, 18)]
    assert ("area_in_range" in met(picture(*pair))) is inside  # 20, 21, 204, 207 of 1,024


@pytest.mark.parametrize(("left", "right", "clear"), [(15, 17, True), (16, 17, False)])
def test_next_to_the_middle_is_touching(left: int, right: int, clear: bool) -> None:
    image = picture((slice(4, 12), slice(7, left), RED), (slice(4, 12), slice(right, 25), RED))
    assert ("clear_of_middle" in met(image)) is clear
    assert ("clear_of_middle" in met(image[..., ::-1].copy())) is clear


def test_the_middle_column_of_an_odd_side_touches() -> None:
    boxes = [(slice(4, 12), slice(4, 12), RED), (slice(4, 12), slice(17, 25), RED)]
    assert "clear_of_middle" in met(picture(*boxes, side=33))
    boxes[1] = (slice(4, 12), slice(16, 24), RED)
    assert "clear_of_middle" not in met(picture(*boxes, side=33))


@pytest.mark.parametrize(("green", "match"), [(70, True), (80, False)])
def test_hues_within_fifteen_degrees_match(green: int, match: bool) -> None:
    shifted = (slice(16, 24), slice(20, 28), (220, green, 20))  # 14 and 17 degrees from red
    assert ("hue_match" in met(picture(LEFT, shifted))) is match


def test_a_two_coloured_shape_is_not_pure() -> None:
    lower = (slice(8, 12), slice(4, 12), GREEN)
    assert met(picture(LEFT, lower, RIGHT)) == set(CONDITIONS) - {"hue_pure", "hue_match"}


@pytest.mark.parametrize(("height", "match"), [(9, True), (10, False)])
def test_areas_match_below_a_ratio(height: int, match: bool) -> None:
    taller = (slice(16, 16 + height), slice(20, 28), RED)  # 1.125 and exactly 1.25 times
    assert ("area_match" in met(picture(LEFT, taller))) is match


def test_chunks_change_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    before = coherence(torch.from_numpy(REAL[:100]))
    monkeypatch.setattr("sagan_bench.evaluation.coherence._CHUNK_PIXELS", 7 * 32**2)
    assert coherence(torch.from_numpy(REAL[:100])) == before


def test_duplicates_are_found_across_blocks() -> None:
    images = torch.from_numpy(REAL[:700]).repeat(3, 1, 1, 1)
    assert coherence(images)["distinct_images"] == 700


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(0, 3, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 1, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 3, 32, 16, dtype=torch.uint8),
        torch.full((2, 3, 32, 32), float("nan")),
    ],
    ids=["none", "grey", "oblong", "float"],
)
def test_other_tensors_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"takes \(N, 3, S, S\) uint8 images, not"):
        coherence(images)
