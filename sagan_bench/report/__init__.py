"""Reports: findings and pictures of a study -> report.json -> one self-contained page."""
