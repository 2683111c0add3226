"""The report of a tuning: what it says of each search, and how it reads in a browser."""

import csv
import json
import shlex
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import command_line
import pytest
from axe_playwright_python.sync_playwright import Axe
from example_records import contents, unsealed
from example_tunings import Scripted, planned, small_tuning, tune
from playwright.sync_api import Browser
from test_page import HOSTILE, _Parts, column, html_of, opened

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.experiments.tuning.definition import TuningManifest
from sagan_bench.experiments.tuning.space import load
from sagan_bench.experiments.tuning.trials import Outcome
from sagan_bench.report import answers, collect, publish, repeating
from sagan_bench.report.document import TuningDocument
from sagan_bench.runs import records

REACHED = 100.0


def bowl(config: RunConfig, step: int) -> float | None:
    """FID falls to a bowl around a learning rate; high ones diverge; attention is worth 10."""
    rate = 1e4 * config.training.lr_g
    if rate > 6.5 and step > 10:
        return None
    best = REACHED - 10 * bool(config.model.attention.generator)
    return best + 8 * (rate - 4) ** 2 + 600 / step + 3 * (config.seed % 5)


def clear(config: RunConfig, step: int) -> float:
    """Attention is worth 10 of 100, whatever the values."""
    return REACHED - 10 * bool(config.model.attention.generator) + 0.1 * (config.seed % 7)


class Tuned(NamedTuple):
    """A tuning's folder, what its report says, and the page."""

    folder: Path
    document: TuningDocument
    page: Path


