"""Studies until conclusive on the page: look by look, where each pair stopped and why."""

from typing import Any

import numpy as np
import pytest
from example_findings import findings_of

from sagan_bench.analysis.design import Design
from sagan_bench.analysis.question import Measure
from sagan_bench.analysis.verdicts import Basis, Lost, Verdict
from sagan_bench.report.findings import findings as in_words

RNG = np.random.default_rng(5)
NOISE = 0.02 * RNG.standard_normal((3, 30))
PAIRS = [("sagan", "no-attention"), ("residual", "no-attention")]


def looked(**values: Any) -> Any:
    """Return findings of a study that grows; of each variant, mean and number of runs."""
    rows = {
        name.replace("_", "-"): list(mean + NOISE[i, :n])
        for i, (name, (mean, n)) in enumerate(values.items())
    }
    pairs = [pair for pair in PAIRS if pair[0] in rows]
    design = Design(len(pairs), horizon=20, most=20)
    return findings_of(rows, pairs, design=design, order=tuple(range(20)))


def test_a_decided_pair_has_its_verdict_and_says_when() -> None:
    numbers = looked(no_attention=(0.3, 5), sagan=(0.6, 5))
    (comparison,) = numbers.primary.comparisons
    assert comparison.verdict is Verdict.BETTER_AS_MATTERS
    assert comparison.standing.basis is Basis.CONFIRMATORY
    assert numbers.missing == 0
    (course,) = in_words(numbers).courses
    assert course.sentence == (
        "sagan against no-attention: decided after 5 seeds a side, at 1.1 % for this look; it "
        "stopped early: the difference is likely a little smaller"
    )


def test_an_open_pair_has_no_verdict_and_says_what_it_waits_for() -> None:
    numbers = looked(no_attention=(0.3, 7), sagan=(0.335, 5))
    (comparison,) = numbers.primary.comparisons
    assert comparison.verdict is None
    assert comparison.standing.basis is Basis.PROVISIONAL
    assert comparison.n == comparison.n_baseline == 5  # seeds between looks are not used
    assert numbers.missing == 1 + 3
    words = in_words(numbers)
    assert words.headline[0].startswith("Provisional: 12 runs are over and 4 are still to come")
    assert words.courses[0].sentence.endswith("the look after 8 waits for 4 runs")


def test_pairs_stop_for_themselves_and_share_the_error_as_it_was() -> None:
    numbers = looked(no_attention=(0.3, 8), sagan=(0.6, 5), residual=(0.305, 8))
    decided, still = in_words(numbers).courses
    assert (decided.looks[0].n, decided.stopped, decided.why) == (5, 0, "verdict")
    assert decided.looks[0].price == pytest.approx(0.00562, abs=5e-6)
    assert len(still.looks) == 2
    assert numbers.primary.comparisons[0].verdict is Verdict.BETTER_AS_MATTERS


def test_a_decided_pair_is_told_while_another_is_open() -> None:
    words = in_words(looked(no_attention=(0.3, 5), sagan=(0.6, 5), residual=(0.335, 4)))
    first, *rest = words.headline
    assert "sagan is better than no-attention by as much as matters" in first
    assert rest[-1].startswith("Open: 14 runs are over and 1 are still to come")
    assert "residual against no-attention (provisional: 1 run still to come" in rest[0]


def test_secondary_readings_are_of_the_same_runs_and_without_verdicts() -> None:
    numbers = looked(no_attention=(0.3, 8), sagan=(0.6, 8))
    for reading in numbers.secondary:
        for comparison in reading.comparisons:
            assert comparison.n == 5
            assert comparison.verdict is None


def test_what_has_collapsed_counts_as_diverged() -> None:
    values = {"no-attention": [0.3, 0.31, 0.29, 0.3, 0.28], "sagan": [0.6, 0.61, 0.001, 0.6, 0.59]}
    plain, declared = (
        findings_of(values, PAIRS[:1], Measure(metric="twin_rate", min_effect=0.05, lost=lost))
        for lost in (None, "twin_rate < 0.01")
    )
    assert plain.primary.comparisons[0].n_diverged == 0
    assert declared.primary.comparisons[0].n_diverged == 1
    assert declared.variants[-1].summary.n_diverged == 1
    assert declared.variants[-1].values[2] is None


@pytest.mark.parametrize("lost", ["fid", "fid > many", "fid >= 3", "> 3", "fid > nan", "fid = 3"])
def test_a_rule_of_collapse_that_cannot_be_is_refused(lost: str) -> None:
    with pytest.raises(ValueError, match="expected a metric, < or >, and a number"):
        Measure(metric="fid", min_effect=1, lost=lost)


def test_a_failed_run_holds_up_its_look_and_is_named() -> None:
    lost: list[float | Lost] = [0.6, 0.6, 0.6, 0.6, Lost.FAILED]
    values: dict[str, list[float | Lost]] = {"no-attention": [0.3] * 5, "sagan": lost}
    design = Design(1, horizon=20, most=20)
    numbers = findings_of(values, PAIRS[:1], design=design, order=tuple(range(20)))
    (course,) = in_words(numbers).courses
    assert "waits for what failed or has no figure: 1 run of sagan" in course.sentence
    assert numbers.primary.comparisons[0].verdict is None
