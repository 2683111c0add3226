"""What several test modules share: the smallest study."""

from pathlib import Path

from example_runs import SMALL

from sagan_bench.config.layers import parse_set
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.experiments import studies
from sagan_bench.experiments.study import Study

HOST = Host(bf16=False, extractor="efficientnet-lite0")
FILE = """
question = "Does it run?"
baseline = "no-attention"
variants = ["sagan"]
seeds = [0, 1]
[on.twins]
metric = "twin_rate"
min_effect = 0.05
"""


def small_study(folder: Path, *sets: str, text: str = FILE) -> Study:
    """The study of ``text`` with the settings of the smallest run."""
    file = folder / "small.toml"
    file.write_text(text)
    return studies.load(str(file), set=dict(map(parse_set, [*SMALL, *sets])))


def here(config: RunConfig) -> Host:
    return HOST
