"""BatchNorm over the parts of a batch that several processes have."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from sagan_bench.models.layers import at_least_fp32

CHANNELS = (1, -1, 1, 1)


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics are those of all processes' images; for the CPU.

    Every process has as many images, of one size.  In evaluation it is BatchNorm2d itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised x, (B, C, H, W), B this process's images."""
        if not self.training:
            return super().forward(x)
        y, mean, var = _Normalise.apply(x, self.weight, self.bias, self.eps)
        self._follow(mean, var, x[:, 0].numel() * dist.get_world_size())
        return y

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the running statistics, as BatchNorm2d does, by the unbiased variance."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / int(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = var * count / (count - 1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


class _Normalise(torch.autograd.Function):
    """y = (x - mean) / std * weight + bias over all processes, with its gradient.

    dx = weight / std * (dy - s1 - xhat * s2), s1 and s2 the means over all of dy and dy * xhat.
    One exchange of 2 C numbers a process, forward and backward.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        own = torch.var_mean(at_least_fp32(x), dim=(0, 2, 3), correction=0)
        vars_, means = _all_of(torch.stack(own)).unbind(1)  # each (processes, C)
        mean = means.mean(0)
        var = (vars_ + (means - mean).square()).mean(0)
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        ctx.mark_non_differentiable(mean, var)
        y = F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> Any:
        x, weight, mean, scale = ctx.saved_tensors
        wide = at_least_fp32(dy)
        # dL/dbias and dL/dweight of this process's images; DistributedDataParallel averages them.
        d_bias = wide.sum(dim=(0, 2, 3))
        d_weight = ((wide * at_least_fp32(x)).sum(dim=(0, 2, 3)) - mean * d_bias) * scale
        sums = torch.stack([d_bias, d_weight])
        dist.all_reduce(sums)
        s1, s2 = sums / (x[:, 0].numel() * dist.get_world_size())
        gain = scale if weight is None else weight * scale
        slope = -gain * scale * s2
        offset = -gain * s1 - slope * mean
        dx = wide * gain.view(CHANNELS) + at_least_fp32(x) * slope.view(CHANNELS)
        dx += offset.view(CHANNELS)
        affine = (None, None) if weight is None else (d_weight, d_bias)
        return dx.to(x.dtype), *affine, None


def _all_of(own: Tensor) -> Tensor:
    """Return what every process has, (processes, ...), from each one's own (...)."""
    whole = own.new_zeros(dist.get_world_size(), *own.shape)
    whole[dist.get_rank()] = own
    dist.all_reduce(whole)
    return whole


def synchronise(network: nn.Module, device_type: str) -> nn.Module:
    """Return the network with BatchNorm over all processes, its weights and names as they were.

    On GPUs by torch's SyncBatchNorm, which refuses the CPU.
    """
    if device_type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronisedBatchNorm2d  # the same state, normalised otherwise
    return network
