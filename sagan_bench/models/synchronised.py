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
        means, vars_ = _all_of(torch.stack(_statistics(x))).unbind(1)  # each (processes, C)
        mean = means.mean(0)
        var = (vars_ + (means - mean).square()).mean(0)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        y = F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> Any:
        x, weight, mean, var = ctx.saved_tensors
        dy, wide = at_least_fp32(dy), at_least_fp32(x)
        # weight / std * dy, and dL/dweight and dL/dbias of this process's images, which
        # DistributedDataParallel averages.
        dx, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            dy, wide, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([d_bias, d_weight])
        dist.all_reduce(sums)
        s1, s2 = sums / (x[:, 0].numel() * dist.get_world_size())
        gain = (var + ctx.eps).rsqrt()
        gain = gain if weight is None else gain * weight
        dx += F.batch_norm(wide, mean, var, -gain * s2, -gain * s1, training=False, eps=ctx.eps)
        affine = (None, None) if weight is None else (d_weight, d_bias)
        return dx.to(x.dtype), *affine, None


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of a channel, (C,) each, by BatchNorm's own kernel.

    `torch.var_mean` takes 27 times as long where the channels are last.
    """
    wide = x.new_zeros(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
    return torch.batch_norm_update_stats(x, wide, wide.clone(), 0.0)


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
