"""Studies until conclusive: what looks decide, and how often wrongly."""

from collections.abc import Sequence

import numpy as np

from sagan_bench.analysis import sequential
from sagan_bench.analysis.design import Design
from sagan_bench.analysis.sequential import Course, Stop, courses
from sagan_bench.analysis.verdicts import Lost, Metric, Runs, Verdict

FID = Metric("FID", "lower", min_effect=1.0)
SEEDS = range(100)
RNG = np.random.default_rng(0)
STEADY = RNG.standard_normal(100)
OTHER = RNG.standard_normal(100)


def design(**changed: object) -> Design:
    return Design(**{"pairs": 1, "horizon": 20, "most": 20, **changed})  # type: ignore[arg-type]


def course(
    variant: Sequence[float | Lost],
    baseline: Sequence[float | Lost],
    of: Design | None = None,
    metric: Metric = FID,
) -> Course:
    outcomes: dict[str, Runs] = {
        "a": dict(enumerate(variant)),
        "base": dict(enumerate(baseline)),
    }
    (course,) = courses(outcomes, [("a", "base")], metric, of or design(), SEEDS)
    return course


def test_a_plain_difference_stops_at_the_first_look_and_more_seeds_change_nothing() -> None:
    there = course(list(OTHER[:5] - 5), list(STEADY[:5]))
    assert [look.n for look in there.looks] == [5]
    assert there.why is Stop.VERDICT
    assert there.decisive is there.looks[0]
    assert there.looks[0].comparison.verdict is Verdict.BETTER_AS_MATTERS
    more = course(list(OTHER[:13] - 5), list(STEADY[:30]))
    assert [look.n for look in more.looks] == [5, 8, 12]
    assert more.decisive == there.decisive
    assert more.why is Stop.VERDICT


def test_a_look_waits_for_the_last_of_its_runs() -> None:
    there = course(list(OTHER[:8] - 5), list(STEADY[:4]))
    assert there.looks == ()
    assert there.decisive is None
    assert there.why is None


def test_runs_in_another_order_are_the_same_study() -> None:
    values = dict(enumerate(OTHER[:20] - 0.5)), dict(enumerate(STEADY[:20]))
    turned = tuple(dict(reversed(list(of.items()))) for of in values)
    first, second = (
        courses({"a": a, "base": b}, [("a", "base")], FID, design(futility=False), SEEDS)
        for a, b in (values, turned)
    )
    assert first == second
    assert len(first[0].looks) > 1


def test_what_failed_or_has_no_figure_is_waited_for_and_what_diverged_counts() -> None:
    lost = [*(OTHER[:4] - 5), Lost.FAILED]
    assert course(lost, list(STEADY[:5])).waiting == (("a", 4),)
    none = course([*(OTHER[:4] - 5), Lost.NO_FIGURE], list(STEADY[:5]))
    assert none.waiting == (("a", 4),)
    assert not none.looks
    diverged = course([*(OTHER[:4] - 5), Lost.DIVERGED], list(STEADY[:5]))
    assert diverged.looks[0].comparison.n_diverged == 1


def test_a_variant_that_always_diverges_is_worse_at_the_first_look() -> None:
    there = course([Lost.DIVERGED] * 5, list(STEADY[:5]))
    assert there.why is Stop.VERDICT
    assert there.looks[0].comparison.verdict is Verdict.WORSE_BY_DIVERGENCE
    assert course([Lost.DIVERGED] * 5, list(STEADY[:5]), design(pairs=8)).why is None


def test_equal_variants_are_shown_to_be_so_where_the_margin_allows_it() -> None:
    wide = Metric("FID", "lower", min_effect=3.0)
    there = course(list(OTHER[:20]), list(STEADY[:20]), metric=wide)
    assert there.why is Stop.VERDICT
    assert there.decisive
    assert there.decisive.comparison.verdict is Verdict.SAME


def test_a_hopeless_pair_stops_and_goes_on_where_that_is_asked_for() -> None:
    narrow = Metric("FID", "lower", min_effect=0.01)
    same = [0.1, -0.1, 0.2, -0.2, 0.0] * 4
    there = course(same, [value + 0.001 for value in same], metric=narrow)
    assert there.why is Stop.FUTILE
    assert there.decisive
    assert (there.decisive.chance or 0) < sequential.HOPELESS <= (there.looks[0].chance or 0)
    assert there.decisive.comparison.verdict is Verdict.INCONCLUSIVE
    on = course(same, [value + 0.001 for value in same], design(futility=False), narrow)
    assert on.why is Stop.SPENT
    assert on.stopped == len(on.looks) - 1 == 4


def test_the_last_look_has_no_chance_and_a_later_end_opens_the_study_again() -> None:
    alike = list(OTHER[:26]), list(STEADY[:26])
    narrow = Metric("FID", "lower", min_effect=0.01)
    ended = course(*alike, design(futility=False), narrow)
    assert ended.why is Stop.SPENT
    assert ended.looks[-1].chance is None
    further = course(*alike, design(futility=False, most=30), narrow)
    assert further.looks[:5] == ended.looks
    assert further.looks[-1].n == 26


def test_pairs_of_seeds_see_what_a_common_cause_hides() -> None:
    common = 10 * RNG.standard_normal(8)
    better = list(common - 2 + 0.1 * OTHER[:8])
    assert course(better, list(common)).why is not Stop.VERDICT
    paired = course(better, list(common), design(paired=True))
    assert paired.why is Stop.VERDICT
    assert paired.stopped == 0


def test_a_later_interval_on_the_other_side_is_seen() -> None:
    values = [*(OTHER[:5] - 5), *(OTHER[5:20] + 60)]
    there = course(values, list(STEADY[:20]))
    assert there.stopped == 0
    assert there.contradiction
    assert there.contradiction.n > 5
    assert course(list(OTHER[:20] - 5), list(STEADY[:20])).contradiction is None


def test_with_a_lost_run_ranks_must_agree_at_the_price_of_the_look() -> None:
    baseline = [*STEADY[:4], Lost.DIVERGED]
    there = course(list(OTHER[:5] - 50), baseline, design(pairs=8))
    comparison = there.looks[0].comparison
    assert comparison.interval is not None
    assert comparison.interval[1] < -1
    assert comparison.p_rank is not None
    assert there.looks[0].price < comparison.p_rank < 0.05
    assert there.why is None
    assert course(list(OTHER[:5] - 50), baseline).why is Stop.VERDICT


def test_pairs_of_seeds_have_ranks_of_their_own_differences() -> None:
    baseline = [*STEADY[:7], Lost.DIVERGED]
    there = course(list(OTHER[:8] - 50), baseline, design(paired=True))
    assert [look.comparison.p_rank for look in there.looks] == [None, 2 / 2**8]
    assert there.stopped == 0
    early = [Lost.DIVERGED, *STEADY[1:8]]
    waits = course(list(OTHER[:8] - 50), early, design(paired=True))
    assert waits.looks[0].comparison.p_rank == 2 / 2**5
    assert waits.stopped == 1
