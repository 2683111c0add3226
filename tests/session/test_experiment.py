"""Whole runs on tiny networks: records, resuming through kills, extending, scoring again."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
import torch
from example_runs import SMALL
from PIL import Image

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig, RunSection
from sagan_bench.core.errors import UserError
from sagan_bench.evaluation.extractors.efficientnet_lite0 import EfficientNetLite0
from sagan_bench.models import build
from sagan_bench.runs import records
from sagan_bench.runs.log import heading
from sagan_bench.runs.records import Record
from sagan_bench.session import experiment, probes, session
from sagan_bench.session.events import Progress, SampleGrid, Scored, ScoringAhead, Stopped
from sagan_bench.training import checkpoint
from sagan_bench.training.loop import Diverged, Step

HOST = Host(bf16=False, extractor="efficientnet-lite0")


def make(*sets: str, variant: str = "sagan") -> RunConfig:
    return resolve(HOST, variant=variant, sets=[*SMALL, *sets]).config


def weights(path: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.load(path / "weights.pt")
    return {f"{k}.{n}": value for k in ("ema", "raw") for n, value in state[k].items()}


def bit_equal(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def grids(path: Path) -> list[int]:
    """The steps of which there is a grid of samples."""
    return sorted(int(file.stem[5:]) for file in (path / "samples").glob("step-*.png"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, not to be changed by a test."""
    path = tmp_path_factory.mktemp("finished") / "run"
    experiment.run(make(), out=path)
    return path


def test_a_run_leaves_record_pictures_metrics_and_weights(finished: Path) -> None:
    record = records.read(finished)
    assert (record.status, record.step, record.steps, record.seed) == ("finished", 6, 6, 0)
    assert [score.weights for score in record.scores] == ["ema"]
    for score in record.scores:
        assert score.final
        assert score.n_fake == 10
        for metric in ("fid", "isc_mean", "kid_mean", "precision", "recall", "twin_rate"):
            assert score.metrics[metric] is not None, metric
        assert score.floor["fid"] is not None
        assert score.protocol["extractor"] == "efficientnet-lite0"
    assert record.cost.parameters_g
    assert record.cost.train_sec
    assert record.cost.images_per_sec
    assert record.attempts[0].outcome == "finished"
    assert record.attempts[0].threads == 1
    assert record.environment.torch == torch.__version__.partition("+")[0] or (
        record.environment.torch == torch.__version__
    )
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert rows[0].keys() == {
        "step", "loss_d", "loss_g", "real_logits", "fake_logits", "grad_norm_d", "grad_norm_g",
        "gamma.generator.attention8", "gamma.discriminator.attention8", "images_per_sec",
        "peak_memory_gib",
    }  # fmt: skip
    assert grids(finished) == [1, 3, 6]
    assert (finished / "samples" / "real.png").exists()
    with Image.open(finished / "samples" / "step-00000006.png") as grid:
        assert grid.size == (8 * 34 + 2, 8 * 34 + 2)
        extrema = grid.convert("L").crop((2, 2, 34, 34)).getextrema()
        assert extrema[0] != extrema[1]
    kept = [file.name for file in (finished / "checkpoints").iterdir()]
    assert kept == ["step-00000006.ckpt"]
    first, last = (finished / "log.txt").read_text().splitlines()
    assert first == heading(record.attempts[0])
    assert last == "--- finished"


def test_a_run_lays_its_networks_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out, rows = list[str](), build._rows

    def counted(network: str, *given: Any) -> Iterator[build.Layer]:
        laid_out.append(network)
        return rows(network, *given)

    monkeypatch.setattr(build, "_rows", counted)
    record = experiment.run(make("run.steps=1"), out=tmp_path / "run")
    assert laid_out == ["generator", "discriminator"]
    assert record.cost.flops_per_step == build.flops_per_step(make())
    laid_out.clear()
    experiment.dry_run(make())
    assert laid_out == ["generator", "discriminator"]


