"""What scoring will take: images by number, seconds only where they were measured."""

import json
from pathlib import Path

import pytest
from example_runs import SMALL

from sagan_bench.cli.progress import ahead as in_words
from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import Manifest
from sagan_bench.evaluation import foreseeing
from sagan_bench.evaluation.foreseeing import ScoringAhead, Where, ahead, note

HOST = Host(bf16=False, extractor="efficientnet-lite0")
HERE = Where("cpu", "a processor", 2)


@pytest.fixture(autouse=True)
def _new_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGAN_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return prepare(DataSpec("twins", 32, train_images=48, test_images=16)).manifest


def make(*sets: str) -> RunConfig:
    return resolve(HOST, sets=[*SMALL, *sets]).config


def timed(config: RunConfig, features: float, rest: float | None, where: Where = HERE) -> None:
    note(foreseeing.extraction("efficientnet-lite0", where), features)
    if rest is not None:
        note(foreseeing.drawing(config, "twins", where), rest)


def test_images_are_counted_and_no_time_is_made_up(manifest: Manifest) -> None:
    many = make("evaluation.sampling_seeds=[0, 1]", 'run.score_weights=["ema", "raw"]')
    told = ahead(many, manifest, HERE)
    assert told == ScoringAhead(40, 0, 24 + 10, ("efficientnet-lite0",), None, at_least=False)
    assert in_words(told).startswith("40 generated + 34 real images by efficientnet-lite0")
    assert "in a time not known yet on this machine" in in_words(told)


def test_looks_on_the_way_count_from_the_step_that_was_reached(manifest: Manifest) -> None:
    config = make("run.eval_every=2", "run.eval_images=8")
    left = [ahead(config, manifest, HERE, done=done).on_the_way for done in (0, 1, 2, 6)]
    assert left == [24, 24, 16, 0]
    assert ahead(config, manifest, HERE).real == 24 + 10 + 24 + 8
    by_rule = make("run.eval_every=2", "run.eval_metrics=rule", "run.score_weights=[]")
    told = ahead(by_rule, manifest, HERE)
    assert (told.generated, told.on_the_way, told.real) == (0, 3 * 512, 0)
    assert "none at the end" in in_words(told)


def test_scores_by_the_rule_alone_take_what_drawing_takes(manifest: Manifest) -> None:
    by_rule = make("run.eval_every=2", "run.eval_metrics=rule", "run.score_weights=[]")
    note(foreseeing.extraction("efficientnet-lite0", HERE), 0.5)
    assert ahead(by_rule, manifest, HERE).seconds is None
    timed(by_rule, 0.5, 0.25)
    told = ahead(by_rule, manifest, HERE)
    assert (told.seconds, told.at_least) == (0.25 * 3 * 512, False)


def test_nothing_is_ahead_of_a_run_that_is_not_scored(manifest: Manifest) -> None:
    assert in_words(ahead(make("run.score_weights=[]"), manifest, HERE)) == "none"


def test_seconds_are_those_of_such_work_on_such_a_machine(manifest: Manifest) -> None:
    config = make()
    timed(config, 0.5, None)
    told = ahead(config, manifest, HERE)
    assert (told.seconds, told.at_least) == (0.5 * (10 + 34), True)
    assert "at least 0:00:22" in in_words(told)
    timed(config, 0.5, 0.25)
    told = ahead(config, manifest, HERE)
    assert (told.seconds, told.at_least) == (22 + 0.25 * 10, False)
    assert "about 0:00:24" in in_words(told)
    assert ahead(make("model.width=16"), manifest, HERE).at_least
    for other in (HERE._replace(threads=1), HERE._replace(name="b"), HERE._replace(processes=2)):
        assert ahead(config, manifest, other).seconds is None
    timed(config, 0.5, 0.25, where=HERE._replace(processes=2))
    shared = ahead(config, manifest, HERE._replace(processes=2))
    assert shared.seconds == 0.5 * (10 + 2 * 34) + 0.25 * 10  # real ones are one process's


def test_real_images_that_were_seen_are_seen_no_more(manifest: Manifest) -> None:
    config = make()
    note(foreseeing.real_side(config, manifest, HERE, "efficientnet-lite0", 10))
    assert ahead(config, manifest, HERE).real == 0
    assert ahead(make("run.score_weights=['raw']"), manifest, HERE).real == 0
    for other in ("evaluation.n_fake=9", "evaluation.n_real=23", "evaluation.n_floor=9"):
        assert ahead(make(other), manifest, HERE).real > 0
    facts = manifest.train.model_copy(update={"content_sha256": "other"})
    others = manifest.model_copy(update={"definition": None, "train": facts})
    assert ahead(config, others, HERE).real > 0


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"seconds_per_image": "1"}', '{"a": 1}'])
def test_a_damaged_note_is_none(damage: str, manifest: Manifest) -> None:
    config = make()
    timed(config, 0.5, 0.25)
    for file in foreseeing._folder().iterdir():
        file.write_text(damage)
    assert ahead(config, manifest, HERE).seconds is None


def test_a_plan_holds_it_as_plain_data(manifest: Manifest) -> None:
    told = ahead(make(), manifest, HERE)
    assert ScoringAhead(**json.loads(json.dumps(told._asdict()))) == told._replace(
        extractors=["efficientnet-lite0"]  # type: ignore[arg-type]
    )
