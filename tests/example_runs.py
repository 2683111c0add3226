"""What several test modules share: the smallest run that exercises everything."""

SMALL = [
    "model.width=8", "model.z_dim=8", "training.batch_size=4", "run.threads=1",
    "run.steps=6", "run.log_every=2", "run.checkpoint_every=2", "run.sample_every=3",
    "data.train_images=48", "data.test_images=16",
    "evaluation.n_real=24", "evaluation.n_fake=10", "evaluation.n_floor=12",
    "evaluation.bn_batches=2", "evaluation.isc_splits=2", "evaluation.kid_subsets=3",
    "evaluation.kid_subset_size=8",
]  # fmt: skip
