"""What is said of comparisons, once, for the terminal, pages and files."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from sagan_bench.analysis.statistics import compare
from sagan_bench.analysis.verdicts import Basis, Comparison, Idle, Lost, Metric, Outcomes, Standing
from sagan_bench.report.text import in_words, sentence, standing

FID = Metric("FID", "lower", min_effect=1.0)
SAGAN = [22.0, 23.1, 24.3, 22.7, 23.5]
FAR = [26.1, 27.2, 28.9, 26.5, 27.7]
NEAR = [22.1, 23.0, 24.4, 22.5, 23.4]
Values = Sequence[float | None]


def against(variant: Values, metric: Metric = FID, missing: int = 0) -> Comparison[Standing]:
    lost = {seed: Lost.DIVERGED if x is None else x for seed, x in enumerate(variant)}
    outcomes: Outcomes = {"sagan": dict(enumerate(SAGAN)), "other": lost}
    (comparison,) = compare(outcomes, "sagan", metric, missing=missing)
    return comparison


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (Standing(Basis.POINTS), "points only"),
        (Standing(Basis.PROVISIONAL, missing=1), "provisional: 1 run still to come"),
        (Standing(Basis.PROVISIONAL, missing=3), "provisional: 3 runs still to come"),
        (Standing(Basis.EXPLORATORY), "exploratory"),
        (Standing(Basis.EXPLORATORY, looks=1), "exploratory after 1 look"),
        (Standing(Basis.EXPLORATORY, looks=2), "exploratory after 2 looks"),
        (Standing(Basis.CONFIRMATORY), "confirmatory"),
        (Standing(Basis.TOO_SMALL), "too small to conclude from"),
        (Standing(Basis.FEW_SEARCHES, searches=1), "conditional on these searches, 1 a side"),
        (
            Standing(Basis.PROVISIONAL),
            "provisional: it waits for what failed or has no figure",
        ),
        (
            Standing(Basis.IDLE, idle=Idle("sagan", True, 3, 5)),
            "attention was not engaged; no conclusion: ||gamma o|| / ||x|| of sagan was below 0.02 "
            "at the end of 3 of 5 runs",
        ),
    ],
)
def test_the_standing(of: Standing, words: str) -> None:
    assert standing(of) == words


def test_every_standing_has_words_of_its_own() -> None:
    assert len({standing(Standing(basis)) for basis in Basis}) == len(Basis)


def test_what_is_provisional_says_so_in_its_sentence() -> None:
    provisional = in_words(against(FAR, missing=3))
    assert "provisional: 3 runs still to come, no verdict" in sentence(provisional, FID)


@pytest.mark.parametrize(
    ("variant", "metric", "said"),
    [
        (
            FAR,
            FID,
            "other is worse than sagan by as much as matters: FID +4.16 [2.71, 5.61], n = 5 v 5, "
            "Bonferroni p < 0.001, ahead in 0 of 25 pairs [0, 0.36]",
        ),
        (
            [*FAR, None],
            FID,
            "other is worse than sagan by as much as matters: FID +4.16 [2.71, 5.61], n = 6 v 5, "
            "Bonferroni p < 0.001, ahead in 0 of 30 pairs [0, 0.33]; 1 of 6 runs of other diverged",
        ),
        (
            NEAR,
            FID,
            "inconclusive whether other differs from sagan: FID -0.04 [-1.32, 1.24], n = 5 v 5, "
            "Bonferroni p = 0.94, ahead in 13 of 25 pairs [0.22, 0.81]; "
            "a new study of about 17 finished runs each (between 17 and 343) would show that a "
            "difference as small as this does not matter",
        ),
        (
            NEAR,
            replace(FID, min_effect=2.0),
            "other is within ±2 of sagan, no meaningful difference: FID -0.04 [-1.32, 1.24], "
            "n = 5 v 5, Bonferroni p = 0.94, ahead in 13 of 25 pairs [0.22, 0.81]",
        ),
        (
            FAR[:3],
            FID,
            "other against sagan (exploratory, no verdict): FID +4.28 [1.37, 7.19], n = 3 v 5, "
            "ahead in 0 of 15 pairs [0, 0.43], the estimate favours sagan",
        ),
        (
            FAR[:2],
            FID,
            "other against sagan (points only, no verdict): FID +3.53, n = 2 v 5, "
            "the estimate favours sagan",
        ),
        (
            [None] * 5,
            FID,
            "other is worse than sagan by divergence: FID not to be compared, n = 5 v 5, by "
            "divergence p = 0.002, ahead in 0 of 25 pairs [0, 0.36]; 5 of 5 runs of other "
            "diverged; no t test: too few values, or no spread in either group",
        ),
    ],
)
def test_the_sentence(variant: Values, metric: Metric, said: str) -> None:
    assert sentence(in_words(against(variant, metric=metric)), metric) == said


def test_a_metric_blind_to_something_says_nothing_of_it() -> None:
    blind = Metric("FID[effnet-lite0]", "lower", 2.0, blind_to="broken pairs")
    silence = "; FID[effnet-lite0] hardly sees broken pairs: of that this says nothing"
    for null in (NEAR, NEAR[:3], NEAR[:1], [*NEAR, None]):
        assert sentence(in_words(against(null, metric=blind)), blind).endswith(silence)
    assert silence not in sentence(in_words(against(FAR, metric=blind)), blind)
