"""A block alone: shapes, the identity at gamma 0, state, batches, threads, precision."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sagan_bench.core.errors import UserError
from sagan_bench.experiments.conformance._findings import (
    UNUSUAL,
    Broken,
    Skipped,
    Subject,
    Unusual,
)
from sagan_bench.experiments.conformance._parts import (
    CHANNELS,
    SIDE,
    block_of,
    features,
    fed,
    off,
    replaces,
)
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.placed import Network

TOLERANCE = 1e-4
"""Relative, of what is equal but for rounding in fp32."""
BF16_TOLERANCE = 0.1
"""Relative, between a block's o in bf16 and in fp32."""
FIRST = 4
"""Side of G's first map, which is made of none."""
LARGE = (1.0, 10.0, 30.0)
"""Standard deviations of maps that a block must take."""


def shape(subject: Subject) -> str:
    """The result has the shape, dtype and memory format of x, of any side and of many channels."""
    refused, lost = list[str](), False
    for channels in (8, 32, CHANNELS, 2 * CHANNELS):
        try:
            blocks = [block for side in (4, 8, 16) for block in _blocks(subject, channels, side)]
        except (ValueError, UserError) as error:
            if channels == CHANNELS:
                raise
            refused.append(f"{channels} ({error})")
            continue
        for block in blocks:
            if block.replaces and block.has_gamma:
                raise Broken("it has a gamma that nothing reads", "super().__init__(), no config")
            x = fed(block)
            y = _same_form(block, x)
            if off(y, _same_form(block, x.contiguous())) > TOLERANCE:
                raise Broken("its result depends on the memory format of x")
            lost |= not y.is_contiguous(memory_format=torch.channels_last)
    try:
        block = block_of(subject, network="discriminator", halves=True)
        _same_form(block, fed(block, images=4))
    except (Broken, RuntimeError, ValueError) as error:
        words = "it takes no 8 x 4 maps, which model.discriminator_sees = halves makes"
        raise Unusual("square maps", words) from error
    if lost:
        raise Unusual("another memory format")
    more = f"; it refuses C = {', '.join(refused)}" if refused else ""
    return f"sides 4 to 16 and 8 x 4, both memory formats{more}"


def _blocks(subject: Subject, channels: int, side: int) -> list[Block]:
    """Return the blocks of a side: of G, and of D too where they are others."""
    if not replaces(subject):
        return [block_of(subject, channels, side=side)]
    networks: tuple[Network, ...] = ("generator", "discriminator")
    return [
        block_of(subject, channels, side=side, network=network)
        for network in networks
        if network == "discriminator" or side > FIRST
    ]


