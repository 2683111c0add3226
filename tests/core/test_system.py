"""What a machine offers, and what a run took of it."""

import sys

import numpy as np
import pytest
import torch

from sagan_bench.core import system


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can begin the peak anew")
def test_the_peak_of_one_run_is_not_that_of_the_next() -> None:
    device = torch.device("cpu")
    held = np.ones(2**27)  # 1 GiB
    first = system.peak_memory_gib(device)
    del held
    system.forget_peak_memory(device)
    assert system.peak_memory_gib(device) < first - 0.5
