"""The command line as a user types it: options, aliases, errors, exit codes, output."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import layouts
import pytest
import typer
from command_line import run
from example_reports import leave_run, leave_study, score, settings
from example_runs import SMALL
from pretended_card import card

from sagan_bench import cli
from sagan_bench.cli import console, signals, tables
from sagan_bench.config.schema import RunConfig
from sagan_bench.config.variants import DEFAULT_PRESET
from sagan_bench.experiments.studies import DEFAULT_STUDY
from sagan_bench.runs import records
from sagan_bench.runs.records import Record
from sagan_bench.session import experiment
from sagan_bench.session.events import Stopped

ROOT = Path(cli.__file__).parents[2]
TINY = [part for text in SMALL for part in ("--set", text)]
SIDE_8 = ["--set", "model.attention.generator=[8]"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace the work by a note of what was asked for."""
    calls: list[dict[str, Any]] = []

    def fake(config: RunConfig, **given: Any) -> Record:
        calls.append({"config": config, **given})
        raise Stopped("interrupted", None)

    monkeypatch.setattr(experiment, "run", fake)
    return calls


def test_options_reach_the_configuration(asked: list[dict[str, Any]]) -> None:
    code = run(
        "train", "--variant", "no-attention", "--image-size", "64", "--batch-size", "8", "--steps",
        "5", "--seed", "4", "--sample-every", "2", "--name", "mine", "--precision", "fp32",
        "--device", "cpu", "--out", "there", "--no-resume", "--set", "training.lr_g=0.5",
    )  # fmt: skip
    assert code == signals.INTERRUPTED
    config = asked[0]["config"]
    assert (config.variant, config.name, config.seed) == ("no-attention", "mine", 4)
    assert (config.data.image_size, config.training.batch_size) == (64, 8)
    assert (config.run.steps, config.run.sample_every, config.run.device) == (5, 2, "cpu")
    assert (config.training.precision, config.training.lr_g) == ("fp32", 0.5)
    assert (asked[0]["out"], asked[0]["fresh"]) == (Path("there"), True)


def test_the_seed_projects_options_work(asked: list[dict[str, Any]]) -> None:
    run(
        "train", "--dataset", "celeb", "--imsize", "64", "--batch_size", "32", "--adv_loss",
        "hinge", "--version", "sagan_celeb", "--sample_step", "50", "--total_step", "7",
        "--g_lr", "0.5", "--d_lr", "0.25", "--z_dim", "100", "--g_conv_dim", "32",
    )  # fmt: skip
    config = asked[0]["config"]
    assert (config.preset, config.name) == ("celeba64", "sagan_celeb")
    assert (config.data.source, config.data.crop) == ("celeba:data/CelebA", 160)
    assert (config.data.image_size, config.data.crop) == (64, 160)
    assert (config.training.batch_size, config.training.loss) == (32, "hinge")
    assert (config.run.sample_every, config.run.steps) == (50, 7)
    assert (config.training.lr_g, config.training.lr_d) == (0.5, 0.25)
    assert (config.model.z_dim, config.model.width) == (100, 32)


def test_the_seed_projects_image_path(asked: list[dict[str, Any]]) -> None:
    run("train", "--dataset", "lsun", "--image_path", "/disk")
    config = asked[0]["config"]
    assert (config.preset, config.data.source) == ("lsun64", "lsun:/disk#church_outdoor_train")
    assert (config.data.crop, config.data.fit) == (None, "squash")


