"""Searches that are looked at: when there are enough of them, and what tuning is worth."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_tunings import Scripted, planned, small_tuning, tune
from PIL import Image

from sagan_bench.analysis.prices import prices
from sagan_bench.analysis.sequential import Stop
from sagan_bench.analysis.verdicts import Basis, Verdict
from sagan_bench.config.schema import RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.core.stored import SEAL, seal
from sagan_bench.experiments.tuning import planning
from sagan_bench.experiments.tuning.confirmation import Candidate, distinct
from sagan_bench.experiments.tuning.findings import Findings, of_tuning
from sagan_bench.experiments.tuning.trials import Outcome, Trial
from sagan_bench.report import answers, collect, publish
from sagan_bench.report.verification import verified
from sagan_bench.session.events import Stopped

PRESETS_RATE = 4e-4


def noise(config: RunConfig) -> float:
    """Return the luck of a training seed, of a standard deviation of about 3."""
    return float(np.random.default_rng(config.seed).normal(0, 3))


def tuned_is_better(config: RunConfig, step: int) -> float:
    """Return a FID that any rate but the preset's halves."""
    return (200.0 if config.training.lr_g == PRESETS_RATE else 100.0) + noise(config)


def nothing_helps(config: RunConfig, step: int) -> float:
    """Return a FID that is luck of a rate and seed alone, widely so."""
    luck = np.random.default_rng([config.seed, round(1e9 * config.training.lr_g)])
    return 300.0 + float(luck.normal(0, 60))


def searched(
    root: Path, outcome: Any, searches: int, stop: Any = lambda: None, trials: int = 2, **asked: Any
) -> Findings:
    root.mkdir(exist_ok=True)
    fields: dict[str, Any] = {"pruner": "none", "sampler": "random", "seeds_a": 1, "seeds_b": 1}
    fields |= asked
    wanted = small_tuning(root, searches=searches, **fields)
    return tune(planned(wanted, root / "t", trials=trials), root / "t", Scripted(outcome), stop)


def test_searches_are_made_until_the_answer_is_there(tmp_path: Path) -> None:
    found = searched(tmp_path, tuned_is_better, searches=12)
    assert len(found.searches) == 5
    (one,) = found.comparisons
    assert (one.variant, one.baseline) == ("sagan", "sagan-untuned")
    assert (one.n, one.verdict) == (5, Verdict.BETTER_AS_MATTERS)
    assert one.price == prices(1, 12, 12)[5]
    (course,) = found.courses
    assert (course.why, [look.n for look in course.looks]) == (Stop.VERDICT, [5])
    said = answers.findings(found).courses[0].sentence
    assert "decided after 5 searches a side, at" in said
    assert "it stopped early: the difference is likely a little smaller" in said
    manifest = planned(
        small_tuning(
            tmp_path, searches=12, pruner="none", sampler="random", seeds_a=1, seeds_b=1
        ),
        tmp_path / "t",
        trials=2,
    )  # fmt: skip
    assert planning.is_over(manifest, found)


def test_stopped_and_begun_for_fewer_it_comes_to_the_same(tmp_path: Path) -> None:
    asked = iter([None] * 25 + ["interrupted"] * 999)
    with pytest.raises(Stopped):
        searched(tmp_path, tuned_is_better, 8, lambda: next(asked))
    begun = of_tuning(tmp_path / "t")
    assert not begun.courses[0].looks
    assert all(c.standing.basis is Basis.PROVISIONAL for c in begun.comparisons if c.n >= 5)
    found = searched(tmp_path, tuned_is_better, 8)
    other = searched(tmp_path / "other", tuned_is_better, 8)
    assert found.comparisons == other.comparisons
    further = searched(tmp_path, tuned_is_better, 20)  # the answer is there: nothing is made
    assert further.comparisons == found.comparisons
    assert (further.design and further.design.horizon, further.looks) == (8, 0)


def test_hopeless_searches_are_given_up_unless_told_otherwise(tmp_path: Path) -> None:
    found = searched(tmp_path, nothing_helps, searches=12, trials=1)
    assert found.courses[0].why is Stop.FUTILE
    assert len(found.searches) == 5
    said = answers.findings(found).courses[0].sentence
    assert "given up after 5 searches a side: going on to 12 would decide with chance" in said
    on = searched(tmp_path, nothing_helps, searches=12, trials=1, to_the_end=True)
    assert on.courses[0].why in (Stop.SPENT, Stop.VERDICT)
    assert len(on.searches) > 5


