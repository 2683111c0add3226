"""Precision is set by flags that torch's own parts can read, and put back as it was."""

import shutil
from collections.abc import Iterator
from typing import Any, Literal, get_args

import pytest
import torch
from torch import nn

from sagan_bench.core import precision

Name = Literal["fp32", "tf32", "bf16", "fp64"]


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    enabled = torch.backends.cuda.cudnn_sdp_enabled()
    yield
    precision.use("fp32")
    torch.backends.cuda.enable_cudnn_sdp(enabled)


def flags() -> tuple[Any, ...]:
    """Read what torch, its compiler and users' code read; a mixture of old and new flags raises."""
    cudnn: Any = torch.backends.cudnn
    return (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.fp32_precision == "tf32",
        cudnn.conv.fp32_precision == "tf32",
        cudnn.rnn.fp32_precision == "tf32",
    )


@pytest.mark.parametrize("name", get_args(Name))
def test_every_flag_can_be_read_and_says_the_same(name: Name) -> None:
    tf32 = name == "tf32"
    precision.use(name)
    expected = (tf32, tf32, "high" if tf32 else "highest", tf32, tf32, tf32)
    assert flags() == expected
    with precision.full_precision():
        assert flags() == (False, False, "highest", False, False, False)
    assert flags() == expected


def test_full_precision_is_that_of_the_cpu_too_and_ends() -> None:
    cpu: Any = torch.backends.mkldnn
    before = cpu.matmul.fp32_precision, cpu.conv.fp32_precision
    with precision.full_precision():
        assert (cpu.matmul.fp32_precision, cpu.conv.fp32_precision) == ("ieee", "ieee")
    assert (cpu.matmul.fp32_precision, cpu.conv.fp32_precision) == before


@pytest.mark.parametrize("name", get_args(Name))
def test_cudnns_attention_is_left_out(name: Name) -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    precision.use(name)
    assert not torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler's own
@pytest.mark.parametrize("name", get_args(Name))
def test_networks_compile_under_every_precision(name: Name) -> None:
    precision.use(name)
    torch.compiler.reset()
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    x = torch.randn(2, 3, 4, 4)
    compiled = torch.compile(network, fullgraph=True, mode="max-autotune-no-cudagraphs")
    compiled(x).sum().backward()
    assert torch.allclose(compiled(x), network(x), atol=1e-5)
    torch.compiler.reset()
