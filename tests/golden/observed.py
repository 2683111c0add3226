"""What the program does now, in the form in which `goldens` holds it."""

import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import begin
import doors
import goldens
import torch

# --- Digests ------------------------------------------------------------------------------------

AT_HAND = ("quick", "brief", "twins64")
"""Presets whose images are made here: their digests are told by a command."""


def digests() -> dict[str, Any]:
    """Return the digest of every preset and variant, and of every cell of the studies."""
    names = doors.variants()
    return {
        "presets": {
            preset: {variant: doors.digest(preset, variant) for variant in names}
            for preset in doors.presets()
        },
        "studies": {name: doors.cells(name) for name in doors.study_names()},
    }


def plans(*presets: str) -> dict[str, Any]:
    """Return what ``train --dry-run --json`` says of each variant of presets of twins."""
    found: dict[str, Any] = {}
    for preset in presets or AT_HAND:
        for variant in doors.variants():
            given = ("train", "--preset", preset, "--variant", variant, "--dry-run", "--json")
            ended = doors.call(*given)
            found[f"{preset} {variant}"] = json.loads(ended.stdout) if ended.code == 0 else None
    return found


# --- Runs ---------------------------------------------------------------------------------------

TINY = (
    "model.width=8", "model.z_dim=8", "training.batch_size=4", "training.precision=fp32",
    "training.ema_decay=0.9", "run.threads=1", "run.steps=3", "run.log_every=1",
    "run.checkpoint_every=2", "run.sample_every=3", "run.eval_every=2", "run.eval_images=8",
    "run.eval_metrics=rule", 'run.score_weights=["ema", "raw"]',
    "data.train_images=64", "data.test_images=64",
    "evaluation.extractor=efficientnet-lite0", "evaluation.n_real=8", "evaluation.n_fake=8",
    "evaluation.n_floor=8", "evaluation.bn_batches=2", "evaluation.isc_splits=2",
    "evaluation.kid_subsets=2", "evaluation.kid_subset_size=4",
)  # fmt: skip
WIDER = ("model.width=16", "training.lr_g=4e-4")
"""For what the narrowest network refuses."""
RECIPES: dict[str, tuple[str, ...]] = {
    "plain": ("--variant", "no-attention"),
    "sagan": ("--variant", "sagan", "--seed", "3"),
    "wgan-gp": ("--variant", "wgan-gp", *doors.sets("training.n_critic=2")),
    "icml": ("--variant", "attention-icml+gamma-init-1", *doors.sets("training.ema_decay=0")),
    "resnet": (
        "--variant", "no-attention", *doors.sets("model.architecture=resnet", "model.classes=10"),
    ),
    "flat": (
        "--variant", "attention-pooled+gamma-init-1",
        *doors.sets(
            "model.architecture=resnet", "model.layout=flat", "model.width=16",
            "model.initialisation=glorot", "training.beta1=0.5", "data.flip=true",
        ),
    ),
    "half-sight": (
        "--variant", "half-sight+no-spectral-norm",
        *doors.sets("training.micro_batch=2", "evaluation.truncation=1.5"),
    ),
    "controls": ("--variant", "feat8+residual+learning-rate-half+gamma-init-1"),
}  # fmt: skip
QUICK = ("sagan", "wgan-gp", "flat")
"""Recipes of the default tier."""


def run(name: str) -> dict[str, Any]:
    """Train a recipe, and return what its weights, scores and rows are."""
    out = Path("runs") / name
    doors.said("train", "--preset", "quick", "--out", str(out), *doors.sets(*TINY), *RECIPES[name])
    return left(out)


def left(out: Path) -> dict[str, Any]:
    """Return what the weights, scores and rows of a run are."""
    record = json.loads((out / "record.json").read_text())
    return {
        "digest": record["config_digest"],
        "status": record["status"],
        "weights": _tensors(_weights(out / "weights.pt")),
        "scores": [
            {key: score[key] for key in ("step", "weights", "final", "fingerprint", "metrics")}
            | {"floor": score["floor"]}
            for score in record["scores"]
        ],
        "blocks": record["blocks"],
        "metrics.jsonl": [
            {key: value for key, value in row.items() if key not in SPEEDS}
            for row in _rows(out / "metrics.jsonl")
        ],
        "diagnostics.jsonl": _rows(out / "diagnostics.jsonl"),
        "files": sorted(str(one.relative_to(out)) for one in out.rglob("*") if one.is_file()),
    }