def test_one_run_has_one_seed_under_either_name(
    asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    run("train", "--seeds", "3")
    assert asked[0]["config"].seed == 3
    assert run("train", "--seeds", "0-2") == cli.USAGE
    assert "--seeds 0-2: one seed is meant here; for several: ablate --seeds 0-2, or" in (
        capsys.readouterr().err
    )


def test_aliases_are_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--help") == 0
    text = capsys.readouterr().out
    assert "--image-size" in text
    for alias in (
        "--imsize",
        "--adv_loss",
        "--sample_step",
        "--dataset",
        "--batch_size",
        "--seeds",
    ):
        assert alias not in text


def test_help_names_what_is_taken_where_nothing_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    for verb, default in (("ablate", DEFAULT_STUDY), ("tune", DEFAULT_PRESET)):
        assert run(verb, "--help") == 0
        assert f"[default: {default}]" in capsys.readouterr().out


def test_no_default_in_a_help_is_taken_for_markup() -> None:
    helps = [
        str(getattr(option, "help", ""))
        for verb in typer.main.get_command(cli.app).commands.values()  # type: ignore[attr-defined]
        for option in verb.params
    ]
    named = [text for text in helps if "[default: " in text]
    assert len(named) > 10
    assert [text for text in named if r"\[default: " not in text] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "--variant", "sagn"], "did you mean 'sagan'?"),
        (["train", "--preset", "quik"], "did you mean 'quick'?"),
        (["train", "--set", "training.lrg=1"], "did you mean 'training.lr_g'?"),
        (["train", "--data", "folder:nowhere"], "nowhere"),
        (["train", "--data", "twinz"], "twins"),
        (["train", "--dataset", "cifar"], "celeb"),
        (["train", "--device", "cuda:99"], "--device cuda:99"),
        (["train", "--device", "tpu"], "expected auto, cpu, cuda or cuda:N"),
        (["train", "--device", "mps"], "a Mac's GPU is not used"),
        (["ablate", "smoke", "--device", "mps"], "a Mac's GPU is not used"),
        (["train", "--config", "nowhere.toml"], "cannot read nowhere.toml"),
        (["train", "--image-size", "33"], "32, 64, 128 or 256"),
        (["train", "--config", "study.toml"], "that is a study or a space, no configuration"),
        (
            ["train", "--config", "mine.toml"],
            "mine.toml: variant = {'x': {'a': 1}}: expected a nam",
        ),
        (["train", "--out", "mine.toml", *TINY], "mine.toml is no folder; mine.toml; choose anoth"),
        (["train", "--out", "/proc/foo/bar", *TINY], "/proc; choose a folder that you may use"),
        (["train", "--variant", "no-attention", *SIDE_8], "does not go with"),
        (["show", "config", "--variant", "no-attention", *SIDE_8], "(--set), which it sets to []"),
        (
            ["show", "model", "--variant", "wgan-gp", "--loss", "hinge"],
            "(--loss), which it sets to",
        ),
        (["train", "--loss", "wgan-gp"], "spectral_norm"),
        (["train", "--dry-run", "--set", "model.attention.generator=[5]"], "4, 8, 16"),
        (["show", "no-such-run"], "no run"),
        (["evaluate", "no-such-run"], "no run"),
    ],
)
def test_bad_input_is_told_without_a_traceback(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("study.toml").write_text('question = "Which?"\nseeds = [0]')
    Path("mine.toml").write_text("[variant.x]\na = 1")
    assert run(*arguments) == cli.USAGE
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_a_network_of_its_own_is_called_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    here = ("--set", "model.attention.generator=[8,16]")
    assert run("train", "--dry-run", "--json", *here) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["run"].startswith("runs/sagan+own-s0-")
    assert told.err == (
        "this is called sagan+own: model.attention.generator is [8, 16], not [8] as sagan has it "
        "on the preset twins32\n"
    )
    assert run("show", "config", "--json", *here) == 0
    assert json.loads(capsys.readouterr().out)["config"]["variant"] == "sagan+own"
    assert run("show", "variant", "sagan", "--baseline", "no-attention", "--json", *here[:0]) == 0
    assert json.loads(capsys.readouterr().out)["says"][0].startswith("The network as the preset")


@pytest.mark.parametrize(
    ("words", "heads"),
    [
        ([], ["setting", "sagan"]),
        (["sagan"], ["setting", "sagan"]),
        (["feat8", "--baseline", "feat8"], ["setting", "feat8"]),
        (["feat16", "--set", "model.attention.kind=residual"],
         ["setting", "residual", "feat16+own"]),
    ],
)  # fmt: skip
def test_columns_of_a_variant_are_headed_by_what_it_is(
    capsys: pytest.CaptureFixture[str], words: list[str], heads: list[str]
) -> None:
    assert run("show", "variant", *words) == 0
    says, _, head, *_ = capsys.readouterr().out.splitlines()
    assert [part.strip() for part in head.strip("┃").split("┃")] == heads
    assert says.startswith(f"{heads[-1]}: ")


def test_a_dry_run_says_what_it_cannot_know(capsys: pytest.CaptureFixture[str]) -> None:
    layouts.folder(Path("pictures"), 200)
    asked = ("--data", "folder:pictures", "--batch-size", "4", "--dry-run")
    assert run("train", *asked) == 0
    out = capsys.readouterr().out
    assert "unchecked        what the pictures hold: damaged ones" in out
    assert "smaller than the crop" in out


def test_a_dry_run_of_pictures_that_are_not_prepared_refuses_too_long_a_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a digest of twelve letters its folder's name is too long; with None it was not."""
    layouts.folder(Path("pictures"), 200)
    asked = ("--data", "folder:pictures", "--batch-size", "4", "--dry-run", "--name")
    assert run("train", *asked, "a" * 239) == 0
    assert run("train", *asked, "a" * 240) == cli.USAGE
    assert "a-s0-<its-digest>; choose a shorter name" in capsys.readouterr().err


def test_a_dry_run_of_many_processes_refuses_as_they_do_and_is_printed_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = {"RANK": 1, "WORLD_SIZE": 3, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 3}
    for name, value in {"TORCHELASTIC_RUN_ID": "x", **launched}.items():
        monkeypatch.setenv(name, str(value))
    assert run("train", "--dry-run", "--batch-size", "4", "--device", "cpu") == cli.USAGE
    assert "cannot be shared out among 3 processes" in capsys.readouterr().err
    asked = ("train", "--dry-run", "--batch-size", "6", "--device", "cpu")
    assert run(*asked) == 0
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    assert run(*asked) == 0
    assert "digest" in capsys.readouterr().out


def test_a_cache_that_cannot_be_written_is_told_in_the_same_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGAN_BENCH_CACHE", "/proc/x")
    assert run("train", "--dry-run") == cli.USAGE
    foreseen = capsys.readouterr().err
    assert run("train") == cli.USAGE
    assert capsys.readouterr().err == foreseen


@pytest.mark.parametrize(
    ("seed", "says"),
    [
        ("0-4", "one seed is meant here; for several: the command once for each"),
        ("-1", "expected a whole number from 0"),
    ],
)
def test_a_seed_of_samples_is_a_number(
    capsys: pytest.CaptureFixture[str], seed: str, says: str
) -> None:
    assert run("sample", "run", "--seed", seed) == cli.USAGE
    assert says in capsys.readouterr().err


def test_few_runs_are_named_and_each_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for number in range(12):
        leave_run(tmp_path / "runs" / f"zz-{number // 2}" / f"xy{number % 2}",
                  settings("sagan", 0), 0.3, pictures=False)  # fmt: skip
    assert run("show", "qick") == cli.USAGE
    assert capsys.readouterr().err.rstrip().endswith("known are: xy0, xy1")
    for number in range(12):
        leave_run(tmp_path / "runs" / "w" / f"w{number:02}", settings("sagan", 0), 0.3,
                  pictures=False)  # fmt: skip
    assert run("show", "qick") == cli.USAGE
    assert capsys.readouterr().err.rstrip().endswith("w09 and 4 more")


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--stepz", "3") == cli.USAGE
    assert "--steps" in capsys.readouterr().err


def test_an_internal_error_is_short_without_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*args: object, **given: object) -> Record:
        raise RuntimeError("the disk melted")

    monkeypatch.setattr(experiment, "run", broken)
    assert run("train") == cli.INTERNAL
    error = capsys.readouterr().err
    assert "internal error: RuntimeError: the disk melted" in error
    assert "Traceback" not in error
    with pytest.raises(RuntimeError, match="melted"):
        cli.main(["--debug", "train"])


