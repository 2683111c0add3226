"""What a configuration names: one class in one file, with facts and settings of its own."""

from collections.abc import Mapping
from typing import Any, ClassVar

from sagan_bench.config.schema import RunConfig
from sagan_bench.config.section import Section


class Component:
    """A component of a run, made from the section of the configuration that names it.

    Its module is read whenever a configuration that names it is checked, so what it costs to import
    it costs there: those of attention and losses import torch only where they compute.

    Args:
        config: the section; its ``options`` are what it sets of ``Settings``.
    """

    name: ClassVar[str]
    """Set by the registry."""
    Settings: ClassVar[type[Section]] = Section
    """Its own settings, with their defaults; they enter digests where they differ from these."""
    deliberate: ClassVar[tuple[str, ...]] = ()
    """What is unusual of it and meant: words of `sagan_bench.experiments.conformance.UNUSUAL`."""

    def __init__(self, config: Any) -> None:
        self.config = config
        own = self.Settings.model_fields.keys() & config.options.keys()
        self.settings: Any = self.Settings.model_validate({k: config.options[k] for k in own})

    @classmethod
    def alike(cls, options: Mapping[str, Any]) -> "type[Component] | None":
        """Return the component that one with these settings is like, and takes settings of."""
        return None

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ValueError where the rest of a configuration does not go with this component."""
