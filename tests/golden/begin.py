"""Leave folders that older code began: ``python tests/golden/begin.py CHECKOUT NAME [PART...]``.

CHECKOUT is a folder with the older code, NAME what its archives in begun/ are called by.  Done once
for each: an archive that is there is history, and is not to be made again by other code.  The parts
are run, stopped, study and tuning; and report, for code whose ``report.json`` is to be kept.

Everything is made in an empty folder by relative paths, so that no archive tells of the machine but
what a record is to tell: its processor and system.
"""

import io
import lzma
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import goldens

PROGRAM = """
import os, platform, signal, sys
platform.platform = lambda *given: "Linux-x86_64"
what, _, count = os.environ.get("STOP_AT", "nothing:1").partition(":")
left = [int(count)]
def audited(event, arguments):
    path = {"os.rename": arguments[1:2], "open": arguments[:1]}.get(event, ())
    if event == "open" and arguments[1] not in ("a", "ab"):
        path = ()
    if what in str(path):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGTERM)
sys.addaudithook(audited)
from sagan_bench.cli import main
main()
"""
REPORT = """
import sys
from pathlib import Path
from example_reports import leave_run, leave_study, settings
folder = leave_study(Path("runs/quick"), {"no-attention": [0.31, 0.35], "g-only": [0.52, None]},
                     pictures=False)
if sys.argv[1:]:
    import shutil
    shutil.rmtree(folder / f"g-only-s0-{'0' * 12}")
    leave_run(folder / f"g-only-s0-{'0' * 12}", settings("g-only", 0), 0.52)
"""
TINY = (
    "model.width=8", "model.z_dim=4", "training.batch_size=4", "training.precision=fp32",
    "training.ema_decay=0.9", "run.threads=1", "run.log_every=1", "run.checkpoint_every=100",
    "run.sample_every=100", "run.eval_images=8", "run.eval_metrics=rule", "run.device=cpu",
    "data.train_images=64", "data.test_images=64", "evaluation.extractor=efficientnet-lite0",
    "evaluation.n_real=8", "evaluation.n_fake=8", "evaluation.n_floor=8",
    "evaluation.bn_batches=1", "evaluation.isc_splits=2", "evaluation.kid_subsets=2",
    "evaluation.kid_subset_size=4", "model.spectral_norm.generator=none",
)  # fmt: skip
STUDY = """
question = "Does it run?"
baseline = "no-attention"
variants = ["sagan"]
seeds = [0, 1]
[on.twins]
metric = "twin_rate"
min_effect = 0.05
"""
SPACE = """
says = "Two parameters"
presets = ["quick"]
evals = 2
[budget]
run.steps = 2
[on.twins]
metric = "fid"
min_effect = "5%"
[parameters."training.lr_g"]
kind = "log"
low = 1e-4
high = 1e-3
why = "a test"
[parameters."training.n_critic"]
kind = "integer"
low = 1
high = 2
why = "a test"
"""


def sets(*settings: str) -> list[str]:
    """Return settings as options of a command."""
    return [part for text in settings for part in ("--set", text)]


QUICK = ("--preset", "quick")  # the default of all code that began these
COMMANDS = {
    "run": ["train", *QUICK, "--out", "runs/run", *sets(*TINY, "run.steps=2", "run.eval_every=1")],
    "stopped": [
        "train", *QUICK, "--out", "runs/stopped", *sets(*TINY, "run.steps=6", "run.eval_every=2"),
    ],
    "study": [
        "ablate", "small.toml", "--name", "study", "--in-process", *sets(*TINY, "run.steps=2"),
    ],
    "tuning": [
        "tune", *QUICK, "--space", "space.toml", "--trials", "4", "--name", "tuning",
        "--in-process", "--sampler", "random", *sets(*TINY),
    ],
}  # fmt: skip
LEFT_OUT = {
    "run": (".png",), "stopped": (".png",),
    "study": (".png", ".pt", ".ckpt"), "tuning": (".png", ".pt", ".ckpt"),
}  # fmt: skip
"""Not kept, for its size: what the owner of a folder might have deleted."""
STOP_AT = {"stopped": "metrics.jsonl:3", "study": "weights.pt:3", "tuning": "weights.pt:3"}
ENDS = {"run": 0}
TERMINATED = 143


def files(folder: Path) -> None:
    """Leave what the commands read."""
    (folder / "cli.py").write_text(PROGRAM)
    (folder / "small.toml").write_text(STUDY)
    (folder / "space.toml").write_text(SPACE)


def begin(code: Path, part: str, folder: Path) -> Path:
    """Give the command of a part to older code, and return the folder that it left."""
    files(folder)
    given = {"PYTHONPATH": str(code), "SAGAN_BENCH_CACHE": "the-cache", "OMP_NUM_THREADS": "1"}
    if part in STOP_AT:
        given["STOP_AT"] = STOP_AT[part]
    command = [sys.executable, "cli.py", *COMMANDS[part]]
    ended = subprocess.run(command, cwd=folder, env={**os.environ, **given}, check=False)
    assert ended.returncode == ENDS.get(part, TERMINATED), ended
    return folder / "runs" / part


def reported(code: Path, folder: Path, *, pictures: bool) -> Path:
    """Let older code render a made-up study, and return the folder of its data."""
    files(folder)
    (folder / "leave.py").write_text(REPORT)
    path = os.pathsep.join([str(code), str(code / "tests")])
    for command in (["leave.py", *["pictures"][:pictures]], ["cli.py", "report", "runs/quick"]):
        environment = {**os.environ, "PYTHONPATH": path, "SAGAN_BENCH_CACHE": "the-cache"}
        subprocess.run([sys.executable, *command], cwd=folder, env=environment, check=True)
    return folder / "reports" / "quick" / "data"


def pack(folder: Path, archive: Path) -> None:
    """Write a folder as an archive, without owners, and of runs in it without what is large."""
    left_out = LEFT_OUT.get(folder.name, ())
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in sorted(folder.rglob("*")):
            name = file.relative_to(folder.parent)
            if file.is_file() and file.suffix not in left_out:
                info = tarfile.TarInfo(str(name))
                info.size = file.stat().st_size
                with file.open("rb") as content:
                    tar.addfile(info, content)
    archive.write_bytes(lzma.compress(written.getvalue(), preset=9))


def main(checkout: str, name: str, *parts: str) -> None:
    """Leave the folders of these parts; but for reports all by default."""
    goldens.BEGUN.mkdir(exist_ok=True)
    code = Path(checkout).resolve()
    for part in parts or COMMANDS:
        archive = goldens.BEGUN / f"{part}-{name}.tar.xz"
        if archive.exists():
            sys.exit(f"{archive} is there: it is history")
        with tempfile.TemporaryDirectory() as folder:
            if part.startswith("report"):
                left = reported(code, Path(folder), pictures="pictures" in part)
            else:
                left = begin(code, part, Path(folder))
            pack(left, archive)
        print(f"{archive.name}: {archive.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