@torch.no_grad()
def _same_form(block: Block, x: Tensor) -> Tensor:
    """Return y.  Raises `Broken` where it is not the map of its side, in the type of x."""
    y, site = block(x), block.site
    assert site
    wanted = (len(x), site.channels, site.side, site.side // 2 if site.halves else site.side)
    if not isinstance(y, Tensor) or (tuple(y.shape), y.dtype) != (wanted, x.dtype):
        got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        form = f"{wanted}, of the type of x" if block.replaces else "in the form of x"
        raise Broken(f"of x, {x.dtype} {tuple(x.shape)}, it makes {got}", f"return y {form}")
    if not y.isfinite().all():
        raise Broken("its result is not finite on normal inputs")
    return y


@torch.no_grad()
def identity(subject: Subject) -> str:
    """At gamma 0 the block returns x, bit for bit."""
    _refuse_replacing(subject)
    block = _with_gamma(subject)
    for dtype in (torch.float32, torch.bfloat16):
        for x in (features().to(dtype), features().contiguous().to(dtype)):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                y = block(x)
            if torch.equal(y.to(dtype), x):
                continue
            if subject.says("no gamma"):
                return "deliberate: no gamma"
            what = "is 0: the residual is lost" if not y.any() else "is not x"
            raise Broken(
                f"at gamma = 0, y {what} ({dtype})", "return x + gamma * o, x unchanged before"
            )
    return "y = x at gamma 0, in fp32 and bf16, bit for bit"


def gamma(subject: Subject) -> str:
    """Gamma is one number, obeys the settings, changes the result and has a gradient at 0."""
    _refuse_replacing(subject)
    block, x = _with_gamma(subject), features()
    if block.gamma.shape != (1,):
        raise Broken(
            f"gamma has the shape {tuple(block.gamma.shape)}, and training reads one number",
            "leave gamma to Block; put what is more into a parameter of its own",
        )
    fixed = block_of(subject, gamma=None, gamma_learned=False, gamma_init=1.0)
    if "gamma" in dict(fixed.named_parameters()) or float(fixed.gamma) != 1:
        raise Broken(
            "gamma_learned = false or gamma_init = 1 is not obeyed",
            "hand config on: super().__init__(config); call super().reset_parameters() in your own",
        )
    if subject.says("no gamma"):
        return "deliberate: no gamma"
    y = block(x)
    (y * torch.randn(y.shape)).sum().backward() if y.requires_grad else None
    if block.gamma.grad is None or not block.gamma.grad.any():
        raise Broken(
            "gamma gets no gradient at gamma = 0, so it never leaves it",
            "return x + self.gamma * o, without .item(), .data or detach()",
        )
    with torch.no_grad():
        block.gamma.fill_(1.0)
        if torch.equal(block(x), y):
            raise Broken("gamma does not change the result", "return x + self.gamma * o")
    return "one number, learned from 0"


def _refuse_replacing(subject: Subject) -> None:
    if replaces(subject):
        raise Skipped("it stands instead of a layer")


def _with_gamma(subject: Subject) -> Block:
    """Return a block at gamma 0.  Raises `Broken` where it has none, and does not say so."""
    block = block_of(subject, gamma=0.0)
    if not (block.has_gamma or subject.says("no gamma")):
        raise Broken(
            "it has no gamma",
            "hand config on: super().__init__(config); if that is meant, declare deliberate = "
            "('no gamma',)",
        )
    return block


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def changed(module: torch.nn.Module, before: dict[str, Tensor]) -> list[str]:
    """Return the parameters and buffers that are not as they were."""
    after = snapshot(module)
    return [name for name in after if name not in before or not after[name].equal(before[name])]


@torch.no_grad()
def state(subject: Subject) -> str:
    """Evaluation changes nothing: no buffer, no parameter, not x; the same again gives the same."""
    block = block_of(subject)
    x, held = fed(block), _held(block)
    before, given = snapshot(block), x.clone()
    y = block(x)
    block.maps(x)
    again = block(given.clone(memory_format=torch.preserve_format))
    if names := changed(block, before):
        raise Broken(
            f"evaluation changes {', '.join(names)}", "change state where self.training only"
        )
    if kept := [name for name, tensor in _held(block).items() if tensor is not held.get(name)]:
        raise Broken(
            f"evaluation keeps a tensor as {', '.join(kept)}, which no exported program can",
            "keep it where self.training only",
        )
    if not torch.equal(x, given):
        raise Broken("it changes x in place, the residual with it", "leave out inplace=True")
    if not torch.equal(y, again):
        raise Broken("in evaluation, the same x gives another result the second time")
    block.train()(x)
    if not torch.equal(x, given):
        raise Broken("in training, it changes x in place", "leave out inplace=True")
    return "none changed by evaluation"


def _held(block: Block) -> dict[str, Tensor]:
    """Return the tensors that a block keeps beside its parameters and buffers, by name."""
    return {
        f"{name}.{key}".removeprefix("."): value
        for name, module in block.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor)
    }


