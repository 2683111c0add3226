"""Scoring: extractors, torch-fidelity's metrics on one feature pass, and the rule-based twin rate."""
