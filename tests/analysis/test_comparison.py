"""What is claimed of records made by hand: the endpoint, the refusals, the words."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_studies import HOST

from sagan_bench.analysis import asking
from sagan_bench.analysis.comparison import Findings, findings
from sagan_bench.analysis.gathering import gather
from sagan_bench.analysis.question import Facts, Measure, Paper, PaperRow, Question
from sagan_bench.analysis.variants import Engagement, Variant
from sagan_bench.analysis.verdicts import Basis, Standing, Verdict
from sagan_bench.config.layers import resolve
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.evaluation.protocol import Protocol
from sagan_bench.experiments import studies
from sagan_bench.experiments.findings import of_study
from sagan_bench.experiments.study import StudyManifest
from sagan_bench.models.placed import Placed
from sagan_bench.report import caveats, claims, readings
from sagan_bench.report.findings import findings as worded
from sagan_bench.report.findings import of_curve
from sagan_bench.report.text import lost
from sagan_bench.runs.environment import environment
from sagan_bench.runs.records import BlockReading, Cost, Record, Score

HERE = environment("cpu")
GOOD = [0.50, 0.52, 0.49, 0.51, 0.53]
BAD = [0.20, 0.22, 0.19, 0.21, 0.23]
ENGAGED = 0.3


def protocol(**changed: Any) -> Protocol:
    fields: dict[str, Any] = {
        "data": "d" * 16, "split": "train", "n_real": 500, "n_fake": 200, "sampling_seed": 0,
        "label_law": "none", "weights": "ema", "ema_decay": 0.999, "batchnorm": "standing-64x64",
        "isc_splits": 2, "kid_subsets": 3, "kid_subset_size": 50,
    }  # fmt: skip
    return Protocol(**EXTRACTORS["efficientnet-lite0"].facts(), **(fields | changed))


def score(
    value: float, step: int = 100, *, final: bool = True, fid: float = 50, **changed: Any
) -> Score:
    how = protocol(**changed)
    return Score(
        step=step,
        weights=how.weights,
        sampling_seed=how.sampling_seed,
        n_fake=how.n_fake,
        fingerprint=how.fingerprint(),
        protocol=how.model_dump(mode="json"),
        metrics={"twin_rate": value, "fid": fid},
        final=final,
    )


RAW: dict[str, Any] = {"weights": "raw", "ema_decay": None}


def run(
    folder: Path,
    variant: str,
    seed: int,
    value: float | None,
    *,
    curve: Sequence[tuple[int, float]] = (),
    ratio: float | None = ENGAGED,
    gamma: float = 0.5,
    status: str = "finished",
    sets: Sequence[str] = (),
    scores: Sequence[Score] | None = None,
    steps: int = 100,
    cost: Mapping[str, Any] | None = None,
) -> Path:
    """Leave a record; a value of None is a run that diverged."""
    config = resolve(
        HOST, preset="quick", variant=variant, sets=[f"seed={seed}", f"run.steps={steps}", *sets]
    ).config
    if value is None:
        status, scores = ("diverged" if status == "finished" else status), ()
    on_the_way = [score(v, step, final=False, n_fake=100) for step, v in curve]
    finals = [score(value or 0), score((value or 0) - 0.1, **RAW)] if scores is None else scores
    has_blocks = config.model.attention.generator and variant != "wider"
    blocks = BlockReading(
        network="generator", name="attention8", step=steps, gamma=gamma, ratio=ratio
    )
    record = Record(
        run=f"{variant}-s{seed}",
        name=config.name,
        variant=variant,
        seed=seed,
        status=status,
        step=steps,
        steps=steps,
        config=config.model_dump(mode="json"),
        config_digest="0" * 12,
        scores=(*on_the_way, *finals),
        blocks=(blocks,) if has_blocks and value is not None else (),
        cost=Cost(**{"flops_per_step": 100, "train_sec": 10.0, "parameters_g": 3, **(cost or {})}),
        environment=HERE,
    )
    path = folder / f"{variant}-s{seed}"
    path.mkdir(parents=True)
    (path / "record.json").write_bytes(record.to_json())
    return path


def group(folder: Path, variant: str, values: Sequence[float | None], **given: Any) -> list[Path]:
    return [run(folder, variant, seed, value, **given) for seed, value in enumerate(values)]


def question(**changed: Any) -> Question:
    fields: dict[str, Any] = {
        "name": "mine",
        "text": "Does it?",
        "measure": Measure(metric="twin_rate", min_effect=0.05),
        "pairs": (("sagan", "no-attention"),),
        "declared": True,
    }
    return Question(**(fields | changed))


def found(
    folder: Path, sagan: Sequence[float | None], without: Sequence[float | None], **asked: Any
) -> Findings:
    paths = group(folder, "sagan", sagan) + group(folder, "no-attention", without)
    return findings(gather(paths), question(**asked))


def in_words(known: Findings) -> readings.Findings:
    return worded(known)


def sentence(known: Findings) -> str:
    return in_words(known).primary.sentences[0]


def of(known: Findings, name: str) -> Variant:
    return next(variant for variant in known.variants if variant.name == name)


# --- Claims ------------------------------------------------------------------------------------


def test_a_clear_difference_is_claimed_with_its_budget(tmp_path: Path) -> None:
    known = found(tmp_path, GOOD, BAD)
    (one,) = known.primary.comparisons
    assert one.verdict == "better by as much as matters"
    assert one.effect == pytest.approx(0.3)
    (headline,) = in_words(known).headline
    assert headline.startswith("At 100 steps, learning rates of G/D 0.0004/0.0016: sagan is better")
    assert "twin_rate +0.3" in headline


def test_a_null_is_never_worded_as_no_help(tmp_path: Path) -> None:
    known = found(tmp_path, GOOD, GOOD)
    assert known.primary.comparisons[0].verdict == "no meaningful difference"
    noisy = found(tmp_path / "noisy", [0.1, 0.9, 0.2, 0.8, 0.5], [0.2, 0.7, 0.1, 0.9, 0.6])
    assert in_words(noisy).headline[0].endswith("nothing can be claimed.")
    for one in (known, noisy):
        text = json.dumps(asdict(in_words(one)))
        for word in ("does not help", "no effect", "no help", "useless"):
            assert word not in text
    by_fid = found(tmp_path / "fid", GOOD, GOOD, measure=Measure(metric="fid", min_effect=1.0))
    assert "of that this says nothing" in " ".join(in_words(by_fid).headline)


def test_the_endpoint_is_the_last_average_and_sampling_seeds_are_averaged(tmp_path: Path) -> None:
    scores = [score(0.4), score(0.6, sampling_seed=1), score(0.9, 50), score(0.1, **RAW)]
    paths = [run(tmp_path, "sagan", s, 0.5, scores=scores) for s in range(2)]
    paths += [run(tmp_path, "no-attention", s, 0.5, scores=scores) for s in range(2)]
    known = findings(gather(paths), question())
    assert of(known, "sagan").values == {0: 0.5, 1: 0.5}
    assert known.protocol["sampling_seed"] == [0, 1]


def test_two_seeds_allow_no_inference_and_three_no_verdict(tmp_path: Path) -> None:
    two = found(tmp_path / "2", GOOD[:2], BAD[:2]).primary.comparisons[0]
    assert (two.standing.basis, two.interval, two.verdict) == (Basis.POINTS, None, None)
    three = found(tmp_path / "3", GOOD[:3], BAD[:3]).primary.comparisons[0]
    assert (three.standing.basis, three.verdict) == (Basis.EXPLORATORY, None)
    assert three.interval is not None


def test_a_diverged_or_failed_run_is_an_attempted_seed(tmp_path: Path) -> None:
    for status in ("finished", "failed"):
        folder = tmp_path / status
        paths = group(folder, "no-attention", BAD)
        paths += [run(folder, "sagan", s, value, status=status if value is None else "finished")
                  for s, value in enumerate([*GOOD[:4], None])]  # fmt: skip
        known = findings(gather(paths), question())
        (one,) = known.primary.comparisons
        assert (one.n, one.n_ok) == (5, 4)
        ending = "failed" if status == "failed" else "diverged"
        assert f"1 of 5 runs of sagan {ending};" in sentence(known)
        assert of(known, "sagan").values[4] is None


def test_missing_runs_make_it_provisional(tmp_path: Path) -> None:
    cells = {(name, seed) for name in ("sagan", "no-attention") for seed in range(6)}
    known = found(tmp_path, GOOD, BAD, planned=cells)
    assert known.primary.comparisons[0].verdict is None
    assert in_words(known).headline == ("Provisional: 10 runs are over and 2 are still to come.",)


def test_an_interrupted_run_is_not_attempted(tmp_path: Path) -> None:
    paths = group(tmp_path, "sagan", GOOD) + group(tmp_path, "no-attention", BAD)
    more = run(tmp_path, "sagan", 9, 0.9, status="interrupted")
    known = findings(gather([*paths, more]), question())
    assert known.runs.unfinished == (more,)
    assert of(known, "sagan").summary.n == 5
    assert known.primary.comparisons[0].standing == Standing(Basis.PROVISIONAL, missing=1)


def test_looks_are_told(tmp_path: Path) -> None:
    known = found(tmp_path, GOOD, BAD, looks=2)
    assert known.primary.comparisons[0].verdict is None
    assert "exploratory after 2 looks" in in_words(known).headline[1]


def test_a_smoke_study_claims_nothing(tmp_path: Path) -> None:
    known = found(tmp_path, GOOD, BAD, comparable=False)
    assert known.primary.comparisons[0].verdict is None
    assert all(c.verdict is None for reading in known.secondary for c in reading.comparisons)
    assert "too small to compare" in in_words(known).headline[0]


def test_ten_studies_of_a_variant_against_itself_claim_no_more_than_chance(tmp_path: Path) -> None:
    """At 5 % a study one false claim in ten is chance; two are seen once in twelve such tens."""
    rng = np.random.default_rng(0)
    verdicts = []
    for trial in range(10):
        groups = rng.normal(0.26, 0.064, (2, 5)).tolist()  # as sagan's runs in the study quick
        known = found(tmp_path / str(trial), *groups)
        verdicts.append(known.primary.comparisons[0].verdict)
    assert verdicts.count(Verdict.INCONCLUSIVE) >= 9


def test_every_comparison_is_told_claims_first(tmp_path: Path) -> None:
    paths = group(tmp_path, "no-attention", BAD) + group(tmp_path, "sagan", GOOD)
    paths += group(tmp_path, "g-only", [0.3, 0.1, 0.2, 0.4, 0.1])
    pairs = (("g-only", "no-attention"), ("sagan", "no-attention"))
    first, second = in_words(findings(gather(paths), question(pairs=pairs))).headline
    assert "sagan is better than no-attention" in first
    assert "inconclusive whether g-only differs" in second


def test_a_share_is_one_of_each_own_baseline(tmp_path: Path) -> None:
    values = {"no-attention": 20.0, "sagan": 23.0, "feat4": 200.0, "feat16": 205.0}
    paths = [
        run(tmp_path, variant, seed, 0.5, scores=[score(0.5, fid=value + 0.1 * seed)])
        for variant, value in values.items()
        for seed in range(5)
    ]
    asked = question(
        measure=Measure(metric="fid", min_effect="5%"),
        pairs=(("sagan", "no-attention"), ("feat16", "feat4")),
    )
    small, large = findings(gather(paths), asked).primary.comparisons
    assert small.verdict == "worse by as much as matters"
    assert large.verdict == "no meaningful difference"
    assert small.min_effect == pytest.approx(0.05 * 20.2)
    assert large.min_effect == pytest.approx(0.05 * 200.2)


# --- Was attention engaged? --------------------------------------------------------------------


@pytest.mark.parametrize(("idle", "concluded"), [(2, True), (3, False), (5, False)])
def test_attention_that_did_nothing_allows_no_conclusion(
    tmp_path: Path, idle: int, concluded: bool
) -> None:
    paths = group(tmp_path, "no-attention", BAD)
    paths += [run(tmp_path, "sagan", s, value, ratio=0.01 if s < idle else 0.3)
              for s, value in enumerate(GOOD)]  # fmt: skip
    known = findings(gather(paths), question())
    assert (known.primary.comparisons[0].verdict == "better by as much as matters") == concluded
    if not concluded:
        assert (
            "attention was not engaged; no conclusion: ||gamma o|| / ||x|| of sagan was below 0.02 "
            f"at the end of {idle} of 5 runs" in sentence(known)
        )
        verdicts = [c.verdict for reading in known.secondary for c in reading.comparisons]
        assert len(verdicts) == 2
        assert set(verdicts) == {None}
    (block,) = of(known, "sagan").blocks
    assert (block.gamma, block.name) == (0.5, "attention8")


def test_a_ratio_that_is_not_known_is_not_idleness(tmp_path: Path) -> None:
    paths = group(tmp_path, "no-attention", BAD) + group(tmp_path, "sagan", GOOD, ratio=None)
    known = findings(gather(paths), question())
    assert known.primary.comparisons[0].verdict == "better by as much as matters"
    assert of(known, "sagan").engagement == Engagement(True, 0, 0)


def test_the_sign_of_gamma_means_nothing(tmp_path: Path) -> None:
    paths = group(tmp_path, "no-attention", BAD)
    paths += [run(tmp_path, "sagan", s, value, gamma=0.5 if s % 2 else -0.5)
              for s, value in enumerate(GOOD)]  # fmt: skip
    (block,) = of(findings(gather(paths), question()), "sagan").blocks
    assert block.gamma == 0.5


def test_an_idle_control_is_called_a_block(tmp_path: Path) -> None:
    paths = group(tmp_path, "no-attention", BAD) + group(tmp_path, "residual", GOOD, ratio=0.0)
    known = findings(gather(paths), question(pairs=(("residual", "no-attention"),)))
    assert "the block was not engaged; no conclusion" in sentence(known)


def test_where_attention_is_the_same_its_idleness_does_not_matter(tmp_path: Path) -> None:
    paths = group(tmp_path, "sagan", GOOD, ratio=0.0) + group(
        tmp_path, "half-sight", BAD, ratio=0.0
    )
    known = findings(gather(paths), question(pairs=(("half-sight", "sagan"),)))
    assert known.primary.comparisons[0].verdict == "worse by as much as matters"


# --- Secondary readings ------------------------------------------------------------------------


def secondary(known: Findings, title: str) -> readings.Reading:
    (reading,) = (one for one in in_words(known).secondary if one.title.startswith(title))
    return reading


RISING = [(20, 0.1), (40, 0.2), (60, 0.3), (80, 0.4), (100, 0.5)]


def test_at_equal_flops_the_costlier_is_read_where_it_had_spent_as_much(tmp_path: Path) -> None:
    paths = group(tmp_path, "sagan", [0.5] * 5, curve=RISING, cost={"flops_per_step": 200})
    paths += group(tmp_path, "no-attention", [0.5] * 5, curve=RISING, cost={"train_sec": 40.0})
    known = findings(gather(paths), question())
    (flops,) = secondary(known, "at equal FLOPs").comparisons
    assert flops.effect == pytest.approx(0.25 - 0.5)  # half of its steps, against all
    (seconds,) = secondary(known, "at equal seconds").comparisons
    assert seconds.effect == pytest.approx(0.5 - 0.125)  # a quarter of the baseline's
    assert "secondary" in secondary(known, "at equal FLOPs").title


def test_the_best_on_the_way_is_called_optimistic(tmp_path: Path) -> None:
    peak = [(20, 0.1), (40, 0.9), (60, 0.3), (80, 0.4), (100, 0.5)]
    paths = group(tmp_path, "sagan", GOOD, curve=peak)
    paths += group(tmp_path, "no-attention", BAD, curve=RISING)
    best = secondary(findings(gather(paths), question()), "the best on the way")
    assert best.comparisons[0].effect == pytest.approx(0.9 - 0.5)
    assert "optimistic" in best.title


def test_without_scores_on_the_way_there_is_a_reason(tmp_path: Path) -> None:
    known = found(tmp_path, GOOD, BAD)
    assert secondary(known, "at equal FLOPs").absent == (
        "no scores on the way were taken (run.eval_every)"
    )
    assert "not recorded" in sentence(known)


def test_fid_and_raw_weights_are_secondary(tmp_path: Path) -> None:
    known = found(tmp_path, GOOD, BAD)
    labels = [(one.title, one.label) for one in in_words(known).secondary[:2]]
    assert labels == [
        ("at the end, averaged weights (secondary)", "FID[effnet-lite0]"),
        ("at the end, raw weights (secondary)", "twin_rate"),
    ]
    assert known.secondary[1].comparisons[0].effect == pytest.approx(0.3)


def test_whether_runs_had_settled_is_told(tmp_path: Path) -> None:
    flat = [(step, 0.5 if step > 70 else 0.1) for step in range(5, 105, 5)]
    steep = [(step, step / 100) for step in range(5, 105, 5)]
    paths = group(tmp_path, "sagan", GOOD, curve=flat)
    paths += group(tmp_path, "no-attention", BAD, curve=steep)
    known = findings(gather(paths), question())
    assert "sagan: 5 of 5 runs had settled; no-attention: 5 of 5 runs had not settled" in sentence(
        known
    )


def test_a_curve_too_noisy_to_tell_is_not_called_unsettled(tmp_path: Path) -> None:
    noisy = [(step, 0.25 + 0.03 * (-1) ** (step // 5)) for step in range(5, 105, 5)]
    paths = group(tmp_path, "sagan", GOOD, curve=noisy)
    paths += group(tmp_path, "no-attention", BAD, curve=noisy)
    known = findings(gather(paths), question())
    assert "sagan: 5 of 5 runs may not have settled" in sentence(known)
    variant = of(known, "sagan")
    assert (variant.settled, variant.unsettled, variant.curves) == (0, 0, 5)


# --- Refusals ----------------------------------------------------------------------------------


def refused(paths: Sequence[Path], says: str) -> None:
    with pytest.raises(UserError, match=says):
        findings(gather(paths), question())


def test_figures_of_different_protocols_are_never_compared(tmp_path: Path) -> None:
    paths = group(tmp_path, "sagan", GOOD)
    paths.append(run(tmp_path, "no-attention", 0, 0.2, scores=[score(0.2, n_fake=300)]))
    refused(paths, r"different protocols.*n_fake: 200 and 300")


def test_a_sampling_seed_that_not_all_have_does_not_count(tmp_path: Path) -> None:
    paths = group(tmp_path, "no-attention", BAD) + group(tmp_path, "sagan", GOOD[:4])
    more = [score(0.4), score(0.8, sampling_seed=1)]
    paths.append(run(tmp_path, "sagan", 4, 0.4, scores=more))
    known = findings(gather(paths), question())
    assert known.protocol["sampling_seed"] == [0]
    assert of(known, "sagan").values[4] == 0.4


def test_runs_scored_again_are_compared_by_what_they_share(tmp_path: Path) -> None:
    both = [score(0.9, n_fake=300), score(0.5)]
    paths = [run(tmp_path, "sagan", 0, 0.5, scores=both), *group(tmp_path, "no-attention", BAD)]
    known = findings(gather(paths), question())
    assert known.protocol["n_fake"] == 200
    assert of(known, "sagan").values == {0: 0.5}


def test_different_budgets_are_refused(tmp_path: Path) -> None:
    longer = run(tmp_path, "no-attention", 0, 0.2, steps=200)
    refused([run(tmp_path, "sagan", 0, 0.5), longer], "different budgets: .*100 steps.*200")


def test_one_variant_with_two_configurations_is_refused(tmp_path: Path) -> None:
    other = run(tmp_path, "sagan", 1, 0.5, sets=["training.lr_g=0.1"])
    refused([run(tmp_path, "sagan", 0, 0.5), other], r"not alike: training\.lr_g: 0\.0004 and 0\.1")


def test_one_seed_is_one_run(tmp_path: Path) -> None:
    twice = [run(tmp_path / "a", "sagan", 0, 0.5), run(tmp_path / "b", "sagan", 0, 0.5)]
    refused(twice, "two runs of sagan at seed 0")
    assert len(gather([twice[0], twice[0]]).attempted) == 1


def test_a_metric_that_was_not_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recall; they have fid, twin_rate"):
        found(tmp_path, GOOD, BAD, measure=Measure(metric="recall", min_effect=0.1))


def test_nothing_finished_is_refused(tmp_path: Path) -> None:
    refused([run(tmp_path, "sagan", 0, 0.5, status="interrupted")], "no run is finished yet")


# --- Loose runs, studies, the paper ------------------------------------------------------------


def test_loose_runs_are_compared_by_twin_rate_and_say_that_it_was_chosen_now(
    tmp_path: Path,
) -> None:
    paths = group(tmp_path, "sagan", GOOD) + group(tmp_path, "no-attention", BAD)
    known = asking.about(gather(paths, loose=True), "no-attention", None, None)
    assert not known.question.declared
    assert known.primary.metric == "twin_rate"
    assert known.primary.min_effect == pytest.approx(0.05 * np.mean(BAD))
    with pytest.raises(UserError, match=r"--baseline wider: .* sagan, no-attention"):
        asking.about(gather(paths, loose=True), "wider", None, None)


def test_what_else_differs_is_told(tmp_path: Path) -> None:
    paths = group(tmp_path, "no-attention", BAD, sets=["training.batch_size=8"])
    paths += group(tmp_path, "sagan", GOOD)
    known = asking.about(gather(paths, loose=True), "no-attention", None, None)
    assert ("training.batch_size", 8, 64) in known.differences["sagan"]


def test_runs_of_one_variant_go_by_the_names_they_were_given(tmp_path: Path) -> None:
    paths = group(tmp_path / "a", "sagan", BAD, sets=["name=small", "model.width=16"])
    paths += group(tmp_path / "b", "sagan", GOOD, sets=["name=large"])
    for baseline in ("small", str(paths[0])):
        known = asking.about(gather(paths, loose=True), baseline, None, None)
        (one,) = known.primary.comparisons
        assert (one.variant, one.baseline, one.verdict) == ("large", "small", None)
        assert one.standing == Standing(Basis.POST_HOC)
        assert known.differences["large"] == [("model.width", 16, 32)]


def test_two_studies_go_by_their_folders(tmp_path: Path) -> None:
    sets = ["training.batch_size=8"]
    paths = group(tmp_path / "one", "sagan", BAD) + group(
        tmp_path / "two", "sagan", GOOD, sets=sets
    )
    known = asking.about(gather(paths, loose=True), "one", None, None)
    (one,) = known.primary.comparisons
    assert (one.variant, one.baseline) == ("two/sagan", "one/sagan")
    with pytest.raises(UserError, match="the variants are one/sagan, two/sagan"):
        asking.about(gather(paths, loose=True), "sagan", None, None)


def test_a_study_brings_its_own_question(tmp_path: Path) -> None:
    one = studies.load("quick")
    StudyManifest.begun(one, HOST, "f").write(tmp_path)
    group(tmp_path, "sagan", GOOD)
    group(tmp_path, "no-attention", BAD)
    known = of_study(tmp_path)
    assert known.question.text == one.question
    assert known.question.declared
    assert known.primary.min_effect == 0.05
    assert len(known.runs.attempted) == 10
    with pytest.raises(UserError, match="no study is in"):
        of_study(tmp_path / "sagan-s0")


def test_the_paper_is_placed_by_share_and_never_by_pixels(tmp_path: Path) -> None:
    paper = studies.load("position").paper
    assert isinstance(paper, Paper)
    variants = {"no-attention": None, "feat8": 8, "feat8+residual-ungated": 8, "feat8-g": 8}
    facts = {}
    for name, side in variants.items():
        group(tmp_path, name, GOOD, ratio=0.5)
        both = Placed("generator", side or 0, 64), Placed("discriminator", side or 0, 64)
        places = both[: 0 if side is None else 1 if name == "feat8-g" else 2]
        facts[name] = Facts(blocks=places, parameters_g=1, parameters_d=2, flops_per_step=3)
    paths = sorted(path for path in tmp_path.iterdir())
    pairs = tuple((name, "no-attention") for name in variants if name != "no-attention")
    known = findings(gather(paths), question(pairs=pairs, facts=facts, paper=paper))
    lines = {line.variant: line for line in known.paper}
    assert lines["no-attention"].paper == {"fid": 22.96, "isc_mean": 42.87}
    assert lines["feat8"].share == 0.25  # of 32 px: the paper's side 32 of 128
    assert lines["feat8"].paper == {"fid": 18.28, "isc_mean": 51.43}
    assert lines["feat8+residual-ungated"].paper == {"fid": 27.33, "isc_mean": 38.50}
    assert (lines["feat8"].channels, lines["feat8"].parameters) == (64, 3)


def test_findings_are_json(tmp_path: Path) -> None:
    lost: list[float | None] = [None] * 5
    cases: dict[str, Sequence[float | None]] = {"clear": GOOD, "lost": lost, "one": GOOD[:1]}
    for name, values in cases.items():
        known = found(tmp_path / name, values, BAD)
        again = json.loads(json.dumps(asdict(in_words(known)), allow_nan=False))
        assert again["primary"]["comparisons"][0]["variant"] == "sagan"


def test_cells_on_a_shared_device_are_marked(tmp_path: Path) -> None:
    paths = group(tmp_path, "sagan", GOOD, sets=["run.cells_on_device=4"])
    known = findings(gather([*paths, *group(tmp_path, "no-attention", BAD)]), question())
    assert [variant.shared_device for variant in known.variants] == [False, True]


def test_values_keep_their_seeds(tmp_path: Path) -> None:
    known = found(tmp_path, GOOD, BAD)
    assert of(known, "sagan").values == dict(enumerate(GOOD))
    assert math.isclose(of(known, "sagan").summary.mean or 0, 0.51)


def test_a_published_table_names_blocks_that_there_are() -> None:
    for block in ("none", "attention", "residual"):
        assert PaperRow(block=block, figures={}).block == block
    with pytest.raises(ValueError, match="block = 'atention'; did you mean 'attention'"):
        PaperRow(block="atention", figures={})


# --- Steps are not cost ------------------------------------------------------------------------


def priced(
    folder: Path, variants: Mapping[str, tuple[Sequence[float], int, Sequence[tuple[int, float]]]]
) -> list[Path]:
    """Leave variants of (values, FLOPs a step, curve up to the end)."""
    return [
        run(folder, name, seed, value, curve=[(s, v * value) for s, v in curve],
            cost={"flops_per_step": flops})
        for name, (values, flops, curve) in variants.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip


LATE = [(50, 0.0), (90, 0.2), (100, 1.0)]  # all of it comes in the last steps
EARLY = [(50, 0.9), (90, 1.0), (100, 1.0)]


def test_better_at_equal_steps_alone_is_per_step(tmp_path: Path) -> None:
    paths = priced(tmp_path, {"no-attention": (BAD, 100, EARLY), "sagan": (GOOD, 120, LATE)})
    known = findings(gather(paths), question())
    (one,) = known.primary.comparisons
    assert (one.verdict, one.shown_per_flop) == ("better by as much as matters", False)
    assert "per step, not per FLOP shown, sagan is better than no-attention" in sentence(known)
    first = next(caveats.of_study(in_words(known), known.runs.attempted, 0))
    assert first.startswith(
        "That sagan is better than no-attention by as much as matters is shown per step, not per "
        "FLOP: at equal FLOPs twin_rate differs by"
    )


def test_better_at_equal_flops_too_is_just_better(tmp_path: Path) -> None:
    paths = priced(tmp_path, {"no-attention": (BAD, 100, EARLY), "sagan": (GOOD, 120, EARLY)})
    known = findings(gather(paths), question())
    assert known.primary.comparisons[0].shown_per_flop is True
    assert sentence(known).startswith("sagan is better than no-attention by as much as matters")
    assert "per step" not in sentence(known)


def test_what_costs_no_more_needs_no_more(tmp_path: Path) -> None:
    for flops in (100, 80):
        folder = tmp_path / str(flops)
        paths = priced(folder, {"no-attention": (BAD, 100, EARLY), "sagan": (GOOD, flops, LATE)})
        assert findings(gather(paths), question()).primary.comparisons[0].shown_per_flop is None


def test_without_scores_on_the_way_nothing_is_shown_per_flop(tmp_path: Path) -> None:
    paths = priced(tmp_path, {"no-attention": (BAD, 100, []), "sagan": (GOOD, 120, [])})
    known = findings(gather(paths), question())
    assert known.primary.comparisons[0].shown_per_flop is False
    first = next(caveats.of_study(in_words(known), known.runs.attempted, 0))
    assert "at equal FLOPs is not known (no scores on the way" in first


@pytest.mark.parametrize("baseline", ["no-attention", "sagan"])
def test_a_control_of_as_many_flops_shows_it_too(tmp_path: Path, baseline: str) -> None:
    """As in the study controls, where sagan is the baseline that `wider` is worse than."""
    paths = priced(tmp_path, {
        "no-attention": (BAD, 100, LATE), "sagan": (GOOD, 120, LATE), "wider": (BAD, 120, LATE),
    })  # fmt: skip
    pairs = {
        "no-attention": (("sagan", "no-attention"), ("sagan", "wider")),
        "sagan": (("no-attention", "sagan"), ("wider", "sagan")),
    }[baseline]
    known = findings(gather(paths), question(pairs=pairs[:1]))
    assert known.primary.comparisons[0].shown_per_flop is False
    known = findings(gather(paths), question(pairs=pairs))
    assert [c.shown_per_flop for c in known.primary.comparisons] == [True, None]


def test_as_much_must_be_shown_per_flop_as_is_said(tmp_path: Path) -> None:
    """At equal FLOPs the interval lies beyond 0, but not wholly beyond what matters."""
    at_equal = [(50, 0.5), (80, 0.55), (100, 1.0)]
    paths = priced(tmp_path, {"no-attention": (BAD, 100, EARLY), "sagan": (GOOD, 120, at_equal)})
    known = findings(gather(paths), question(measure=Measure(metric="twin_rate", min_effect=0.1)))
    (flops,) = secondary(known, "at equal FLOPs").comparisons
    (one,) = known.primary.comparisons
    assert flops.interval is not None
    assert 0 < flops.interval[0] < 0.1 < (flops.effect or 0)
    assert (one.verdict, one.shown_per_flop) == ("better by as much as matters", False)


# --- By budget, limits, plans ------------------------------------------------------------------


def test_each_difference_is_told_by_budget(tmp_path: Path) -> None:
    paths = priced(tmp_path, {"no-attention": (BAD, 100, EARLY), "sagan": (GOOD, 125, LATE)})
    known = findings(gather(paths), question())
    steps, flops, seconds = known.by_budget
    assert (steps.unit, flops.unit, seconds.unit) == ("steps", "flops", "seconds")
    assert steps.points[-1].budget == 100
    assert steps.points[-1].effect == pytest.approx(0.3)
    assert flops.points[-1].budget == 100 * 100  # what the cheaper spent in all
    assert steps.crosses is not None
    assert 90 < steps.crosses < 100
    lines = [of_curve(curve) for curve in known.by_budget]
    assert lines[0] == (
        "sagan against no-attention, by steps: higher by more than the 0.05 that matters from 94 "
        "steps on, its whole interval from 100 steps on"
    )
    again = json.loads(json.dumps(asdict(in_words(known)), allow_nan=False))
    assert len(again["by_budget"]) == 3


def test_seconds_of_a_shared_device_are_withheld_everywhere(tmp_path: Path) -> None:
    paths = group(tmp_path, "sagan", GOOD, curve=RISING, sets=["run.cells_on_device=2"])
    paths += group(tmp_path, "no-attention", BAD, curve=RISING)
    known = findings(gather(paths), question())
    seconds = secondary(known, "at equal seconds")
    assert (seconds.comparisons, seconds.sentences) == ((), ())
    assert seconds.absent == "withheld: runs shared a device, so their seconds tell of each other"
    assert [curve.withheld for curve in known.by_budget] == [None, None, "shared device"]


def test_runs_unlike_what_the_rule_was_measured_on_are_told(tmp_path: Path) -> None:
    known = found(tmp_path, [0.50, 0.51, 0.52, 0.50, 0.05], BAD)
    told = list(caveats.of_study(in_words(known), known.runs.attempted, 0))
    assert any(text.startswith("Run 4 of sagan lies far from its others") for text in told)
    regular = found(tmp_path / "regular", GOOD, BAD)
    assert regular.doubts == ()


def test_what_is_missing_is_counted_by_cells(tmp_path: Path) -> None:
    """A run at seed 17 does not stand in for that of seed 4, and is left out."""
    StudyManifest.begun(studies.load("quick"), HOST, "f").write(tmp_path)
    group(tmp_path, "sagan", GOOD[:4])
    extra = run(tmp_path, "sagan", 17, 0.9)
    group(tmp_path, "no-attention", BAD)
    known = of_study(tmp_path)
    assert known.missing == 1
    assert known.primary.comparisons[0].standing == Standing(Basis.PROVISIONAL, missing=1)
    assert of(known, "sagan").summary.n == 4
    assert known.runs.unplanned == (extra,)
    told = list(caveats.of_study(in_words(known), known.runs.attempted, 0))
    assert any("1 run that the study does not plan is left out" in text for text in told)
    assert in_words(known).headline == ("Provisional: 9 runs are over and 1 are still to come.",)


def test_runs_beyond_the_plan_are_never_a_negative_number_to_come(tmp_path: Path) -> None:
    StudyManifest.begun(studies.load("quick"), HOST, "f").write(tmp_path)
    group(tmp_path, "sagan", [*GOOD, 0.5])
    group(tmp_path, "no-attention", BAD)
    known = of_study(tmp_path)
    assert known.missing == 0
    assert known.primary.comparisons[0].verdict == "better by as much as matters"


def test_raw_scores_that_are_absent_are_no_divergence(tmp_path: Path) -> None:
    paths = group(tmp_path, "sagan", GOOD, scores=[score(0.5)]) + group(
        tmp_path, "no-attention", BAD
    )
    raw = secondary(findings(gather(paths), question()), "at the end, raw weights")
    assert "5 of 5 runs of sagan finished without a figure" in raw.sentences[0]
    assert "diverged" not in raw.sentences[0]
    assert raw.comparisons[0].p_better is None


def test_raw_weights_that_no_run_was_scored_by_are_said_to_be_so(tmp_path: Path) -> None:
    paths = [
        path for name in ("sagan", "no-attention")
        for path in group(tmp_path, name, GOOD, scores=[score(0.5)])
    ]  # fmt: skip
    raw = secondary(findings(gather(paths), question()), "at the end, raw weights")
    assert raw.absent == "no run was scored by them (`evaluate` with --weights raw does it)"
    assert (raw.comparisons, raw.sentences) == ((), ())


def test_each_claim_has_its_own_margin(tmp_path: Path) -> None:
    """Two baselines, of 20 and of 100, and 5 %: the second pair's margin is 5, not 1."""
    values = {"no-attention": 20.0, "sagan": 23.0, "feat4": 100.0, "feat16": 102.0}
    paths = [
        run(tmp_path, variant, seed, 0.5, scores=[score(0.5, fid=value + 0.5 * seed)])
        for variant, value in values.items()
        for seed in range(5)
    ]
    measure = Measure(metric="fid", min_effect="5%")
    pairs = (("sagan", "no-attention"), ("feat16", "feat4"))
    words = in_words(findings(gather(paths), question(measure=measure, pairs=pairs))).primary
    assert claims.claim(words.comparisons[1], words) == (
        "feat16 and feat4 differ by less than matters: FID[effnet-lite0] within ±5.05"
    )


