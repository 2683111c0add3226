"""``ablate`` with a command: a study whose runs another program makes, as a user meets it."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from PIL import Image

from sagan_bench import cli
from sagan_bench.cli import signals
from sagan_bench.runs import records
from sagan_bench.runs.records import Status

ROOT = Path(cli.__file__).parents[2]
EXAMPLE = ROOT / "examples" / "train_tiny.py"
COMMAND = f"{sys.executable} {EXAMPLE} --seed {{seed}} --lr {{lr}} --out {{out}}"
Out = pytest.CaptureFixture[str]
STUDY = """
question = "Does it run?"
baseline = "slow"
variants = ["fast"]
seeds = [0, 1]
variant.slow.lr = 0.01
variant.fast.lr = 0.1
[on.other]
metric = "loss"
better = "lower"
min_effect = 0.1
"""
QUICK = """
import json, sys
from pathlib import Path
seed, lr, out = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
"""
FIGURES = '(out / "result.json").write_text(json.dumps({"metrics": {"loss": lr + seed / 100}}))\n'


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.toml"
    file.write_text(STUDY)
    return file


def quick(folder: Path, text: str = "") -> str:
    """The command of a program that ends at once."""
    script = folder / "quick.py"
    script.write_text(QUICK + text + FIGURES)
    return f"{sys.executable} -S {script} {{seed}} {{lr}} {{out}}"


def ablate(study: Path, *more: str, command: str | None = None) -> int:
    given = ("--command", command) if command is not None else ()
    runs = str(study.parent / "runs")
    return run("ablate", str(study), "--runs", runs, "--in-process", *given, *more)


def cells(study: Path) -> dict[str, Path]:
    folder = study.parent / "runs" / study.stem
    return {path.name.rpartition("-")[0]: path for path in sorted(folder.glob("*-s*-*"))}


# --- The shipped example -----------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_gives_a_verdict_a_comparison_and_a_page(tmp_path: Path, capsys: Out) -> None:
    file = EXAMPLE.with_suffix(".toml")
    code = run("ablate", str(file), "--jobs", "1", "--json", "--command", COMMAND)
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    (reading,) = [found["primary"]["comparisons"][0]]
    assert (reading["variant"], reading["verdict"]) == ("fast", "better by as much as matters")
    assert len(found["runs"]) == 10

    assert run("compare", "runs/train_tiny") == 0
    said = capsys.readouterr().out
    assert "fast is better than slow by as much as matters: loss -0.2" in said
    assert "fast differs in lr 0.01 → 0.1" in said
    assert run("report", "runs/train_tiny") == 0
    page = next(Path("reports").rglob("index.html")).read_text()
    assert "fast is better than slow" in page


def test_the_example_is_thirty_lines_and_its_file_names_it() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 30
    assert "python examples/train_tiny.py" in EXAMPLE.with_suffix(".toml").read_text()


def test_a_cell_that_was_killed_is_resumed_by_its_program(study: Path, capsys: Out) -> None:
    script = study.parent / "killed-once.sh"
    script.write_text(
        f"""
        train="{sys.executable} {EXAMPLE} --seed $1 --lr $2 --out $3"
        if [ "$2" = 0.1 ] && [ ! -e "$3/killed" ]; then
            $train --steps 100
            rm "$3/result.json"
            touch "$3/killed"
            kill -9 $$
        fi
        exec $train
        """
    )
    command = f"sh {script} {{seed}} {{lr}} {{out}}"
    assert ablate(study, "--seeds", "0", command=command) == cli.SOME_FAILED
    said = capsys.readouterr().err
    assert "fast-s0: interrupted, the program was ended by SIGKILL (out of memory?)" in said
    assert "what was interrupted goes on with the same command" in said

    assert ablate(study, "--seeds", "0", command=command) == 0
    record = records.read(cells(study)["fast-s0"])
    assert (record.status, record.step, len(record.attempts)) == (Status.FINISHED, 200, 2)
    assert record.attempts[1].from_step == 100
    progress = (cells(study)["fast-s0"] / "out" / "progress.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in progress] == [50, 100, 150, 200]  # none twice
    assert [score.step for score in record.scores] == [50, 100, 150, 200, 200]


def wait_for(study: Path, cell: str, name: str) -> Path:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if files := [*(study.parent / "runs").glob(f"*/{cell}-*/{name}")]:
            return files[0]
        time.sleep(0.01)
    raise AssertionError(f"{cell} has no {name}")


# --- Ctrl-C ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["inline", pytest.param("processes", marks=pytest.mark.slow)])
def test_ctrl_c_stops_the_program_and_the_same_command_goes_on(study: Path, engine: str) -> None:
    text = """
