"""A metric and an extractor of a user's: one class each, and every room knows them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_runs import SMALL
from example_scores import registered
from example_tunings import small_tuning
from torch import Tensor, nn

from sagan_bench.analysis.asking import about
from sagan_bench.analysis.gathering import gather
from sagan_bench.config.layers import override, resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.config.section import Section
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import EXTRACTORS, METRICS
from sagan_bench.evaluation.extractors import Extractor
from sagan_bench.evaluation.frechet import frechet
from sagan_bench.evaluation.measuring import measure
from sagan_bench.evaluation.metrics import Evidence, Metric
from sagan_bench.evaluation.protocol import Protocol
from sagan_bench.experiments.tuning.definition import better
from sagan_bench.experiments.tuning.trials import value
from sagan_bench.runs.records import read
from sagan_bench.session import experiment
from sagan_bench.session.rescoring import evaluate

HOST = Host(bf16=False, extractor="efficientnet-lite0")
MORE = 'evaluation.metrics=["colour_distance"]'
THRICE = "evaluation.options.colour_distance.times=3"


FACTS = """
import sys
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.evaluation.metrics import shown
from sagan_bench.evaluation.protocol import label
print(*shown())
print(*(label("fid", name) for name in EXTRACTORS), *EXTRACTORS["inception"].facts())
assert "torch" not in sys.modules
"""


class Means(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images.float().mean((2, 3)),)


class Colours(Extractor):
    layer, dimensions, resize, weights_sha256 = "mean colour", 3, "none", "c" * 64

    @classmethod
    def weights(cls, file: Path | None = None) -> Path:
        return Path()

    def build(self, weights: Path) -> nn.Module:
        return Means()


class ColourDistance(Metric):
    title, better, beyond, extractor = "FCD", "lower", 1e6, "colours"

    class Settings(Section):
        times: float = 1.0

    def measure(self, evidence: Evidence) -> dict[str, float]:
        return {self.name: self.settings.times * frechet(evidence.features.pool, evidence.real)}


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    with (
        registered(EXTRACTORS, "colours", Colours),
        registered(METRICS, "colour_distance", ColourDistance),
    ):
        yield


def config(variant: str, *sets: str) -> RunConfig:
    return resolve(HOST, variant=variant, sets=[*SMALL, MORE, *sets]).config


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = [tmp_path_factory.mktemp("runs") / name for name in ("sagan", "no-attention")]
    for path in paths:
        experiment.run(config(path.name), out=path)
    return paths


def test_its_figures_stand_beside_fid_under_a_protocol_of_their_own(runs: list[Path]) -> None:
    finals = [score for score in read(runs[0]).scores if score.final]
    assert [score.weights for score in finals] == ["ema", "ema"]
    fid, colours = finals
    assert fid.metrics.keys() > {"fid", "twin_rate"}
    assert colours.metrics.keys() == colours.floor.keys() == {"colour_distance"}
    assert "colour_distance" not in fid.metrics
    assert colours.fingerprint != fid.fingerprint
    names = [score.protocol["extractor"] for score in finals]
    assert names == ["efficientnet-lite0", "colours"]
    assert not any("FID" in text or "IS" in text for text in colours.warnings)


def test_runs_are_compared_and_tuned_by_it_by_name(runs: list[Path], tmp_path: Path) -> None:
    names = ("colour_distance", "fid")
    found, by_fid = (about(gather(runs, loose=True), "no-attention", name, None) for name in names)
    assert (found.primary.how.label, found.primary.how.better) == ("FCD[colours]", "lower")
    assert by_fid.primary.how.label == "FID[effnet-lite0]"
    means = [[variant.summary.mean for variant in each.variants] for each in (found, by_fid)]
    records = [read(path) for path in runs]
    for name, measured in zip(names, means, strict=True):
        assert sorted(map(str, measured)) == sorted(str(value(each, name)) for each in records)
    assert better("colour_distance") == "lower"
    small_tuning(tmp_path, MORE, objectives=("colour_distance",))
    with pytest.raises(UserError, match=r"measured with --set evaluation\.metrics="):
        small_tuning(tmp_path, objectives=("colour_distance",))


def test_its_settings_are_in_the_digest_the_protocol_and_the_figure(runs: list[Path]) -> None:
    plain, thrice = config("sagan"), config("sagan", THRICE)
    assert plain.digest("d") != thrice.digest("d")
    assert config("sagan", "evaluation.options.colour_distance.times=1") == plain
    scores = evaluate(runs[0], override(plain, {THRICE[:-2]: ("--set", 3)})).scores
    once, again = (s for s in scores if "colour_distance" in s.metrics and s.weights == "ema")
    before, after = (score.metrics["colour_distance"] or 0.0 for score in (once, again))
    assert after == pytest.approx(3 * before)
    assert before > 0
    assert again.protocol["options"] == {"colour_distance": {"times": 3.0}}
    assert "options" not in once.protocol
    assert again.fingerprint != once.fingerprint


def test_facts_are_known_without_torch() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FACTS], check=True, capture_output=True, text=True
    )
    metrics, extractors = ended.stdout.splitlines()
    assert metrics.split() == [
        "fid", "intra_fid", "kid_mean", "isc_mean", "precision", "recall",
        "twin_rate", "hue_match", "area_match",
    ]  # fmt: skip
    assert extractors.startswith("FID[effnet-lite0] FID extractor layer")


def test_unknown_names_and_settings_are_refused() -> None:
    for text, says in (
        ('evaluation.metrics=["colour"]', "no metric is called 'colour'"),
        ("evaluation.extractor=inceptoin", "did you mean 'inception'"),
        ("evaluation.options.colours.x=1", r"evaluation\.options"),
        ("evaluation.options.color_distance.times=1", "did you mean 'colour_distance'"),
        ("evaluation.options.colour_distance.times=none", "number"),
    ):
        with pytest.raises(UserError, match=says):
            config("sagan", text)


def test_less_is_better_says_what_is_worst() -> None:
    with pytest.raises(TypeError, match="beyond"):
        type("Careless", (ColourDistance,), {"beyond": 0.0})


class BrightShare(Metric):
    """Of pixels above a threshold: it needs no extractor."""

    better, extractor = "higher", None

    class Settings(Section):
        above: float = 100.0
        file: Path | None = None
        mode: str = ""

    def measure(self, evidence: Evidence) -> Any:
        return {self.name: (evidence.images > self.settings.above).float().mean()}


def test_a_metric_of_pixels_has_its_settings_in_the_protocol_and_takes_no_figure_away(
    runs: list[Path],
) -> None:
    with registered(METRICS, "bright_share", BrightShare):
        for above in (100, 200):
            sets = (
                'evaluation.metrics=["bright_share"]',
                f"evaluation.options.bright_share.above={above}",
            )
            scores = evaluate(runs[1], config("no-attention", *sets)).scores
        ours = [score for score in scores if score.metrics.get("bright_share") is not None]
        assert len({score.fingerprint for score in ours if score.weights == "ema"}) == 2
        plain = config("no-attention", 'evaluation.metrics=["bright_share"]')
        again = evaluate(runs[1], plain)
        (first,) = (
            score
            for score in again.scores
            if score.weights == "ema"
            and score.final
            and "options" not in score.protocol
            and score.protocol["extractor"] == "efficientnet-lite0"
        )
        assert {"fid", "bright_share"} <= first.metrics.keys()
        evaluate(runs[1], config("no-attention"))
        kept = [score for score in read(runs[1]).scores if score.fingerprint == first.fingerprint]
        assert any("bright_share" in score.metrics for score in kept)
        own = config("no-attention", "evaluation.options.bright_share.mode=auto",
                     "evaluation.options.bright_share.file=x/y")  # fmt: skip
        assert own.digest("d")
        with pytest.raises(
            UserError, match=r"bright_share\.abov .*\(--set\).*did you mean 'above'"
        ):
            config("no-attention", "evaluation.options.bright_share.abov=3")


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ({"fid": 7.0}, "another figure called 'fid'"),
        ({"bad": "text"}, "metric bad failed: ValueError"),
        (None, "metric bad failed: AttributeError"),
    ],
)
def test_a_metric_that_fails_is_named_and_takes_no_others_key(figures: Any, says: str) -> None:
    class Bad(Metric):
        better = "higher"

        def measure(self, evidence: Evidence) -> Any:
            return figures

    class Good(Metric):
        better = "higher"

        def measure(self, evidence: Evidence) -> Any:
            return {"fid": np.float32(1.5)}

    Bad.name, Good.name = "bad", "good"
    assert measure(None, [Good()]) == {"fid": 1.5}  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=says):
        measure(None, [Good(), Bad()])  # type: ignore[arg-type]


def test_metrics_are_chosen_once_and_in_one_order() -> None:
    twice = config("sagan", 'evaluation.metrics=["colour_distance", "fid", "colour_distance"]')
    assert twice.evaluation.metrics == ("colour_distance",)
    with pytest.raises(UserError, match=r"is measured with --set evaluation\.intra_class"):
        config("sagan", 'evaluation.metrics=["intra_fid"]')


def test_a_run_whose_component_is_not_here_is_not_called_damaged(runs: list[Path]) -> None:
    path = runs[0]
    name = METRICS._known.pop("colour_distance")
    try:
        with pytest.raises(UserError, match=r"no metric is called 'colour_distance'.*put its file"):
            about(gather([path], loose=True), None, None, None)
    finally:
        METRICS._known["colour_distance"] = name


class Undefined(BrightShare):
    """Of no image."""

    @classmethod
    def doubts(cls, protocol: Protocol) -> Iterator[str]:
        yield f"{cls.name} of {protocol.n_fake} says little"

    def measure(self, evidence: Evidence) -> Any:
        return {self.name: float("nan")}


def test_doubts_of_a_metric_of_pixels_are_said(runs: list[Path]) -> None:
    with registered(METRICS, "undefined_share", Undefined):
        own = config("no-attention", 'evaluation.metrics=["undefined_share"]')
        warnings = [text for score in evaluate(runs[1], own).scores for text in score.warnings]
    assert "undefined_share is undefined for these images" in warnings
    assert "undefined_share of 10 says little" in warnings