def test_how_sure_counts_those_with_a_figure(tmp_path: Path) -> None:
    words = in_words(found(tmp_path, [0.5, 0.52, 0.49, None, None], BAD)).primary
    (claim,) = claims.claims(words, "complete", besides=lost)
    assert ("runs with a figure", "3 of 5 and 5 of 5") in claim.figures
    assert claim.rest == "2 of 5 runs of sagan diverged"
    sure = claims.sureness(words, "complete")
    assert sure is not None
    said = f"{claims.with_size(words.comparisons[0], words)} {sure}"
    assert not [text for _, text in claim.figures if text in said]  # each figure is said once


def test_what_differs_by_less_than_matters_is_not_called_alike(tmp_path: Path) -> None:
    near = [0.220, 0.241, 0.209, 0.231, 0.249]
    measure = Measure(metric="twin_rate", min_effect=0.1)
    known = found(tmp_path, [x + 0.02 for x in near], BAD, measure=measure)
    assert known.primary.comparisons[0].verdict == "no meaningful difference"
    assert sentence(known).startswith(
        "sagan differs from no-attention, but by less than the 0.1 that"
    )


def test_no_verdict_of_runs_that_no_study_names(tmp_path: Path) -> None:
    paths = group(tmp_path, "sagan", GOOD) + group(tmp_path, "no-attention", BAD)
    known = asking.about(gather(paths, loose=True), "no-attention", "twin_rate", 0.05)
    assert known.primary.comparisons
    for reading in (known.primary, *known.secondary):
        assert {c.verdict for c in reading.comparisons} <= {None}
        assert {c.standing for c in reading.comparisons} <= {Standing(Basis.POST_HOC)}
    assert "post hoc" in sentence(known)
    assert known.question.text == "How does sagan differ from no-attention?"


