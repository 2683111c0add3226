"""Images as they are scored: exactly so many, finite, rounded."""

import math

import pytest
import torch
from example_scores import sample
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sagan_bench.data.pixels import normalise, quantise
from sagan_bench.evaluation.sampling import NonFiniteImages, sample_images


@given(n=st.integers(1, 9), batch=st.integers(1, 12), seed=st.integers(0, 3))
def test_n_is_exact_and_the_batch_changes_nothing(n: int, batch: int, seed: int) -> None:
    asked: list[tuple[int, int, int]] = []
    done: list[int] = []

    def watched(seed: int, start: int, stop: int) -> Tensor:
        asked.append((seed, start, stop))
        return sample(seed, start, stop)

    images = sample_images(watched, n, seed, batch, done.append)
    assert torch.equal(images, quantise(sample(seed, 0, n)))
    assert images.dtype == torch.uint8
    assert sum(done) == n
    assert [i for _, start, stop in asked for i in range(start, stop)] == list(range(n))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("index", [0, 5, 9])
def test_the_first_image_that_is_not_finite_is_named(bad: float, index: int) -> None:
    def broken(seed: int, start: int, stop: int) -> Tensor:
        images = sample(seed, 0, 10)
        images[index, 1, 3, 3] = bad
        images[9, 0, 0, 0] = math.nan
        return images[start:stop]

    with pytest.raises(NonFiniteImages, match=f"generated image {index} is not finite") as caught:
        sample_images(broken, 10, 0, 4)
    assert caught.value.index == index


def test_every_level_survives_the_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(quantise(normalise(levels)), levels)
    assert normalise(levels)[[0, 255]].tolist() == [-1.0, 1.0]


def test_pixels_are_rounded_not_truncated() -> None:
    levels = torch.tensor([-0.6, 0.4, 0.6, 127.5, 100.49, 254.7, 260.0], dtype=torch.float64)
    images = (levels / 127.5 - 1).float()
    assert quantise(images).tolist() == [0, 0, 1, 128, 100, 255, 255]
    assert quantise(torch.tensor(5 / 256, dtype=torch.bfloat16)).item() == 130  # not 129
