"""A finished run trained further, what it keeps for that, and runs that begin with its weights."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from example_runs import SMALL

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.runs import keeping, records
from sagan_bench.runs.keeping import kept_bytes, prune, saved_in
from sagan_bench.runs.run import Run
from sagan_bench.runs.run_directory import RunDirectory
from sagan_bench.session import experiment
from sagan_bench.session.events import Stopped
from sagan_bench.session.rescoring import lacking
from sagan_bench.training import checkpoint
from sagan_bench.training.checkpoint import Checkpoints
from sagan_bench.training.kept import ELSEWHERE, EXPORTED
from sagan_bench.training.loop import Step
from sagan_bench.training.state import NETWORKS, PARTS

HOST = Host(bf16=False, extractor="efficientnet-lite0")
PLAIN = "no-spectral-norm"
"""A variant whose exported weights are those of training, to the bit."""


UNSCORED = "run.score_weights=[]"
SCORED = 'run.score_weights=["ema"]'


def make(*sets: str, variant: str = "sagan") -> RunConfig:
    return resolve(HOST, variant=variant, sets=[*SMALL, UNSCORED, *sets]).config


def rows(path: Path) -> list[dict[str, float]]:
    read = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    vary = ("images_per_sec", "peak_memory_gib")
    return [{k: v for k, v in row.items() if k not in vary} for row in read]


def state_of(path: Path) -> dict[str, Any]:
    latest = Checkpoints(path / "checkpoints").latest()
    assert latest is not None
    return latest[1]


def equal(a: Any, b: Any) -> bool:
    """Whether two states hold the same, tensors to the bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def same_run(a: Path, b: Path) -> bool:
    weights = (checkpoint.load(path / "weights.pt") for path in (a, b))
    states = ({part: state_of(path)[part] for part in PARTS} for path in (a, b))
    return equal(*weights) and equal(*states) and rows(a) == rows(b)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 4 steps, not to be changed by a test."""
    path = tmp_path_factory.mktemp("short") / "run"
    experiment.run(make("run.steps=4"), out=path)
    return path


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run of 6 steps at once."""
    path = tmp_path_factory.mktemp("long") / "run"
    experiment.run(make(), out=path)
    return path


@pytest.fixture
def run(short: Path, tmp_path: Path) -> Path:
    """A copy of `short`."""
    return shutil.copytree(short, tmp_path / "run")


# --- Trained further ----------------------------------------------------------------------------


def test_a_finished_run_goes_on_with_the_bits_of_one_that_never_ended(
    run: Path, long: Path
) -> None:
    record = experiment.run(make(), out=run)
    assert (record.status, record.step, record.attempts[-1].from_step) == ("finished", 6, 4)
    assert same_run(run, long)


def test_a_run_without_spectral_norm_goes_on_likewise(tmp_path: Path) -> None:
    """All its weights are in one file alone, and come from there."""
    experiment.run(make("run.steps=4", variant=PLAIN), out=tmp_path / "run")
    experiment.run(make(variant=PLAIN), out=tmp_path / "run")
    experiment.run(make(variant=PLAIN), out=tmp_path / "long")
    assert same_run(tmp_path / "run", tmp_path / "long")


@pytest.mark.parametrize("variant", ["sagan", PLAIN])
def test_what_is_kept_repeats_no_weight_that_is_exported(variant: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    experiment.run(make("run.steps=2", variant=variant), out=path)
    (file,) = saved_in(path)
    state, weights = checkpoint.load(file), checkpoint.load(path / "weights.pt")
    twice = [
        name
        for part, kind in EXPORTED.items()
        for name, value in state[part].items()
        if name in weights[kind] and torch.equal(value, weights[kind][name])
    ]
    assert not twice
    left_out = {name for part in EXPORTED for name in state[ELSEWHERE][part]}
    assert "out.bias" in left_out
    assert ("out.weight" in left_out) == (variant == PLAIN)
    if variant == PLAIN:  # what stays are statistics of BatchNorm, which are made anew to be scored
        assert all("running" in name or "batches" in name for name in state["generator"])


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", ["before", "between"])
def test_a_kill_as_the_state_is_slimmed_loses_nothing(
    moment: str, tmp_path: Path, long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, path = Checkpoints.save, tmp_path / "run"

    def save(self: Checkpoints, step: int, state: dict[str, Any]) -> None:
        if ELSEWHERE not in state:
            return saved(self, step, state)
        if moment == "before":
            raise Killed
        saved(self, step, state)
        if moment == "between":  # the older checkpoint is still there
            raise Killed
        return None

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        with pytest.raises(Killed):
            experiment.run(make("run.steps=4"), out=path)
    assert len(saved_in(path)) == 2
    assert records.read(path).status == "finished"
    experiment.run(make("run.steps=4"), out=path)  # the same command again does what is left
    assert ELSEWHERE in checkpoint.load(saved_in(path)[0])
    assert len(saved_in(path)) == 1
    experiment.run(make(), out=path)
    assert same_run(path, long)


def test_a_run_killed_once_it_had_gone_on_goes_on_again(run: Path, long: Path) -> None:
    seen: list[object] = []

    def stop() -> str | None:
        return "interrupted" if any(isinstance(e, Step) and e.step == 5 for e in seen) else None

    with pytest.raises(Stopped):
        experiment.run(make("run.checkpoint_every=100"), out=run, watch=seen.append, stop=stop)
    for file in saved_in(run)[1:]:
        file.unlink()  # as if it had been killed before its first checkpoint
    assert [file.name for file in saved_in(run)] == ["step-00000004.ckpt"]
    experiment.run(make(), out=run)
    assert same_run(run, long)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda file: file.unlink(), "weights.pt, a part of it, is gone"),
        (lambda file: checkpoint.save(file, {"step": 4, "ema": {}, "raw": {}}), "is another"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "it is not one, or it is cut"),
    ],
)
def test_damage_of_either_file_is_seen(
    spoil: Callable[[Path], None], told: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(run / "weights.pt")
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        experiment.run(make(), out=run)
    assert told in caplog.text
    assert records.read(run).step == 4


def test_a_full_disk_as_the_state_is_slimmed_leaves_a_finished_run_that_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Checkpoints) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Checkpoints, "slim", full)
    record = experiment.run(make("run.steps=4"), out=tmp_path / "run")
    assert record.status == "finished"
    assert "its checkpoint stays as it is" in caplog.text
    assert ELSEWHERE not in state_of(tmp_path / "run")