# --- What a sceptic found ----------------------------------------------------------------------


def test_at_equal_flops_both_are_read_where_both_were_scored(tmp_path: Path) -> None:
    """A last score before the end is not taken for one at the end."""
    early = [(25, 0.2), (50, 0.6)]
    paths = priced(tmp_path, {"no-attention": (BAD, 100, early), "sagan": (GOOD, 200, early)})
    known = findings(gather(paths), question())
    (flops,) = secondary(known, "at equal FLOPs").comparisons
    # both had spent 50 * 100: no-attention at 50, sagan at 25
    assert flops.effect == pytest.approx(0.2 * np.mean(GOOD) - 0.6 * np.mean(BAD))
    none = priced(
        tmp_path / "none",
        {"no-attention": (BAD, 100, [(100, 1.0)]), "sagan": (GOOD, 200, [(100, 1.0)])},
    )
    known = findings(gather(none), question())
    absent = secondary(known, "at equal FLOPs").absent
    assert absent == "no budget at which both have a score"
    assert known.primary.comparisons[0].shown_per_flop is False


def test_a_variant_with_two_baselines_is_read_at_each_ones_budget(tmp_path: Path) -> None:
    line = [(10, 0.1), (100, 1.0)]
    paths = priced(tmp_path, {
        "no-attention": (BAD, 50, line), "g-only": (BAD, 80, line), "sagan": (GOOD, 100, line),
    })  # fmt: skip
    pairs = (("sagan", "no-attention"), ("sagan", "g-only"))
    known = findings(gather(paths), question(pairs=pairs))
    first, second = secondary(known, "at equal FLOPs").comparisons
    assert first.effect == pytest.approx(0.5 * np.mean(GOOD) - np.mean(BAD))
    assert second.effect == pytest.approx(0.8 * np.mean(GOOD) - np.mean(BAD))
    assert (second.variant, second.baseline) == ("sagan", "g-only (budget of sagan)")