def tuned(root: Path, trials: int = 14, outcome: Any = bowl, **asked: Any) -> Tuned:
    folder = root / "tune"
    memory = planned(small_tuning(root, **asked), folder, trials=trials)
    tune(memory, folder, Scripted(outcome, slots=2))
    document, _ = collect.of_tuning(folder)
    return Tuned(folder, document, publish.publish(document, {}, root / "report"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    return tuned(tmp_path_factory.mktemp("both"), variants=("sagan", "no-attention"))


# --- In a browser ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wrong_by_axe_and_nothing_leaves_the_page(
    browser: Browser, both: Tuned, scheme: Any
) -> None:
    with opened(browser, both.page, color_scheme=scheme) as tab:
        found = Axe().run(tab, options={"resultTypes": ["violations"]})
        assert [one["id"] for one in found.response["violations"]] == []
        assert tab.locator("svg[data-live]").count() == 8
        ticks = tab.locator("#fig-slices-1 text").all_text_contents()
        assert "lr_g" in ticks
        assert not [tick for tick in ticks if "$" in tick]  # a power of ten as markup


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(browser: Browser, both: Tuned, width: int) -> None:
    with opened(browser, both.page, viewport={"width": width, "height": 800}) as tab:
        tab.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_trials_sort_by_a_parameter_and_without_javascript_are_all_there(
    browser: Browser, both: Tuned
) -> None:
    with opened(browser, both.page) as tab:
        tab.get_by_text("All 14 trials", exact=True).first.click()
        tab.locator("#t-trials-1 thead th button").nth(5).click()
        rates = [float(value) for value in column(tab, "trials-1", 5)]
        assert rates == sorted(rates)
        assert len(set(rates)) > 5
    with opened(browser, both.page, java_script_enabled=False) as plain:
        assert plain.locator("#t-trials-1 tbody tr").count() == 14


# --- Without one -------------------------------------------------------------------------------


def test_the_first_lines_say_what_may_be_said(both: Tuned) -> None:
    found = both.document.findings
    assert both.document.question == (
        "Is sagan better than no-attention once each is tuned equally well?"
    )
    sagan, without = (
        f"{one.reported:.1f} ({one.variant}, untuned {one.untuned:.1f})" for one in found.searches
    )
    tone, answer = answers.answer(both.document)
    assert tone == "open"
    assert answer == (
        f"No verdict: on fresh seeds FID[effnet-lite0] is {sagan} and {without}; "
        "conditional on these searches, 1 a side."
    )
    html = both.page.read_text()
    assert html.index(answer) < html.index("Before you believe it") < html.index("trials-1")
    for word in ("is better", "is worse"):
        assert word not in html


def test_each_search_shows_history_parameters_and_the_best_on_fresh_seeds(both: Tuned) -> None:
    html = both.page.read_text()
    for place, one in enumerate(both.document.findings.searches, 1):
        assert one.winner is not None
        assert one.reported is not None
        part = html.partition(f'<section id="search-{place}"')[2].partition("</section>")[0]
        assert "The search chose nothing better than what it began from" in part
        assert f"on fresh seeds {one.reported:.1f}" in part  # the history's finding
        assert f"trial 0 (chosen, the preset&#x27;s own) {one.searched:.1f}, set A" in part
        assert "pruning saved" in part
        assert "diverged" in part
        for seed, value in one.winner.on_b.items():
            assert f"{seed}: {value:.1f}" in part
        assert "trials are complete; said from 30 on (PED-ANOVA)" in part
        lacking = one.variant == "no-attention"
        assert ("attention.generator" in part) == (not lacking)


def test_importance_is_shown_from_thirty_trials(tmp_path: Path) -> None:
    low = tuned(tmp_path, trials=34, outcome=lambda config, step: 1e4 * config.training.lr_g,
                pruner="none")  # fmt: skip
    html = low.page.read_text()
    assert "Shares of what varied the objective, by PED-ANOVA." in html
    first = html.partition('<dl class="shares">')[2].partition("</dt>")[0]
    assert first.endswith("<dt>training.lr_g")


def test_five_searches_a_side_give_a_verdict_about_searches(tmp_path: Path) -> None:
    sides: dict[str, Any] = {"variants": ("sagan", "no-attention"), "searches": 5}
    many = tuned(tmp_path, trials=2, outcome=clear, pruner="none", **sides)
    tone, answer = answers.answer(many.document)
    assert (tone, answer[:32]) == ("better", "sagan is better than no-attentio")
    html = many.page.read_text()
    assert "The searches put the difference between" in html
    assert "searches with a figure" in html
    assert html.count("<summary>Figures and trials</summary>") == 10


@pytest.mark.parametrize(
    ("trials", "outcome", "told"),
    [
        (3, lambda config, step: None, "No trial was completed, so there is no winner."),
        (1, bowl, "on fresh seeds the preset's own values reach FID[effnet-lite0] 110.5."),
    ],
)
def test_hopeless_searches_give_a_page_that_says_so(
    tmp_path: Path, trials: int, outcome: Callable[[RunConfig, int], float | None], told: str
) -> None:
    one = tuned(tmp_path, trials=trials, outcome=outcome)
    assert told in one.page.read_text().replace("&#39;", "'")


def test_several_searches_of_one_variant_say_what_they_reach(tmp_path: Path) -> None:
    one = tuned(tmp_path, trials=2, searches=3, pruner="none")
    known = [search.reported for search in one.document.findings.searches]
    ends = f"{min(filter(None, known)):.1f} to {max(filter(None, known)):.1f}"
    reached = f"{ends}; the preset's own values {ends}."
    assert answers.answer(one.document) == (
        "told", f"On fresh seeds the winners of 3 searches reach FID[effnet-lite0] {reached}"
    )  # fmt: skip


def test_several_objectives_show_their_front(tmp_path: Path) -> None:
    one = tuned(tmp_path, trials=8, objectives=("fid", "images_per_sec"), pruner="none")
    html = one.page.read_text()
    (search,) = one.document.findings.searches
    assert f"On the Pareto front: trials {', '.join(map(str, search.front))}" in html
    assert html.count("complete, on the front") == len(search.front)


def test_a_tuning_under_way_is_partial_and_claims_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "tune"
    memory = planned(small_tuning(tmp_path), folder, trials=4)
    engine = Scripted(bowl, slots=1)

    def stop() -> str | None:
        return "asked to" if len(engine.submitted) > 2 else None

    with pytest.raises(Exception, match="asked to"):
        tune(memory, folder, engine, stop)
    document, _ = collect.of_tuning(folder)
    assert document.status == "partial"
    assert answers.answer(document) == ("open", "Nothing can be claimed yet: 2 of 4 trials ended.")
    assert "Not over: 2 of 4 trials ended" in html_of(document)


def test_a_reader_is_warned(tmp_path: Path) -> None:
    def fails(config: RunConfig, step: int) -> float | None:
        if config.seed == 1 or config.training.n_critic == 2:
            raise RuntimeError("no memory")
        return clear(config, step)

    folder = tmp_path / "tune"
    asked = small_tuning(tmp_path, pruner="none", sampler="qmc")
    tune(planned(asked, folder, trials=6, confirm=False), folder, Scripted(fails))
    (found,) = collect.of_tuning(folder)[0].findings.searches
    failed = found.budget.trials[Outcome.FAILED]
    assert 0 < failed < 6
    unconfirmed = collect.of_tuning(folder)[0].warnings
    assert unconfirmed[0].startswith("Nothing is trained again on fresh seeds")
    assert f"sagan-0: {failed} of 6 trials failed; the sampler learned" in unconfirmed[1]
    tune(planned(asked, folder, trials=6), folder, Scripted(fails))
    tune(planned(asked, folder, trials=7), folder, Scripted(fails))
    told = " ".join(collect.of_tuning(folder)[0].warnings)
    assert "Nothing is trained" not in told
    assert "runs on fresh seeds diverged or failed." in told
    assert "The search went on once after figures on set B could be seen." in told


def test_hostile_names_stay_text_and_ids_stay_unique(tmp_path: Path, both: Tuned) -> None:
    document = both.document.model_copy(update={"name": HOSTILE, "warnings": (HOSTILE,)})
    html = html_of(document)
    assert HOSTILE not in html
    parts = _Parts(both.page.read_text())
    assert len(parts.ids) == len(set(parts.ids))
    for link in parts.links:
        if link.startswith("#"):
            assert link[1:] in parts.ids, link
        elif not link.startswith("data:"):
            assert (both.page.parent / link).exists(), link


def test_the_page_again_from_its_data_has_the_same_bytes(both: Tuned) -> None:
    html = both.page.read_bytes()
    document, again = publish.again(both.page.parent / "data" / "report.json")
    assert document == both.document
    assert again.read_bytes() == html
    assert len(html) < 500_000


def test_trials_and_winners_can_be_taken_away(both: Tuned) -> None:
    data = both.page.parent / "data"
    rows = list(csv.DictReader((data / "trials.csv").read_text().splitlines()))
    assert len(rows) == 28
    one = both.document.findings.searches[0]
    assert [row["outcome"] for row in rows[:14]] == [trial.outcome for trial in one.trials]
    fresh = list(csv.DictReader((data / "fresh.csv").read_text().splitlines()))
    labels = {row["label"] for row in (*rows, *fresh)}
    assert labels == {"; ".join(both.document.findings.labels), both.document.findings.labels[0]}
    assert "FID[effnet-lite0]" in labels
    on_b = [float(r["fid"]) for r in fresh if (r["search"], r["set"]) == ("sagan-0", "B")]
    assert sum(on_b) / len(on_b) == pytest.approx(one.reported)
    assert (data / "best-sagan.toml").read_text() == both.document.winners["sagan"]


def test_a_report_reads_the_tuning_and_each_record_once(
    both: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    read_object, memory_of = records.read_object, TuningManifest.of

    def counted(file: Path, **how: bool) -> dict[str, Any]:
        reads.append(file)
        return read_object(file, **how)

    def remembered(folder: Path) -> TuningManifest | None:
        reads.append(folder)
        return memory_of(folder)

    monkeypatch.setattr(records, "read_object", counted)
    monkeypatch.setattr(TuningManifest, "of", remembered)
    document, _ = collect.of_tuning(both.folder)
    assert document == both.document
    assert reads.count(both.folder) == 1
    assert len(reads) == len(set(reads)) > document.runs_over


def test_the_command_tunes_like_this_again(tmp_path: Path, both: Tuned) -> None:
    assert both.document.repeat is None  # its space is not shipped
    memory = TuningManifest.of(both.folder)
    assert memory is not None
    tuning = memory.tuning.model_copy(update={"space": load("quick"), "settings": {}})
    tuning = tuning.model_copy(update={"first_seed": 2000})
    words_ = shlex.split(repeating.of_tuning(memory.model_copy(update={"tuning": tuning})) or "")
    assert words_[:5] == ["python", "cli.py", "tune", "--variants", "sagan,no-attention"]
    assert words_[words_.index("--trials") + 1] == "14"
    assert words_[words_.index("--first-seed") + 1] == "2000"


# --- The verb ----------------------------------------------------------------------------------


run = partial(command_line.run, "report")


def test_the_verb_renders_a_tuning_by_name_or_as_the_latest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    tuned(tmp_path / "runs", trials=2)
    for arguments in (("tune",), ()):
        assert run(*arguments) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0] == "tune: Which values suit sagan, and what are they worth?"
        assert out[1].startswith("The search chose nothing better than what it began from")
        assert out[-1] == "report: reports/tune/index.html"
    listed = Path("reports/index.html").read_text()
    assert "Which values suit sagan" in listed
    assert run("reports/tune/data/report.json") == 0


def test_a_tuning_without_its_storage_is_refused(tmp_path: Path) -> None:
    one = tuned(tmp_path, trials=1)
    kept = unsealed(one.folder / "tuning.json")
    (one.folder / "tuning.json").write_text(json.dumps(kept | {"storage": "sqlite:///x.db"}))
    with pytest.raises(UserError, match="give --storage"):
        collect.of_tuning(one.folder)


@pytest.mark.parametrize("key", ["x/../../../pwned", "..", "/etc/x", "x\n", "", "x" * 300])
def test_a_winner_is_a_file_of_the_report_only(tmp_path: Path, both: Tuned, key: str) -> None:
    folder = tmp_path / "report"
    shutil.copytree(both.page.parent, folder)
    (folder / "data" / "best-x").mkdir()
    file = folder / "data" / "report.json"
    stored = unsealed(file)
    stored["winners"][key] = "evil = 1\n"
    file.write_text(json.dumps(stored))
    before = contents(tmp_path)
    with pytest.raises(UserError, match="is not a report"):
        publish.again(file)
    assert contents(tmp_path) == before