def test_what_a_tuning_claims_is_one_family(tmp_path: Path) -> None:
    both = searched(tmp_path, tuned_is_better, 5, variants=("sagan", "no-attention"))
    assert {c.price for c in both.comparisons} == {prices(3, 5, 5)[5]}
    assert [c.verdict for c in both.comparisons[1:]] == [Verdict.BETTER_AS_MATTERS] * 2


def test_the_presets_own_values_are_chosen_where_nothing_is_better(tmp_path: Path) -> None:
    found = searched(tmp_path, lambda config, step: 1e6 * abs(config.training.lr_g - 4e-4), 1)
    (search,) = found.searches
    assert (search.chosen, search.reported) == (0, search.untuned)
    best = (tmp_path / "t" / "best-sagan.toml").read_text()
    assert "# The preset's own values there: 0." in best


def test_a_trial_that_repeats_the_presets_values_is_not_called_another(tmp_path: Path) -> None:
    """Also where it looks better, as by a scoring that is not the same to the bit."""
    own = Candidate(0, {"training.lr_g": PRESETS_RATE}, 110.0)

    def trial(number: int, rate: float) -> Trial:
        params = {"training.lr_g": rate}
        return Trial(number, Outcome.COMPLETE, params, (100.0,), (), 60, 3.0, None)

    trials = [trial(4, PRESETS_RATE), trial(2, 1e-4), trial(0, PRESETS_RATE), trial(3, 1e-4)]
    assert [each.number for each in distinct(trials, own)] == [2, 0]


def test_few_searches_say_what_the_preset_reaches_and_no_verdict(tmp_path: Path) -> None:
    found = searched(tmp_path, tuned_is_better, 1)
    (one,) = found.comparisons
    assert (one.verdict, one.standing.basis) == (None, Basis.FEW_SEARCHES)
    (search,) = found.searches
    assert search.reported is not None
    assert search.untuned is not None
    (said,) = answers.beside_the_preset(found, search)
    apart = search.untuned - search.reported
    assert said == (
        f"The preset's own values reach {search.untuned:.1f} there: the winner is better by "
        f"{apart:.1f}, of 1 run each and one search."
    )


def test_what_a_timeout_cut_is_not_compared_and_to_go_on_is_a_look(tmp_path: Path) -> None:
    wanted = small_tuning(
        tmp_path, searches=5, pruner="none", sampler="random", seeds_a=1, seeds_b=1
    )
    tune(planned(wanted, tmp_path / "t", trials=1), tmp_path / "t", Scripted(tuned_is_better))
    planned(wanted, tmp_path / "t", trials=3).write(tmp_path / "t")  # as if a timeout had cut it
    cut = of_tuning(tmp_path / "t")
    assert all(search.reported is not None for search in cut.searches)
    assert not any(c.verdict for c in cut.comparisons)
    for _ in range(2):
        on = tune(
            planned(wanted, tmp_path / "t", trials=3), tmp_path / "t", Scripted(tuned_is_better)
        )
        assert on.looks == 1
    assert {c.standing.basis for c in on.comparisons} == {Basis.EXPLORATORY}
    assert on.courses == ()


def test_a_failed_trial_counts_and_a_search_without_a_complete_one_gives_the_preset(
    tmp_path: Path,
) -> None:
    def fails(config: RunConfig, step: int) -> float:
        if config.seed == 0:  # the first search's
            raise RuntimeError("no memory")
        return tuned_is_better(config, step)

    found = searched(tmp_path, fails, 5)
    first, *_ = found.searches
    assert (first.winner, first.untuned is None) == (None, False)
    (one,) = found.comparisons
    assert (one.n, one.n_ok, one.verdict is not None) == (5, 5, True)


def test_to_retry_a_choice_that_is_made_does_not_choose_again(tmp_path: Path) -> None:
    def fails(config: RunConfig, step: int) -> float:
        if config.seed in (1, 2):  # set A and set B of the first search
            raise RuntimeError("no memory")
        return tuned_is_better(config, step)

    before = searched(tmp_path, fails, 5)
    assert before.courses[0].waiting
    fields: dict[str, Any] = {"pruner": "none", "sampler": "random", "seeds_a": 1, "seeds_b": 1}
    manifest = planned(small_tuning(tmp_path, searches=5, **fields), tmp_path / "t", trials=2)
    engine = Scripted(tuned_is_better)
    after = tune(manifest, tmp_path / "t", engine, retry=True)
    assert {job.config.seed for job in engine.submitted} == {2}
    assert (after.looks, after.comparisons[0].verdict) == (0, Verdict.BETTER_AS_MATTERS)


