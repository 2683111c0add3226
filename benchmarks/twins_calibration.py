"""What the scores of ``twins`` can see: the table of docs/twins.md.

    python benchmarks/twins_calibration.py

Scores held-out images of which a share of the right shapes was recoloured or swapped, against
training images.
"""

from pathlib import Path

import numpy as np
import torch
import typer

from sagan_bench.core import cpu, system
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.data import shapes
from sagan_bench.data.store import cache_root
from sagan_bench.evaluation.coherence import coherence
from sagan_bench.evaluation.protocol import Protocol
from sagan_bench.evaluation.reference import reference
from sagan_bench.evaluation.scoring import score

ALTERED = {"recoloured": shapes.recolour_right, "swapped": shapes.swap_right}


def main(n: int = 5_000, size: int = 32, device: str = "auto") -> None:
    """Print the table as Markdown."""
    torch.set_num_threads(cpu.cores())
    protocol = Protocol.fitted(
        **EXTRACTORS["efficientnet-lite0"].facts(),
        data=f"twins {size}",
        split="train",
        n_real=n,
        n_fake=n,
        sampling_seed=0,
        label_law="none",
        weights="raw",
        ema_decay=None,
        batchnorm="none",
    )
    extractor = EXTRACTORS["efficientnet-lite0"](system.device(device))
    real, _ = shapes.draw(np.arange(n), seed=0, size=size)
    known = reference(real, None, protocol, extractor, Path(cache_root()) / "features")
    held_out = shapes.parameters(np.arange(shapes.TRAIN_IMAGES, shapes.TRAIN_IMAGES + n), seed=0)
    shown = ("fid", "kid_mean", "precision", "recall")
    rule = ("twin_rate", "hue_match", "area_match")
    header = ("right shapes", "share", *map(protocol.label, shown), *rule)
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    cases = [("real", 0.0), *((name, share) for name in ALTERED for share in (0.1, 0.3, 1.0))]
    for name, share in cases:
        drawn = ALTERED[name](held_out, share, seed=0) if share else held_out
        images = torch.from_numpy(shapes.render(drawn, size))
        metrics = score(images, known, protocol, extractor).metrics | coherence(images)
        cells = [f"{metrics[key]:.4g}" for key in (*shown, *rule)]
        print(f"| {name} | {share:.0%} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
