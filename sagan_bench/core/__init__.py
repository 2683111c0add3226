"""What every room needs and that knows nothing of GANs: errors, files, locks, devices, seeds."""
