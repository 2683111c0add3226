"""A finished run's generator as files that load without this package: weights, and a program."""

import copy
import json
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram, ShapesCollection

from sagan_bench.config.schema import ModelConfig
from sagan_bench.core.errors import UserError
from sagan_bench.core.files import atomic_file, atomic_write
from sagan_bench.core.names import kind_of
from sagan_bench.runs import records
from sagan_bench.session import sampling
from sagan_bench.session.sampling import TrainedGenerator

METADATA = "metadata.json"
"""The extra file of the program that says what the header of the weights says."""
TRACED = 2
"""Images of the batch that is traced: torch takes sizes of 0 and 1 for constants."""


class Files(NamedTuple):
    """What an export wrote, and the three lines of Python that draw 16 images with it."""

    program: Path
    weights: Path
    lines: str


def export(path: Path, weights: str, out: Path | None = None) -> Files:
    """Write the generator of a finished run as it was scored, by default to its ``export/``.

    - ``generator.pt2``: a program, see `program`.
    - ``generator.safetensors``: its parameters and buffers, under the names they have there.

    Both say what they are: see `described`.

    Raises:
        UserError: as `sampling.load`, or ``out`` is a file.
    """
    exported = sampling.load(path, weights, "cpu")
    about = described(path, weights, exported)
    folder = out or path / "export"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: that is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "generator.pt2"
    with atomic_file(file) as opened:
        torch.export.save(program(exported), opened, extra_files={METADATA: json.dumps(about)})
    state = {name: value.contiguous() for name, value in exported.generator.state_dict().items()}
    tensors = folder / "generator.safetensors"
    atomic_write(tensors, safetensors.torch.save(state, about))
    return Files(file, tensors, _lines(file, exported.config.model))


def program(exported: TrainedGenerator) -> ExportedProgram:
    """Return the generator as a program of torch's own operations, on the CPU.

    It maps noise (B, z_dim) float32, and with classes labels (B,) int64, to images (B, 3, S, S)
    float32 in [-1, 1], B >= 1; BatchNorm has its standing statistics.

    Raises:
        UserError: components of one's own do what no such program can.
    """
    generator = copy.deepcopy(exported.generator).requires_grad_(False)
    generator.to(memory_format=torch.contiguous_format)  # as whoever uses the images expects them
    inputs = _inputs(exported.config.model)
    batch, shapes = Dim("batch", min=1), ShapesCollection()
    for each in inputs:
        shapes[each] = {0: batch}
    try:
        return torch.export.export(generator, inputs, dynamic_shapes=shapes)
    except Exception as error:
        if not (own := exported.config.needed):
            raise
        said = str(error).strip().partition("\n")[0]
        raise UserError(
            f"torch.export cannot follow what {', '.join(f'{name}.py' for name in own)} registers: "
            f"{type(error).__name__}: {said}; the run and its weights are as they were"
        ) from error


def _inputs(model: ModelConfig) -> tuple[Tensor, ...]:
    labels = (torch.zeros(TRACED, dtype=torch.int64),) if model.classes else ()
    return torch.zeros(TRACED, model.z_dim), *labels


def described(path: Path, weights: str, exported: TrainedGenerator) -> dict[str, str]:
    """Return what a generator is, as text: its run, its inputs, its classes, its configuration.

    ``class_names`` is a JSON list, empty where the classes have no names; ``config`` a JSON object,
    without the place of the data on this machine.
    """
    record, config = records.read(path), exported.config
    kind = kind_of(config.data.source)
    shown = config.model_copy(update={"data": config.data.model_copy(update={"source": kind})})
    facts = {
        "format": "pt",
        "run": record.run,
        "variant": config.variant,
        "preset": config.preset,
        "seed": config.seed,
        "step": exported.step,
        "weights": weights,
        "image_size": config.data.image_size,
        "z_dim": config.model.z_dim,
        "classes": config.model.classes,
        "class_names": json.dumps(exported.names),
        "config_digest": record.config_digest,
        "config": shown.model_dump_json(),
        "sagan_bench": metadata.version("sagan-bench"),
    }
    return {key: str(fact) for key, fact in facts.items()}


def _lines(file: Path, model: ModelConfig) -> str:
    labels = f", torch.arange(16) % {model.classes}" if model.classes else ""
    return (
        "import torch\n"
        f"generator = torch.export.load({str(file)!r}).module()\n"
        f"images = generator(torch.randn(16, {model.z_dim}){labels})  # (16, 3, S, S) in [-1, 1]"
    )
