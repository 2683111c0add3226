"""Which scores a run ends with: of averaged weights, of more if asked, of none if asked."""

from pathlib import Path

import pytest
from command_line import run
from example_runs import SMALL

from sagan_bench import cli
from sagan_bench.cli.train import too_short_to_score
from sagan_bench.config.layers import of_experiment, resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.report.repeating import of_run
from sagan_bench.runs import records
from sagan_bench.runs.records import Record
from sagan_bench.runs.run import Run
from sagan_bench.session import experiment
from sagan_bench.session.events import Event, ScoringAhead
from sagan_bench.session.rescoring import lacking
from sagan_bench.training.loop import Step

HOST = Host(bf16=False, extractor="efficientnet-lite0")
Out = pytest.CaptureFixture[str]


def make(*sets: str) -> RunConfig:
    return resolve(HOST, sets=[*SMALL, "run.steps=2", *sets]).config


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """The record of a run that was scored by both kinds of weights."""
    both = make('run.score_weights=["raw", "ema", "raw"]')
    return experiment.run(both, out=tmp_path_factory.mktemp("scored") / "run")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A finished run that was not to be scored."""
    experiment.run(make("run.score_weights=[]"), out=tmp_path / "bare")
    return tmp_path / "bare"


def test_raw_weights_are_scored_when_asked_and_in_the_same_run(scored: Record) -> None:
    assert [score.weights for score in scored.scores] == ["ema", "raw"]
    assert scored.config_digest == resolve_digest(scored)
    assert 'run.score_weights=["ema", "raw"]' in str(of_run(scored, Path("run")))


def resolve_digest(record: Record) -> str:
    """Return the digest of a run that is scored as usual, on the images of a record."""
    assert record.data
    return make().digest(record.data.fingerprint)


def test_a_run_that_is_not_scored_has_the_scores_later_that_it_would_have_had(
    bare: Path, scored: Record
) -> None:
    record = records.read(bare)
    assert (record.status, record.step, record.scores) == ("finished", 2, ())
    assert record.is_unscored
    assert record.config_digest == scored.config_digest
    config = Run(bare, record).config
    assert lacking(Run(bare, record), config) == (0,)
    (made,) = experiment.evaluate(bare, config).scores
    assert made == scored.scores[0]
    assert not records.read(bare).is_unscored
    raw = experiment.evaluate(bare, config, weights=["raw"])
    assert raw.scores == scored.scores


def test_what_is_scored_again_is_what_was_scored(scored: Record, bare: Path) -> None:
    experiment.evaluate(bare, make())
    more = make("evaluation.sampling_seeds=[1]")
    assert [score.weights for score in experiment.evaluate(bare, more).scores] == ["ema"] * 2
    only_ema = Run(bare, records.read(bare))
    assert lacking(only_ema, make()) == ()
    assert lacking(only_ema, make(), ("ema", "raw")) == (0,)
    assert lacking(Run(bare, scored), more) == (1,)


def test_that_it_is_not_scored_is_said_with_what_to_do(bare: Path, capsys: Out) -> None:
    says = f"not scored: none was asked for; python cli.py evaluate {bare} makes up for it"
    for words in (("show", str(bare)), ("list", "--runs", str(bare.parent))):
        assert run(*words) == 0
        assert "not scored" in capsys.readouterr().out
    assert run("show", str(bare)) == 0
    assert says in capsys.readouterr().out.replace("sagan-bench", "python cli.py")
    assert run("compare", str(bare), "--baseline", "sagan") == cli.USAGE
    assert f"{bare} has no final score; run `evaluate` on it" in capsys.readouterr().err
    assert run("evaluate", str(bare)) == 0
    assert "not scored" not in capsys.readouterr().out
    assert run("evaluate", str(bare), "--weights", "row") == cli.USAGE
    assert "did you mean 'raw'" in capsys.readouterr().err


def test_a_run_of_raw_weights_alone_is_told_how_to_be_compared(tmp_path: Path, capsys: Out) -> None:
    raw = tmp_path / "raw"
    experiment.run(make('run.score_weights=["raw"]'), out=raw)
    assert run("compare", str(raw), "--baseline", "sagan") == cli.USAGE
    told = f"{raw} has no final score of averaged weights; run `evaluate` on it with --weights ema"
    assert told in capsys.readouterr().err
    assert run("evaluate", str(raw), "--weights", "ema") == 0
    capsys.readouterr()
    run("compare", str(raw), "--baseline", "sagan")
    assert "no final score" not in capsys.readouterr().err


def test_options_of_train_ask_for_it(capsys: Out) -> None:
    by_option = ("run.steps", "evaluation.n_fake")
    left = [text for text in SMALL if not text.startswith(by_option)]
    sets = [part for text in left for part in ("--set", text)]
    less = ("train", *sets, "--steps", "1", "--name")
    assert run(*less, "none", "--no-score", "--set", "evaluation.n_fake=10") == 0
    assert run(*less, "few", "--score-images", "8") == 0
    none, few = (records.read(next(Path("runs").glob(f"{name}-*"))) for name in ("none", "few"))
    assert (none.config["run"]["score_weights"], none.scores) == ([], ())  # type: ignore[index, call-overload]
    assert [score.n_fake for score in few.scores] == [8]
    assert (none.step, none.config_digest != few.config_digest) == (1, True)
    capsys.readouterr()
    assert run("evaluate", none.run) == 0
    paths = [str(Path("runs") / record.run) for record in (none, few)]
    assert run("compare", *paths, "--baseline", "none") == cli.USAGE
    assert "different protocols are never compared: n_fake: 10 and 8" in capsys.readouterr().err


def test_an_experiment_is_judged_by_scores_of_averaged_weights() -> None:
    for weights in ([], ["raw"]):
        layer = ("--set", {"run.score_weights": weights})
        with pytest.raises(UserError, match=r"run\.score_weights = .* leave ema in"):
            of_experiment("quick", "sagan", layer, seed=0)
    of_experiment("quick", "sagan", ("--set", {"run.score_weights": ["raw", "ema"]}), seed=0)


def test_a_trial_is_told_what_spares_a_full_score() -> None:
    def told(*sets: str) -> str:
        return too_short_to_score(resolve(HOST, preset="celeba64", sets=sets).config)

    assert "4 of the 1,000,000 steps of preset celeba64: scoring 10,000 images" in told(
        "run.steps=4"
    )
    assert "--score-images 500 or --no-score" in told("run.steps=99999")
    assert told("run.steps=100000") == ""
    assert told("run.steps=4", "evaluation.n_fake=500") == ""
    assert told("run.steps=4", "run.score_weights=[]") == ""


def test_what_is_ahead_is_told_before_training(tmp_path: Path) -> None:
    seen: list[Event] = []
    experiment.run(make(), out=tmp_path / "run", watch=seen.append)
    ahead = [type(event) for event in seen if isinstance(event, ScoringAhead | Step)]
    assert ahead == [ScoringAhead, Step, Step]
    (told,) = (event for event in seen if isinstance(event, ScoringAhead))
    planned = experiment.dry_run(make(), tmp_path / "other")["scoring"]
    assert (told.generated, planned["generated"], planned["real"]) == (10, 10, 0)
    assert planned["seconds"] > 0
    assert not planned["at_least"]  # drawing was timed too
    assert "scoring" not in experiment.dry_run(make(), tmp_path / "run")