import time
if not (out / "begun").exists():
    try:
        (out / "begun").touch()
        time.sleep(60)
    except KeyboardInterrupt:
        (out / "heard").touch()
        sys.exit(1)
"""
    words = ["ablate", str(study), "--runs", str(study.parent / "runs"), "--engine", engine]
    words += ["--seeds", "0", "--jobs", "1", "--command", quick(study.parent, text)]
    with subprocess.Popen(
        [sys.executable, str(ROOT / "cli.py"), *words], stderr=subprocess.PIPE, text=True
    ) as driver:
        begun = wait_for(study, "slow-s0", "out/begun")
        driver.send_signal(signal.SIGINT)
        _, said = driver.communicate(timeout=60)
    assert driver.returncode == signals.INTERRUPTED
    assert "the same command again goes on" in said
    assert (begun.parent / "heard").exists()
    record = records.read(begun.parents[1])
    assert (record.status, record.reason) == (Status.INTERRUPTED, "interrupted")
    assert list(cells(study)) == ["slow-s0"]  # nothing was begun after it

    (begun.parent.parent.parent / "fast").mkdir()
    assert ablate(study, "--seeds", "0", "--only", "slow", command=words[-1]) in (0, 2)
    assert records.read(begun.parents[1]).status == Status.FINISHED


# --- What becomes of cells ---------------------------------------------------------------------


def test_lost_and_diverged_cells_are_said_and_counted(study: Path, capsys: Out) -> None:
    text = """
if seed == 1 and lr > 0.05:
    (out / "result.json").write_text(json.dumps({"metrics": {"loss": float("nan")}, "steps": 7}))
    sys.exit()
if seed == 1 and not (out / "again").exists():
    (out / "again").touch()
    sys.exit("no such file: images")
