"""A kind of data that a user adds: one class, known by its name everywhere."""

from collections.abc import Iterator

import pytest
from command_line import run
from example_runs import SMALL
from own_components import loaded

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host
from sagan_bench.session import experiment


@pytest.fixture
def _stripes() -> Iterator[None]:
    with loaded("stripes"):
        yield


@pytest.mark.usefixtures("_stripes")
def test_a_source_of_a_user_is_shown_and_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("show", "stripes:24"), ("show", "stripe:24"), ("download", "stripes", ".")):
        run("data", *arguments)
    said = capsys.readouterr()
    assert "image size    32 px (centre crop 16 px" in said.out
    assert "classes       2: upright (12), level (12)" in said.out
    assert "unknown data 'stripe:24'" in said.err
    assert "did you mean 'stripes:COUNT'?" in said.err
    assert "it is not published" in said.err
    sets = [*SMALL, "data.source=stripes:24", "data.train_images=none", "run.steps=2"]
    config = resolve(Host(bf16=False, extractor="efficientnet-lite0"), sets=sets).config
    record = experiment.run(config)
    assert (record.status, record.step, record.config["data"]) == (
        "finished", 2, {**config.data.model_dump(), "crop": 16},
    )  # fmt: skip
    assert record.data
    assert record.data.manifest["kind"] == "stripes"