def test_flops_are_those_of_any_run_that_knows_them(tmp_path: Path) -> None:
    paths = priced(tmp_path, {"no-attention": (BAD, 100, LATE), "sagan": (GOOD[1:], 200, LATE)})
    for path in paths[5:]:
        path.rename(path.with_name(path.name.replace("-s", "-t")))
    failed = run(tmp_path, "sagan", 9, None, status="failed", cost={"flops_per_step": None})
    more = [run(tmp_path / "more", "sagan", 8, 0.5, curve=LATE, cost={"flops_per_step": 200})]
    paths = [*paths[:5], *sorted(tmp_path.glob("sagan-t*")), failed, *more]
    known = findings(gather(paths), question())
    assert known.runs.flops_per_step("sagan") == 200


def test_flops_that_one_side_alone_knows_show_nothing(tmp_path: Path) -> None:
    paths = group(tmp_path, "sagan", GOOD, cost={"flops_per_step": None})
    paths += group(tmp_path, "no-attention", BAD)
    known = findings(gather(paths), question())
    assert known.primary.comparisons[0].shown_per_flop is False


def test_one_pair_without_costs_leaves_the_others(tmp_path: Path) -> None:
    paths = priced(tmp_path, {"no-attention": (BAD, 100, EARLY), "sagan": (GOOD, 120, EARLY)})
    paths += group(tmp_path, "g-only", GOOD, curve=EARLY, cost={"flops_per_step": None})
    paths += group(tmp_path, "feat4", [None] * 5)
    pairs = tuple((name, "no-attention") for name in ("sagan", "g-only", "feat4"))
    known = findings(gather(paths), question(pairs=pairs))
    there, absent = (r for r in known.secondary if r.kind == "FLOPs")
    assert [c.variant for c in there.comparisons] == ["sagan", "feat4"]
    assert absent.without == (("g-only", "no-attention"),)
    assert known.primary.comparisons[0].shown_per_flop is True


