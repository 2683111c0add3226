"""What is simulated is the rule of studies, and ``benchmarks/looks.py`` prints it."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from simulated import (
    CHUNK,
    HALF_SD,
    LIMITS,
    OPEN,
    SHAPES,
    Stopped,
    design,
    estimate,
    families,
    normal,
    stopping,
)

from sagan_bench.analysis.sequential import Stop, courses
from sagan_bench.analysis.verdicts import Runs

BENCHMARK = Path(__file__).parents[2] / "benchmarks/looks.py"


def test_families_are_drawn_in_bounded_parts_and_begin_alike_however_many() -> None:
    parts = list(families(normal, 2, 5, CHUNK + 7, key=1, effect=3.0))
    assert [len(part) for part in parts] == [CHUNK, 7]
    whole = np.concatenate(parts)
    assert (whole[:50] == next(families(normal, 2, 5, 50, key=1, effect=3.0))).all()
    assert not (whole[:7] == whole[CHUNK:]).any()
    assert whole.mean((0, 2)) == pytest.approx([0, 3, 3], abs=0.05)


def test_the_error_of_a_share_is_that_of_a_binomial() -> None:
    share = estimate([np.ones(20, bool), np.zeros(80, bool)])
    assert share == pytest.approx((0.2, np.sqrt(0.2 * 0.8 / 99)))


@pytest.mark.parametrize("futility", [True, False])
def test_families_stop_where_and_as_studies_do(futility: bool) -> None:
    (groups,) = families(normal, 2, 20, 12, key=7, effect=0.7)
    of, futile = design(2, futility=futility), 0
    ends = Stopped(groups, HALF_SD, of)
    for place, runs in enumerate(groups):
        outcomes: dict[str, Runs] = {
            name: dict(enumerate(values.tolist()))
            for name, values in zip(("base", "a", "b"), runs, strict=True)
        }
        pairs = [("a", "base"), ("b", "base")]
        for pair, course in enumerate(courses(outcomes, pairs, HALF_SD, of, range(20))):
            look = course.decisive
            assert look
            assert look.n == ends.seeds[place, pair]
            assert look.comparison.verdict == ends.said[place, pair]
            assert look.comparison.interval == pytest.approx(
                (ends.low[place, pair], ends.high[place, pair])
            )
            assert (course.why is Stop.FUTILE) == ends.futile[place, pair]
            futile += course.why is Stop.FUTILE
    assert 0 < futile < 24 if futility else futile == 0
    assert len(np.unique(ends.said)) > 1


def test_a_baseline_gets_as_many_seeds_as_its_last_pair() -> None:
    (groups,) = families(normal, 4, 20, 30, key=7, effect=1.0)
    ends = Stopped(groups, HALF_SD, design(4))
    figures = ends.figures(1.0)
    assert figures.seeds == pytest.approx([(sum(n) + sorted(n)[-1]) / 5 for n in ends.seeds])
    at_the_end = np.isin(ends.said, OPEN) & ~ends.futile
    said = figures.better + figures.worse + figures.same + figures.futile
    assert said + at_the_end.mean(-1) == pytest.approx(np.ones(30))


def test_the_benchmark_has_a_row_for_all_that_is_simulated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main = runpy.run_path(str(BENCHMARK))["main"]
    main(repeats=20)
    shown = capsys.readouterr().out
    main(repeats=20, as_json=True)
    result = json.loads(capsys.readouterr().out)
    assert result["repeats"] == 20
    assert result["cpu"]
    errors, _, stops = result["tables"].values()
    assert [row["runs"] for row in errors] == [*SHAPES, *LIMITS]
    assert [*errors[0]] == ["runs", "m = 1", "m = 4", "m = 8"]
    ends = next(row for row in stops if (row["sd"], row["m"]) == (2.0, 4))
    mean, error = ends["seeds a side"]
    assert (mean, error) == stopping(2.0, 4, 20).seeds
    assert f"| 2.0 | 4 | {mean:.3f} ± {error:.3f} |" in shown
