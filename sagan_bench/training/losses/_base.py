"""What a loss is asked for."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from sagan_bench.config.component import Component
from sagan_bench.config.schema import RunConfig, TrainingConfig

if TYPE_CHECKING:  # a second of torch
    from torch import Tensor

Critic = Callable[["Tensor"], "Tensor"]
"""Images to logits: as many as the real ones, or those and as many generated ones behind them."""


class Loss(Component, ABC):
    """The losses of D and of G, and a penalty on D if there is one."""

    config: TrainingConfig
    needs_double_backward: ClassVar[bool] = False
    """Whether its penalty differentiates D's gradient, which is done in fp32."""
    mixes: ClassVar[bool] = False
    """Whether its penalty is taken between real and generated images, at a ``share`` drawn."""
    relative: ClassVar[bool] = False
    """Whether G's loss is that of logits beside those of real images: `g_beside`."""
    cites: ClassVar[tuple[str, ...]] = ()
    """What a paper cites that uses it: keys of ``report/references.bib``, or BibTeX entries."""

    @abstractmethod
    def d(self, real: "Tensor", fake: "Tensor") -> "Tensor":
        """Return D's loss of the logits (B,) of real and of generated images."""

    def g(self, fake: "Tensor") -> "Tensor":
        """Return G's loss, by default -E[D(G(z))] (SAGAN, equation 4)."""
        return -fake.mean()

    def g_beside(self, real: "Tensor", fake: "Tensor") -> "Tensor":
        """Return G's loss of the logits of as many real images, and of generated ones.

        The real images are those of D's update before it.  Only where it is ``relative``.
        """
        raise NotImplementedError

    def penalty(
        self, critic: Critic, real: "Tensor", fake: "Tensor", share: "Tensor | None"
    ) -> "Tensor | None":
        """Return what is added to D's loss, its weight included, or none.

        Args:
            critic: D, of images with the labels of the real ones, or of both, real ones first.
            real: images (B, 3, S, S) in [-1, 1].
            fake: as many generated ones.
            share: (B, 1, 1, 1) in [0, 1], if the loss ``mixes``.
        """
        return None

    @classmethod
    def check(cls, config: RunConfig) -> None:
        """Raise ValueError if second derivatives are needed of a compiled network."""
        if cls.needs_double_backward and config.training.compile:
            raise ValueError(
                f"loss {cls.name} needs second derivatives, which a compiled network lacks; "
                "leave out training.compile"
            )
