"""What a metric is: facts that are known without torch, and how it is measured."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from sagan_bench.config.schema import RunConfig
from sagan_bench.config.section import Section

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from sagan_bench.evaluation.features import Features
    from sagan_bench.evaluation.protocol import Protocol

RUNS = "the run's"
"""In place of an extractor's name: `evaluation.extractor`, whichever that is."""

Figures = Mapping[str, float | None]
"""Key -> value; None, or what is not finite, is undefined for these images."""
Conditions = Mapping[str, "NDArray[np.bool_]"]
"""Name of a condition -> which images meet it, (N,)."""
T = TypeVar("T")


@dataclass(frozen=True)
class Evidence:
    """What a metric is measured on."""

    images: "Tensor"
    """Those to be judged, uint8 (N, 3, S, S)."""
    protocol: "Protocol"
    """Settings, and the sizes of both sets."""
    features: "Features" = field(default=None)  # type: ignore[assignment]
    """Of ``images``, by the metric's extractor; None only for a metric that needs none."""
    real: "Tensor" = field(default=None)  # type: ignore[assignment]
    """The real images' ``pool`` features, (M, d) float32, likewise."""
    labels: "tuple[Tensor, Tensor] | None" = None
    """Classes of ``images`` (N,) and of the real ones (M,), int64, if there are any."""
    _made: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, function: "Callable[[Evidence], T]") -> T:
        """Return what a function makes of this; metrics that share it make it once."""
        if function not in self._made:
            self._made[function] = function(self)
        return self._made[function]


class Metric(ABC):
    """A figure of generated images, by which runs can be compared.

    Its name is its key in scores.  A module of a metric imports no torch before it measures.
    """

    name: ClassVar[str]
    better: ClassVar[Literal["lower", "higher"]]
    """Which values are better."""
    title: ClassVar[str] = ""
    """Its name for readers, where that is not the key."""
    extractor: ClassVar[str | None] = RUNS
    """Whose features it compares: `RUNS`, the name of an extractor, or None for the pixels."""
    spread: ClassVar[str | None] = None
    """Key of its standard deviation, if it has one."""
    is_share: ClassVar[bool] = False
    """Its value is the share of the generated images that meet a condition."""
    default: ClassVar[bool] = False
    """Measured in every score; others where `wanted`."""
    has_floor: ClassVar[bool] = True
    """Held-out real images have it too."""
    beyond: ClassVar[float] = 0.0
    """What a search is told of a trial that diverged before any other had a value: the worst."""
    blind_to: ClassVar[str] = ""
    """What it hardly sees (docs/twins.md)."""
    glossary: ClassVar[tuple[str, str] | None] = None
    """A term and its meaning, for readers of reports."""
    order: ClassVar[int] = 100
    """Among metrics, wherever they are shown."""
    leads: ClassVar[int | None] = None
    """Its rank beside the primary metric; the first that is there is primary by default."""
    column: ClassVar[str | None] = None
    """Header of its column in the list of runs, if it has one."""
    cites: ClassVar[tuple[str, ...]] = ()
    """What a paper cites that uses it: keys of ``report/references.bib``, or BibTeX entries."""
    Settings: ClassVar[type[Section]] = Section
    """Of its own, under ``evaluation.options.<name>``."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if getattr(cls, "better", None) == "lower" and not cls.beyond:
            raise TypeError(f"{cls.__name__}: less is better, so `beyond` must say what is worst")

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        self.settings: Any = self.Settings.model_validate(settings or {})

    @classmethod
    def switch(cls) -> str:
        """Return the setting that has it measured, as ``--set`` takes it."""
        return f'evaluation.metrics=["{cls.name}"]'

    @classmethod
    def wanted(cls, evaluation: Mapping[str, Any], kind: str) -> bool:
        """Return whether scores have it, under settings of ``evaluation`` and of a kind of data."""
        return cls.default or cls.name in evaluation.get("metrics", ())

    @classmethod
    def check(cls, config: RunConfig, sizes: Sequence[int]) -> None:
        """Refuse what it could not be measured on.

        Args:
            config: of the run, which wants it.
            sizes: of the sets of generated images.

        Raises:
            UserError: which setting to change.
        """
        return

    @classmethod
    def doubts(cls, protocol: "Protocol") -> Iterator[str]:
        """Yield in which ways the sizes of the sets make its figures doubtful."""
        yield from ()

    @abstractmethod
    def measure(self, evidence: Evidence) -> Figures:
        """Return its figures under its own key, that of its spread, and others made with them."""

    def conditions(self, evidence: Evidence) -> Conditions:
        """Return what each image must meet, where it is a share of those that meet it; else none.

        By these a probe says what breaks (docs/probe.md).
        """
        return {}

    def parts(self, images: "Tensor") -> "Tensor | None":
        """Return two parts of each image that must agree, where it asks for that; else None.

        images: uint8 (N, 3, S, S); parts: (N, 2, S, S) bool, the pixels of the one and of the
        other, none where one is not there.
        """
        return None
