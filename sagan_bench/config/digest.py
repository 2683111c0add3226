"""The digest: what names a run by all that changes its results."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

DIGEST_SCHEMA = 1
LABELS = ("preset", "variant", "name")
"""Keys of what a run is called."""


def digest(
    values: Mapping[str, Any],
    neutral: Mapping[str, Any],
    data_fingerprint: str,
    also: Mapping[str, Any],
) -> str:
    """Return 12 hex digits of SHA-256; see `RunConfig.digest`.

    Args:
        values: of a configuration, by dotted key.
        neutral: values of young fields, which do not enter.
        data_fingerprint: of the images.
        also: what enters besides, of this configuration.

    Raises:
        ValueError: a value is still ``auto``.
    """
    fields = {key: value for key, value in values.items() if _changes_results(key)}
    for key, value in neutral.items():
        if key in fields and fields[key] == value:
            del fields[key]
    unresolved = [k for k, value in fields.items() if value == "auto" and ".options." not in k]
    if unresolved:
        raise ValueError(f"resolve before taking the digest: {', '.join(unresolved)}")
    fields |= {**also, "data.fingerprint": data_fingerprint, "schema": DIGEST_SCHEMA}
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _changes_results(key: str) -> bool:
    if key.startswith("own."):
        return key.endswith(".sha256")  # all else follows from it
    is_label = key in LABELS or key.startswith("meant.")
    return not is_label and key != "data.source" and not key.startswith("run.")