def test_show_config_tells_values_and_origins(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "config", "--variant", "no-attention", "--seed", "3", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["seed"] == 3
    assert shown["config"]["model"]["attention"]["generator"] == []
    assert shown["origins"]["seed"] == "--seed"
    assert shown["origins"]["model.attention.generator"] == "variant no-attention"
    assert run("show", "config") == 0
    assert "training.lr_g" in capsys.readouterr().out


def test_show_model_prints_the_layer_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", "model", "--preset", "celeba64", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["totals"]["generator"]["parameters"] == 3_832_885
    assert shown["totals"]["discriminator"]["parameters"] == 3_175_299
    assert {"network", "name", "output_shape", "parameters", "flops"} == shown["layers"][0].keys()
    assert run("show", "model") == 0
    text = capsys.readouterr().out
    assert "attention8" in text
    assert "total" in text


def test_train_show_list_and_evaluate_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", *TINY, "--set", "run.steps=2", "--name", "first") == 0
    text = capsys.readouterr()
    path = next(Path("runs").iterdir())
    assert f"run:     {path}" in text.out
    assert "FID[effnet-lite0]" in text.out
    assert "twin_rate" in text.out
    assert "FID " not in text.out
    assert run("show", path.name, "--json") == 0
    shown = Record.model_validate_json(capsys.readouterr().out)
    assert shown == records.read(path)
    assert run("show", str(path)) == 0
    assert "finished, step 2 of 2" in capsys.readouterr().out
    assert run("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["run"], row["weights"]) for row in rows] == [(path.name, "ema")]
    assert run("list") == 0
    assert "first-s0" in capsys.readouterr().out
    assert run("evaluate", path.name, "--n-fake", "9", "--seeds", "1-2", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["scores"]) == 1 + 2
    assert run("evaluate", path.name, "--set", "training.lr_g=1") == cli.USAGE
    assert run("show", "first") == 0
    assert run("show", "fist-s0") == cli.USAGE
    assert "did you mean 'first-s0" in capsys.readouterr().err
    assert run("train", *TINY, "--set", "run.steps=2", "--name", "first", "--json") == 0
    assert Record.model_validate_json(capsys.readouterr().out).attempts == shown.attempts


def test_figures_of_two_protocols_are_never_in_one_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("train", *TINY, "--set", "run.steps=1", "--out", "r") == 0
    assert run("evaluate", "r", "--n-fake", "12") == 0
    text = capsys.readouterr().out
    assert "step 1, n = 10" in text
    assert "step 1, n = 12" in text
    assert run("evaluate", "r", "--set", "evaluation.extractor=auto") == 0


def test_list_keeps_runs_without_a_final_score(capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["--set", "training.lr_d=1e30", "--set", "training.lr_g=1e30", "--set", "run.steps=40"]
    assert run("train", *TINY, *sets, "--name", "lost") == cli.SOME_FAILED
    assert run("train", *TINY, "--set", "run.steps=1", "--name", "done") == 0
    capsys.readouterr()
    assert run("list") == 0
    text = capsys.readouterr().out
    assert text.count("lost-s0") == 1
    assert text.count("done-s0") == 1  # raw weights are in `show`
    assert "diverged" in text


def test_the_configurations_file_decides_the_device(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[run]\ndevice = "cuda:99"')
    assert run("show", "config", "--config", "mine.toml") == cli.USAGE


def test_a_diverged_run_exits_3(capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["--set", "training.lr_d=1e30", "--set", "training.lr_g=1e30", "--set", "run.steps=40"]
    assert run("train", *TINY, *sets) == cli.SOME_FAILED
    assert "diverged" in capsys.readouterr().out


def test_dry_run_touches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["state"] == "new"
    assert planned["run"].startswith("runs/sagan-s0-")
    assert (planned["scoring"]["generated"], planned["scoring"]["real"]) == (1024, 2048 + 1024)
    assert run("train", "--dry-run", "--steps", "239") == 0
    said = capsys.readouterr()
    assert re.search("scoring +1,024 generated [+] 3,072 real images by ", said.out)
    assert said.err.startswith("239 of the 2,400 steps of preset twins32: scoring 1,024 images")
    assert not list(Path.cwd().iterdir())


def test_list_without_runs_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert "train --variant sagan" in capsys.readouterr().out


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code = run("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["efficientnet-lite0"]["ok"]
    assert findings["device"]["ok"]
    assert code == (0 if all(f["ok"] for f in findings.values() if f["needed"]) else 1)
    run("doctor")
    assert "data cache" in capsys.readouterr().out


def test_doctor_says_of_gpus_whether_cells_share_one_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "nvidia-cuda-mps-control.pid"
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for content, told in (
        (None, "2; cells on one GPU (--jobs) take turns"), ("", "take turns"),
        (str(ended.pid), "take turns"), (str(os.getpid()), "2; the Multi-Process Service runs"),
    ):  # fmt: skip
        if content is not None:
            file.write_text(content)
        with card(count=2):
            run("doctor", "--json")
        found = {each["name"]: each["text"] for each in json.loads(capsys.readouterr().out)}
        assert told in found["GPUs"]
        assert found["device"].startswith("cuda: Pretended card")
    run("doctor")
    assert "GPUs" not in capsys.readouterr().out


def test_doctor_says_that_a_mac_uses_its_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    run("doctor")
    assert "a Mac's GPU is not used (docs/gpu.md)" in capsys.readouterr().out


def test_doctor_tells_a_cache_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SAGAN_BENCH_CACHE", str(tmp_path / "file" / "cache"))
    assert run("doctor") == cli.INTERNAL
    assert "set SAGAN_BENCH_CACHE" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("sagan-bench 0.")


def _program(*arguments: str, **given: Any) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **given
    )


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['cli.py', '--help']\n"
        "from sagan_bench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'pandas', 'numpy', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_session_and_its_figures_need_no_library_that_takes_seconds_to_import() -> None:
    code = (
        "import sys, sagan_bench.session.experiment\n"
        "from sagan_bench.cli import record; record._standard_error([], 'fid')\n"
        "slow = ('torch._dynamo', 'torchvision', 'timm', 'scipy.stats', 'statsmodels', 'pandas')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, signals.INTERRUPTED),
        pytest.param(signal.SIGTERM, signals.TERMINATED, marks=pytest.mark.slow),
    ],
)
def test_signals_checkpoint_and_the_same_command_goes_on(
    number: int, code: int, tmp_path: Path
) -> None:
    steps = ["--set", "run.steps=100000", "--set", "run.sample_every=100000", "--out", "run"]
    process = _program("train", *TINY, *steps, cwd=tmp_path, env=dict(os.environ))
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert "the same command again goes on" in error
    stopped = records.read(tmp_path / "run")
    assert stopped.status == "interrupted"
    assert stopped.step >= 2
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    assert newest.name == f"step-{stopped.step:08d}.ckpt"


@pytest.mark.slow
def test_a_second_process_on_one_folder_is_refused(tmp_path: Path) -> None:
    steps = ["--set", "run.steps=100000", "--set", "run.sample_every=100000", "--out", "run"]
    first = _program("train", *TINY, *steps, cwd=tmp_path)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    second = _program("train", *TINY, *steps, cwd=tmp_path)
    _, error = second.communicate(timeout=60)
    first.kill()
    first.communicate()
    assert second.returncode == cli.USAGE
    assert f"in use by process {first.pid}" in error


def test_remarks_of_an_unbuffered_program_are_there_at_once(tmp_path: Path) -> None:
    with (tmp_path / "remarks").open("wb", buffering=0) as file:
        stream = io.TextIOWrapper(file, "utf-8", write_through=True)  # as by PYTHONUNBUFFERED
        remarks = console.tolerant(stream)
        remarks.write("begun\n")
        assert (tmp_path / "remarks").read_text() == "begun\n"
        remarks.detach()


def test_piped_output_is_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sagan_bench.cli import progress

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    assert run("train", *TINY, "--set", "run.steps=4") == 0


def test_progress_lines_tell_speed_losses_and_gamma(capsys: pytest.CaptureFixture[str]) -> None:
    from sagan_bench.cli.progress import View
    from sagan_bench.session.events import Progress, SampleGrid, ScoringAhead
    from sagan_bench.training.loop import Step

    row = {"images_per_sec": 412.3, "loss_d": 1.234, "loss_g": -0.5, "gamma.generator.a": 0.02}

    def shown(*events: Any) -> list[str]:
        with View(100) as view:
            for event in events:
                view.last_line = float("-inf")
                view.watch(event)
        return capsys.readouterr().err.splitlines()

    lines = shown(Progress("data", 1, 2), Step(1, None), Step(2, row), Progress("score", 1, 3))
    assert lines[0] == "data 1/2  then training 100 steps"
    assert lines[2].startswith("training 2/100  ETA 0:00:0")
    assert lines[2].endswith("412 images/s D 1.23 G -0.50 γ 0.02")
    assert lines[3] == "scoring 1/3  then 98 steps more"
    ahead = ScoringAhead(2048, 0, 7048, ("x",), 61.0, at_least=True)
    before, training = shown(ahead, Step(2, row))
    counts = "2,048 generated + 7,048 real images by x"
    once = "(real ones once for all runs of these images)"
    assert before == f"scoring: {counts} {once}, at least 0:01:01"
    assert training.endswith("γ 0.02  then scoring 9,096 images, at least 0:01:01")
    unknown = ahead._replace(real=0, seconds=None)
    assert shown(unknown, Step(2, None))[1] == "training 2/100  then scoring 2,048 images"
    on_the_way = shown(ahead._replace(on_the_way=512), Step(100, row), Progress("score", 0, 11144))
    assert on_the_way[1].endswith("γ 0.02  then the final scoring")
    assert on_the_way[2] == "scoring 0/11,144"
    first, second = Path("run/samples/step-1.png"), Path("run/samples/step-4.png")
    told = shown(Step(1, None), SampleGrid(first), Step(4, None), SampleGrid(second))
    assert [line for line in told if "samples" in line] == [f"samples: {first}"]


def test_a_terminal_of_80_columns_shows_what_follows_in_a_line_of_its_own() -> None:
    from rich.console import Console

    from sagan_bench.cli.progress import View
    from sagan_bench.session.events import Progress, ScoringAhead
    from sagan_bench.training.loop import Step

    gammas = {"gamma.generator.a": 0.02, "gamma.discriminator.a": -0.01}
    row = {"images_per_sec": 412.3, "loss_d": 1.234, "loss_g": -0.5, **gammas}
    view = View(3000)
    view.on_terminal = True

    def shown(event: Any) -> list[str]:
        view.watch(event)
        console = Console(width=80)
        with console.capture() as told:
            console.print(view.drawn())
        return [line.rstrip() for line in told.get().splitlines()]

    assert shown(Progress("data", 1, 2))[1:] == ["then training 3,000 steps"]
    shown(ScoringAhead(2048, 0, 7048, ("x",), 36_610.0, at_least=True))
    data, training, then = shown(Step(2999, row))
    assert data.startswith("data ")
    assert training.startswith("training ")
    assert "2,999/3,000" in training
    assert training.endswith("412 images/s D 1.23 G -0.50 γ 0.02 -0.01")
    assert then == "then scoring 9,096 images, at least 10:10:10"
    shown(Step(3000, row))
    *_, last = shown(Progress("score", 1, 9096))
    assert "1/9,096" in last


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_missing_numbers_are_dashes(missing: float | None) -> None:
    from sagan_bench.cli.tables import number

    assert number(missing) == "—"
    assert number(0.123456) == "0.1235"
    assert number(1234) == "1234"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--seed", "0-4"], "one seed is meant here; for several: ablate --seeds 0-4, or"),
        (["train", "--set", "seed=0-4"], "seed = '0-4' (--set): one seed is meant here"),
        (["train", "--set", "seed=[0, 1]"], "seed = [0, 1] (--set): one seed is meant here"),
        (["train", "--seed", "-4"], "--seed -4: expected a whole number from 0"),
        (["train", "--steps", "0-4"], "--steps 0-4: expected a whole number"),
        (["train", "--seed", "1", "--seeds", "2"], "--seeds and --seed both set seed; give one"),
        (["train", "--imsize", "x"], "--imsize x: expected a whole number"),
        (["ablate", "--seeds", "x"], "expected seeds from 0 and ranges of them"),
        (["ablate", "--seeds", "0,4-1"], "4-1 goes down; give 1-4"),
        (
            ["train", "--set", "lr_g=1"],
            "no setting is called 'lr_g'; did you mean 'training.lr_g'?",
        ),
        (["train", "--set", "generator=[8]"], "'model.attention.generator' or 'model.spectral"),
        (["train", "--set", "lrg=1"], "did you mean 'training.lr_g'?"),
        (["ablate", "quik"], "did you mean 'quick'? Or give a TOML file"),
        (["ablate", "nix"], "stabilisers, twins32; or give a TOML file"),
        (["train", "--dataset", "cele"], "did you mean 'celeb'? Or use --data"),
        (["show", "feat16"], "use: python cli.py show variant feat16"),
        (["show", "feat16+residual"], "use: python cli.py show variant feat16+residual"),
        (["show", "brief"], "use: python cli.py show config --preset brief"),
        (["show", "smoke"], "use: python cli.py ablate smoke --dry-run"),
    ],
)
def test_a_slip_is_answered_with_what_would_do(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["cli.py"])
    assert run(*arguments, *(["--dry-run"] if arguments[0] != "show" else [])) == cli.USAGE
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("run.device=gpu", "expected auto, cpu, cuda or cuda:N"),
        ("model.attention.generator=8", "expected a list such as [8] or [0, 1]"),
        ("evaluation.sampling_seeds=0;1", "expected seeds from 0 and ranges of them"),
        ("evaluation.sampling_seeds=4-1", "4-1 goes down; give 1-4"),
        ("evaluation.sampling_seeds=[0, -1]", "expected different numbers from 0"),
        ("evaluation.sampling_seeds=[0, 0]", "expected different numbers from 0, e.g. [0, 1]"),
        ("evaluation.sampling_seeds=[]", "expected 1 or more values, e.g. [0]"),
        ("model.attention.generator=[x]", "expected a list such as"),
        ("data.crop=x", "expected 'auto'; or expected a whole number"),
        ("training.lr_g=-1", "expected more than 0"),
        ("training.lr_g=nan", "expected a finite number"),
        ("data.flip=maybe", "expected true or false"),
        ("name=a b", "expected letters, digits"),
        ("model.spectral_norm.generator=x", "expected 'all', 'hidden' or 'none'"),
    ],
)
def test_a_wrong_value_is_answered_in_words(
    setting: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--dry-run", "--set", setting) == cli.USAGE
    error = capsys.readouterr().err
    assert error.startswith(f"error: {setting.partition('=')[0]} = ")
    assert says in error
    assert not any(word in error for word in ("Input", "tuple", "pattern", "^"))
    assert len(error.splitlines()) == 1


def test_suggested_options_are_those_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "--lr", "1") == cli.USAGE
    error = capsys.readouterr().err
    assert "--set training.lr_g=..." in error
    assert "--g_lr" not in error
    assert run("evaluate", "x", "--seed", "1") == cli.USAGE
    error = capsys.readouterr().err
    assert "--seeds" in error
    assert "seed=..." not in error  # of a trained run only the evaluation can change


