"""Hyperparameter searches at equal budgets, reported on seeds that were never searched."""