"""
    command = quick(study.parent, text)
    assert ablate(study, command=command) == cli.SOME_FAILED
    shown = capsys.readouterr()
    assert "diverged: " in shown.err
    assert "loss is nan" in shown.err
    assert "exit code 1; log.txt ends: no such file: images" in shown.err
    failed = cells(study)["slow-s1"]
    assert f"what it printed: python cli.py show {failed} --log" in shown.err
    assert run("show", str(failed), "--log") == 0
    assert "\nno such file: images\n" in capsys.readouterr().out
    assert "what failed is tried again with --retry-failed" in shown.err

    assert ablate(study, "--retry-failed", command=command) == cli.SOME_FAILED
    assert records.read(cells(study)["slow-s1"]).status == Status.FINISHED
    assert "1 of 2 runs of fast diverged" in capsys.readouterr().out


def test_only_what_is_missing_runs_and_seeds_are_added(study: Path, capsys: Out) -> None:
    command = quick(study.parent)
    assert ablate(study, command=command) == 0
    capsys.readouterr()
    assert ablate(study, command=command) == 0
    assert capsys.readouterr().err == ""
    assert ablate(study, "--seeds", "0-2", command=command) == 0
    assert "2 of 6 cells to run" in capsys.readouterr().err
    memory = json.loads((study.parent / "runs" / "tiny" / "study.json").read_text())
    assert memory["looks"] == 1


def test_a_dry_run_shows_the_commands_and_does_nothing(study: Path, capsys: Out) -> None:
    command = quick(study.parent)
    assert ablate(study, "--dry-run", command=command) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [shlex.split(line) for line in lines if line.startswith(sys.executable)]
    assert [words[3:5] for words in shown] == [
        ["0", "0.01"], ["0", "0.1"], ["1", "0.01"], ["1", "0.1"],
    ]  # fmt: skip
    assert all(Path(words[5]).is_absolute() and words[5].endswith("/out") for words in shown)
    assert not any("disk" in line for line in lines)
    assert ablate(study, "--dry-run", "--json", command=command) == 0
    plan = json.loads(capsys.readouterr().out)
    assert shlex.split(plan["cells"][0]["command"]) == shown[0]
    assert plan["differences"]["fast"] == [["lr", 0.01, 0.1]]
    assert not (study.parent / "runs").exists()


def test_a_begun_study_refuses_another_command_or_value_and_takes_a_variant(
    study: Path, capsys: Out
) -> None:
    command = quick(study.parent)
    assert ablate(study, command=command) == 0
    assert ablate(study, command=f"{command} --amp") == cli.USAGE
    assert "another study is in" in (said := capsys.readouterr().err)
    assert "command:" in said
    study.write_text(STUDY.replace("fast.lr = 0.1", "fast.lr = 0.2"))
    assert ablate(study, command=command) == cli.USAGE
    assert "variant.fast.lr: 0.1 here, 0.2 asked" in capsys.readouterr().err
    more = STUDY.replace('["fast"]', '["fast", "faster"]').replace(
        "[on.other]", "variant.faster.lr = 0.3\n[on.other]"
    )
    study.write_text(more)
    assert ablate(study, command=command) == 0
    assert len(cells(study)) == 6


def test_the_command_may_stand_in_the_file(study: Path) -> None:
    study.write_text(f"command = {json.dumps(quick(study.parent))}\n" + STUDY)
    assert ablate(study) == 0


def test_no_shell_is_between_unless_it_is_named(study: Path) -> None:
    awkward = "a b; touch {x} $HOME '\""
    text = '(out / "given").write_text(sys.argv[4])\n'
    command = quick(study.parent, text) + " {note}"
    notes = [f"variant.{name}.note = {json.dumps(awkward)}\n" for name in ("slow", "fast")]
    study.write_text(STUDY.replace("[on.other]", f"{''.join(notes)}[on.other]"))
    assert ablate(study, "--seeds", "0", command=command) == 0
    assert (cells(study)["slow-s0"] / "out" / "given").read_text() == awkward

    through = f"sh -c {shlex.quote(command + ' && exit 3')}"
    study.write_text(STUDY)
    through = through.replace(" {note}", " x")
    assert ablate(study, "--seeds", "0", "--name", "b", command=through) == cli.SOME_FAILED


# --- What is refused ---------------------------------------------------------------------------

GOOD = "true {seed} {lr} {out}"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("true {lr} {out}", "the command has no {seed}"),
        ("true {seed} {lr}", "the command has no {out}"),
        (f"{GOOD} {{l}}", "the command has {l}, and [variant.slow] no l; did you mean 'lr'?"),
        ("true {seed} {out}", "[variant.slow] lr: the command has no {lr}; use it"),
        ("true {seed} {out} {rl}", "[variant.slow] lr: the command has no {lr} but {rl}; use it"),
        (f"{GOOD} {{}}", "the command has {}"),
        (f"{GOOD} {{seed.real}}", "the command has {seed.real}"),
        (f"{GOOD} {{", "write a brace that is no placeholder twice"),
        (f"{GOOD} 'a", "close the quotation"),
        (f"{GOOD} {{seed:%%}}", "the command true"),
        ("", "nothing but an empty word stands after --command"),
        ("no-such-program {seed} {lr} {out}", "no program 'no-such-program' is here"),
        (f"{GOOD} https://me:secret@host/x", "the command has https://me:***@host/x"),
    ],
)
def test_a_command_that_cannot_be_is_refused_before_anything_runs(
    study: Path, capsys: Out, command: str, message: str
) -> None:
    assert ablate(study, command=command) == cli.USAGE
    said = capsys.readouterr().err
    assert message in said
    assert "secret" not in said
    assert not (study.parent / "runs").exists()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("slow.lr = 0.01", "slow.lr = [1]", "expected a text, a finite number, true or false"),
        ("slow.lr = 0.01", "slow.lr = nan", "expected a text, a finite number, true or false"),
        ("variant.slow.lr = 0.01", "variant.slow = 3", "variant.slow: expected a table"),
        ("slow.lr = 0.01", "slow.seed = 3", "{seed} has a value in every run"),
        ("slow.lr = 0.01", "slwo.lr = 3", "[variant.slwo]: did you mean 'slow'?"),
        ("variant.slow.lr = 0.01", "", "[variant.slow] no lr"),
        ("lr = 0.1", "lr = 0.01", "variants slow and fast are the same command"),
        ('better = "lower"', "", "better = 'lower' or 'higher'"),
        ('better = "lower"', 'better = "up"', "expected 'lower' or 'higher'"),
        ("[on.other]", "[on.twins]", "no measure: add [on.other] with"),
        ("[on.other]", "[better]\nis = 3\n[on.other]", "better.is: expected"),
        ("min_effect", "set.x = 1\nmin_effect", "set is for runs that this package makes"),
        ("question", "command = 3\nquestion", "command: expected a text"),
        ('"slow"', '"a/b"', "expected letters"),
        ('variants = ["fast"]', 'variants = ["fast"', "is not valid TOML"),
    ],
)
def test_a_study_that_cannot_be_is_refused(
    study: Path, capsys: Out, before: str, after: str, message: str
) -> None:
    study.write_text(STUDY.replace(before, after, 1))
    given = None if "command" in after else GOOD
    assert ablate(study, command=given) == cli.USAGE
    assert message in capsys.readouterr().err
    assert not (study.parent / "runs").exists()


def test_a_length_that_a_program_does_not_tell_is_not_shown(study: Path, capsys: Out) -> None:
    assert ablate(study, "--seeds", "0", command=quick(study.parent)) == 0
    said = capsys.readouterr().out
    assert run("list", "--runs", study.parent / "runs") == 0
    (cell, *_) = (study.parent / "runs" / "tiny").glob("slow-s0-*")
    assert run("show", cell) == 0
    assert "step" not in said + capsys.readouterr().out


def test_what_is_for_runs_of_ours_is_refused(study: Path, capsys: Out) -> None:
    for option in (["--steps", "5"], ["--set", "model.width=3"], ["--data", "twins"]):
        assert ablate(study, *option, command=GOOD) == cli.USAGE
        said = capsys.readouterr().err
        assert "set is for runs that this package makes, as --set, --steps and --data are" in said
    assert ablate(study, "--dry-run", "--measure", command=GOOD) == cli.USAGE
    assert ablate(study) == cli.USAGE
    assert "a value for a command needs a command" in capsys.readouterr().err
    assert run("ablate", "--command", GOOD) == cli.USAGE
    assert "--command needs a study of your own: ablate FILE.toml" in capsys.readouterr().err


def test_a_run_of_another_program_is_no_network_of_ours(study: Path, capsys: Out) -> None:
    assert ablate(study, "--seeds", "0", command=quick(study.parent)) == 0
    path = str(cells(study)["slow-s0"])
    for verb in (["evaluate", path], ["sample", path], ["export", path]):
        assert run(*verb) == cli.USAGE
        assert "was made by another program" in capsys.readouterr().err
    assert run("show", path) == 0


def test_a_finished_study_of_a_command_is_recognised_without_torch(study: Path) -> None:
    command = quick(study.parent)
    assert ablate(study, command=command) == 0
    words: list[Any] = ["ablate", str(study), "--runs", str(study.parent / "runs")]
    code = f"""
