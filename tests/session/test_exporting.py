"""Exported generators: alone in a bare process, and the same as those of the run."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from command_line import run
from example_runs import SMALL
from safetensors.torch import load_file

from sagan_bench import cli
from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import AttentionKind, Host, RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.data.pixels import quantise
from sagan_bench.models.build import attention_blocks, build, without_spectral_norm
from sagan_bench.runs import records
from sagan_bench.session import experiment, exporting, sampling
from sagan_bench.session.sampling import TrainedGenerator
from sagan_bench.training import checkpoint
from sagan_bench.training.generation import draw, noise

HOST = Host(bf16=False, extractor="efficientnet-lite0")
README = (Path(cli.__file__).parents[2] / "README.md").read_text()
RESNET = ("model.architecture=resnet", "model.classes=10")
BARE = """
import sys
sys.modules["sagan_bench"] = None  # as if it were not installed
try:
    import sagan_bench
except ImportError:
    found = []
for lines in {several!r}:
    exec(lines)
    found.append(images)
assert sys.modules["sagan_bench"] is None
torch.save(found, "images.pt")
"""


def make(*sets: str) -> RunConfig:
    return resolve(HOST, sets=[*SMALL, *sets]).config


def trained(folder: Path, *sets: str) -> Path:
    """A finished run whose attention counts: gamma is hardly off 0 after a few steps."""
    assert experiment.run(make(*sets, "run.steps=2"), out=folder).status == "finished"
    state = checkpoint.load(folder / "weights.pt")
    for weights, gamma in (("ema", 0.7), ("raw", -0.4)):
        for name, value in state[weights].items():
            if name.endswith("gamma"):
                value.fill_(gamma)
    checkpoint.save(folder / "weights.pt", state)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the default network, in a folder whose name would break a careless line."""
    return trained(tmp_path_factory.mktemp("exported") / 'it\'s "mine" \\n ½')


@pytest.fixture(scope="module")
def with_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("exported") / "classes", *RESNET)


def run_bare(several: list[str], folder: Path) -> list[torch.Tensor]:
    """The ``images`` that lines of Python make in a process that cannot import this project."""
    code = BARE.format(several=several)  # without the failed import there is no list to fill
    subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, check=True, timeout=120)
    return list(torch.load(folder / "images.pt"))


def readme_lines() -> str:
    (lines,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in lines.splitlines() if line]) == 3
    return str(lines)


def test_the_three_lines_of_the_readme_in_a_bare_process(finished: Path, tmp_path: Path) -> None:
    exporting.export(finished, "ema", tmp_path)
    lines, z_dim = readme_lines(), sampling.load(finished, "ema", "cpu").config.model.z_dim
    assert lines.count("(16, 128)") == 1
    sizes = (1, 5)
    several = [lines.replace("(16, 128)", f"({images}, {z_dim})") for images in sizes]
    for images, found in zip(sizes, run_bare(several, tmp_path), strict=True):
        assert found.shape == (images, 3, 32, 32)
        assert found.dtype == torch.float32
        assert found.is_contiguous()
        assert 0 < found.abs().max() <= 1
        assert not found.requires_grad


