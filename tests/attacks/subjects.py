"""What is attacked: the smallest run, study, tuning, report and store, and what is true of them.

The networks, the feature extractor and the distance of features are as small as they can be, and
the figures mean nothing; but they change with the bits of the weights.
"""

import functools
import gc
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Self
from zipfile import BadZipFile

import numpy as np
import optuna
import pytest
import torch
from crash import CACHE, Ended, Trouble, cli
from example_reports import leave_study
from example_studies import FILE
from example_tunings import SPACE
from layouts import picture
from PIL import Image
from torch_fidelity.metric_fid import KEY_METRIC_FID

TINY = [
    "model.width=8", "model.z_dim=8", "training.batch_size=4", "run.threads=1", "run.steps=4",
    "run.log_every=1", "run.checkpoint_every=2", "run.sample_every=3", "run.eval_every=3",
    "run.eval_images=8", "run.eval_metrics=rule", "run.keep_training_state=false",
    "data.train_images=64", "data.test_images=64", "evaluation.n_real=8", "evaluation.n_fake=8",
    "evaluation.n_floor=8", "evaluation.bn_batches=1", "evaluation.isc_splits=2",
    "evaluation.kid_subsets=2", "evaluation.kid_subset_size=4",
    "model.spectral_norm.generator=none", "model.spectral_norm.discriminator=none",
]  # fmt: skip
SHORTER = ["run.steps=2", "run.sample_every=2", "run.checkpoint_every=1", "run.eval_every=1"]
STUDY = FILE.replace("seeds = [0, 1]", "seeds = [0]")


def sets(*settings: str) -> tuple[str, ...]:
    return tuple(part for text in settings for part in ("--set", text))


ATTACK = os.environ.get("ATTACK")
THIN = 1 if ATTACK else 8
"""One trial of so many is made, unless ``ATTACK`` names one of them, or ``all``."""
RUN = "the-runs/run"
TRAIN = ("train", "--out", RUN, *sets(*TINY))
EVALUATE = ("evaluate", RUN, "--seeds", "0,1")
ABLATE = ("ablate", "small.toml", "--runs", "the-runs", "--in-process", *sets(*TINY, *SHORTER))
TUNE = (
    "tune", "--space", "space.toml", "--trials", "2", "--runs", "the-runs", "--name", "tuned",
    "--in-process", *sets(*(one for one in TINY if "steps" not in one and "eval_e" not in one)),
)  # fmt: skip
REPORT = ("report", "the-runs/quick")
PREPARE = ("data", "prepare", "folder:pictures", "--image-size", "32", "--workers", "1")


@contextmanager
def made_quick() -> Iterator[None]:
    """Make what takes time, and is not attacked, take little."""
    from sagan_bench.data import building
    from sagan_bench.evaluation import frechet
    from sagan_bench.evaluation.extractors import _lite0
    from sagan_bench.evaluation.extractors.efficientnet_lite0 import EfficientNetLite0
    from sagan_bench.experiments.tuning import confirmation, storage
    from sagan_bench.models import build
    from sagan_bench.report import pictures, svg
    from sagan_bench.session import planning

    def mean(features: Any) -> Any:
        return features.double().mean(0)

    def distance(fake: Any, real: Any, verbose: bool) -> dict[str, float]:
        return {KEY_METRIC_FID: float(((fake - real) ** 2).sum())}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_lite0.Lite0, "SIDE", 32)
        loaded = functools.cache(_lite0.Lite0)
        patch.setattr(EfficientNetLite0, "build", lambda self, weights: loaded(weights))
        patch.setattr(frechet, "fid_features_to_statistics", mean)
        patch.setattr(frechet, "fid_statistics_to_metric", distance)
        patch.setattr(planning, "layout", _once(build.layout))  # the same again and again
        patch.setattr(svg, "svg", lambda *args, **kwargs: "<svg/>")
        patch.setattr(pictures, "_png", small_png)
        patch.setattr(building, "_SECONDS_BETWEEN_CHECKPOINTS", 0)
        patch.setattr(confirmation, "TOP", 1)
        patch.setattr(storage, "sampler", lambda *args: ByNumber())
        torch.set_num_threads(1)
        yield


def small_png(image: Image.Image) -> bytes:
    """Return a picture as a PNG of an eighth of its side: to compress it well takes long."""
    written = io.BytesIO()
    image.reduce(8).save(written, format="PNG")
    return written.getvalue()


