"""What can be asked for at most."""

MOST_WHOLE = 2**63 - 1
"""The largest whole number that can be asked for, a seed among them: what tables can hold.

Records of before may have larger ones, and are read.
"""
MOST: dict[str, int] = {
    "model.width": 8_192,
    "model.width_factor": 64,
    "model.z_dim": 65_536,
    "model.classes": 100_000,
    "training.batch_size": 65_536,
    "training.n_critic": 1_000,
    "evaluation.n_real": 10_000_000,
    "evaluation.n_fake": 10_000_000,
    "evaluation.n_floor": 10_000_000,
    "evaluation.bn_batches": 10_000,
    "evaluation.isc_splits": 10_000,
    "evaluation.kid_subsets": 100_000,
    "evaluation.kid_subset_size": 100_000,
    "run.eval_images": 10_000_000,
    "run.threads": 4_096,
    "run.cells_on_device": 4_096,
}
"""What can be asked for at most, far beyond use: a slip of a key is refused before it is built."""