def test_the_default_folder_is_named_by_name_seed_and_digest() -> None:
    record = experiment.run(make("run.steps=1", "name=mine", "seed=3"))
    assert record.run == f"mine-s3-{record.config_digest}"
    assert (Path("runs") / record.run / "record.json").exists()


def test_the_same_command_again_does_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    events: list[object] = []
    again = experiment.run(make(), out=finished, watch=events.append)
    assert again == records.read(finished)
    assert not [event for event in events if isinstance(event, Step)]
    after = {path: path.stat().st_mtime_ns for path in before if path.name != "config.json"}
    assert after.items() <= before.items()


def test_two_runs_are_bit_equal_and_score_the_same(finished: Path, tmp_path: Path) -> None:
    record = experiment.run(make(), out=tmp_path / "run")
    assert bit_equal(finished, tmp_path / "run")
    assert record.scores == records.read(finished).scores


@pytest.mark.parametrize("reason", ["interrupted", "terminated"])
def test_a_stopped_run_checkpoints_and_goes_on_bit_equal(
    reason: str, finished: Path, tmp_path: Path
) -> None:
    seen: list[object] = []

    def stop() -> str | None:
        return reason if sum(isinstance(event, Step) for event in seen) == 3 else None

    with pytest.raises(Stopped, match=reason):
        experiment.run(make(), out=tmp_path / "run", watch=seen.append, stop=stop)
    stopped = records.read(tmp_path / "run")
    assert (stopped.status, stopped.reason, stopped.step) == ("interrupted", reason, 3)
    record = experiment.run(make(), out=tmp_path / "run")
    assert [(a.from_step, a.to_step, a.outcome) for a in record.attempts] == [
        (0, 3, "interrupted"),
        (3, 6, "finished"),
    ]
    assert bit_equal(finished, tmp_path / "run")
    assert grids(finished) == grids(tmp_path / "run")
    assert _rows_without_speed(finished) == _rows_without_speed(tmp_path / "run")