@pytest.mark.slow
def test_the_lines_that_the_command_prints(
    finished: Path, with_classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = []
    for path in (finished, with_classes):
        assert run("export", str(path)) == 0
        printed = capsys.readouterr().out
        program, weights, *_ = printed.splitlines()
        assert Path(program) == path / "export" / "generator.pt2"
        assert Path(weights) == path / "export" / "generator.safetensors"
        several.append(printed[printed.index("import torch") :])
        assert len(several[-1].splitlines()) == 3
    for found in run_bare(several, tmp_path):
        assert found.shape == (16, 3, 32, 32)


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11, on loading
@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_a_program_draws_the_pictures_of_the_run(
    with_classes: Path, weights: str, tmp_path: Path
) -> None:
    exported = sampling.load(with_classes, weights, "cpu")
    files = exporting.export(with_classes, weights, tmp_path)
    generator: Callable[..., torch.Tensor] = torch.export.load(files.program).module()
    for images in (1, 5, 40):
        z, labels = noise(3, 0, images, 8), torch.arange(images) // 8 % 10
        found, expected = quantise(generator(z, labels)).int(), exported.images(images, 3).int()
        # Bit-equal where this was written; memory formats differ, and with them the rounding.
        assert (found - expected).abs().max() <= 1
        assert expected.float().std() > 1


@pytest.mark.parametrize(
    ("kind", "sets"),
    [
        ("full", ()), ("icml", ()), ("pooled", RESNET), ("uniform", ()), ("residual", ()),
        ("full", RESNET), ("full", RESNET[:1]), ("full", ("model.attention.generator=[]",)),
        ("full", ("data.image_size=128", "model.attention.generator=[64]")),
    ],
)  # fmt: skip
def test_every_network_is_a_program_of_torchs_own_operations(
    kind: AttentionKind, sets: tuple[str, ...]
) -> None:
    config = make(f"model.attention.kind={kind}", *sets)
    generator = build(without_spectral_norm(config)).generator.eval()
    for block in attention_blocks(generator).values():
        block.gamma.data.fill_(1)
    program = exporting.program(TrainedGenerator(config, generator, (), 0))
    called = {str(n.target) for n in program.graph.nodes if n.op == "call_function"}
    assert called
    assert all(name.startswith("aten.") for name in called), called
    for images in (1, 19):
        inputs = noise(0, 0, images, 8), *[torch.arange(images) % 10] * bool(config.model.classes)
        expected = draw(generator, *inputs)
        assert torch.allclose(program.module()(*inputs), expected, rtol=0, atol=1e-6)


def test_the_weights_load_alone_and_say_what_they_are(with_classes: Path, tmp_path: Path) -> None:
    for weights in ("ema", "raw"):
        files = exporting.export(with_classes, weights, tmp_path)
        found = load_file(files.weights)
        expected = checkpoint.load(with_classes / "weights.pt")[weights]
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        with safetensors.safe_open(files.weights, "pt") as opened:
            about = opened.metadata()
        record = records.read(with_classes)
        assert about["weights"] == weights
        assert about["config_digest"] == record.config_digest
        assert RunConfig.model_validate_json(about["config"]) == make(*RESNET, "run.steps=2")
        assert json.loads(about["class_names"])[:2] == ["disc", "ring"]
        told = [about[key] for key in ("run", "step", "z_dim", "image_size", "classes", "seed")]
        assert told == ["classes", "2", "8", "32", "10", "0"]
        extra: dict[str, Any] = {exporting.METADATA: ""}
        torch.export.load(files.program, extra_files=extra)
        assert json.loads(extra[exporting.METADATA]) == about


def test_a_path_of_this_machine_stays_here(with_classes: Path) -> None:
    loaded = sampling.load(with_classes, "ema", "cpu")
    data = loaded.config.data.model_copy(update={"source": "folder:/home/me/faces"})
    moved = replace(loaded, config=loaded.config.model_copy(update={"data": data}))
    about = exporting.described(with_classes, "ema", moved)
    assert json.loads(about["config"])["data"]["source"] == "folder"
    assert "/home/me" not in json.dumps(about)


def test_hostile_names_survive(with_classes: Path) -> None:
    loaded = sampling.load(with_classes, "ema", "cpu")
    names = ('"', "a\nb", "\0", "½", "\udc80", "', {}")
    about = exporting.described(
        with_classes, "ema", TrainedGenerator(loaded.config, loaded.generator, names, loaded.step)
    )
    stored = safetensors.torch.save({"x": torch.ones(1)}, about)
    length = int.from_bytes(stored[:8], "little")
    header = json.loads(stored[8 : 8 + length])
    assert tuple(json.loads(header["__metadata__"]["class_names"])) == names


def test_an_unfinished_run_is_refused_and_a_failure_leaves_what_was_there(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unfinished").mkdir()
    record = (finished / "record.json").read_bytes()
    (tmp_path / "unfinished" / "record.json").write_bytes(record)
    with pytest.raises(UserError, match="unfinished has no exported weights; finish the run first"):
        exporting.export(tmp_path / "unfinished", "ema")
    assert not (tmp_path / "unfinished" / "export").exists()

    files = exporting.export(finished, "ema", tmp_path)
    before = {file: file.read_bytes() for file in files[:2]}

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(torch.export, "save", full)
    with pytest.raises(OSError, match="no space"):
        exporting.export(finished, "raw", tmp_path)
    assert {file: file.read_bytes() for file in files[:2]} == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_weights_are_ema_or_raw(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", str(finished), "--weights", "best") == 2
    assert capsys.readouterr().err == "error: --weights best: expected ema or raw\n"
