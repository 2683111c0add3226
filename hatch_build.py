"""Build hook: a wheel carries ``ablations/`` in the package; an editable install needs no copy."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShipAblations(BuildHookInterface[Any]):
    """Adds the data that lies beside the package in a checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Include ``ablations/`` unless the install points back to the checkout."""
        if version != "editable":
            build_data["force_include"]["ablations"] = "sagan_bench/ablations"