OLDER, MAGIC = b"sagan-bench checkpoint 1\n", b"sagan-bench checkpoint 2\n"
UNSURE = re.compile(r"(conv\d?|shortcut)\.bias$|running_mean$")
"""Before BatchNorm a bias changes nothing: its gradient is the noise of a CPU's last bits, of which
Adam makes whole steps."""
SPEEDS = ("images_per_sec", "peak_memory_gib", "seconds")


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _weights(file: Path) -> Any:
    """Return what a file of weights holds, which its SHA-256 is of: in its comment, or before."""
    content = file.read_bytes()
    if content.startswith(OLDER):
        seal, rest = content[len(OLDER) :][:32], content[len(OLDER) + 32 :]
    else:
        comment = zipfile.ZipFile(io.BytesIO(content)).comment
        assert comment.startswith(MAGIC)
        seal, rest = comment[len(MAGIC) :], content[: -len(comment) - 2] + b"\0\0"
    assert hashlib.sha256(rest).digest() == seal
    return torch.load(io.BytesIO(rest), weights_only=True)


def _tensors(value: Any, name: str = "") -> dict[str, Any]:
    """Return the norm and mean (of `UNSURE` ones the shape) of each tensor, all else as it is."""
    if isinstance(value, torch.Tensor):
        flat = value.double().flatten()
        if UNSURE.search(name):
            return {name: list(value.shape)}
        return {name: [float(flat.norm()), float(flat.mean())]}
    if isinstance(value, dict):
        found: dict[str, Any] = {}
        for key, one in value.items():
            found |= _tensors(one, f"{name}/{key}" if name else str(key))
        return found
    return {name: value if isinstance(value, int | float | None) else str(value)}


# --- Reports of studies -------------------------------------------------------------------------

FIVE = [0.31, 0.35, 0.28, 0.33, 0.30]
MORE = [0.52, 0.49, 0.55, 0.50, 0.56]
STUDIES: dict[str, dict[str, Any]] = {
    "clear": {"values": {"no-attention": FIVE, "sagan": MORE}, "pictures": True},
    "open": {"values": {"no-attention": FIVE, "sagan": [0.21, 0.46, 0.27, 0.43, 0.30]}},
    "worse": {"values": {"no-attention": FIVE, "sagan": [0.1, 0.11, 0.1, 0.12, 0.1]}},
    "equal": {"values": {"no-attention": FIVE, "sagan": [0.30, 0.33, 0.31, 0.34, 0.29]}},
    "diverged": {
        "values": {"no-attention": [0.31, None, 0.28, 0.33, 0.30], "sagan": [None] * 5},
        "sets": ["run.cells_on_device=2"],
    },
    "missing-seeds": {"values": {"no-attention": FIVE, "sagan": MORE[:3], "feat4": MORE[:1]}},
    "three": {
        "values": {"sagan": MORE, "no-attention": FIVE, "wider": [0.4, 0.45, 0.38, 0.44, 0.41],
                   "residual": [0.53, None, 0.54, 0.52, 0.55]},
        "baseline": "sagan",
        "changed": {"name": "controls", "question": "Is it the context?"},
    },
}  # fmt: skip
KEPT = ("runs.csv", "summary.csv", "comparisons.csv", "summary.md", "summary.tex")
BRIEF = ("worse", "equal")
"""Studies of which the page and the report's data, in form like others, are not held."""
FULL = ("clear",)
"""Reports of which the rows of all runs, and the ends of all curves, are held."""


def study(name: str) -> dict[str, Any]:
    """Return file -> content: what is said of a study, and what its report leaves."""
    folder = doors.leave_study(Path("runs") / name, **{"pictures": False, **STUDIES[name]})
    found: dict[str, Any] = {
        "compare.json": json.loads(doors.said("compare", str(folder), "--json"))
    }
    found["compare.txt"] = _told(doors.call("compare", str(folder)))
    found |= report(str(folder), found["compare.json"], full=name in FULL)
    left_out = ("page.txt", "report.json", "outline.json") if name in BRIEF else ()
    return {file: content for file, content in found.items() if file not in left_out}