def _once(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function of a configuration that remembers what it found for its networks."""
    found: dict[str, Any] = {}

    def remembered(config: Any) -> Any:
        key = config.model_dump_json(include={"data", "model", "training"})
        if key not in found:
            found[key] = function(config)
        return found[key]

    return remembered


class ByNumber(optuna.samplers.BaseSampler):
    """Proposes values that follow from a trial's number, whatever was killed before it."""

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
        share = np.random.default_rng([trial.number, len(name)]).random()
        low, high = distribution.low, distribution.high
        value = low + share * (high - low)
        return round(value) if isinstance(low, int) else value


# --- Folders to begin with ---------------------------------------------------------------------


def warm(folder: Path, *commands: tuple[str, ...]) -> None:
    """Run commands in this process, so that its forks have imported and computed what they need."""
    from sagan_bench import cli as program

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SAGAN_BENCH_CACHE", str(folder / CACHE))
        for command in commands:
            patch.setattr("sys.argv", ["cli.py", *command])
            with pytest.raises(SystemExit) as end:
                program.main(command)
            assert not end.value.code, command


def ran(folder: Path, *commands: tuple[str, ...]) -> Path:
    """Run commands there, each to its good end."""
    for command in commands:
        ended = cli(*command, cwd=folder)
        assert ended.code == 0, (command, ended)
    return folder


def files(folder: Path) -> Path:
    """Leave what the commands name: a study and a space."""
    folder.mkdir(parents=True)
    (folder / "small.toml").write_text(STUDY)
    (folder / "space.toml").write_text(SPACE)
    return folder


def pictures(folder: Path) -> Path:
    """Leave pictures in two splits."""
    for number in range(80):
        part = folder / "pictures" / ("test" if number % 5 == 0 else "train")
        part.mkdir(parents=True, exist_ok=True)
        picture(number, (34, 34)).save(part / f"{number}.png")
    return folder


def studies(folder: Path) -> Path:
    """Leave two small studies whose runs are over, one of them reported before."""
    few = {"no-attention": [0.31], "sagan": [0.52]}
    leave_study(folder / "the-runs" / "quick", few, sets=["run.threads=1"])
    leave_study(folder / "the-runs" / "other", {name: [0.4] for name in few}, pictures=False)
    return folder


def damage_store(folder: Path) -> Path:
    """Cut an array of the prepared pictures."""
    (array,) = folder.glob(f"{CACHE}/stores/folder-*/train.images.npy")
    array.write_bytes(array.read_bytes()[:-1])
    return folder


def without_runs(folder: Path, *, features: bool = True) -> Path:
    """Take the run away, and the features, and leave what is prepared."""
    shutil.rmtree(folder / RUN)
    if features:
        shutil.rmtree(folder / CACHE / "features")
    return folder


def frozen() -> None:
    """Keep the garbage collector off all that is imported: a fork copies what it touches."""
    gc.collect()
    gc.freeze()


def renewed(template: Path, folder: Path) -> Path:
    """Put a copy of a folder in the place of another."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder, symlinks=True)
    return folder


# --- What is true of them ----------------------------------------------------------------------

NEVER_EQUAL = ("cost", "environment", "attempts", "files", "sha256")
"""Of a record: times and places, and what is digested of files with such in them."""
SPEED = ("images_per_sec", "peak_memory_gib")


def facts(folder: Path) -> dict[str, Any]:
    """Return path -> content of every file, of which times and speeds are left out.

    A file too much, such as a temporary one or a checkpoint, is therefore a difference; those of
    locks are none, because a dead holder leaves them.
    """
    found: dict[str, Any] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if not file.name.endswith((".lock", ".holder.json")):
            found[str(file.relative_to(folder))] = _read(file)
    for memory in folder.glob("*/*/tuning.json"):
        found[f"{memory.parent.relative_to(folder)}: trials"] = _trials(memory.parent)
    return found


def _read(file: Path) -> Any:
    data = file.read_bytes()
    try:
        return _content(file, data)
    except (AttributeError, EOFError, OSError, RecursionError, TypeError, ValueError, BadZipFile):
        return _digest(data)  # a damaged one


def _content(file: Path, data: bytes) -> Any:
    if file.name == "record.json":
        return {key: v for key, v in json.loads(data).items() if key not in NEVER_EQUAL}
    if file.name == "metrics.jsonl":
        rows = map(json.loads, data.splitlines())
        return [{key: v for key, v in row.items() if key not in SPEED} for row in rows]
    if file.suffix == ".npz":  # a zip file, which has the time in it
        with np.load(io.BytesIO(data)) as arrays:
            return {key: _digest(arrays[key].tobytes()) for key in arrays.files}
    if file.parent.name == "features" and file.name.startswith("speed-"):
        return sorted(json.loads(data))  # what an image took
    if file.name in ("optuna.journal.log", "log.txt"):  # which have times in them
        return file.name
    return _digest(data)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _trials(folder: Path) -> Any:
    from sagan_bench.experiments.tuning.findings import of_tuning

    try:
        found = [asdict(search) for search in of_tuning(folder).searches]
    except Exception as error:  # noqa: BLE001  # of a damaged journal
        return repr(error)
    for search in found:
        del search["budget"]["seconds"]
        for trial in search["trials"]:
            for key in [key for key in trial if "sec" in key]:
                del trial[key]
    return json.loads(json.dumps(found, default=str))


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Return in which files two folders differ; empty if in none."""
    told = [f"{name} is too much" for name in sorted(found.keys() - wanted.keys())]
    missing = (name for name in wanted.keys() - found.keys() if "/features/" not in name)
    told += [f"{name} is missing" for name in sorted(missing)]  # but for a cache, done without
    for name in sorted(found.keys() & wanted.keys()):
        ours, theirs = found[name], wanted[name]
        if ours == theirs:
            continue
        keys = ""
        if isinstance(ours, dict):
            keys = ": " + ", ".join(k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k))
        told.append(f"{name} differs{keys}")
    return "; ".join(told)


