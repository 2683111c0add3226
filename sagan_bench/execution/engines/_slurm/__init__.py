"""What the engine `slurm` is made of: how it is set up, its words with SLURM, its files, a run."""
