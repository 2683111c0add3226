"""Time the scoring of generated images against the extractor's forward pass alone.

    python benchmarks/scoring.py --n-fake 10000 --n-real 10000

The images are twins at 32 px, drawn fresh; the cache is cold.  Forward time is measured batch by
batch inside the same run, so that the ratio does not depend on the machine's mood.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import typer

from sagan_bench.core import cpu, system
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.data import shapes
from sagan_bench.data.pixels import normalise
from sagan_bench.evaluation.protocol import Protocol
from sagan_bench.evaluation.reference import reference
from sagan_bench.evaluation.sampling import sample_images
from sagan_bench.evaluation.scoring import score


def main(n_fake: int = 10_000, n_real: int = 10_000, device: str = "auto") -> None:
    """Print seconds of the forward passes, of everything, and their ratio."""
    chosen = system.device(device)
    torch.set_num_threads(cpu.cores())
    real, _ = shapes.draw(np.arange(n_real), seed=0, size=32)
    made, _ = shapes.draw(np.arange(n_real, n_real + n_fake), seed=0, size=32)
    protocol = Protocol.fitted(
        **EXTRACTORS["efficientnet-lite0"].facts(),
        data="benchmark",
        split="train",
        n_real=n_real,
        n_fake=n_fake,
        sampling_seed=0,
        label_law="none",
        weights="raw",
        ema_decay=None,
        batchnorm="none",
    )
    extractor = EXTRACTORS["efficientnet-lite0"](chosen)
    forward = [0.0, 0.0]  # when the last began, and the sum

    def begin(*_: object) -> None:
        _wait(chosen)
        forward[0] = time.perf_counter()

    def end(*_: object) -> None:
        _wait(chosen)
        forward[1] += time.perf_counter() - forward[0]

    extractor.network.register_forward_pre_hook(begin)
    extractor.network.register_forward_hook(end)
    images = torch.from_numpy(made)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        known = reference(real, None, protocol, extractor, Path(cache))
        drawn = sample_images(
            lambda seed, start, stop: normalise(images[start:stop]), n_fake, 0, 64
        )
        score(drawn, known, protocol, extractor)
    total = time.perf_counter() - began
    print(
        json.dumps(
            {
                "device": system.device_name(chosen),
                "n_fake": n_fake,
                "n_real": n_real,
                "forward_sec": round(forward[1], 2),
                "total_sec": round(total, 2),
                "ratio": round(total / forward[1], 4),
                "forward_ms_per_image": round(1000 * forward[1] / (n_fake + n_real), 2),
            },
            indent=2,
        )
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    typer.run(main)
