"""One grammar of seeds, wherever they are asked for."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sagan_bench.config import seeds
from sagan_bench.config.layers import read
from sagan_bench.experiments import studies

READ = [("0-4", (0, 1, 2, 3, 4)), ("0,2,7-8", (0, 2, 7, 8)), (" 3 ", (3,)), ("4, 1", (4, 1))]
OTHERS = [
    "", "a", "4-0", "1,1", "0-", "-1", "1;2", "0-99999999999", "0-9999,10000", "1-", "3-1",
    "9223372036854775808", "9" * 5000, "\N{SUPERSCRIPT TWO}",
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), READ)
def test_they_are_read_alike(text: str, expected: tuple[int, ...], tmp_path: Path) -> None:
    assert seeds.several(text) == expected
    config = read(sets=[f"evaluation.sampling_seeds={text}"]).config
    assert config.evaluation.sampling_seeds == expected
    file = tmp_path / "mine.toml"
    file.write_text(
        f'question = "?"\nbaseline = "no-attention"\nvariants = ["sagan"]\nseeds = "{text}"\n'
        '[on.twins]\nmetric = "twin_rate"\nmin_effect = 1\n'
    )
    assert studies.load(str(file)).seeds == expected


@pytest.mark.parametrize("text", OTHERS)
def test_others_are_refused_before_they_are_made(text: str) -> None:
    with pytest.raises(ValueError, match=r"seeds|goes down"):
        seeds.several(text)
    with pytest.raises(ValueError, match="expected a whole number from 0"):
        seeds.single(text)


@pytest.mark.parametrize("given", [[True, 2], [1.0, 2], ["0-2"], [None], [[1]]])
def test_a_list_has_whole_numbers_and_says_how_ranges_are_written(given: list[Any]) -> None:
    with pytest.raises(ValueError, match=r'whole numbers in a list of seeds; ranges .* "0-4"'):
        seeds.several(given)
    assert seeds.several(np.array([1, 4]).tolist()) == [1, 4]
    assert seeds.several([np.int64(3)]) == [3]


def test_where_one_is_meant_several_are_refused_with_what_would_do() -> None:
    assert seeds.single("7") == seeds.single([7]) == 7
    said = {
        "0-4": ("0-4", "0 1 2 3 4"), "1,2": ("1,2", "1 2"), "0-99": ("0-99", "$(seq 0 99)"),
        "7,3,9": ("7,3,9", "7 3 9"),
    }  # fmt: skip
    for text, (given, each) in said.items():
        advice = f"ablate --seeds {given}, or the command once for each: for s in {each}; do "
        with pytest.raises(ValueError, match=re.escape(advice)):
            seeds.single(text)
    with pytest.raises(ValueError, match=r"ablate --seeds 7, or .* in 7; do"):
        seeds.single([7, 7])
    for none in (True, 3.0, "3.5", [True], [3.0]):
        with pytest.raises(ValueError, match="expected a whole number from 0"):
            seeds.single(none)
    for other in ([0, 1], (), ["a", "b", "c"], [None] * 3):
        with pytest.raises(ValueError, match="one seed is meant here"):
            seeds.single(other)
