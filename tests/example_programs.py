"""Runs that another program made, as `ablate --command` leaves them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sagan_bench.runs.program import Better, Program
from sagan_bench.runs.records import Cost, Record, Status
from sagan_bench.runs.run_directory import RunDirectory

SOURCE = "python train.py --seed {seed} --attn {attn} --out {out}"
STEPS = 1000
BETTER: dict[str, Better] = {"fid": "lower", "sharpness": "higher"}
VALUES: Mapping[str, Sequence[float | None]] = {
    "plain": [30.1, 31.4, 29.7, 30.8, 30.3],
    "attn8": [24.9, 25.6, 24.1, 25.2, 25.8],
}


def record(
    name: str,
    variant: str,
    seed: int,
    fid: float | None,
    program: Program,
    curve: bool,
    flops_per_step: int | None,
) -> Record:
    way = [
        program.score(step, {"fid": (fid or 90) * STEPS / step, "sharpness": 0.1}, final=False)
        for step in range(200, STEPS + 1, 200)
    ]
    final = [] if fid is None else [program.score(STEPS, {"fid": fid, "sharpness": 1 / fid})]
    return program.record(
        name, variant, seed, Status.DIVERGED if fid is None else Status.FINISHED,
        [*(way if curve else ()), *final], steps=STEPS,
        cost=Cost(train_sec=60.0, flops_per_step=flops_per_step) if curve else None,
        reason="the loss is NaN" if fid is None else None,
    )  # fmt: skip


def leave_programs(
    folder: Path,
    values: Mapping[str, Sequence[float | None]] = VALUES,
    *,
    curve: bool = False,
    flops_per_step: int | None = 10**9,
    better: dict[str, Better] | None = None,
    cells_on_device: int = 1,
) -> Path:
    """Leave a run of another program for each value; None is one that diverged."""
    for variant, own in values.items():
        for seed, fid in enumerate(own):
            program = Program(
                source=SOURCE, values={"attn": None if variant == "plain" else 8},
                better=better or BETTER, cells_on_device=cells_on_device,
            )  # fmt: skip
            path = folder / f"{variant}-s{seed}-{program.digest}"
            written = record(path.name, variant, seed, fid, program, curve, flops_per_step)
            path.mkdir(parents=True)
            RunDirectory(path, digest=written.config_digest, config=written.config).write(written)
    return folder