def test_a_run_of_before_with_its_whole_checkpoint_goes_on(
    tmp_path: Path, long: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "slim", lambda self: None)
        experiment.run(make("run.steps=4", "run.keep_training_state=true"), out=tmp_path / "run")
    assert ELSEWHERE not in checkpoint.load(saved_in(tmp_path / "run")[-1])
    experiment.run(make(), out=tmp_path / "run")
    assert same_run(tmp_path / "run", long)


@pytest.mark.parametrize(("choice", "stays"), [("true", True), ("false", False), ("auto", False)])
def test_what_is_large_is_kept_if_asked_for(
    choice: str, stays: bool, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "MOST_BYTES", 10)
    config = make("run.steps=4", f"run.keep_training_state={choice}")
    planned = experiment.dry_run(make("run.steps=6", f"run.keep_training_state={choice}"), run)
    assert planned["training_state"]["kept"] == stays
    experiment.run(config, out=run)
    assert bool(saved_in(run)) == stays


def test_the_plan_foresees_how_large_it_is(tmp_path: Path) -> None:
    sets = ("run.steps=1", "model.width=16")
    planned = experiment.dry_run(make(*sets))["training_state"]
    experiment.run(make(*sets), out=tmp_path / "run")
    assert planned["kept"]
    assert planned["bytes"] == pytest.approx(kept_bytes(tmp_path / "run"), rel=0.25)


def test_the_score_of_the_earlier_end_stays_and_counts_as_none_of_the_end(tmp_path: Path) -> None:
    path = tmp_path / "run"
    first = experiment.run(make("run.steps=4", SCORED), out=path)
    record = experiment.run(make(SCORED), out=path)
    assert [(score.step, score.final) for score in record.scores] == [(4, True), (6, True)]
    assert record.scores[0] == first.scores[0]
    assert records.read(path) == record
    earlier = record.model_copy(update={"scores": record.scores[:1]})
    assert lacking(Run(path, record), make()) == ()
    assert lacking(Run(path, earlier), make()) == (0,)


# --- Pruned -------------------------------------------------------------------------------------


def test_pruning_frees_the_state_alone_and_twice_is_once(run: Path) -> None:
    def others() -> dict[str, bytes]:
        files = (file for file in run.rglob("*") if file.is_file() and file.suffix != ".ckpt")
        return {str(file): file.read_bytes() for file in files if not file.name.startswith(".")}

    before, size = others(), kept_bytes(run)
    assert prune(run) == size > 0
    assert others() == before
    assert prune(run) == 0
    assert experiment.run(make("run.steps=4"), out=run) == records.read(run)
    with pytest.raises(UserError, match="has no training state"):
        experiment.run(make(), out=run)
    assert experiment.evaluate(run, make("evaluation.n_fake=11")).scores[-1].n_fake == 11


def test_what_is_not_over_or_is_trained_just_now_is_not_pruned(run: Path, tmp_path: Path) -> None:
    record = records.read(run)
    held = RunDirectory(run, digest=record.config_digest, config=record.config)
    with held, pytest.raises(UserError, match="in use by process"):
        prune(run)
    with pytest.raises(Stopped):
        experiment.run(make(), out=tmp_path / "other", stop=lambda: "interrupted")
    saved = saved_in(tmp_path / "other")
    with pytest.raises(UserError, match="is interrupted at step 1 of 6, and goes on from its"):
        prune(tmp_path / "other")
    assert saved_in(tmp_path / "other") == saved
    assert kept_bytes(run)


# --- Begun with the weights of another ----------------------------------------------------------


