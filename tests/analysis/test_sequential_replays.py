"""Studies until conclusive, replayed from recorded runs by the rule itself: `-m slow`."""

import json
from pathlib import Path

import numpy as np
import pytest

from sagan_bench.analysis.design import Design
from sagan_bench.analysis.sequential import Course, courses
from sagan_bench.analysis.verdicts import Metric, Runs
from sagan_bench.runs.records import RECORD, Record

RECORDS = Path(__file__).parents[2] / "reports/example-quick/records"
REPLAYS = 400


def recorded() -> dict[str, list[float]]:
    """Return the twin_rate of the runs behind the example report, by variant."""
    values: dict[str, list[float]] = {}
    for file in sorted(RECORDS.glob(f"*/{RECORD}")):
        record = Record.model_validate(
            {key: value for key, value in json.loads(file.read_text()).items() if key != "sha256"}
        )
        final = [s.metrics["twin_rate"] for s in record.scores if s.final and s.weights == "ema"]
        values.setdefault(record.variant, []).extend(v for v in final if v is not None)
    return values


def replay(rng: np.random.Generator, shift: float, design: Design) -> Course:
    """Return a study of runs drawn from those recorded, one side's shifted, in standard deviations.

    Residuals of both variants are pooled after they are brought to one spread.
    """
    groups = [np.array(values) for values in recorded().values()]
    residuals = np.concatenate([(x - x.mean()) / x.std(ddof=1) for x in groups])
    ours, theirs = rng.choice(residuals, (2, design.most))
    outcomes: dict[str, Runs] = {
        "a": dict(enumerate((ours + shift).tolist())), "base": dict(enumerate(theirs.tolist())),
    }  # fmt: skip
    metric = Metric("twin_rate", "higher", min_effect=0.5)
    (course,) = courses(outcomes, [("a", "base")], metric, design, range(design.most))
    return course


def test_the_example_would_have_been_conclusive_at_its_first_look() -> None:
    values = recorded()
    outcomes: dict[str, Runs] = {name: dict(enumerate(of)) for name, of in values.items()}
    metric = Metric("twin_rate", "higher", min_effect=0.05)
    pair, design = ("sagan", "no-attention"), Design(1, 20, 20)
    (course,) = courses(outcomes, [pair], metric, design, range(20))
    assert course.stopped == 0
    comparison = course.looks[0].comparison
    assert comparison.p is not None
    assert comparison.p <= course.looks[0].price
    assert comparison.interval is not None
    assert comparison.interval[0] == pytest.approx(0.073, abs=0.001)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [2.0, 0.0])
def test_replays_of_recorded_runs_are_decided_early_and_rarely_wrongly(shift: float) -> None:
    rng, design = np.random.default_rng(int(shift)), Design(1, 20, 20)
    replays = [replay(rng, shift, design) for _ in range(REPLAYS)]
    claims = [
        course for course in replays
        if course.decisive and course.decisive.is_conclusive
        and course.decisive.comparison.verdict and course.decisive.comparison.verdict.is_claim
    ]  # fmt: skip
    early = [course for course in claims if course.stopped is not None and course.stopped <= 1]
    print(f"shift {shift}: claims {len(claims)}, by the second look {len(early)} of {REPLAYS}")
    if shift:
        assert len(early) >= 0.9 * REPLAYS
        assert all(
            course.decisive.comparison.verdict.is_better  # type: ignore[union-attr]
            for course in claims
        )
    else:
        assert len(claims) <= 0.06 * REPLAYS
