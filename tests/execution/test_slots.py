"""Cores and GPUs, shared out among runs."""

import pytest
import torch

from sagan_bench.core import cpu
from sagan_bench.execution.slots import Slot, slots


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "cores", lambda: 8)
    assert slots(None, "cpu", runs=40) == [Slot("cpu", 1, 8)] * 8
    assert slots(None, "cpu", runs=2) == [Slot("cpu", 4, 2)] * 2
    assert slots(3, "cpu", runs=40) == [Slot("cpu", 2, 3)] * 3
    assert slots(100, "cpu", runs=2) == [Slot("cpu", 4, 2)] * 2


def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "cores", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert slots(None, "auto", runs=40) == [Slot("cuda:0", 4, 1), Slot("cuda:1", 4, 1)]
    three = slots(3, "auto", runs=40)
    assert [(slot.device, slot.shared_by) for slot in three] == [
        ("cuda:0", 2), ("cuda:1", 1), ("cuda:0", 2),
    ]  # fmt: skip
    assert slots(2, "cuda:1", runs=40) == [Slot("cuda:1", 4, 2)] * 2