def _rows_without_speed(path: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    vary = ("images_per_sec", "peak_memory_gib")
    return [{k: v for k, v in row.items() if k not in vary} for row in rows]


def test_stopping_while_scoring_keeps_the_training(finished: Path, tmp_path: Path) -> None:
    seen: list[object] = []

    def stop() -> str | None:
        scoring = any(isinstance(event, Progress) and event.phase == "score" for event in seen)
        return "interrupted" if scoring else None

    with pytest.raises(Stopped):
        experiment.run(make(), out=tmp_path / "run", watch=seen.append, stop=stop)
    seen.clear()
    record = experiment.run(make(), out=tmp_path / "run", watch=seen.append)
    assert not [event for event in seen if isinstance(event, Step)]
    assert record.status == "finished"
    assert bit_equal(finished, tmp_path / "run")


def _die_at_sync(config: str, out: Path, cache: str, moment: int) -> None:
    """Run in a process of its own that is killed at its ``moment``-th fsync."""
    os.environ["SAGAN_BENCH_CACHE"] = cache
    sync, calls = os.fsync, iter(range(1, 10_000))

    def counted(handle: int) -> None:
        if next(calls) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    os.fsync = counted  # type: ignore[assignment]
    experiment.run(RunConfig.model_validate_json(config), out=out)


@pytest.mark.slow
def test_kill_9_at_any_moment_ends_bit_equal(finished: Path, tmp_path: Path) -> None:
    """Every fsync of a run is a moment: each write of a checkpoint, a record, a directory."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sagan_bench.session.experiment"])
    killed = 0
    for moment in (2, 9, 6, 11, 5, 14, 17, 10_000):
        process = context.Process(
            target=_die_at_sync,
            args=(
                make().model_dump_json(),
                tmp_path / "run",
                os.environ["SAGAN_BENCH_CACHE"],
                moment,
            ),
        )
        process.start()
        process.join(120)
        killed += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert killed >= 4
    record = records.read(tmp_path / "run")
    assert record.status == "finished"
    assert len(record.attempts) >= 3
    assert bit_equal(finished, tmp_path / "run")
    assert _rows_without_speed(finished) == _rows_without_speed(tmp_path / "run")
    assert record.scores == records.read(finished).scores


def test_a_damaged_newest_checkpoint_falls_back_and_says_so(
    finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run"
    _stopped_at(path, 5)
    newest = max((path / "checkpoints").iterdir())
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    record = experiment.run(make(), out=path)
    assert "falling back" in caplog.text
    assert record.attempts[-1].from_step == 4
    assert bit_equal(finished, path)


def _stopped_at(path: Path, step: int, *sets: str) -> None:
    seen: list[object] = []

    def stop() -> str | None:
        return "interrupted" if Step(step, None)[0] in _steps(seen) else None

    with pytest.raises(Stopped):
        experiment.run(make(*sets), out=path, watch=seen.append, stop=stop)


def _steps(events: list[object]) -> set[int]:
    return {event.step for event in events if isinstance(event, Step)}


def test_threads_are_restored_on_resume(tmp_path: Path) -> None:
    _stopped_at(tmp_path / "run", 2, "run.threads=2")
    seen: list[object] = []
    config = make().model_copy(update={"run": make().run.model_copy(update={"threads": None})})
    record = experiment.run(config, out=tmp_path / "run", watch=seen.append)
    assert [attempt.threads for attempt in record.attempts] == [2, 2]


def test_another_digest_in_the_folder_is_refused_with_the_difference(finished: Path) -> None:
    before = (finished / "record.json").read_bytes()
    with pytest.raises(UserError, match=r"training\.lr_g: 0\.001 here, 0\.5 asked"):
        experiment.run(make("training.lr_g=0.5"), out=finished)
    assert (finished / "record.json").read_bytes() == before


def test_no_resume_moves_the_old_run_aside(tmp_path: Path) -> None:
    first = experiment.run(make("run.steps=1"), out=tmp_path / "run")
    second = experiment.run(make("run.steps=1"), out=tmp_path / "run", fresh=True)
    assert records.read(tmp_path / "run.old-1") == first
    assert len(second.attempts) == 1


def test_a_finished_run_is_extended_only_if_it_kept_its_training_state(
    finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="finished at step 6, and 4 were asked for"):
        experiment.run(make("run.steps=4"), out=finished)
    experiment.run(make("run.steps=1", "run.keep_training_state=false"), out=tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    with pytest.raises(UserError, match="has no training state"):
        experiment.run(make("run.steps=8"), out=tmp_path / "run")


def test_a_diverged_run_is_a_recorded_result(tmp_path: Path) -> None:
    seen: list[object] = []
    config = make("training.lr_d=1e30", "training.lr_g=1e30", "run.steps=40")
    record = experiment.run(config, out=tmp_path / "run", watch=seen.append)
    assert record.status == "diverged"
    assert record.reason is not None
    assert record.reason.startswith("step ")
    assert "not finite" in record.reason
    assert isinstance(seen[-1], Diverged)
    assert records.read(tmp_path / "run") == record
    assert experiment.run(config, out=tmp_path / "run") == record


def test_images_that_are_not_finite_are_a_divergence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Callable[[int, int, int], torch.Tensor]:
        return lambda seed, start, stop: torch.full((stop - start, 3, 32, 32), float("nan"))

    monkeypatch.setattr(probes, "sampler", broken)
    record = experiment.run(make(), out=tmp_path / "run")
    assert record.status == "diverged"
    assert record.reason == "step 1: generated image 0 is not finite"


def test_an_error_is_recorded_with_its_reason_and_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> Iterator[Step]:
        raise RuntimeError("the disk melted")

    monkeypatch.setattr(session, "train", broken)
    with pytest.raises(RuntimeError, match="melted"):
        experiment.run(make(), out=tmp_path / "run")
    record = records.read(tmp_path / "run")
    assert (record.status, record.reason) == ("failed", "RuntimeError: the disk melted")
    monkeypatch.undo()


def test_scores_on_the_way_are_marked_and_do_not_change_training(
    finished: Path, tmp_path: Path
) -> None:
    seen: list[object] = []
    config = make("run.eval_every=2", "run.eval_images=9")
    record = experiment.run(config, out=tmp_path / "run", watch=seen.append)
    shown = [(score.step, score.weights, score.n_fake, score.final) for score in record.scores]
    assert shown == [
        (2, "ema", 9, False), (4, "ema", 9, False), (6, "ema", 9, False),
        (6, "ema", 10, True),
    ]  # fmt: skip
    assert len([event for event in seen if isinstance(event, Scored)]) == 4
    assert record.scores[2].fingerprint != record.scores[3].fingerprint
    assert record.scores[0].metrics["fid"] is not None
    assert bit_equal(finished, tmp_path / "run")


def test_the_bar_of_scoring_counts_the_images_that_were_foreseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGAN_BENCH_CACHE", str(tmp_path / "cache"))
    seen: list[object] = []
    sets = "run.steps=1", "evaluation.sampling_seeds=[0, 1]"
    for real, weights in ((24 + 10, '["ema"]'), (0, '["ema", "raw"]')):
        seen.clear()
        config = make(*sets, f"run.score_weights={weights}")
        experiment.run(config, out=tmp_path / str(real), watch=seen.append)
        (ahead,) = (event for event in seen if isinstance(event, ScoringAhead))
        bar = [e for e in seen if isinstance(e, Progress) and e.phase == "score"]
        assert ahead.real == real
        assert {event.total for event in bar} == {ahead.images}
        assert [event.done for event in bar] == sorted(event.done for event in bar)
        assert bar[-1].done == ahead.images


def test_scores_on_the_way_by_rule_alone_load_no_extractor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    build = EfficientNetLite0.build

    def counted(self: EfficientNetLite0, weights: Path) -> Any:
        loaded.append(1)
        return build(self, weights)

    monkeypatch.setattr(EfficientNetLite0, "build", counted)
    seen: list[int] = []

    def watch(event: object) -> None:
        if isinstance(event, Scored):
            seen.append(len(loaded))

    sets = "run.eval_every=3", "run.eval_images=10", "run.eval_metrics=rule"
    record = experiment.run(make(*sets), out=tmp_path / "run", watch=watch)
    assert seen == [0, 0, 1]
    on_the_way = [score for score in record.scores if not score.final]
    assert [score.step for score in on_the_way] == [3, 6]
    assert "fid" not in on_the_way[-1].metrics
    final = record.scores[2]
    assert on_the_way[-1].metrics == {key: final.metrics[key] for key in on_the_way[-1].metrics}
    assert on_the_way[-1].fingerprint == final.fingerprint


def test_images_without_a_rule_are_not_scored_by_one(tmp_path: Path) -> None:
    source = f"folder:{layouts.folder(tmp_path / 'images', 60)}"
    with pytest.raises(UserError, match=r"run\.eval_metrics = rule: folder images follow no rule"):
        experiment.run(
            make("run.eval_metrics=rule", "data.test_images=8", f"data.source={source}"),
            out=tmp_path / "run",
        )


def test_blocks_are_looked_at_with_every_grid(finished: Path) -> None:
    rows = [json.loads(one) for one in (finished / "diagnostics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 3, 6]
    figures = {"gamma", "ratio", "entropy", "entropy_max", "distance_px", "largest_logit"}
    on_twins = {"mass", "chance"}
    for name in ("generator.attention8", "discriminator.attention8"):
        assert rows[0][name].keys() - on_twins == figures
        assert rows[0][name]["entropy_max"] == pytest.approx(np.log(64))
    assert on_twins <= rows[0]["discriminator.attention8"].keys()  # real ones have their twins
    record = records.read(finished)
    assert [(one.network, one.name, one.step) for one in record.blocks] == [
        ("generator", "attention8", 6), ("discriminator", "attention8", 6),
    ]  # fmt: skip
    read = record.blocks[0].model_dump(include=figures | on_twins, exclude_none=True)
    assert read == rows[-1]["generator.attention8"]
    metrics = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert record.blocks[1].gamma == pytest.approx(metrics["gamma.discriminator.attention8"])
    with np.load(finished / "diagnostics" / "step-00000006.npz") as maps:
        assert maps["beta.generator.attention8"].shape == (4, 5, 8, 8)
        assert maps["beta.generator.attention8"].dtype == np.float16
        assert maps["queries.discriminator.attention8"].shape == (5, 2)
        with Image.open(finished / "samples" / "step-00000006.png") as grid:
            first = np.asarray(grid)[2:34, 2:34].transpose(2, 0, 1)
        assert (maps["generator"][0] == first).all()


@pytest.mark.parametrize(
    ("every", "steps", "expected"),
    [
        (100, 210, [1, 4, 16, 64, 100, 200, 210]),
        (250, 300, [1, 4, 16, 64, 250, 300]),
        (64, 70, [1, 4, 16, 64, 70]),
        (1000, 3, [1, 3]),
        (3, 7, [1, 3, 6, 7]),
        (1, 4, [1, 2, 3, 4]),
    ],
)
def test_grids_are_dense_at_first_then_at_equal_distances(
    every: int, steps: int, expected: list[int]
) -> None:
    run = RunSection(sample_every=every, steps=steps)
    assert [step for step in range(1, steps + 1) if probes.is_due(run, step)] == expected


def test_grids_change_no_bit_and_are_told_of_when_they_are_there(
    finished: Path, tmp_path: Path
) -> None:
    told: list[tuple[int, Path]] = []

    def watch(event: object) -> None:
        if isinstance(event, Step):
            told.append((event.step, Path()))
        if isinstance(event, SampleGrid):
            assert event.path.exists()
            told.append((0, event.path.relative_to(tmp_path / "run")))

    experiment.run(make("run.sample_every=1"), out=tmp_path / "run", watch=watch)
    assert grids(tmp_path / "run") == [1, 2, 3, 4, 5, 6]
    assert told[:2] == [(1, Path()), (0, Path("samples/step-00000001.png"))]
    assert len(told) == 2 * 6
    assert bit_equal(finished, tmp_path / "run")
    assert _rows_without_speed(finished) == _rows_without_speed(tmp_path / "run")


def test_networks_without_blocks_leave_no_diagnostics(tmp_path: Path) -> None:
    record = experiment.run(make("run.steps=3", variant="no-attention"), out=tmp_path / "run")
    assert record.blocks == ()
    assert not (tmp_path / "run" / "diagnostics.jsonl").exists()
    assert not (tmp_path / "run" / "diagnostics").exists()


def test_evaluate_repeats_its_figures_and_appends_other_protocols(tmp_path: Path) -> None:
    trained = experiment.run(make("run.steps=2"), out=tmp_path / "run")
    again = experiment.evaluate(tmp_path / "run", make("run.steps=2"))
    assert again.scores == trained.scores
    before = (tmp_path / "run" / "weights.pt").read_bytes()
    more = experiment.evaluate(
        tmp_path / "run", make("evaluation.n_fake=13", "evaluation.sampling_seeds=[1, 2]")
    )
    assert len(more.scores) == 1 + 2
    assert {score.n_fake for score in more.scores[1:]} == {13}
    assert {score.sampling_seed for score in more.scores[1:]} == {1, 2}
    assert (tmp_path / "run" / "weights.pt").read_bytes() == before
    assert records.read(tmp_path / "run") == more


def test_evaluate_refuses_other_statistics_than_the_weights_have(finished: Path) -> None:
    with pytest.raises(UserError, match="leave it as it is"):
        experiment.evaluate(finished, make("evaluation.bn_batches=3"))


def test_exported_weights_are_the_average_and_the_raw_ones(tmp_path: Path) -> None:
    path = tmp_path / "run"
    experiment.run(make(), out=path)
    latest = checkpoint.Checkpoints(path / "checkpoints").latest()
    assert latest is not None
    state = latest[1]
    exported = weights(path)
    assert torch.equal(exported["ema.out.bias"], state["ema"]["out.bias"])
    assert torch.equal(exported["raw.out.bias"], state["generator"]["out.bias"])
    assert not torch.equal(exported["ema.out.bias"], exported["raw.out.bias"])


def test_exported_weights_are_plain(finished: Path) -> None:
    names = weights(finished).keys()
    assert "ema.up8.conv.weight" in names
    assert not [name for name in names if "parametrizations" in name]


def test_evaluate_refuses_other_images(finished: Path) -> None:
    with pytest.raises(UserError, match="are not those that"):
        experiment.evaluate(finished, make("data.train_images=47"))


@pytest.mark.slow
def test_a_long_look_on_the_way_is_broken_off_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LONG_LOOK", 0)
    seen: list[Any] = []

    def stop() -> str | None:
        scoring = seen and isinstance(seen[-1], Progress) and seen[-1].phase == "score"
        return "terminated" if scoring else None

    sets = ("run.eval_every=2", "run.eval_images=8", "run.checkpoint_every=1")
    with pytest.raises(Stopped):
        experiment.run(make(*sets), out=tmp_path / "run", watch=seen.append, stop=stop)
    left = records.read(tmp_path / "run")
    assert (left.status, left.step, left.scores) == ("interrupted", 2, ())
    again = experiment.run(make(*sets), out=tmp_path / "run")
    whole = experiment.run(make(*sets), out=tmp_path / "whole")
    assert again.attempts[-1].from_step == 1
    assert [score.metrics for score in again.scores] == [score.metrics for score in whole.scores]


def test_evaluate_stops_when_asked_and_keeps_the_record(finished: Path) -> None:
    before = (finished / "record.json").read_bytes()
    with pytest.raises(Stopped, match="terminated"):
        experiment.evaluate(finished, make("evaluation.n_fake=11"), stop=lambda: "terminated")
    assert (finished / "record.json").read_bytes() == before


def test_evaluate_needs_weights(tmp_path: Path) -> None:
    _stopped_at(tmp_path / "run", 2)
    with pytest.raises(UserError, match="no exported weights"):
        experiment.evaluate(tmp_path / "run", make())


def test_dry_run_touches_nothing(tmp_path: Path) -> None:
    planned = experiment.dry_run(make())
    assert planned["state"] == "new"
    assert planned["run"] == f"runs/sagan-s0-{planned['digest']}"
    assert list(tmp_path.iterdir()) == []
    record = experiment.run(make("run.steps=1"))
    known = experiment.dry_run(make("run.steps=1"))
    assert (known["state"], known["digest"]) == ("finished", record.config_digest)


def test_dry_run_tells_what_run_would_do(finished: Path) -> None:
    assert experiment.dry_run(make(), finished)["state"] == "finished"
    assert experiment.dry_run(make(), finished, fresh=True)["state"] == "new"
    with pytest.raises(UserError, match="another run is here: seed: 0 here, 1 asked"):
        experiment.dry_run(make("seed=1"), finished)


def test_an_interrupted_run_beyond_the_steps_given_is_refused(tmp_path: Path) -> None:
    _stopped_at(tmp_path / "run", 4)
    with pytest.raises(UserError, match="already at step 4, beyond the 2 asked for"):
        experiment.run(make("run.steps=2"), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["data.test_images=0", "evaluation.split=test"], "no held-out images"),
        (["run.inception_weights=nowhere", "evaluation.extractor=inception"], "nowhere"),
        (["data.train_images=4", "evaluation.prc_neighborhood=9"], "no setting is called"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_training(
    sets: list[str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told):
        experiment.run(make(*sets), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_more_real_images_than_there_are_means_all_and_the_protocol_says_so(
    tmp_path: Path,
) -> None:
    config = make("run.steps=1", "evaluation.n_real=5000")
    record = experiment.run(config, out=tmp_path / "run")
    assert record.scores[0].protocol["n_real"] == 48


def test_a_failure_to_build_the_networks_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*args: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(session, "TrainState", too_large)
    with pytest.raises(UserError, match="out of memory on cpu while loading the networks"):
        experiment.run(make(), out=tmp_path / "run")
    record = records.read(tmp_path / "run")
    assert record.status == "failed"
    assert record.reason is not None
    assert record.reason.startswith("OutOfMemory: out of memory on cpu while loading")


def test_an_impossible_network_is_refused_before_data_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="side 64"):
        experiment.run(
            make("model.attention.generator=[64]", "data.source=folder:nowhere"), out=tmp_path / "r"
        )
    assert not (tmp_path / "r").exists()


def test_a_batch_larger_than_the_data_is_refused_before_the_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="48"):
        experiment.run(make("training.batch_size=64"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tensorboard_logs_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    experiment.run(make("run.tensorboard=true", "run.steps=2"), out=tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_a_folder_of_pictures_is_trained_on(tmp_path: Path) -> None:
    from sagan_bench.data import shapes

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    import numpy as np

    images, _ = shapes.draw(np.arange(40), seed=1, size=48)
    for index, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(pictures / f"{index}.png")
    sets = [f"data.source=folder:{pictures}", "evaluation.n_floor=2", "evaluation.n_real=16",
            "data.test_images=none", "data.train_images=none", "run.steps=2"]  # fmt: skip
    record = experiment.run(make(*sets), out=tmp_path / "run")
    assert record.status == "finished"
    assert "twin_rate" not in record.scores[0].metrics
    assert record.data is not None
    assert str(pictures) not in record.data.model_dump_json()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_compiled_networks_train_resume_and_agree_with_plain_ones(tmp_path: Path) -> None:
    config = make("training.compile=true")
    _stopped_at(tmp_path / "compiled", 3, "training.compile=true")
    record = experiment.run(config, out=tmp_path / "compiled")
    assert record.status == "finished"
    experiment.run(make(), out=tmp_path / "plain")
    compiled, plain = (_rows_without_speed(tmp_path / name) for name in ("compiled", "plain"))
    for ours, theirs in zip(compiled, plain, strict=True):
        assert ours["loss_d"] == pytest.approx(theirs["loss_d"], abs=1e-2)
    assert weights(tmp_path / "compiled").keys() == weights(tmp_path / "plain").keys()


@pytest.mark.gpu
def test_gpu_and_cpu_agree_over_the_first_steps(tmp_path: Path) -> None:
    """Losses of ten fp32 steps agree within 1e-3; longer runs part by rounding."""
    rows = {}
    for device in ("cpu", "cuda"):
        sets = [f"run.device={device}", "run.steps=10", "run.log_every=1", "model.width=16"]
        experiment.run(make(*sets), out=tmp_path / device)
        text = (tmp_path / device / "metrics.jsonl").read_text()
        rows[device] = [json.loads(line) for line in text.splitlines()]
    for cpu, gpu in zip(rows["cpu"], rows["cuda"], strict=True):
        for name in ("loss_d", "loss_g"):
            assert gpu[name] == pytest.approx(cpu[name], abs=1e-3), (cpu["step"], name)


def test_record_round_trips(finished: Path) -> None:
    record = records.read(finished)
    assert Record.model_validate_json(record.to_json()) == record
