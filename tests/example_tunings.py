"""What several test modules share: the smallest tuning."""

from pathlib import Path
from typing import Any

from example_runs import SMALL
from example_studies import HOST

from sagan_bench.config import Host, RunConfig, parse_set
from sagan_bench.tuning import planning, space
from sagan_bench.tuning.definition import Memory, Tuning

FILE = """
says = "The smallest space with a parameter of every kind"
presets = ["quick"]
evals = 3

[budget]
run.steps = 6

[on.twins]
metric = "fid"
min_effect = "5%"

[parameters."training.lr_g"]
kind = "log"
low = 1e-4
high = 1e-3
why = "a test"

[parameters."training.beta1"]
kind = "real"
low = 0.0
high = 0.5
why = "a test"

[parameters."training.n_critic"]
kind = "integer"
low = 1
high = 2
why = "a test"

[parameters."model.attention.generator"]
kind = "categorical"
choices = [[4], [8]]
why = "a test"
"""
SMALLER = [text for text in SMALL if not text.startswith("run.steps")]


def small_tuning(folder: Path, *sets: str, text: str = FILE, **changed: Any) -> Tuning:
    """The tuning of the space ``text`` with the settings of the smallest run."""
    file = folder / "small.toml"
    file.write_text(text)
    settings = dict(map(parse_set, [*SMALLER, "run.eval_images=10", *sets]))
    fields = {"preset": "quick", "variants": ("sagan",), "objectives": ("fid",)} | changed
    return Tuning(space=space.load(str(file)), settings=settings, **fields)


def here(config: RunConfig) -> Host:
    return HOST


def planned(asked: Tuning, folder: Path, trials: int = 4, **rest: Any) -> Memory:
    """The memory of a tuning whose data is prepared."""
    return planning.with_data(planning.plan(asked, folder, here, trials=trials, **rest), folder)