def leave_runs() -> None:
    """Leave a study, a run that was scored by two protocols, and one that was cut off."""
    leave_study(Path("runs/quick"), {"sagan": [0.5], "no-attention": [0.3]}, pictures=False)
    config = settings("sagan", 3)
    steps = config.run.steps
    scores = [score(0.4, steps), score(0.2, steps, sampling_seed=1), score(0.9, steps, n_fake=4096)]
    scores += [score(0.8, steps, weights="raw", ema_decay=None)]
    leave_run(Path("runs/again-s3"), config, 0.4, scores=scores, pictures=False)
    leave_run(Path("runs/cut-s3"), config, 0.4, status="interrupted", pictures=False)


def test_a_list_says_what_each_figure_is_of(capsys: pytest.CaptureFixture[str]) -> None:
    leave_runs()
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "all: data twins"
    cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in lines]
    header, again, more, cut, *_ = [row for row in cells if len(row) > 1]
    title = "FID[effnet-lite0]"
    assert header == [
        "run", "study", "variant", "status", "step", "ended", "n", title, "IS[effnet-lite0]",
        "twin_rate",
    ]  # fmt: skip
    assert (again[0], again[6], again[7], again[9]) == ("again-s3", "2048", "215", "0.3")
    assert (more[0], more[6], more[9]) == ("again-s3", "4096", "0.9")  # never the mean of both
    assert (cut[3], cut[4], cut[9]) == ("interrupted", "300", "0.2 at 300")
    assert {row[1] for row in cells if len(row) > 1 and "no-attention" in row[0]} == {"quick"}
    assert again[5] == "2026-01-02"

    assert run("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["study"] for row in rows} == {None, "quick"}
    assert {row["ended"] for row in rows} == {"2026-01-02T03:08:00+00:00"}


def test_a_narrow_list_breaks_no_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_runs()
    monkeypatch.setattr(tables, "_columns", lambda: 90)
    assert run("list") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[1:-1])) <= 90
    assert " n " in out
    assert "FID[effnet-lite0] ┃" in out
    assert (
        "left out, because the terminal is narrow: IS[effnet-lite0], variant, ended, study" in out
    )
    leave_run(Path("runs/other-s3"), settings("sagan", 3), 0.4, pictures=False, scores=[
        score(0.4, 600, split="test")])  # fmt: skip
    monkeypatch.setattr(tables, "_columns", lambda: 140)
    assert run("list") == 0
    out = capsys.readouterr().out
    assert " protocol " in out  # as many images, and no more the same
    assert "left out, because the terminal is narrow: IS[effnet-lite0];" in out


