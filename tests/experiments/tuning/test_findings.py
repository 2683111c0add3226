"""What is said of searches: figures with their reservations, and no verdict before its time."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from example_tunings import Scripted, planned, small_tuning, tune

from sagan_bench.analysis.verdicts import Basis, Standing
from sagan_bench.config.schema import RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.experiments.tuning.findings import Findings, of_tuning
from sagan_bench.experiments.tuning.searched import IMPORTANCE_TRIALS, Unweighed
from sagan_bench.report import answers
from sagan_bench.session.events import Stopped


def attention_helps(config: RunConfig, step: int) -> float:
    """The learning rate decides most, attention by 20, the seed by little."""
    without = 20.0 * (not config.model.attention.generator)
    return 1e4 * config.training.lr_g + without + 0.1 * (config.seed % 7)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[Findings, Path]:
    """A search of 32 complete trials, not to be changed by a test."""
    folder = tmp_path_factory.mktemp("long")
    asked = small_tuning(folder, pruner="none")
    memory = planned(asked, folder / "t", trials=IMPORTANCE_TRIALS + 2)
    return tune(memory, folder / "t", Scripted(attention_helps, slots=4)), folder / "t"


def test_importance_is_said_from_30_complete_trials(
    long: tuple[Findings, Path], tmp_path: Path
) -> None:
    weighed = long[0].searches[0].importance
    assert weighed.evaluator == "PED-ANOVA"
    assert weighed.shares is not None
    assert sum(weighed.shares.values()) == pytest.approx(1)
    assert max(weighed.shares, key=lambda key: weighed.shares[key]) == "training.lr_g"  # type: ignore[index]
    memory = planned(small_tuning(tmp_path), tmp_path / "t", trials=3)
    few = tune(memory, tmp_path / "t", Scripted(attention_helps)).searches[0].importance
    assert (few.shares, few.absent) == (None, Unweighed.TOO_FEW)


def test_history_and_budget_add_up(long: tuple[Findings, Path]) -> None:
    (one,) = long[0].searches
    values = {trial.number: trial.values[0] for trial in one.trials if trial.values}
    for number, best in one.best_so_far:
        assert best == min(value for key, value in values.items() if key <= number)
    assert one.front == (min(values, key=lambda key: values[key]),)
    assert one.budget.trials == {
        "complete": 32, "pruned": 0, "diverged": 0, "failed": 0, "running": 0,
    }  # fmt: skip
    assert one.budget.steps == one.budget.steps_unpruned == 32 * 60
    assert one.budget.seconds == 32 * 3.0


def test_findings_are_plain_data(long: tuple[Findings, Path]) -> None:
    found, folder = long
    kept = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert kept["searches"][0]["axes"][0] == {
        "key": "training.lr_g", "scale": "log", "low": 1e-4, "high": 1e-3, "choices": [],
    }  # fmt: skip
    assert kept["labels"] == ["FID[effnet-lite0]"]
    assert of_tuning(folder) == found


def test_with_few_searches_everything_is_conditional_and_no_verdict_is_given(
    tmp_path: Path,
) -> None:
    asked = small_tuning(tmp_path, variants=("sagan", "no-attention"), pruner="none")
    found = tune(
        planned(asked, tmp_path / "t", trials=4), tmp_path / "t", Scripted(attention_helps)
    )
    assert found.baseline == "no-attention"
    assert found.standing == Standing(Basis.FEW_SEARCHES, searches=1)
    one, *untuned = found.comparisons
    assert [(c.variant, c.baseline) for c in untuned] == [
        ("sagan", "sagan-untuned"), ("no-attention", "no-attention-untuned"),
    ]  # fmt: skip
    assert one.verdict is None
    assert one.n == one.n_baseline == 1
    sentence, *_ = answers.findings(found).sentences
    assert sentence.startswith(
        "sagan against no-attention (conditional on these searches, 1 a side, no verdict): FID"
    )
    assert not {"better", "worse", "meaningful", "inconclusive"} & set(sentence.split())


def test_with_five_searches_a_side_the_search_is_the_unit_of_a_verdict(tmp_path: Path) -> None:
    asked = small_tuning(
        tmp_path, variants=("sagan", "no-attention"), searches=5, pruner="none", sampler="random",
        seeds_a=1, seeds_b=1,
    )  # fmt: skip
    memory = planned(asked, tmp_path / "t", trials=2)
    found = tune(memory, tmp_path / "t", Scripted(attention_helps, slots=4))
    one, *_ = found.comparisons
    assert found.standing == Standing(Basis.CONFIRMATORY)
    assert (one.n, one.n_baseline) == (5, 5)
    reported = [s.reported for s in found.searches if s.variant == "sagan" and s.reported]
    others = [s.reported for s in found.searches if s.variant != "sagan" and s.reported]
    assert one.effect == pytest.approx(sum(reported) / 5 - sum(others) / 5)
    assert one.verdict == "better by as much as matters"
    assert (
        answers.findings(found)
        .sentences[0]
        .startswith("sagan is better than no-attention by as much as matters: FID")
    )
    assert found.min_effect == pytest.approx(0.05 * sum(others) / 5)


def test_a_search_without_a_figure_counts_as_lost(tmp_path: Path) -> None:
    def diverges(config: RunConfig, step: int) -> float | None:
        lost = config.model.attention.generator and config.seed in (3, 4)
        return None if lost else attention_helps(config, step)

    asked = small_tuning(tmp_path, variants=("sagan", "no-attention"))
    found = tune(planned(asked, tmp_path / "t", trials=2), tmp_path / "t", Scripted(diverges))
    one, *_ = found.comparisons
    assert (one.n, one.n_ok, one.effect) == (1, 0, None)
    assert "1 of 1 searches of sagan diverged" in answers.findings(found).sentences[0]


def test_what_is_not_over_is_neither_lost_nor_compared(tmp_path: Path) -> None:
    asked = small_tuning(tmp_path, variants=("sagan", "no-attention"), searches=2)
    memory = planned(asked, tmp_path / "t", trials=3)
    polls = iter([None] * 60 + ["interrupted"] * 999)
    with pytest.raises(Stopped):
        tune(memory, tmp_path / "t", Scripted(attention_helps, slots=1), lambda: next(polls))
    found = of_tuning(tmp_path / "t")
    assert not all(one.is_over for one in found.searches)
    assert all(one.n == one.n_ok for one in found.comparisons)


def test_after_trials_were_added_nothing_is_confirmatory(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    asked = small_tuning(
        tmp_path, variants=("sagan", "no-attention"), pruner="none", searches=5, seeds_b=1
    )
    tune(planned(asked, folder, trials=1), folder, Scripted(attention_helps, slots=4))
    more = tune(planned(asked, folder, trials=2), folder, Scripted(attention_helps, slots=4))
    assert [len(search.trials) for search in more.searches] == [2] * 10
    for one in more.comparisons:
        assert (one.standing, one.verdict) == (Standing(Basis.EXPLORATORY, looks=1), None)


def test_what_never_varies_has_no_importance(tmp_path: Path) -> None:
    memory = planned(small_tuning(tmp_path, pruner="none"), tmp_path / "t", trials=31)
    found = tune(memory, tmp_path / "t", Scripted(lambda config, step: 0.0, slots=4))
    weighed = found.searches[0].importance
    assert (weighed.shares, weighed.absent) == (None, Unweighed.CONSTANT)


def test_there_must_be_a_tuning(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tuning is in"):
        of_tuning(tmp_path)


def test_a_tuning_is_read_without_torch(long: tuple[Findings, Path]) -> None:
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from sagan_bench.experiments.tuning.findings import of_tuning\n"
        f"of_tuning(Path({str(long[1])!r}))\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
