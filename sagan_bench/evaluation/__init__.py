"""Scoring: extractors, the metrics of torch-fidelity on one feature pass, and the twin rate."""