def test_equal_flops_that_point_the_other_way_are_told_beside_a_control(tmp_path: Path) -> None:
    far = [(50, 0.2), (83, 0.2), (100, 1.0)]
    paths = priced(tmp_path, {
        "no-attention": (BAD, 100, EARLY), "sagan": (GOOD, 120, far), "wider": (BAD, 120, EARLY),
    })  # fmt: skip
    known = findings(gather(paths), question(pairs=(("sagan", "no-attention"), ("sagan", "wider"))))
    assert known.primary.comparisons[0].shown_per_flop is True
    told = list(caveats.contraries(in_words(known)))
    assert any("at equal FLOPs" in text and "points the other way" in text for text in told)


def test_a_loser_of_another_recipe_is_no_control(tmp_path: Path) -> None:
    paths = priced(tmp_path, {"no-attention": (BAD, 100, LATE), "sagan": (GOOD, 120, LATE)})
    slow = ["training.lr_g=0.001"]
    paths += group(tmp_path, "wider", BAD, curve=LATE, cost={"flops_per_step": 120}, sets=slow)
    known = findings(gather(paths), question(pairs=(("sagan", "no-attention"), ("sagan", "wider"))))
    assert known.primary.comparisons[0].shown_per_flop is False


def test_a_curve_by_budget_says_what_it_rests_on(tmp_path: Path) -> None:
    paths = group(tmp_path, "sagan", [*GOOD, None, None], curve=RISING)
    paths += group(tmp_path, "no-attention", BAD, curve=RISING)
    (steps, *_) = findings(gather(paths), question(looks=1)).by_budget
    assert of_curve(steps).startswith(
        "sagan against no-attention, by steps (exploratory, of the 5 and 5 runs that finished): "
    )
    small = findings(gather(paths), question(comparable=False))
    assert small.by_budget == ()


