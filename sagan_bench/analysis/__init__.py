"""Runs side by side: which may be compared, and what can be claimed; numbers first."""
