"""How products are computed: as the configuration says in training, exactly in scoring."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch


def use(precision: Literal["auto", "fp32", "tf32", "bf16", "fp64"]) -> None:
    """Let a GPU compute float32 products in TF32 for ``tf32``, and in full otherwise.

    ``bf16`` is autocast's business (training/step.py); what it leaves in float32 stays exact.

    cuDNN's attention, torch's first choice on an H100, is left out: its backward is reported to
    give NaN where the keys number 64 (mod 128) and the scores of a query are far below zero (the
    logarithm of the sum of their exponentials below -88.7), with a mask (pytorch #196678) and, up
    to cuDNN 9.26 at least, in other shapes (NVIDIA/cudnn-frontend #628, #1072).  We have 64 keys at
    side 8 and at pooled 16, and scores that nothing divides by sqrt(D).
    """
    _allow_tf32(precision == "tf32", precision == "tf32")
    torch.backends.cuda.enable_cudnn_sdp(False)


def _allow_tf32(products: bool, convolutions: bool) -> None:
    """Let a GPU use TF32 or not, by the two older of torch's flags.

    torch.compile and torch.export read these (torch 2.11 to 2.15), and reading them raises once one
    of the newer flags, ``fp32_precision``, has been set to anything else; they set the newer too.
    """
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 in float32 within: no autocast, TF32 or bf16; deterministic on a GPU."""
    cudnn: Any = torch.backends.cudnn  # its members are not declared
    cpu: Any = torch.backends.mkldnn
    gpu_before = [
        each.fp32_precision == "tf32" for each in (torch.backends.cuda.matmul, cudnn.conv)
    ]
    cpu_before = [each.fp32_precision for each in (cpu.matmul, cpu.conv)]
    modes = cudnn.benchmark, cudnn.deterministic
    _allow_tf32(False, False)
    cpu.matmul.fp32_precision = cpu.conv.fp32_precision = "ieee"
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = modes
        cpu.matmul.fp32_precision, cpu.conv.fp32_precision = cpu_before
        _allow_tf32(*gpu_before)
