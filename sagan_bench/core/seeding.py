"""Every random stream of a run, each from its own generator, so that resuming replays nothing."""

import hashlib

import torch


def generator(seed: int, *path: str | int) -> torch.Generator:
    """Return the CPU generator of one named stream, e.g. ``generator(seed, "z", step)``.

    Its seed is the first 63 bits of SHA-256 over ``seed`` and ``path``: streams of different names
    or steps are independent, and any step's stream can be had without the ones before it.
    """
    name = "/".join(f"{type(part).__name__}:{part}" for part in (seed, *path))
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