import sys
from sagan_bench import cli
try:
    cli.main({[*words, "--command", command]})
except SystemExit as end:
    assert not end.code, end.code
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_variant_may_be_no_more_than_its_name_and_values_have_forms(study: Path) -> None:
    plain = STUDY.replace("variant.slow.lr = 0.01\nvariant.fast.lr = 0.1\n", "")
    study.write_text(plain)
    script = study.parent / "named.py"
    script.write_text(QUICK.replace("float(sys.argv[2])", "len(sys.argv[2])") + FIGURES)
    command = f"{sys.executable} -S {script} {{seed:04d}} {{variant}} {{out}}"
    assert ablate(study, "--seeds", "3", command=command) == 0
    assert f"{script} 0003 slow " in (cells(study)["slow-s3"] / "log.txt").read_text()

    flags = "variant.slow.amp = false\nvariant.fast.amp = true\n[on.other]"
    study.write_text(plain.replace("[on.other]", flags))
    command = command.replace("{variant}", "{amp}")
    assert ablate(study, "--seeds", "3", "--name", "b", "--dry-run", command=command) == 0


def test_further_metrics_are_read_beside_the_one_that_decides(study: Path, capsys: Out) -> None:
    study.write_text(STUDY.replace("[on.other]", '[better]\nshare = "higher"\n[on.other]'))
    script = study.parent / "two.py"
    figures = '{"metrics": {"loss": lr, "share": seed, "unknown": 3}}'
    script.write_text(f'{QUICK}(out / "result.json").write_text(json.dumps({figures}))\n')
    command = f"{sys.executable} -S {script} {{seed}} {{lr}} {{out}}"
    assert ablate(study, command=command) == 0
    assert records.read(cells(study)["fast-s1"]).scores[-1].metrics == {"loss": 0.1, "share": 1.0}
    assert "share" in capsys.readouterr().out
    study.write_text(STUDY)
    assert ablate(study, command=command) == cli.USAGE
    assert "better.share" in capsys.readouterr().err