# --- Attacked commands -------------------------------------------------------------------------

COMMANDS = {
    "train": TRAIN, "evaluate": EVALUATE, "report": REPORT, "prepare": PREPARE, "rebuild": PREPARE,
    "ablate": ABLATE, "tune": TUNE,
}  # fmt: skip


@contextmanager
def beginnings(made: Path) -> Iterator[dict[str, Path]]:
    """Make the folders in which the commands begin, by what is attacked; all is imported."""
    with made_quick():
        begun = files(made / "begun")
        pictured, reported = pictures(made / "pictured"), studies(made / "reported")
        for folder, commands in (
            (begun, (TRAIN, EVALUATE, ABLATE, TUNE)), (pictured, (PREPARE,)), (reported, (REPORT,)),
        ):  # fmt: skip
            warm(renewed(folder, made / "warm"), *commands)
        frozen()
        trained = ran(renewed(begun, made / "trained"), TRAIN)
        yield {
            "train": without_runs(renewed(trained, made / "train")), "evaluate": trained,
            "ablate": begun, "tune": begun, "report": reported, "prepare": pictured,
            "rebuild": damage_store(ran(renewed(pictured, made / "prepared"), PREPARE)),
        }  # fmt: skip


class Subject(NamedTuple):
    """A command in a folder, and what it leaves there and does when nothing disturbs it."""

    folder: Path
    command: tuple[str, ...]
    here: Path
    left: dict[str, Any]
    operations: tuple[str, ...]

    @classmethod
    def undisturbed(cls, name: str, folders: dict[str, Path], here: Path) -> Self:
        """Run the command to its end, twice: what it leaves is always the same."""
        folder, command = folders[name], COMMANDS[name]
        left = []
        for _ in range(2):
            ended = cli(*command, cwd=renewed(folder, here), trouble=Trouble())
            assert ended.code == 0, ended
            left.append(facts(here))
        assert differences(*left) == ""
        return cls(folder, command, here, left[0], ended.operations)

    def troubled(self, trouble: Trouble) -> Ended:
        """Run the command in trouble, from the beginning."""
        return cli(*self.command, cwd=renewed(self.folder, self.here), trouble=trouble)

    def gone_on(self) -> str | None:
        """Return what is wrong with the same command again."""
        again = cli(*self.command, cwd=self.here)
        if again.code:
            return f"the same command again: {again}"
        return differences(facts(self.here), self.left) or None


class Trials:
    """Counts trials, and the failures among them by what they tell."""

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0
        self.failures: dict[str, str] = {}

    def wants(self, id_: str) -> bool:
        """Return whether this trial is to be made."""
        return ATTACK in (None, "all", id_)

    def add(self, id_: str, failure: str | None) -> None:
        self.count += 1
        if failure:
            self.failures[id_] = failure

    def end(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Print the figures, which pytest shows in any case, and fail if a trial did."""
        with capsys.disabled():
            told = f"{self.count} trials, {len(self.failures)} failures"
            print(f"\n{self.name}: {told}", file=sys.stderr, flush=True)  # xdist passes it on
        assert self.count
        told = "".join(f"\n  {id_}: {what}" for id_, what in self.failures.items())
        assert not self.failures, f"{len(self.failures)} of {self.count} trials failed{told}"