@torch.no_grad()
def batch(subject: Subject) -> str:
    """An image's result does not depend on the others of its batch."""
    block = block_of(subject)
    x = fed(block)
    if off(_apart(block, x), block(x)) > TOLERANCE:
        raise Broken(
            "in evaluation, an image's result depends on the others of its batch",
            "look for a softmax, mean or norm over dim 0",
        )
    if block.maps(x) is not None and off(_apart(block.maps, x), block.maps(x)) > TOLERANCE:
        raise Broken("its maps of an image depend on the others of its batch")
    evaluated = block(x)
    block.train()
    if off(block(x), block(x)) > TOLERANCE:
        raise Unusual("randomness")
    before = snapshot(block)
    whole = block(x)
    for name, tensor in [*block.named_parameters(), *block.named_buffers()]:
        tensor.copy_(before[name])
    if off(_apart(block, x), whole) > TOLERANCE:
        raise Unusual("batch statistics")
    if off(whole, evaluated) > TOLERANCE:
        raise Unusual("training differs")
    return "each image by itself"


def _apart(function: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    """Return what a function makes of each image alone."""
    return torch.cat([function(image[None]) for image in x])


@torch.no_grad()
def threads(subject: Subject) -> str:
    """The result does not depend on the number of threads."""
    block = block_of(subject)
    x = fed(block)
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append(block(x))
    if off(*results) > TOLERANCE:
        raise Broken("on 2 threads its result is another than on 1")
    return "the same on 1 and 2"


@torch.no_grad()
def positions(subject: Subject) -> str:
    """Permuted positions give permuted results, or the kind has ``positions``."""
    _refuse_replacing(subject)
    block, x = block_of(subject), features()
    maps = block.maps(x)
    count = SIDE * SIDE
    pooled = maps is not None and maps.dim() == 3 and 0 < maps.shape[2] < count
    cell = round((count / maps.shape[2]) ** 0.5) if maps is not None and pooled else 1
    order = torch.randperm((SIDE // cell) ** 2)
    knows = off(block(permuted(x, order, cell)), permuted(block(x), order, cell)) > TOLERANCE
    declared = bool(getattr(subject.component, "positions", False))
    if knows and not declared:
        raise Broken(
            "permuted positions do not give permuted results",
            "set positions = True if it is to know where a position is; else look for a reshape "
            "without a transposition",
        )
    where = f" (in cells of {cell} x {cell})" if cell > 1 else ""
    return "it knows them" if declared else f"permuted alike{where}"


def permuted(x: Tensor, order: Tensor, cell: int) -> Tensor:
    """Return x with its cells of positions, each ``cell`` squared, in another order."""
    cells = torch.nn.functional.pixel_unshuffle(x, cell)
    moved = cells.flatten(2)[..., order].unflatten(2, cells.shape[2:])
    return torch.nn.functional.pixel_shuffle(moved, cell)


@torch.no_grad()
def bf16(subject: Subject) -> str:
    """Large maps give finite results, and bf16 gives what fp32 gives, nearly."""
    block, lost = block_of(subject, side=16, gamma=1.0), False
    for large in LARGE:
        x = large * fed(block)
        whole, base = block(x), 0 if block.replaces else x
        with torch.autocast("cpu", torch.bfloat16):
            rounded = block(x.bfloat16())
        for y, dtype in ((whole, "fp32"), (rounded, "bf16")):
            if not y.isfinite().all():
                raise Broken(
                    f"maps of standard deviation {large:g} are no finite numbers in {dtype}",
                    "use softmax(), which takes off the largest, not exp(); sum in fp32; keep what "
                    "is divided by from 0",
                )
        lost |= rounded.dtype != torch.bfloat16
        if large == LARGE[0] and off(rounded.float() - base, whole - base) > BF16_TOLERANCE:
            raise Broken(
                f"in bf16, o is {off(rounded.float() - base, whole - base):.0%} off that of fp32",
                "take sums and norms in fp32",
            )
    if lost:
        raise Unusual("another dtype", f"{UNUSUAL['another dtype']}: return y.to(x.dtype)")
    return f"finite up to a standard deviation of {LARGE[-1]:g}, in bf16 near fp32"


BLOCK = (shape, identity, gamma, state, batch, threads, positions, bf16)