def begun(source: Path, *sets: str, **how: Any) -> RunConfig:
    return make(f"run.init_from={source}", "seed=5", "training.lr_g=1e-9", *sets, **how)


def averaged(before: dict[str, Any], weights: dict[str, Any]) -> dict[str, Any]:
    """The average after one step more, which is no copy of G."""
    decay = make().training.ema_decay
    floats = {name for name, value in before.items() if value.is_floating_point()}
    return {name: torch.lerp(before[name], weights[name], 1 - decay) for name in floats}


def test_a_run_begins_with_the_weights_of_another(short: Path, tmp_path: Path) -> None:
    path, frozen = tmp_path / "run", ("training.lr_d=1e-9", "run.steps=1")
    record = experiment.run(begun(short, *frozen), out=path)
    theirs, ours = state_of(short), state_of(path)
    begun_with = theirs | {"ema": averaged(theirs["ema"], theirs["generator"])}
    for part in NETWORKS:
        for name, value in begun_with[part].items():
            if name.endswith(("weight", "original", "bias")):
                assert torch.allclose(ours[part][name], value, atol=1e-6), (part, name)
    assert not torch.allclose(theirs["ema"]["out.bias"], theirs["generator"]["out.bias"], atol=1e-5)
    assert ours["optimizer_g"]["state"][0]["step"] == 1
    assert (record.step, record.seed) == (1, 5)
    training = record.config["training"]
    section = record.config["run"]
    assert isinstance(training, dict)
    assert isinstance(section, dict)
    assert len(str(training["init_sha256"])) == 64
    assert section["init_from"] == str(short)
    drawn = experiment.run(make("seed=5", *frozen, "training.lr_g=1e-9"), out=tmp_path / "drawn")
    assert drawn.config_digest != record.config_digest
    assert not torch.allclose(
        state_of(tmp_path / "drawn")["ema"]["out.bias"], ours["ema"]["out.bias"]
    )


def test_the_digest_is_of_the_weights_and_not_of_where_they_are(short: Path, run: Path) -> None:
    def digest(*sets: str) -> str:
        return str(experiment.dry_run(begun(short, *sets))["digest"])

    first = digest()
    assert digest(f"run.init_from={run}") == first
    assert digest(f"run.init_from={run / 'weights.pt'}") == first
    copied = checkpoint.load(saved_in(run)[0])
    experiment.run(make(), out=run)
    assert digest(f"run.init_from={run}") != first
    whole = run.parent / "whole.ckpt"
    checkpoint.save(whole, state_of(short))
    assert digest(f"run.init_from={whole}") == first
    checkpoint.save(whole, copied)
    with pytest.raises(UserError, match="a part of it is in weights"):
        digest(f"run.init_from={whole}")


def test_it_is_resumed_to_the_same_bits_and_its_source_is_checked(
    run: Path, tmp_path: Path
) -> None:
    path, whole = tmp_path / "mine", tmp_path / "whole"
    experiment.run(begun(run), out=whole)
    seen: list[object] = []

    def stop() -> str | None:
        return "interrupted" if any(isinstance(e, Step) and e.step == 3 for e in seen) else None

    with pytest.raises(Stopped):
        experiment.run(begun(run), out=path, watch=seen.append, stop=stop)
    experiment.run(begun(run), out=path)
    assert same_run(path, whole)
    sha256 = experiment.dry_run(begun(run), path)["digest"]
    known = str(records.read(path).config["training"]["init_sha256"])  # type: ignore[index,call-overload]
    experiment.run(make(), out=run)  # it goes on, and its weights are others
    with pytest.raises(UserError, match=r"training\.init_sha256: \S+ here, \S+ asked"):
        experiment.run(begun(run), out=path)
    with pytest.raises(UserError, match="has gone on, or it is another"):
        experiment.run(begun(run, f"training.init_sha256={known}"), out=path)
    further = make("seed=5", "training.lr_g=1e-9", "run.steps=8", f"training.init_sha256={known}")
    assert experiment.run(further, out=path).step == 8  # the source is no longer needed
    assert records.read(path).config_digest == sha256
    with pytest.raises(UserError, match="says which weights, and not where"):
        experiment.run(further, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def refused(config: RunConfig, message: str, out: Path) -> None:
    """A plan and a run are refused alike, and nothing is left."""
    for attempt in (experiment.dry_run, experiment.run):
        with pytest.raises(UserError, match=message):
            attempt(config, out=out)
    assert not out.exists()


def test_what_cannot_be_begun_with_is_refused_before_it_begins(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    refused(begun(tmp_path / "nowhere"), "no run is there", out)
    differs = r"its generator is another: up4\.\S+ is \S.* there and \S.* here"
    refused(begun(run, "model.width=16"), differs, out)
    refused(begun(run, variant="no-attention"), r"attention8\.\S+ is \S.* there and not here", out)
    prune(run)
    refused(begun(run), "keeps no training state, and nowhere else are D's weights", out)
    alone = tmp_path / "weights.pt"
    shutil.copy(run / "weights.pt", alone)
    refused(begun(alone), "has no generator; name a run that keeps", out)
