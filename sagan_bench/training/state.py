"""Everything that a step changes, and what of it a checkpoint holds."""

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam

from sagan_bench.config.schema import RunConfig, TrainingConfig
from sagan_bench.core.distributed import SINGLE_PROCESS, DistributedContext
from sagan_bench.models.build import build
from sagan_bench.models.calls import begin_step
from sagan_bench.models.synchronised import synchronise
from sagan_bench.training.draws import dtype_of

NETWORKS = ("generator", "discriminator", "ema")
PARTS = (*NETWORKS, "optimizer_g", "optimizer_d")
"""Of a `TrainState`, what a checkpoint holds beside the step."""


class TrainState:
    """Everything that a step changes: both networks, G's average, both optimizers, the step.

    ``ema`` is G with the exponential moving average of its weights.  Weights are fp32 (or fp64, for
    precision ``fp64``), channels-last, on one device.  Where several processes train one run, each
    holds all of it, and ``parallel_g`` and ``parallel_d`` are the networks that exchange gradients.
    """

    def __init__(
        self, config: RunConfig, device: torch.device, context: DistributedContext = SINGLE_PROCESS
    ) -> None:
        training = config.training
        networks = build(config)
        self.step = 0
        self.has_average = False
        """Whether G's average is one before the first update."""
        self.device, self.context = device, context
        self.generator, self.discriminator = (net.to(device, dtype_of(config)) for net in networks)
        if context.world_size > 1:
            self.generator = synchronise(self.generator, device.type)
        self.ema = copy.deepcopy(self.generator).requires_grad_(False)
        self.ema_decay = training.ema_decay
        lr_g, lr_d = training.learning_rates
        self.optimizer_g = _adam(self.generator, lr_g, training)
        self.optimizer_d = _adam(self.discriminator, lr_d, training)
        if training.compile:
            self.generator.compile()
            self.discriminator.compile()
        self.parallel_g, self.parallel_d = (
            _parallel(net, context) for net in (self.generator, self.discriminator)
        )

    def begin(self, step: int) -> None:
        """Have the blocks that want to know it be at a step; averages follow G's."""
        for network in (self.generator, self.discriminator):
            begin_step(network, step)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the average: ema <- decay * ema + (1 - decay) * G.

        The first update copies G, unless there is an average to begin with.  Buffers (BatchNorm's
        statistics, spectral norms' vectors) are G's.  What torch's AveragedModel computes, whose
        counter each step waits for a GPU.
        """
        averages: list[Tensor] = list(self.ema.parameters())
        weights: list[Tensor] = list(self.generator.parameters())
        if self.step == 0 and not self.has_average:
            torch._foreach_copy_(averages, weights)
        else:
            torch._foreach_lerp_(averages, weights, 1 - self.ema_decay)
        pairs = list(zip(self.ema.buffers(), self.generator.buffers(), strict=True))
        for dtype in {theirs.dtype for _, theirs in pairs}:  # of one dtype: one launch
            ours, theirs = zip(*(pair for pair in pairs if pair[0].dtype == dtype), strict=True)
            torch._foreach_copy_(ours, theirs)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors, numbers and dictionaries only, for a checkpoint."""
        return {"step": self.step} | {part: getattr(self, part).state_dict() for part in PARTS}

    def begin_with(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over both networks and G's average, by `NETWORKS`; optimizers and step stay new."""
        for part in NETWORKS:
            getattr(self, part).load_state_dict(weights[part])
        self.has_average = True

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.step = state["step"]
        for part in PARTS:
            getattr(self, part).load_state_dict(state[part])


def _parallel(network: nn.Module, context: DistributedContext) -> nn.Module:
    if context.world_size == 1:
        return network
    # Buffers are equal by construction; to send them would overwrite what a graph still needs.
    with warnings.catch_warnings():  # newer torch has another name for it, older torch has not
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(
            network, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def _adam(network: nn.Module, lr: float, training: TrainingConfig) -> Adam:
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    return Adam(weights, lr=lr, betas=(training.beta1, training.beta2), fused=True)
