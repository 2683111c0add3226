"""Training: losses, a step and what it changes, the loop that yields events, and checkpoints."""
