"""bf16 on pretended machines: where hardware multiplies it, and where it would be emulated."""

import logging
from pathlib import Path

import pytest
import torch
from command_line import run
from example_runs import SMALL
from example_studies import FILE

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import RunConfig
from sagan_bench.core import cpu, system
from sagan_bench.session import experiment
from sagan_bench.session.capabilities import capabilities

AVX2 = ("avx", "avx2", "fma")
AVX512 = (*AVX2, "avx512f", "avx512_vnni")
Caught = pytest.LogCaptureFixture
Patch = pytest.MonkeyPatch
SAID = "does not multiply bf16 and emulates it"


@pytest.fixture
def pretend(monkeypatch: Patch) -> Patch:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return monkeypatch


def on(pretend: Patch, flags: tuple[str, ...]) -> None:
    pretend.setattr(cpu, "flags", lambda: frozenset(flags))


def auto(*sets: str) -> str:
    asked = RunConfig.model_validate({"training": {"precision": "auto"}})
    return resolve(capabilities(asked), sets=[*SMALL, *sets]).config.training.precision


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "fp32"),
        (AVX2, "fp32"),
        (AVX512, "fp32"),
        ((*AVX512, "avx512_bf16"), "bf16"),
        ((*AVX512, "amx_bf16", "amx_tile"), "bf16"),
    ],
)
def test_auto_is_bf16_only_where_a_processor_multiplies_it(
    pretend: Patch, flags: tuple[str, ...], expected: str
) -> None:
    on(pretend, flags)
    assert auto() == expected
    assert auto("training.precision=bf16") == "bf16"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True)])
def test_a_gpu_multiplies_bf16_from_8_0_on_whatever_its_processor(
    pretend: Patch, capability: tuple[int, int], expected: bool
) -> None:
    on(pretend, () if expected else (*AVX512, "avx512_bf16"))
    pretend.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert system.multiplies_bf16(torch.device("cuda")) is expected


@pytest.mark.parametrize(
    ("flags", "precision", "times"),
    [(AVX2, "bf16", 1), (AVX2, "fp32", 0), ((*AVX512, "avx512_bf16"), "bf16", 0)],
)
def test_a_run_that_emulates_bf16_says_so_once_and_a_finished_one_not_again(
    pretend: Patch,
    tmp_path: Path,
    caplog: Caught,
    flags: tuple[str, ...],
    precision: str,
    times: int,
) -> None:
    on(pretend, flags)
    sets = [*SMALL, f"training.precision={precision}", "run.steps=1"]
    config = resolve(capabilities(RunConfig()), sets=sets).config
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        experiment.run(config, out=tmp_path / "run")
    assert caplog.text.count(SAID) == times


@pytest.mark.parametrize(("flags", "times"), [(AVX2, 1), ((*AVX512, "avx512_bf16"), 0)])
def test_a_study_says_it_once_for_all_its_runs(
    pretend: Patch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[str, ...],
    times: int,
) -> None:
    on(pretend, flags)
    pretend.setenv("SAGAN_BENCH_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "small.toml"
    file.write_text(FILE)
    sets = [part for text in [*SMALL, "training.precision=bf16"] for part in ("--set", text)]
    run("ablate", str(file), "--runs", str(tmp_path / "runs"), "--dry-run", *sets)
    assert capsys.readouterr().err.count(SAID) == times