def test_a_share_is_shown_with_its_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    records = Path(cli.__file__).parents[2] / "reports/example-quick/records"
    path = next(records.glob("sagan-s0-*"))
    assert run("show", str(path)) == 0
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if "twin_rate  " in line and "│" in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    share = float(cells[1])
    assert float(cells[-1]) == pytest.approx((share * (1 - share) / 1024) ** 0.5, rel=0.02)
    assert "standard error, of drawing the images alone" in said


def test_a_run_is_shown_with_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    leave_runs()
    assert run("show", "again") == 0
    out = capsys.readouterr().out
    assert "differs from preset brief in nothing that changes results" in out
    assert "on the way: twin_rate of 512 images 0.2 at 300, 0.2667 at 400" in out
    assert "samples: runs/again-s3/samples" in out
    assert "again:   python cli.py train --preset brief --variant sagan --seed 3 --set" in out
    assert run("show", "no-attention") == 0
    assert "differs from preset brief in model.attention.generator [8] → []" in (
        capsys.readouterr().out
    )


def test_a_run_is_shown_with_where_it_was_made(capsys: pytest.CaptureFixture[str]) -> None:
    leave_runs()
    file = Path("runs/again-s3/record.json")
    record = json.loads(file.read_bytes())
    del record["sha256"]
    (attempt,) = record["attempts"]
    on = [
        {"host": "n3", "engine": "slurm", "job": "12_3"},
        {"host": "n4\x1b[m"},
        {"host": "n4\x1b[m"},
    ]
    record["attempts"] = [attempt, *({**attempt, **place} for place in on)]
    file.write_text(json.dumps(record))
    assert run("show", "again") == 0
    assert "made:    on n3 by slurm 12_3, on n4\\x1b[m\n" in capsys.readouterr().out


def test_what_a_run_printed_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    leave_runs()
    assert run("show", "again", "--log") == 2
    assert (
        "runs/again-s3 has no log.txt: it was made before runs kept one" in capsys.readouterr().err
    )
    Path("runs/again-s3/log.txt").write_bytes(b"--- attempt\n\x1b[2Jgone\xff \xc3\xa9\r\nlast")
    assert run("show", "again", "--log") == 0
    assert capsys.readouterr().out == "--- attempt\n\\x1b[2Jgone\ufffd é\\x0d\nlast\n"
    assert run("show", "again") == 0
    assert "log:     runs/again-s3/log.txt" in capsys.readouterr().out
    assert run("show", "config", "--log") == 2
