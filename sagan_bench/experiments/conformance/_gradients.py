"""Gradients of a block: that they reach everything, and are those of finite differences."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sagan_bench.experiments.conformance._findings import Broken, Subject
from sagan_bench.experiments.conformance._parts import block_of, fed, labels_of, noise_of
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.calls import extra_loss, tell

STEPS = (1e-8, 1e-5, 1e-3)
"""Of finite differences: the first crosses no kink of a ReLU, the last serves sums in fp32."""


def gradients(subject: Subject) -> str:
    """Every parameter of the block gets its gradient, and so does x."""
    block = block_of(subject).train()
    unregistered(block)
    for _ in range(2):
        x = fed(block).requires_grad_()
        y, extra = block(x), extra_loss(block)
        ((y * torch.randn(y.shape)).sum() + (0 if extra is None else extra)).backward()
        if x.grad is None or not x.grad.isfinite().all():
            raise Broken("the gradient of x is missing or not finite")
    _require_finite(block)
    if names := without_gradient(block, subject.says("no gamma")):
        raise Broken(
            f"no gradient reaches {', '.join(names)}",
            "look for detach(), .data, no_grad() on its way; what is not trained is a buffer",
        )
    _require_true(subject)
    count = sum(weight.numel() for weight in block.parameters())
    return f"reach all {count:,} parameters, and equal finite differences"


def _require_finite(block: Block) -> None:
    """Raise `Broken` where a channel that is 0, or constant, has gradients that are not finite."""
    kept = {name: weight.grad for name, weight in block.named_parameters()}
    x = fed(block)
    x[:, 0], x[:, 1] = 0, 1
    x.requires_grad_()
    block(x).square().mean().backward()
    seen = [x.grad, *(weight.grad for weight in block.parameters())]
    for name, weight in block.named_parameters():
        weight.grad = kept[name]
    if not all(gradient is None or gradient.isfinite().all() for gradient in seen):
        raise Broken(
            "of images with a channel that is 0 or constant, gradients are not finite",
            "add an epsilon below the root, or to what is divided by",
        )


def _require_true(subject: Subject) -> None:
    """Raise `Broken` where gradients are not those of finite differences, and not meant to be.

    Those of x are of o alone: in y the residual would outweigh them.
    """
    block = block_of(subject).double()
    x = fed(block, images=2).double()
    coefficients = torch.randn(block(x).shape, dtype=x.dtype)
    x.requires_grad_()
    tell(block, (noise_of(x), labels_of(x)))  # which stay as they are where x is moved

    def of_o() -> Tensor:
        o = block(x) if block.replaces else block(x) - x
        return (o.square() * coefficients).sum()

    for name, weights in (("weights", trainable(block)), ("x", [x])):
        slope, differences = _slopes(of_o, weights)
        if not _agree(slope, differences) and not subject.says("altered gradients"):
            raise Broken(
                f"the gradient of {name} in a direction is {slope:.4g}, and by finite differences "
                f"{differences[1]:.4g}",
                "look for detach(), .data and backward() of your own; if that is meant, declare "
                "deliberate = ('altered gradients',)",
            )


def trainable(block: torch.nn.Module) -> list[Tensor]:
    """Return the parameters of a block that are trained."""
    return [weight for weight in block.parameters() if weight.requires_grad]


def without_gradient(block: torch.nn.Module, no_gamma: bool = False) -> list[str]:
    """Return the trainable parameters without a gradient, or with one that is 0 throughout.

    A softmax over keys cannot see a bias of theirs: its gradient is 0.
    """
    return [
        name
        for name, weight in block.named_parameters()
        if weight.requires_grad
        and (weight.grad is None or not (weight.grad.any() or name.endswith("key.bias")))
        and not (no_gamma and name == "gamma")
    ]


def unregistered(block: Block) -> None:
    """Raise `Broken` where layers are hidden in a list or dictionary, where nothing trains them."""
    for name, module in block.named_modules():
        for key, value in vars(module).items():
            held = value.values() if isinstance(value, dict) else value
            if key.startswith("_") or not isinstance(value, list | tuple | dict):
                continue
            if any(isinstance(each, torch.nn.Module | torch.nn.Parameter) for each in held):
                raise Broken(
                    f"{'.'.join(filter(None, (name, key)))} holds layers in a plain "
                    f"{type(value).__name__}, where nothing trains them",
                    "use nn.ModuleList, nn.ModuleDict or nn.ParameterList",
                )


def _slopes(function: Callable[[], Tensor], weights: Sequence[Tensor]) -> tuple[float, list[float]]:
    """Return the slope of a function in a direction of weights, and differences.

    The slope is by its gradient; the differences are over each of `STEPS`.
    """
    direction = [torch.randn(weight.shape, dtype=weight.dtype) for weight in weights]
    gradients = torch.autograd.grad(function(), weights, allow_unused=True)
    pairs = zip(gradients, direction, strict=True)
    slope = sum(float((g * d).sum()) for g, d in pairs if g is not None)
    differences = []
    for step in STEPS:
        values = []
        for way in (1, -2, 1):
            torch._foreach_add_([w.data for w in weights], direction, alpha=way * step)
            values.append(float(function()))
        differences.append((values[0] - values[1]) / (2 * step))
    return slope, differences


def _agree(slope: float, differences: list[float]) -> bool:
    return any(math.isclose(slope, each, rel_tol=0.02, abs_tol=1e-6) for each in differences)


def double_backward(subject: Subject) -> str:
    """The gradient of a gradient penalty is that of finite differences, in fp64."""
    block = block_of(subject, double=True).double()
    x = fed(block, images=2).double()
    coefficients = torch.randn(block(x).shape, dtype=x.dtype)

    def penalty() -> Tensor:
        given = x.clone().requires_grad_()
        y = (block(given).square() * coefficients).sum()
        (gradient,) = torch.autograd.grad(y, given, create_graph=True)
        return gradient.square().mean()

    slope, differences = _slopes(penalty, trainable(block))
    if not _agree(slope, differences):
        raise Broken(
            f"the gradient of a gradient penalty is {slope:.4g}, and by finite differences "
            f"{differences[1]:.4g}",
            "use operations that have a double backward where needs_double_backward is set",
        )
    return "equals finite differences"


GRADIENTS = (gradients, double_backward)