def test_a_search_whose_preset_was_never_trained_again_is_not_over(tmp_path: Path) -> None:
    """As those are that were made before it was."""
    found = searched(tmp_path, tuned_is_better, 1)
    (search,) = found.searches
    assert search.presets is not None
    for run in (tmp_path / "t" / "sagan-0").glob("t0000-s*"):
        if not run.name.startswith("t0000-s0"):
            (run / "record.json").unlink()
    before = of_tuning(tmp_path / "t")
    assert (before.searches[0].missing, before.searches[0].is_over) == (1, False)
    again = searched(tmp_path, tuned_is_better, 1)
    assert (again.searches[0].is_over, again.looks) == (True, 1)  # set B could be seen


# --- In a report ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a tuning whose runs on fresh seeds left a picture."""
    root = tmp_path_factory.mktemp("report")
    searched(root, tuned_is_better, 6)
    for number, record in enumerate(sorted((root / "t").glob("*/t*-s2-*/record.json"))):
        (record.parent / "samples").mkdir()
        for name in ("real", "step-000060"):
            file = record.parent / "samples" / f"{name}.png"
            Image.new("RGB", (66, 66), (10 * number, 0, 99)).save(file)
    document, pictures = collect.of_tuning(root / "t")
    return publish.publish(document, pictures, root / "report")


def test_the_page_shows_what_the_winner_and_its_preset_draw(report: Path) -> None:
    text = report.read_text()
    assert "sagan is better than sagan-untuned by as much as matters" in text
    assert "Beside what it began from" in text
    assert text.count("data:image/webp") == 3
    assert "the preset&#39;s own values" in text
    files = {file.name for file in (report.parent / "data").glob("*.png")}
    assert files == {"real.png", "samples-sagan-s2.png", "samples-sagan-untuned-s2.png"}
    assert "Look by look" in text
    assert "Searches a side" in text


def test_the_page_is_made_again_from_its_data(report: Path, tmp_path: Path) -> None:
    _, again = publish.again(report.parent / "data" / "report.json", tmp_path / "again")
    assert again.read_text() == report.read_text()


def test_what_it_says_follows_from_its_runs(report: Path, tmp_path: Path) -> None:
    file = report.parent / "data" / "report.json"
    assert verified(file) == (1, [])

    def forged(*places: Any, value: Any) -> list[str]:
        stored = json.loads(file.read_text())
        stored.pop(SEAL)
        part = stored["findings"]
        for place in places[:-1]:
            part = part[place]
        part[places[-1]] = value
        other = tmp_path / "report.json"
        other.write_text(json.dumps({SEAL: seal(stored), **stored}))
        return verified(other)[1]

    assert "verdict is worse, and" in forged("comparisons", 0, "verdict", value="worse")[0]
    assert "verdict is None, and" in forged("comparisons", 0, "verdict", value=None)[0]
    assert "effect is 1, and" in forged("comparisons", 0, "effect", value=1.0)[0]
    assert "baseline is sagan, and" in forged("comparisons", 0, "baseline", value="sagan")[0]
    assert "sagan-0: reported is 3" in forged("searches", 0, "reported", value=3.0)[0]
    assert "sagan-1: untuned is 3" in forged("searches", 1, "untuned", value=3.0)[0]
    assert "sagan-0: trial 0 is chosen, and on set A" in forged("searches", 0, "chosen", value=0)[0]
    assert "why is spent" in forged("courses", 0, "why", value="spent")[0]
    assert "sentences 1 is x" in forged("sentences", 0, value="x")[0]
    assert "of 9 pairs" in forged("design", "pairs", value=9)[0]
    assert "sagan-0 is there twice" in forged("searches", 1, "id", value="sagan-0")[0]
    assert forged("looks", value=1)
    assert "design" in forged("design", "most", value=0)[0]
    with pytest.raises(UserError, match="a rule that cannot be"):
        forged("matters", value="abc")
