"""How many kernels does a GPU launch for a step?  Counted without one.

    python benchmarks/launches.py
    python benchmarks/launches.py --preset quick --set model.spectral_norm.batched=true --ops

A step is made on the CPU, with few images and a narrow network, because the count depends on
neither.  Each operation is counted as the kernels that it is on a GPU (eager, channels-last), by
the table below, which was read from torch's source; attention is the GPU's fused one.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from torch.utils._python_dispatch import TorchDispatchMode

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.distributed import SINGLE_PROCESS
from sagan_bench.data.feeding import Batch
from sagan_bench.models.attention import _paths
from sagan_bench.training.draws import step_noise
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Inputs, WholeStep

IMAGES = 2
VIEWS = {
    "view", "_unsafe_view", "reshape", "expand", "permute", "transpose", "t", "unsqueeze",
    "squeeze", "detach", "detach_", "alias", "slice", "select", "split", "split_with_sizes",
    "chunk", "unbind", "as_strided", "_reshape_alias", "flatten", "unflatten", "mT", "lift_fresh",
    "squeeze_", "unsqueeze_", "narrow", "unfold", "diagonal", "set_", "contiguous",
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "stride", "size",
    "sym_size", "is_same_size", "_has_compatible_shallow_copy_type", "promote_types",
}  # fmt: skip
"""What launches nothing."""
MORE: dict[str, int] = {
    "native_batch_norm": 3, "cudnn_batch_norm": 3, "_native_batch_norm_legit": 3,
    "native_batch_norm_backward": 3, "cudnn_batch_norm_backward": 3, "_foreach_norm": 3,
    "_scaled_dot_product_flash_attention_for_cpu_backward": 3,
}  # fmt: skip
"""What launches another number than 1: a reduction and its parts."""


class Launches(TorchDispatchMode):
    """Counts launches by the name of the operation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_name = Counter[str]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name == "convolution_backward":
            self.by_name[name] += sum(args[-1])  # of input, weight and bias, those asked for
        elif name not in VIEWS and not name.startswith("profiler::"):
            self.by_name[name] += MORE.get(name, 1)
        return func(*args, **(kwargs or {}))


def of_step(config: RunConfig) -> Counter[str]:
    """Return the launches of a step after the first, by the name of the operation."""

    def fused(*_: object) -> Callable[..., Any]:
        return _paths.fused

    state, size = TrainState(config, torch.device("cpu")), config.data.image_size
    take = WholeStep(config, state)
    images = torch.zeros(IMAGES, 3, size, size, dtype=torch.uint8)
    real = Batch(images, torch.zeros(IMAGES, dtype=torch.int64))
    with mock.patch.object(_paths, "path", fused):
        for step in (1, 2):
            noise = step_noise(config, SINGLE_PROCESS, step)
            inputs = Inputs([(real, critic) for critic in noise.critic], noise.generator)
            with Launches() as counted:
                take(inputs)
            state.step = step
    return counted.by_name


def main(
    preset: Annotated[list[str] | None, typer.Option(help="default: three")] = None,
    variant: Annotated[str, typer.Option()] = "sagan",
    sets: Annotated[list[str] | None, typer.Option("--set", help="section.key=value")] = None,
    ops: Annotated[bool, typer.Option("--ops", help="by operation")] = False,
) -> None:
    """Print launches a step by preset: as set, and without spectral norms."""
    torch.set_num_threads(1)
    for name in preset or ["quick", "celeba64", "cifar10"]:
        counts = []
        for more in ([], ["generator=none", "discriminator=none"]):
            given = [
                "training.precision=bf16",
                f"training.batch_size={IMAGES}",
                f"model.width={32 if name == 'cifar10' else 16}",
                *(sets or []),
                *(f"model.spectral_norm.{each}" for each in more),
            ]
            host = Host(bf16=True, extractor="efficientnet-lite0")
            counts.append(of_step(resolve(host, preset=name, variant=variant, sets=given).config))
        whole, without = (sum(count.values()) for count in counts)
        print(f"{name}: {whole} launches a step, {without} without spectral norms")
        if ops:
            for operation, count in counts[0].most_common():
                print(f"  {count:5d} {operation}  ({counts[1][operation]})")


if __name__ == "__main__":
    typer.run(main)