def test_scores_on_the_way_of_two_protocols_are_not_put_together(tmp_path: Path) -> None:
    paths = group(tmp_path, "sagan", GOOD, curve=RISING) + group(tmp_path, "no-attention", BAD)
    curves = [score(v, step, final=False, n_fake=64) for step, v in RISING]
    for path in paths[5:]:
        record = json.loads((path / "record.json").read_text())
        record["scores"] = [*(s.model_dump(mode="json") for s in curves), *record["scores"]]
        record.pop("sha256", None)
        (path / "record.json").write_text(json.dumps(record))
    known = findings(gather(paths), question())
    assert secondary(known, "the best on the way").absent == (
        "scores on the way were taken under different protocols"
    )
    assert known.by_budget == ()


def test_seconds_on_different_devices_are_not_put_together(tmp_path: Path) -> None:
    paths = group(tmp_path, "sagan", GOOD, curve=RISING)
    paths += group(tmp_path, "no-attention", BAD, curve=RISING)
    for path in paths[5:]:
        record = json.loads((path / "record.json").read_text())
        record["environment"]["device_name"] = "a card"
        record.pop("sha256", None)
        (path / "record.json").write_text(json.dumps(record))
    known = findings(gather(paths), question())
    assert secondary(known, "at equal seconds").absent == (
        "withheld: runs were made on different devices"
    )
    assert known.by_budget[2].withheld == "other devices"


def test_a_margin_of_nothing_is_no_margin_to_be_beyond(tmp_path: Path) -> None:
    known = found(tmp_path, GOOD, BAD, measure=Measure(metric="twin_rate", min_effect=0.0))
    assert known.primary.comparisons[0].verdict == "better"
