"""How float32 products are computed: as the configuration says in training, exactly in scoring."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch


def use(precision: Literal["auto", "fp32", "tf32", "bf16", "fp64"]) -> None:
    """Let a GPU compute float32 products in TF32 for ``tf32``, and in full otherwise.

    ``bf16`` is autocast's business (training/loop.py); what it leaves in float32 stays exact.
    """
    cudnn: Any = torch.backends.cudnn  # its members are not declared
    for products in (torch.backends.cuda.matmul, cudnn.conv):
        products.fp32_precision = "tf32" if precision == "tf32" else "ieee"


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 in float32 within: no autocast, TF32 or bf16; deterministic on a GPU."""
    cudnn: Any = torch.backends.cudnn
    cpu: Any = torch.backends.mkldnn
    products = (torch.backends.cuda.matmul, cudnn.conv, cpu.matmul, cpu.conv)
    before = [product.fp32_precision for product in products]
    modes = cudnn.benchmark, cudnn.deterministic
    for product in products:
        product.fp32_precision = "ieee"
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = modes
        for product, precision in zip(products, before, strict=True):
            product.fp32_precision = precision


@contextmanager
def readable_by_export() -> Iterator[None]:
    """Let torch.export read cuDNN's precision, which it asks for on a CPU too.

    It asks by the old, single flag, which torch refuses to give once `use` or `full_precision` have
    set that of convolutions.  What is computed on a CPU does not depend on it.
    """
    cudnn: Any = torch.backends.cudnn
    before = cudnn.conv.fp32_precision
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision
    try:
        yield
    finally:
        cudnn.conv.fp32_precision = before
