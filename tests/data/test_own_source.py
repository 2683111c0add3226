"""A kind of data that a user adds: one class, known by its name everywhere."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from example_runs import SMALL

from sagan_bench import cli
from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host
from sagan_bench.core.registry import SOURCES
from sagan_bench.data.decoding import Chunk
from sagan_bench.data.listing import DataSpec, Listing, Part, digest16
from sagan_bench.data.sources._base import Source
from sagan_bench.session import experiment


def draw(side: int, count: int) -> Chunk:
    images = np.zeros((count, 3, side, side), np.uint8)
    images[::2, :, :, ::8] = images[1::2, :, ::8] = 250
    return Chunk(images, np.arange(count) % 2)


@pytest.fixture
def _stripes() -> Iterator[None]:
    @SOURCES.register("stripes")
    class Stripes(Source):
        """Upright and level stripes."""

        usage = "stripes:COUNT"
        auto_crop_px = 16

        def __init__(self, spec: DataSpec) -> None:
            super().__init__(spec)
            self.count, self.key = int(str(spec.path)), digest16(spec.source)

        def listing(self) -> Listing:
            task = partial(draw, self.spec.image_size, self.count)
            return Listing(("upright", "level"), Part(self.count, [task]), None, "all for training")

    yield
    del SOURCES._known["stripes"]


@pytest.mark.usefixtures("_stripes")
def test_a_source_of_a_user_is_shown_and_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("show", "stripes:24"), ("show", "stripe:24"), ("download", "stripes", ".")):
        with pytest.raises(SystemExit):
            cli.main(("data", *arguments))
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
