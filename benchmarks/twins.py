"""Time the drawing and the scoring of twins.

python benchmarks/twins.py
"""

import json
import time

import numpy as np
import torch
import typer

from sagan_bench.core import cpu
from sagan_bench.data import shapes
from sagan_bench.evaluation.coherence import coherence


def main(images: int = 60_000, scored: int = 2_048, size: int = 32) -> None:
    """Print the seconds that one thread takes to draw and the rule takes to score."""
    torch.set_num_threads(cpu.cores())
    began = time.perf_counter()
    shapes.draw(np.arange(images), seed=0, size=size)
    drawn = time.perf_counter() - began
    some = torch.from_numpy(shapes.draw(np.arange(scored), seed=0, size=size)[0])
    began = time.perf_counter()
    coherence(some)
    row = {"drawn": images, "draw_sec": drawn, "scored": scored}
    print(json.dumps(row | {"score_sec": time.perf_counter() - began}, indent=2))


if __name__ == "__main__":
    typer.run(main)