# --- Pictures that it leaves -------------------------------------------------------------------

DRAWS = """
import numpy as np
from PIL import Image
random = np.random.default_rng(seed)
(out / "samples").mkdir(exist_ok=True)
for number in range(24):
    image = random.integers(0, 256, (32, 32, 3)) * (1 - lr)
    Image.fromarray(image.astype(np.uint8)).save(out / "samples" / f"{number}.png")
"""


@pytest.fixture
def pictured(study: Path) -> Path:
    """A study that scores pictures against 30 real ones."""
    real = study.parent / "real"
    real.mkdir()
    random = np.random.default_rng(7)
    for number in range(30):
        image = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(image).save(real / f"{number}.png")
    text = STUDY.replace("[on.other]", "[better]\nloss = 'lower'\n[on.other]").replace(
        'metric = "loss"\nbetter = "lower"', 'metric = "fid"'
    )
    study.write_text(f"real = {json.dumps(str(real))}\n{text}")
    return study


def drawing(folder: Path, figures: str) -> str:
    script = folder / "draws.py"
    left = f'(out / "result.json").write_text(json.dumps({figures}))\n'
    script.write_text(QUICK + DRAWS + left)
    return f"{sys.executable} {script} {{seed}} {{lr}} {{out}}"


def test_pictures_are_scored_under_a_protocol_of_ours(pictured: Path, capsys: Out) -> None:
    figures = '{"metrics": {"loss": lr}, "pictures": "samples", "steps": 7}'
    assert ablate(pictured, "--seeds", "0", command=drawing(pictured.parent, figures)) == 0
    shown = capsys.readouterr()
    assert "FID" in shown.out
    assert "finished, FID" in shown.err
    assert "fast against slow" in shown.out
    record = records.read(cells(pictured)["fast-s0"])
    made, own = record.scores
    assert own.metrics == {"loss": 0.1}
    assert (made.step, made.weights, made.final) == (7, "ema", True)
    assert list(made.metrics) == ["fid"]
    assert made.n_fake == 24
    assert record.cost.score_sec
    folders = ["--fake", str(cells(pictured)["fast-s0"] / "out" / "samples")]
    folders += ["--real", str(pictured.parent / "real"), "--metrics", "fid", "--json"]
    assert run("score", *folders) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["metrics"] == made.metrics
    assert again["fingerprint"] == made.fingerprint

    assert run("compare", str(pictured.parent / "runs" / "tiny"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["primary"]["metric"] == "fid"
    assert "loss" in [reading["metric"] for reading in found["secondary"]]
    assert run("report", str(pictured.parent / "runs" / "tiny")) == 0
    assert "note: Figures of loss are as " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ('{"metrics": {"loss": lr}}', "has no 'pictures'"),
        ('{"metrics": {"loss": lr}, "pictures": "sampels"}', "sampels"),
        ('{"pictures": "samples"}', "metrics has no 'loss'"),
        ('{"metrics": {"loss": lr}, "pictures": 3}', "pictures: expected a text"),
    ],
)
def test_pictures_that_cannot_be_scored_fail_the_cell(
    pictured: Path, figures: str, reason: str
) -> None:
    code = ablate(pictured, "--seeds", "0", command=drawing(pictured.parent, figures))
    record = records.read(cells(pictured)["slow-s0"])
    assert code != 0
    assert record.status == Status.FAILED
    assert reason in (record.reason or "")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("/real", "/rael", "real: there is no folder"),
        ('metric = "fid"', 'metric = "loss"\nbetter = "lower"', "no metric is made from pictures"),
    ],
)
def test_real_pictures_that_cannot_be_are_refused(
    pictured: Path, capsys: Out, before: str, after: str, message: str
) -> None:
    pictured.write_text(pictured.read_text().replace(before, after, 1))
    assert ablate(pictured, command=GOOD) == cli.USAGE
    assert message in capsys.readouterr().err
    assert not (pictured.parent / "runs").exists()
