"""What a report says for a paper: every figure of its records, and whom to cite."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_line
import pytest
from example_reports import CLEAR, leave_run, leave_study, settings

from sagan_bench.core.registry import EXTRACTORS, LOSSES, METRICS, SAMPLERS, SOURCES
from sagan_bench.report import collect
from sagan_bench.report.document import AnyDocument, Document, TuningDocument, read
from sagan_bench.report.methods import ALWAYS, methods, references

ROOT = Path(__file__).parents[2]


def stored(name: str) -> AnyDocument:
    return read(ROOT / "reports" / name / "data" / "report.json")


@pytest.fixture(scope="module")
def study() -> Document:
    document = stored("example-twins32")
    assert isinstance(document, Document)
    return document


def cited(text: str) -> set[str]:
    return set(re.findall(r"^@\w+\{(.+),$", text, flags=re.MULTILINE))


def changed(document: AnyDocument, key: str, value: Any) -> AnyDocument:
    """Return a document with another value at a dotted place of its JSON."""
    plain = document.model_dump(mode="json")
    *path, last = key.split(".")
    inner: Any = plain
    for part in path:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    inner[int(last) if isinstance(inner, list) else last] = value
    return type(document).model_validate(plain)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("data.kind", "photos", "Data: photos, 50,000 training images of 32 × 32 px in 10 classes"),
        ("data.train.images", 1234, "1,234 training images"),
        ("config.preset", "brief", "the preset brief"),
        ("config.model.width", 17, "of width 17"),
        ("config.model.spectral_norm.generator", "none", "spectral norm in all layers of D."),
        ("config.training.loss", "wgan-gp", "Training: wgan-gp loss"),
        ("config.training.lr_d", 0.0123, "learning rates 0.001 (G) and 0.0123 (D)"),
        ("config.training.lr_scale", 2, "learning rates 0.002 (G) and 0.0034 (D)"),
        ("config.training.batch_size", 33, "batches of 33"),
        ("config.run.steps", 77_000, "77,000 updates of G"),
        ("config.training.n_critic", 5, "with 5 updates of D each"),
        ("runs.0.seed", 99, "at 6 training seeds (0, 1, 2, 3, 4, 99)"),
        ("runs.0.status", "diverged", "Runs: 10 (9 finished, 1 diverged, 0 failed)"),
        ("environments.0.device_name", "a card", "Made on a card with"),
        ("environments.0.torch", "9.9", "PyTorch 9.9"),
        ("findings.protocol.n_fake", 50_000, "50,000 generated images against 2,048 real ones"),
        ("findings.protocol.sampling_seed", [0, 1, 2], "the mean of 3 sampling seeds"),
        ("findings.matters", "7%", "The smallest difference that matters was 7%, fixed before"),
        ("findings.declared", False, "chosen after the runs"),
        ("findings.rule.looks", 3, "Results were looked at 3 times"),
        ("findings.rule.paired", True, "of paired runs"),
        ("warnings.0", "Beware of it.", "- Beware of it."),
    ],
)
def test_every_figure_is_that_of_the_records(
    study: Document, key: str, value: Any, told: str
) -> None:
    assert told not in methods(study)
    assert told in methods(changed(study, key, value))


def test_a_study_says_what_differs_and_calls_its_figures_as_they_are(study: Document) -> None:
    text = methods(study)
    assert "sagan differs from no-attention in model.attention.generator ([] → [8])" in text
    assert "FID[effnet-lite0]" in text
    assert not re.search(r"\bFID\b(?!\[)", text.partition("## Limits")[0])
    assert "in 1 comparison, whose 95 % intervals hold simultaneously (Bonferroni)" in text
    for line in study.warnings:
        assert f"- {line}\n" in text


@pytest.mark.parametrize(
    ("change", "key", "is_cited"),
    [
        (None, "zhang2019self", True),
        (None, "miyato2018spectral", True),
        (None, "heusel2017gans", True),
        (None, "lim2017geometric", True),
        (None, "tan2019efficientnet", True),
        (None, "kynkaanniemi2019improved", True),
        (None, "akiba2019optuna", False),
        (None, "gulrajani2017improved", False),
        (("config.training.loss", "wgan-gp"), "gulrajani2017improved", True),
        (("config.training.loss", "wgan-gp"), "lim2017geometric", False),
        (("data.kind", "cifar10"), "krizhevsky2009learning", True),
        (("config.evaluation.extractor", "inception"), "szegedy2016rethinking", True),
        (
            ("config.model.spectral_norm", {"generator": "none", "discriminator": "none"}),
            "miyato2018spectral",
            False,
        ),
    ],
)
def test_what_was_used_is_cited_and_nothing_else(
    study: Document, change: tuple[str, Any] | None, key: str, is_cited: bool
) -> None:
    document = changed(study, *change) if change else study
    assert (key in cited(methods(document))) == is_cited


def test_metrics_that_are_not_reported_are_not_cited(study: Document) -> None:
    rows = [run.model_copy(update={"metrics": {"twin_rate": 0.5}}) for run in study.runs]
    equal = changed(study, "config.training.lr_d", study.config["training"]["lr_g"])
    text = methods(equal.model_copy(update={"runs": tuple(rows)}))
    metrics = {"heusel2017gans", "salimans2016improved", "binkowski2018demystifying",
               "kynkaanniemi2019improved", "obukhov2020torchfidelity"}  # fmt: skip
    assert not cited(text) & metrics


def test_every_key_that_a_component_has_is_an_entry_and_every_entry_is_used() -> None:
    registries = (EXTRACTORS, LOSSES, METRICS, SAMPLERS, SOURCES)
    used = {key for registry in registries for name in registry for key in registry[name].cites}
    of_settings = {"miyato2018spectral", "kingma2015adam", "heusel2017gans", "akiba2019optuna",
                   "obukhov2020torchfidelity"}  # fmt: skip
    assert {*used, *of_settings, *ALWAYS} == references().keys()
    for entry in references().values():
        assert entry.count("{") == entry.count("}"), entry


def test_a_tuning_says_its_searches_and_cites_what_proposed() -> None:
    document = stored("example-tune")
    assert isinstance(document, TuningDocument)
    text = methods(document)
    assert "1 search of 12 trials by TPE (Optuna), pruner median, over the space twins32" in text
    assert "(set B: 3, 4)" in text
    assert cited(text) >= {"akiba2019optuna", "bergstra2011algorithms"}
    assert "3,000 updates" in methods(changed(document, "findings.steps", 3000))


def lengths(folder: Path) -> AnyDocument:
    paths = [
        leave_run(folder / f"{steps}", settings("sagan", 0, [f"run.steps={steps}"]), 0.4,
                  pictures=False)
        for steps in (600, 1200)
    ]  # fmt: skip
    return collect.of_runs(paths, "runs", None)[0]


def lost(folder: Path) -> AnyDocument:
    return collect.of_study(leave_study(folder, {"no-attention": [None], "sagan": [None]}))[0]


@pytest.mark.parametrize(
    ("make", "told"),
    [(lengths, "600 and 1,200 updates of G"), (lost, "Runs: 2 (0 finished, 2 diverged, 0 failed)")],
)
def test_odd_reports_have_methods_too(
    make: Callable[[Path], AnyDocument], told: str, tmp_path: Path
) -> None:
    assert told in methods(make(tmp_path / "made"))


def test_the_verb_prints_what_lies_beside_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    leave_study(Path("runs/quick"), {name: of[:1] for name, of in CLEAR.items()}, pictures=False)
    assert command_line.run("report", "quick", "--methods") == 0
    told = capsys.readouterr()
    assert told.out == Path("reports/quick/data/methods.md").read_text()
    assert told.err == "report: reports/quick/index.html\n"
    assert 'href="data/methods.md"' in Path("reports/quick/index.html").read_text()
