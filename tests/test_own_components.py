"""One component of each kind, a file of at most 40 lines each, from the settings to the page."""

import json
from collections.abc import Iterator
from pathlib import Path

import command_line
import pytest
from example_runs import SMALL
from example_tunings import SPACE
from own_components import FILES, loaded

from sagan_bench.runs.records import RECORD

STUDY = """
question = "Does the rate matter to them?"
baseline = "mean-context"
variants = ["mean-context+equal-learning-rates"]
seeds = [0, 1]

[on.stripes]
metric = "colour_distance"
min_effect = "5%"
set.model.attention.generator = [32]
set.model.attention.discriminator = []
"""
SETS = (
    "data.source=stripes:48", "data.train_images=none", "data.test_images=none",
    "model.architecture=linear", "training.loss=softplus",
    'evaluation.metrics=["colour_distance"]', "evaluation.n_real=24",
    "model.spectral_norm.generator=none", "model.spectral_norm.discriminator=none",
)  # fmt: skip
SIDES = "set.model.attention.generator = [32]\nset.model.attention.discriminator = []\n"
MINE = SPACE.replace("on.twins", "on.stripes").replace('"fid"', '"colour_distance"')
MINE = MINE.replace('min_effect = "5%"\n', f'min_effect = "5%"\n{SIDES}')


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> Iterator[None]:
    with loaded() as added:
        assert all(len(names) == 1 for names in added)  # one of each kind
        yield


def run(*arguments: str) -> int:
    sets = [part for text in (*SMALL, *SETS) for part in ("--set", text)]
    return command_line.run(*arguments, *(sets if arguments[0] in ("ablate", "tune") else ()))


def test_the_files_are_short() -> None:
    assert all(len(file.read_text().splitlines()) <= 40 for file in FILES)


@pytest.mark.slow
def test_they_go_from_the_settings_to_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(STUDY)
    assert run("ablate", "mine.toml", "--engine", "in-turn", "--json") == 0
    findings = json.loads(capsys.readouterr().out)
    assert findings["primary"]["label"] == "FCD[mean-colours]"
    (comparison,) = findings["primary"]["comparisons"]
    assert (comparison["variant"], comparison["n_ok"]) == ("mean-context+equal-learning-rates", 2)
    (path,) = (tmp_path / "runs").glob(f"*/mean-context-s0*/{RECORD}")
    record = json.loads(path.read_text())
    assert record["status"] == "finished"
    assert record["config"]["model"]["attention"]["kind"] == "mean-context"
    assert {score["protocol"]["extractor"] for score in record["scores"]} == {
        "efficientnet-lite0", "mean-colours",
    }  # fmt: skip
    assert run("report", str(path.parents[1]), "--out", "page") == 0
    html = (tmp_path / "page" / "index.html").read_text()
    assert "FCD[mean-colours]" in html
    assert "Lost runs of each variant" in html
    assert (tmp_path / "page" / "data" / "lost.csv").exists()


@pytest.mark.slow
def test_a_search_goes_by_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.toml").write_text(MINE)
    more = ["--trials", "2", "--sampler", "lowest", "--engine", "in-turn", "--no-confirm"]
    assert run("tune", "--variant", "mean-context", "--space", "space.toml", *more) == 0
