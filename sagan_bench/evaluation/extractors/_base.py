"""What an extractor of features is: facts known without torch, its weights, its network."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sagan_bench.config.schema import RunSection
from sagan_bench.config.section import Section
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError

if TYPE_CHECKING:
    from torch import device as Device
    from torch import nn


class Extractor(ABC):
    """A network whose features are compared, loaded when made.

    A module of an extractor imports no torch before its weights or its network are needed.

    Args:
        device: where it computes.
        file: of its weights, where a user names one.
        settings: of its own.

    Raises:
        UserError: weights that are missing or not the published ones.
    """

    name: ClassVar[str]
    layer: ClassVar[str]
    """Its layer for FID, KID, precision and recall: the first that the network returns."""
    isc_layer: ClassVar[str] = "none"
    """Its layer for the inception score: the second, if it has one."""
    dimensions: ClassVar[int]
    """Width of ``layer``."""
    resize: ClassVar[str]
    """How it reads pixels.  Whoever changes that must change this: caches go by it too."""
    weights_sha256: ClassVar[str] = hashlib.sha256().hexdigest()
    """Of the file that holds its weights; of nothing, where there is none."""
    suffix: ClassVar[str | None] = None
    """What a figure's name ends in; None is its own name in brackets.

    Only Inception's may be taken for the published metric.
    """
    preference: ClassVar[int] = 0
    """``auto`` is the highest of those at hand; 0 is never chosen."""
    packaged: ClassVar[bool] = False
    """Its weights come with what this program needs."""
    cites: ClassVar[tuple[str, ...]] = ()
    """What a paper cites that uses it: keys of ``report/references.bib``, or BibTeX entries."""
    batch_images: ClassVar[dict[str, int]] = {"cpu": 4, "cuda": 128}
    """Images a forward, by type of device.

    On the CPU the widest map of 4 stays below malloc's 32 MiB mmap threshold; from 8 on every
    forward pays for fresh pages (5.0 ms an image against 7.7, AVX512).  On two busy AVX2 cores
    2, 4, 8 and 16 took 14.2, 13.5, 14.5 and 16.1 ms (medians of 6 in turn): the best there too.
    """
    Settings: ClassVar[type[Section]] = Section
    """Of its own, under ``evaluation.options.<name>``."""

    def __init__(
        self,
        device: "str | Device" = "cpu",
        file: Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        import torch

        self.settings: Any = self.Settings.model_validate(settings or {})
        self.device = device
        with torch.random.fork_rng(devices=[]):
            network = self.build(self.weights(file))
        self.network = network.requires_grad_(False).eval().to(device)

    @classmethod
    def facts(cls) -> dict[str, str | int]:
        """Return the fields of a protocol that it decides.

        What a file of one's own computes is in its source, which counts as its weights do.
        """
        names = ("layer", "isc_layer", "dimensions", "resize", "weights_sha256")
        facts = {"extractor": cls.name, **{name: getattr(cls, name) for name in names}}
        if source := extensions.source_of("EXTRACTORS", cls.name):
            both = f"{facts['weights_sha256']} {source}"
            facts["weights_sha256"] = hashlib.sha256(both.encode()).hexdigest()
        return facts

    @classmethod
    def file_of(cls, run: RunSection) -> Path | None:
        """Return the file of its weights that a run names, if it does."""
        return None

    @classmethod
    def at_hand(cls, file: Path | None = None) -> bool:
        """Return whether its weights are there; no file is read.

        Raises:
            UserError: ``file`` is none.
        """
        return True

    @classmethod
    def weights(cls, file: Path | None = None) -> Path:
        """Return the verified file of its weights, downloaded if they must be and can be.

        One without weights returns no file, ``.``.

        Raises:
            UserError: they are missing or not the published ones.
        """
        return Path()

    @classmethod
    def foresee(cls, file: Path | None = None) -> list[str]:
        """Return what of its weights shows only when a run fetches them.  Raises as `weights`."""
        cls.weights(file)
        return []

    @classmethod
    def examined(cls) -> tuple[bool, str]:
        """Return whether it could be used, and in words why."""
        try:
            return True, f"weights verified: {cls.weights()}"
        except UserError as error:
            return False, str(error)

    @abstractmethod
    def build(self, weights: Path) -> "nn.Module":
        """Return the network: uint8 (B, 3, S, S) -> ``layer`` (B, d), and ``isc_layer`` if any."""

    @classmethod
    def verified(cls, path: Path) -> Path:
        """Return a file that holds the published weights.  Raises `UserError` if it does not."""
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(
                f"cannot read {cls.name}'s weights at {path}: {error.strerror}"
            ) from error
        if digest != cls.weights_sha256:
            raise UserError(
                f"{path} does not hold {cls.name}'s published weights: its SHA-256 is {digest}, "
                f"not {cls.weights_sha256}; delete it or give another file"
            )
        return path