def report(what: str, findings: Any, *, full: bool) -> dict[str, Any]:
    """Return file -> content: what ``report`` says, and what it leaves."""
    out = Path("out") / Path(what).name
    found: dict[str, Any] = {"report.txt": _told(doors.call("report", what, "--out", str(out)))}
    document = goldens.without(
        json.loads((out / "data" / "report.json").read_text()), *goldens.SEALS
    )
    known = ("runs", "storage")  # paths, of which the report has less
    goldens.alike(*(goldens.without(one, *known) for one in (document.pop("findings"), findings)))
    if "series" in document and not full:
        document["runs"] = document["runs"][:1]  # runs.csv has all
    if "series" in document:
        document["series"] = {
            f"{one['name']} {one['variant']} {one['seed']}": [
                len(one["steps"]), one["steps"][0], *one["values"][-6 if full else -1 :]
            ]
            for one in document["series"]
        }  # fmt: skip
    page = goldens.Page((out / "index.html").read_text(encoding="utf-8"))
    found["report.json"] = document
    found["page.txt"] = page.text
    found["outline.json"] = {
        "headings": page.headings,
        "ids": sorted(page.ids),
        "files": sorted(str(one.relative_to(out)) for one in out.rglob("*") if one.is_file()),
    }
    for name in KEPT:
        if (out / "data" / name).exists():
            found[name] = goldens.plain((out / "data" / name).read_text(encoding="utf-8"))
    return found


def _told(ended: doors.Ended) -> str:
    return goldens.plain(f"exit {ended.code}\n{ended.stdout}\n--- stderr\n{ended.stderr}")


# --- Reports of tunings -------------------------------------------------------------------------


def bowl(config: Any, step: int) -> float | None:
    """Return a FID that is least at one learning rate; high rates diverge."""
    rate = 1e4 * config.training.lr_g
    if rate > 6.5 and step > 10:
        return None
    best = 100 - 10 * bool(config.model.attention.generator)
    return float(best + 8 * (rate - 4) ** 2 + 600 / step + 3 * (config.seed % 5))


def failing(config: Any, step: int) -> float | None:
    """Return no FID where G learns twice as slowly as D, and else one."""
    if config.training.n_critic == 2:
        raise RuntimeError("the disk is full")
    return bowl(config, step)


TUNINGS: dict[str, dict[str, Any]] = {
    "one": {"outcome": bowl, "trials": 9},
    "both": {"outcome": bowl, "trials": 5, "variants": ("sagan", "no-attention")},
    "two-objectives": {
        "outcome": bowl, "trials": 5, "objectives": ("fid", "images_per_sec"), "pruner": "none",
    },
    "failing": {"outcome": failing, "trials": 5, "sampler": "random"},
}  # fmt: skip


def tuning(name: str) -> dict[str, Any]:
    """Return file -> content: what is said of a tuning, and what its report leaves."""
    Path("runs").mkdir(exist_ok=True)
    folder = doors.leave_tuning(Path("runs") / name, **TUNINGS[name])
    found: dict[str, Any] = {
        "show.json": json.loads(doors.said("tune", "show", str(folder), "--json")),
        "show.txt": _told(doors.call("tune", "show", name)),
        "best.txt": _told(doors.call("tune", "best", name, "--variant", "sagan")),
        "best.toml": _told(doors.call("tune", "best", name, "--variant", "sagan", "--as-config")),
    }
    return found | report(str(folder), found["show.json"], full=True)


# --- JSON of the verbs --------------------------------------------------------------------------


def configurations() -> dict[str, Any]:
    """Return the values of each preset's configuration, without who set them."""
    found = {}
    for preset in doors.presets():
        tree = json.loads(doors.said("show", "config", "--preset", preset, "--json"))
        found[preset] = tree["config"]
    return found


def told_variants() -> dict[str, Any]:
    """Return what ``show variant`` says of each variant; null of what 32 px do not have."""
    found: dict[str, Any] = {}
    for name in doors.variants():
        ended = doors.call("show", "variant", name, "--json")
        told = json.loads(ended.stdout) if ended.code == 0 else None
        found[name] = told and {**told, "facts": told["facts"][name]}
    return found


def lists() -> dict[str, Any]:
    """Return what is listed of what is shipped, and the networks of two presets."""
    given = {
        "list variants": ("list", "variants"),
        "list studies": ("list", "studies"),
        "show model": ("show", "model"),
        "show model of cifar10": ("show", "model", "--preset", "cifar10"),
    }
    return {name: json.loads(doors.said(*words, "--json")) for name, words in given.items()}


def studies() -> dict[str, Any]:
    """Return the plan of each shipped study whose images are made here."""
    found: dict[str, Any] = {}
    for name in doors.study_names():
        ended = doors.call("ablate", name, "--dry-run", "--json")
        if ended.code == 0:
            told = json.loads(ended.stdout)
            assert all(one["state"] == "new" and one["to_run"] for one in told["cells"])
            found[name] = told | {"cells": [one["id"] for one in told["cells"]]}
    return found


