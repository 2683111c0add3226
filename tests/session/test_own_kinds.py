"""A file of each kind, as `init` writes it: used by `--with` alone, and known ever after."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import forget, run
from example_runs import SMALL

from sagan_bench import cli
from sagan_bench.cli.init import FOLDER
from sagan_bench.config.used import used
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import EXTRACTORS, FAMILIES, METRICS
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.sources import open_source
from sagan_bench.data.store import place_of
from sagan_bench.experiments import conformance

ROOT = Path(cli.__file__).parents[2]
KINDS = ("loss", "metric", "extractor", "source")
SETS = [part for text in SMALL for part in ("--set", text)]
USED = {
    "loss": ("training", "loss", "my-loss"),
    "metric": ("evaluation", "metrics", ["my_metric"]),
    "extractor": ("evaluation", "extractor", "my-extractor"),
    "source": ("data", "source", "my-source"),
    "family": ("model", "architecture", "my-family"),
}
"""By what is begun: the setting that uses it, without a word."""
Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "require", lambda extension: None)


def begun(*kinds: str) -> list[str]:
    """Write files as `init` does, and return the options that name them."""
    for kind in kinds:
        shutil.copy(FOLDER / f"{kind}.py", f"my_{kind}.py")
    return [part for kind in kinds for part in ("--with", f"my_{kind}.py")]


def config_of(path: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((path / "record.json").read_text())["config"]
    return stored


def of(*kinds: str) -> dict[str, Any]:
    begun(*kinds)
    files = [extensions.load(Path(f"my_{kind}.py")) for kind in kinds]
    return {file.name: file.described for file in files}


def test_what_files_have_is_used_where_nothing_else_is_said() -> None:
    known = used(of(*USED))
    for section, key, value in USED.values():
        assert known[f"{section}.{key}"] == value
    begun("loss")
    text = Path("my_loss.py").read_text()
    Path("more.py").write_text(text + text.replace("my-loss", "her-loss").replace("MyLoss", "Hers"))
    forget()
    assert used({"more": extensions.load(Path("more.py")).described}) == {}  # which of them?
    forget()
    shutil.copy(ROOT / "tests/own/stripes.py", "stripes.py")  # it takes a path
    assert used({"stripes": extensions.load(Path("stripes.py")).described}) == {}


def test_an_extractor_of_a_metric_beside_it_is_not_the_runs() -> None:
    for stem in ("colour_distance", "mean_colours"):
        shutil.copy(ROOT / f"tests/own/{stem}.py", f"{stem}.py")
    files = [extensions.load(Path(f"{stem}.py")) for stem in ("mean_colours", "colour_distance")]
    own = {file.name: file.described for file in files}
    assert used(own) == {"evaluation.metrics": ["colour_distance"]}


def test_options_say_otherwise(capsys: Out) -> None:
    show = ["show", "config", "--json", *begun("loss", "family")]
    for more, loss, family in (
        ([], "my-loss", "my-family"),
        (["--set", "training.loss=hinge", "--set", "model.architecture=dcgan"], "hinge", "dcgan"),
        (["--variant", "wgan-gp"], "wgan-gp", "my-family"),
    ):
        assert run(*show, *more) == 0
        shown = json.loads(capsys.readouterr().out)
        config = shown["config"]
        assert (config["training"]["loss"], config["model"]["architecture"]) == (loss, family)
    assert shown["origins"]["model.architecture"] == "--with"


def test_a_run_with_files_of_four_kinds_is_read_and_scored_without_them(capsys: Out) -> None:
    train = ["train", *SETS, "--set", "run.steps=2", "--out"]
    assert run(*train, "run", *begun(*KINDS)) == 0
    config = config_of(Path("run"))
    assert set(config["own"]) == {f"my_{kind}" for kind in KINDS}
    for section, key, value in (USED[kind] for kind in KINDS):
        assert config[section][key] == value
    protocol = json.loads(Path("run/record.json").read_text())["scores"][0]["protocol"]
    assert protocol["weights_sha256"] == EXTRACTORS["my-extractor"].facts()["weights_sha256"]

    forget()
    for kind in KINDS:
        Path(f"my_{kind}.py").unlink()
    capsys.readouterr()
    compare = ["compare", "run", "--baseline", "run", "--metric", "my_metric"]
    for verb in (["list", "--runs", "."], ["show", "run"], compare):
        assert run(*verb) == 0
    shown = capsys.readouterr().out
    assert "my_metric[my-extractor] ↓" in shown
    assert "--with run/own/my_loss.py --with" in shown
    assert not extensions._known
    assert METRICS["my_metric"].switch() == 'evaluation.metrics=["my_metric"]'
    with pytest.raises(UserError, match="code of the metric 'my_metric' is not loaded"):
        METRICS["my_metric"]()
    assert run("evaluate", "run", "--n-fake", "9") == 0  # by the copies
    assert set(extensions._known) == {f"my_{kind}" for kind in KINDS}


def test_a_metric_of_pixels_is_recalled_as_such() -> None:
    begun("metric")
    text = Path("my_metric.py").read_text().replace("extractor = RUNS", "extractor = None")
    Path("my_metric.py").write_text(text)
    described = extensions.load(Path("my_metric.py")).described
    forget()
    extensions.recall({"my_metric": described})
    assert METRICS["my_metric"].extractor is None


def test_the_file_of_a_metrics_extractor_belongs_to_the_run(capsys: Out) -> None:
    options = []
    for stem in ("colour_distance", "mean_colours"):
        shutil.copy(ROOT / f"tests/own/{stem}.py", f"{stem}.py")
        options += ["--with", f"{stem}.py"]
    assert run("show", "config", "--json", *options) == 0
    own = json.loads(capsys.readouterr().out)["config"]["own"]
    assert set(own) == {"colour_distance", "mean_colours"}


def test_another_source_of_images_or_of_features_finds_nothing_stale() -> None:
    def known() -> tuple[Path, str]:
        for kind in ("source", "extractor"):
            extensions.load(Path(f"my_{kind}.py"))
        source = open_source(DataSpec("my-source", 32))
        facts = EXTRACTORS["my-extractor"].facts()
        return place_of(source, Path("cache")), str(facts["weights_sha256"])

    begun("source", "extractor")
    first = known()
    for kind in ("source", "extractor"):
        with Path(f"my_{kind}.py").open("a") as file:
            file.write("# changed\n")
    second = known()
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_figures_of_a_metric_by_files_that_differ_are_not_put_together(
    capsys: Out, caplog: pytest.LogCaptureFixture
) -> None:
    train = ["train", *SETS, "--set", "run.steps=1", *begun("metric", "extractor")]
    assert run(*train, "--out", "a") == 0
    with Path("my_metric.py").open("a") as file:
        file.write("# changed\n")
    forget()
    assert run(*train, "--variant", "no-attention", "--out", "b") == 0
    capsys.readouterr()
    assert run("compare", "a", "b", "--baseline", "a", "--metric", "my_metric") == cli.USAGE
    assert "my_metric is left out: the runs have it from files that differ" in caplog.text
    assert "these runs have no my_metric" in capsys.readouterr().err
    assert run("compare", "a", "b", "--baseline", "a", "--metric", "fid") == 0
    assert "FID[my-extractor]" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["extractor", "family"])
def test_a_kind_goes_all_the_way_in_processes_of_its_own(kind: str, capsys: Out) -> None:
    """Trained, gone on with, scored, shown, compared in a study, reported; refused when changed."""
    section, key, value = USED[kind]

    def call(*arguments: str, expect: int = 0) -> str:
        forget()
        code = run(*arguments)
        said = "".join(capsys.readouterr())
        assert code == expect, said
        return said

    call("init", kind, f"my_{kind}.py")
    file = Path(f"my_{kind}.py")
    with_it = ["--with", file.name]
    kept = ["--set", "run.keep_training_state=true"]
    more = [*kept, "--set", "run.steps=8"]
    call("train", *with_it, *SETS, *kept, "--out", "run")
    call("train", *with_it, *SETS, *more, "--out", "run")
    assert json.loads(Path("run/record.json").read_text())["step"] == 8
    study = ["ablate", "smoke", *with_it, *SETS, "--seeds", "0", "--jobs", "2", "--name", "mine"]
    call(*study)  # in worker processes
    (record, *others) = Path("runs/mine").glob("*/record.json")
    assert len(others) == 1
    assert config_of(record.parent)[section][key] == value
    before = file.read_text()
    file.write_text(before + "# changed\n")
    said = call("train", *with_it, *SETS, *more, "--out", "run", expect=2)
    assert f"own.my_{kind}.sha256" in said
    assert "another study is in" in call(*study, expect=2)

    file.unlink()
    evaluate = [sys.executable, str(ROOT / "cli.py"), "evaluate", "run", "--n-fake", "9"]
    subprocess.run(evaluate, check=True)  # a process that never knew the file
    if kind == "family":  # the other kinds have no part in it
        call("sample", "run", "--n", "2")
        call("export", "run", "--out", "model.zip")
    metric = {"metric": "my_metric", "source": "fid"}.get(kind, "twin_rate")
    assert "no-attention" in call("compare", "runs/mine", "--metric", metric)
    call("report", "runs/mine", "--out", "page")
    assert Path("page/index.html").exists()


@pytest.mark.parametrize(
    ("kind", "old", "new", "check", "words"),
    [
        ("extractor", "torch.manual_seed(0)", "pass", "again", "made a second time"),
        ("extractor", "(2, 3)),)", "(2, 3)),)[0]", "features", "return a tuple"),
        (
            "extractor",
            "Features(self.dimensions)",
            "Features(8)",
            "features",
            "not float32 (6, 64)",
        ),
        ("extractor", "images.float()", "0 * images.float()", "features", "the same features"),
        ("extractor", "/ 255", "/ images.float()", "features", "not finite"),
        ("extractor", "/ 255", "/ images.float().mean()", "again", "depend on its batch"),
        ("extractor", "resize =", "preference = 3; resize =", "facts", "leave it out"),
        ("extractor", "resize =", "isc_layer = 'x'; resize =", "features", "returns 1 layers"),
        ("metric", "title =", "default = True; title =", "facts", "leave it out"),
    ],
)
def test_what_is_wrong_with_an_extractor_or_metric_is_caught(
    kind: str, old: str, new: str, check: str, words: str
) -> None:
    begun(kind)
    file = Path(f"my_{kind}.py")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    findings = conformance.check(extensions.load(file))
    errors = {found.check: found.text for found in findings if found.severity == "error"}
    assert words in errors.get(check, ""), errors


def test_a_family_of_a_file_is_forgotten_with_it() -> None:
    of("family")
    assert "my-family" in FAMILIES
    forget()
    assert "my-family" not in FAMILIES
