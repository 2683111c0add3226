"""Where memory runs out: in which words it says so, what is advised, and that nothing is lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from example_runs import SMALL
from torch import nn

from sagan_bench.config.layers import override, resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import system
from sagan_bench.core.errors import UserError
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.runs import records
from sagan_bench.session import experiment, sampling
from sagan_bench.session.session import RunSession
from sagan_bench.session.writer import DirectoryWriter
from sagan_bench.training.loop import train
from sagan_bench.training.state import TrainState
from sagan_bench.training.timing import out_of_memory

HOST = Host(bf16=False, extractor="efficientnet-lite0")
CPU = torch.device("cpu")


def make(*sets: str) -> RunConfig:
    return resolve(HOST, sets=[*SMALL, "training.precision=fp32", *sets]).config


def accelerator_error() -> Exception:
    error = torch.AcceleratorError("CUDA error")
    error.error_code = 2  # type: ignore[attr-defined]
    return error


FORMS: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    lambda: torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"),
    accelerator_error,
    lambda: RuntimeError("CUDA driver error: out of memory"),
    lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    lambda: RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    lambda: RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    lambda: RuntimeError("Triton Error [CUDA]: out of memory"),
    lambda: RuntimeError("std::bad_alloc"),
    lambda: RuntimeError(
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"
    ),
    lambda: RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED"),
    lambda: dist.DistBackendError("unhandled cuda error\nCuda failure 2 'out of memory'"),
    lambda: RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried"),
    lambda: MemoryError(),
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_in_which_memory_runs_out_is_recognised(form: Callable[[], Exception]) -> None:
    assert system.is_out_of_memory(form())


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED"),
        RuntimeError("ncclSystemError: System call (e.g. socket, malloc) failed"),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        dist.DistBackendError("ncclInvalidUsage"),
        ValueError("CUDA out of memory"),
    ],
)
def test_no_other_error_is_called_so(error: Exception) -> None:
    assert not system.is_out_of_memory(error)


def most(images: int, form: Callable[[], Exception]) -> Callable[..., None]:
    """Return a hook that refuses more images at a time where a graph is built."""

    def refuse(_module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if torch.is_grad_enabled() and len(given[0]) > images:
            raise form()

    return refuse


@pytest.mark.parametrize("form", [FORMS[0], FORMS[4]])
@pytest.mark.parametrize(("network", "fit"), [("generator", 4), ("discriminator", 2)])
def test_advice_after_either_update_names_what_fits(
    network: str, fit: int, form: Callable[[], Exception]
) -> None:
    """D sees twice as many images as G in its own update."""
    config = make("training.batch_size=12", "run.steps=2")
    state, store = TrainState(config, CPU), prepare(DataSpec.of(config.data))
    getattr(state, network).register_forward_pre_hook(most(4, form))
    with pytest.raises(type(form())):
        list(train(config, state, store))
    assert all(each.requires_grad for each in state.discriminator.parameters())
    assert state.discriminator.training
    assert f"; {fit} fit: add --micro-batch {fit} " in str(out_of_memory(config, state))
    smaller = make("training.batch_size=12", f"training.micro_batch={fit}", "run.steps=2")
    assert len(list(train(smaller, state, store))) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "what", "phase", "step", "kept"),
    [
        (DirectoryWriter, "probe", "making sample images", 3, 2),
        (DirectoryWriter, "probe", "making sample images", 6, 4),
        (RunSession, "_score", "scoring", 4, 2),
        (RunSession, "_score_final", "scoring", 6, 6),
    ],
)
def test_nothing_is_missing_after_memory_ran_out_in_a_look(
    owner: type[Any],
    what: str,
    phase: str,
    step: int,
    kept: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, look = make("run.eval_every=2", "run.eval_images=8"), getattr(owner, what)

    def full(self: Any, *args: Any, **how: Any) -> Any:
        state = args[0] if owner is DirectoryWriter else self.state
        if state.step == step:
            raise FORMS[1]()
        return look(self, *args, **how)

    with monkeypatch.context() as patch:
        patch.setattr(owner, what, full)
        with pytest.raises(UserError, match=f"memory on cpu while {phase}.* from step {kept}$"):
            experiment.run(config, out=tmp_path / "run")
    assert records.read(tmp_path / "run").status == "interrupted"
    record = experiment.run(config, out=tmp_path / "run")
    whole = experiment.run(config, out=tmp_path / "whole")
    assert [attempt.from_step for attempt in record.attempts] == [0, kept]
    assert record.scores == whole.scores
    assert record.blocks == whole.blocks
    for folder in ("samples", "diagnostics"):
        names = [
            sorted(file.name for file in (tmp_path / run / folder).iterdir())
            for run in ("run", "whole")
        ]
        assert names[0] == names[1]


def test_scoring_again_and_making_images_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment.run(make("run.steps=2"), out=tmp_path / "run")
    exported = sampling.load(tmp_path / "run", "ema")
    fewer = override(make("run.steps=2"), {"evaluation.n_fake": ("--n-fake", 12)})

    def full(*_: object) -> None:
        raise FORMS[1]()

    monkeypatch.setattr(type(exported.generator), "forward", full)
    with pytest.raises(UserError, match="out of memory on cpu while making images"):
        exported.images(4, 0)
    with pytest.raises(UserError, match="out of memory on cpu while scoring"):
        experiment.evaluate(tmp_path / "run", fewer)
