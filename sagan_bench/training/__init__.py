"""Training: losses, the loop that yields events, and checkpoints."""