SHIPPED: dict[str, Callable[[], dict[str, Any]]] = {
    "configurations": configurations,
    "variants": told_variants,
    "lists": lists,
    "plans_of_studies": studies,
}


def shapes() -> dict[str, Any]:
    """Return the keys and types of the JSON of each verb, by its command."""
    run, (quick, tuned) = "runs/sagan", ("runs/quick", "runs/tuned")
    doors.leave_study(Path(quick), STUDIES["three"]["values"], baseline="sagan", pictures=False)
    doors.leave_tuning(Path(tuned), bowl, 3)
    commands = (
        ("train", "--preset", "quick", "--out", run, *doors.sets(*TINY), *RECIPES["sagan"]),
        (
            "train",
            "--preset",
            "quick",
            "--out",
            run,
            *doors.sets(*TINY),
            *RECIPES["sagan"],
            "--dry-run",
        ),
        ("evaluate", run, "--seeds", "0,1"),
        ("show", run),
        ("show", "config"),
        ("show", "model"),
        ("show", "variant", "residual"),
        ("list", "runs"),
        ("list", "studies"),
        ("list", "variants"),
        ("compare", quick),
        ("ablate", "presence", "--dry-run"),
        ("tune", "show", tuned),
        ("tune", "best", tuned),
        ("data", "prepare", "twins", *doors.sets("data.train_images=48", "data.test_images=16")),
        ("data", "list"),
        ("doctor",),
    )
    found: dict[str, Any] = {}
    for words in commands:
        name = " ".join(word for word in words if word != "--set" and "=" not in word)
        told = shape(json.loads(doors.said(*words, "--json")))
        found[name] = next((f"as {one}" for one, known in found.items() if known == told), told)
    return found


def shape(value: Any) -> Any:
    """Return the keys and types of a value; of the entries of a list what they are together."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        kinds: list[Any] = []
        for one in map(shape, value):
            if isinstance(one, dict) and (known := [k for k in kinds if isinstance(k, dict)]):
                kinds[kinds.index(known[0])] = _merged(known[0], one)
            elif one not in kinds:
                kinds.append(one)
        return sorted(kinds, key=str)
    return "null" if value is None else type(value).__name__


def _merged(one: Any, other: Any) -> Any:
    """Return the shape of what has one shape or another."""
    if one == other:
        return one
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            key: _merged(one.get(key, "absent"), other.get(key, "absent"))
            for key in {**one, **other}
        }
    if isinstance(one, list) and isinstance(other, list):
        return sorted([*one, *(kind for kind in other if kind not in one)], key=str)
    if isinstance(one, str) and isinstance(other, str):
        return " or ".join(sorted({*one.split(" or "), *other.split(" or ")}))
    return {"either": sorted([one, other], key=str)}


# --- Folders that older code began --------------------------------------------------------------

CODES = ("first-release", "before-rebuild")


def unpacked(part: str, code: str) -> Path:
    """Unpack what older code left of a part, in runs/, and leave the files of its command."""
    begin.files(Path())
    with tarfile.open(goldens.BEGUN / f"{part}-{code}.tar.xz") as archive:
        archive.extractall("runs", filter="data")
    return Path("runs") / part


def read(part: str, code: str) -> dict[str, str]:
    """Return what is said of a folder that older code began, by the verb that says it."""
    folder = str(unpacked(part, code))
    show = ("tune", "show", part) if part == "tuning" else ("show", folder)
    compare = ("compare", folder) if part == "study" else ("compare", folder, "--baseline", "sagan")
    found = {"list": _told(doors.call("list"))}
    if part != "study":
        found["show"] = _told(doors.call(*show))
    if part != "tuning":
        found["compare"] = _told(doors.call(*compare))
    found["report"] = _told(doors.call("report", folder, "--out", "out"))
    if Path("out").exists() and code == CODES[0]:
        found["page"] = goldens.Page(Path("out/index.html").read_text(encoding="utf-8")).text
    return found


def rendered(schema: int) -> str:
    """Return the text of the page of a report.json of this schema."""
    with tarfile.open(goldens.BEGUN / f"report-schema-{schema}.tar.xz") as archive:
        archive.extractall("report", filter="data")
    doors.said("report", "report/data/report.json")
    return goldens.Page(Path("report/index.html").read_text(encoding="utf-8")).text
