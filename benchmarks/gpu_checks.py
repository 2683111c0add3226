"""The checks of `first_gpu.py`, each a function that runs in a process of its own.

    python benchmarks/gpu_checks.py speed       # one check, its result.json in the current folder

A check gets the dictionary that its figures go into, so that they are kept if it fails, and raises
if it fails, or `Skipped`.  Its name is its function's.
"""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from sagan_bench import precision
from sagan_bench.config import Host, RunConfig, resolve
from sagan_bench.data import shapes
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.evaluation.extractors import build_extractor
from sagan_bench.evaluation.metrics import reference, score
from sagan_bench.evaluation.protocol import EXTRACTORS, Protocol
from sagan_bench.models.attention import attend
from sagan_bench.training import timing
from sagan_bench.training.loop import Recipe, Step, TrainState, train
from sagan_bench.training.timing import try_step

ROOT = Path(__file__).resolve().parents[1]
DEVICE = torch.device("cuda:0")
BF16 = "training.precision=bf16"
FP32 = "training.precision=fp32"
Figures = dict[str, Any]


class Skipped(Exception):
    """The check cannot be made here; the text says why."""


class Failed(Exception):
    """What was found is not what was expected."""


def require(met: bool, otherwise: str) -> None:
    """Raise `Failed` unless a condition is met."""
    if not met:
        raise Failed(otherwise)


# --- What the checks share ---------------------------------------------------------------------


class Running(NamedTuple):
    """A run on the card, and its next step."""

    config: RunConfig
    state: TrainState
    step: Callable[[], None]

    def steps(self, count: int) -> None:
        """Take so many steps and wait for the card."""
        for _ in range(count):
            self.step()
        torch.cuda.synchronize()


def configured(preset: str, *sets: str) -> RunConfig:
    """Return a preset's configuration with attention."""
    host = Host(True, "efficientnet-lite0", True)
    return resolve(host, preset=preset, variant="sagan", sets=list(sets)).config


def on_twins(preset: str, *sets: str) -> Running:
    """Return a preset's network in the real training loop, on twins of its size."""
    shown = ("data.source=twins", "data.train_images=5000", "run.steps=1000000")
    config = configured(preset, *shown, *sets)
    precision.use(config.training.precision)
    state = TrainState(config, DEVICE)
    events = train(config, state, prepare(DataSpec.of(config.data)))

    def step() -> None:
        event = next(events)
        require(isinstance(event, Step), f"training ended with {event}")

    return Running(config, state, step)


def on_noise(preset: str, *sets: str) -> Running:
    """Return a preset's network on noise in place of images."""
    config = configured(preset, *sets)
    precision.use(config.training.precision)
    state = TrainState(config, DEVICE)
    return Running(config, state, lambda: try_step(config, state))


def ms_a_step(running: Running, *, warm: int = 10, steps: int = 20) -> float:
    """Return the milliseconds of a step, the median of five times so many."""
    running.steps(warm)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        running.steps(steps)
        times.append((time.perf_counter() - began) / steps)
    return round(1000 * statistics.median(times), 3)


def command_line(*words: str | Path | int) -> list[str]:
    """Return this project's command line with these words."""
    return [sys.executable, str(ROOT / "cli.py"), *map(str, words)]


def rows_of(run: Path) -> list[dict[str, float]]:
    """Return what a run has logged."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def record_of(run: Path) -> dict[str, Any]:
    """Return a run's record."""
    found: dict[str, Any] = json.loads((run / "record.json").read_text())
    return found


def need_cards(count: int) -> None:
    """Skip a check that needs more cards than there are."""
    there = torch.cuda.device_count()
    if there < count:
        raise Skipped(f"needs {count} cards, there is {there}")


# --- Does it work? -----------------------------------------------------------------------------


def identity(found: Figures) -> None:
    """The card and what drives it."""
    card = torch.cuda.get_device_properties(DEVICE)
    found |= {
        "cards": torch.cuda.device_count(),
        "name": card.name,
        "capability": [card.major, card.minor],
        "multiprocessors": card.multi_processor_count,
        "memory_gib": round(card.total_memory / 2**30, 2),
        "cudnn": torch.backends.cudnn.version(),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
    }
    ask = ["nvidia-smi", "--query-gpu=driver_version,compute_mode", "--format=csv,noheader"]
    if shutil.which(ask[0]):
        told = subprocess.run(ask, capture_output=True, text=True)
        found["driver, compute mode"] = told.stdout.strip()
    require((card.major, card.minor) >= (8, 0), "the compute capability is below 8.0")


def study_in_workers(found: Figures) -> None:
    """A tiny study, two cells at a time in worker processes."""
    done = subprocess.run(command_line("ablate", "smoke", "--jobs", 2, "--runs", "runs"))
    records = [record_of(path.parent) for path in Path("runs").rglob("record.json")]
    found["exit"] = done.returncode
    found["devices"] = sorted({record["environment"]["device"] for record in records})
    found["cells"] = {record["run"]: record["status"] for record in records}
    failed = {record["reason"] for record in records if record["status"] != "finished"}
    require(not failed, f"unfinished cells: {failed}")
    require(len(records) == 4 and not done.returncode, "not all 4 cells were run")


def gpu_tests(found: Figures) -> None:
    """The tests that need a card."""
    if missing := [name for name in ("pytest", "xdist", "hypothesis") if not find_spec(name)]:
        raise Skipped(f"not installed: {', '.join(missing)}")
    options = ["-m", "gpu", "-n", "0", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    print(done.stdout)
    found["summary"] = done.stdout.strip().rpartition("\n")[2]
    require(done.returncode == 0, f"pytest left with {done.returncode}: {found['summary']}")


WATCHED = {
    "quick": (BF16,),
    "celeba64": (BF16,),
    "cifar10": (BF16, f"model.classes={len(shapes.CLASSES)}"),
}
"""Without classes; at 64 px; with classes, mirrored images and five updates of D."""


def no_hidden_wait(found: Figures) -> None:
    """Steps between two rows of the log."""
    require(bool(waits(lambda: torch.ones(1, device=DEVICE).item())), "waits are not seen")
    watched = {preset: on_twins(preset, *sets) for preset, sets in WATCHED.items()}
    for preset, running in watched.items():
        running.steps(11)  # past the first row, and all that is made once is made
        found[preset] = waits(running.step)
    require(not any(found.values()), f"waits for the card in a step: {found}")
    for running in watched.values():
        with telling_waits("error"):  # the same again, by what raises
            running.step()


def waits(step: Callable[[], object]) -> dict[str, int]:
    """Return where a step waits for the card, and how often."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with telling_waits("warn"):
            step()
    seen = [one for one in caught if "called a synchronizing" in str(one.message)]
    return dict(Counter(f"{Path(one.filename).name}:{one.lineno}" for one in seen))


@contextmanager
def telling_waits(mode: str) -> Iterator[None]:
    """Warn of, or refuse, each operation that waits for the card."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


SHAPES = (
    (64, 64, 8, 64),  # quick; D of celeba64 has four times the channels
    (64, 64, 32, 256),
    (256, 256, 16, 128),  # celeba64
    (1024, 1024, 8, 64),
    (16, 16, 64, 512),
    (256, 64, 32, 128),  # cifar10, pooled
    (1024, 256, 32, 128),  # imagenet128-official, pooled
    (1024, 1024, 32, 32),  # imagenet128-paper
)
"""Positions that look, that are looked at, channels of queries and keys, and of values."""
LOW = 12.0
"""In the first channel of queries, and its opposite in that of keys: scores near -144."""
MOST_OFF = 0.05
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
}
UNUSED = "cuDNN"


def attention_backends(found: Figures) -> None:
    """Gradients of attention in bf16, against those in float64 of the same numbers."""
    precision.use("bf16")
    bad = []
    for positions, keys, width, values in SHAPES:
        for low in (0.0, LOW) if keys == 64 else (0.0,):
            name = f"{positions}x{keys}, {width}, {values}" + (", low scores" if low else "")
            found[name] = _errors(positions, keys, width, values, low)
            bad += [
                f"{name}: {backend} {error}"
                for backend, error in found[name].items()
                if backend != UNUSED and isinstance(error, float) and not error <= MOST_OFF
            ]
            found[name] = {key: str(told) for key, told in found[name].items()}  # nan is no JSON
    require(not bad, f"wrong gradients: {bad}")


def _errors(positions: int, keys: int, width: int, values: int, low: float) -> Figures:
    """Return each way's largest relative error of a gradient, or that it refuses the shape."""
    torch.manual_seed(0)
    sides = ((positions, width), (keys, width), (keys, values), (positions, values))
    q, k, v, into = (torch.randn(8, *side, device=DEVICE) for side in sides)
    q, k = q * width**-0.25, k * width**-0.25
    if low:
        q[..., 0], k[..., 0] = low, -low
    rounded = [each.bfloat16() for each in (q, k, v, into)]
    exact = _gradients(_by_hand, *(each.double() for each in rounded))
    ways: dict[str, Callable[..., Tensor]] = {"project": attend}
    ways |= {name: _by_backend(backend) for name, backend in BACKENDS.items()}
    errors: Figures = {}
    for name, way in ways.items():
        try:
            got = _gradients(way, *rounded)
        except RuntimeError as error:
            require(name != "project", f"the project's call: {error}")
            errors[name] = "refused"
            continue
        off = [float((g.double() - e).norm() / e.norm()) for g, e in zip(got, exact, strict=True)]
        errors[name] = float(f"{np.max(off):.2g}")  # NaN if one is
    return errors


def _gradients(way: Callable[..., Tensor], *rows: Tensor) -> Sequence[Tensor]:
    *inputs, into = rows
    leaves = [each.detach().clone().requires_grad_() for each in inputs]
    return torch.autograd.grad(way(*leaves), leaves, into)


def _by_hand(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.mT).softmax(-1) @ value


def _by_backend(backend: SDPBackend) -> Callable[..., Tensor]:
    def way(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        padding = (0, value.shape[-1] - query.shape[-1])
        rows = (F.pad(query, padding), F.pad(key, padding), value)
        q, k, v = (each.unsqueeze(1) for each in rows)
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)

    return way


MEMORY_GIB = 4
"""What the process may have, so that a moderate batch does not fit on any card."""


def out_of_memory(found: Figures) -> None:
    """Both updates run out of memory; the advice is followed."""
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, MEMORY_GIB * 2**30 / total), DEVICE)
    large = on_noise("celeba64", FP32, "training.batch_size=2048")
    found["D"] = _advised(large, "update_d", large.step)
    del large

    small = on_noise("celeba64", FP32)
    size, z_dim = small.config.training.batch_size, small.config.model.z_dim
    z = torch.randn(size, z_dim, device=DEVICE)
    small.steps(1)
    hog = _all_memory()
    found["G"] = _advised(small, "update_g", lambda: _update_g(small, z), hog)


def _update_g(running: Running, z: Tensor) -> None:
    Recipe(running.config, running.state).update_g(z)


def _advised(
    running: Running, update: str, step: Callable[[], None], hog: list[Tensor] | None = None
) -> str:
    """Run out of memory in an update, ask for advice, take a step by it, and return it."""
    where = _where_it_ran_out(step)
    (hog or []).clear()
    require(where == update, f"memory ran out in {where}, not in {update}")
    advice = str(timing.out_of_memory(running.config, running.state))
    print(advice)
    told = re.search(r"--micro-batch (\d+)", advice)
    require(told is not None, f"no micro-batch in: {advice}")
    assert told
    training = running.config.training.model_copy(update={"micro_batch": int(told[1])})
    config = running.config.model_copy(update={"training": training})
    try_step(config, TrainState(config, DEVICE))
    torch.cuda.synchronize()
    return advice


def _where_it_ran_out(step: Callable[[], None]) -> str | None:
    """Return the name of the update in which memory ran out; nothing of it is held any more."""
    try:
        step()
    except torch.OutOfMemoryError as error:
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        return next((name for name in names if name in ("update_d", "update_g")), names[-1])
    return None


def _all_memory() -> list[Tensor]:
    """Return all the memory that is left, in blocks down to 2 MiB."""
    torch.cuda.empty_cache()
    blocks, size = [], 2**28
    while size >= 2**21:
        try:
            blocks.append(torch.empty(size, dtype=torch.uint8, device=DEVICE))
        except torch.OutOfMemoryError:
            size //= 2
    return blocks


SMALL = (
    "--preset", "quick", "--precision", "fp32", "--set", "model.width=16",
    "--set", "evaluation.n_real=256", "--set", "evaluation.n_fake=256",
    "--set", "evaluation.n_floor=256", "--set", "run.log_every=1",
)  # fmt: skip
"""Options of a run that is soon scored and logs every step."""
KILLED_AT, RESUMED_TO = 200, 300


def resume(found: Figures) -> None:
    """A run that is killed after a checkpoint, and goes on here and on the CPU."""
    here, there = Path("run"), Path("run-cpu")
    options = [*SMALL, "--set", f"run.checkpoint_every={KILLED_AT}"]
    begin = command_line("train", *options, "--steps", 100_000, "--out", here)
    kept = here / "checkpoints" / f"step-{KILLED_AT:08d}.ckpt"
    with subprocess.Popen(begin) as process:
        while process.poll() is None and not kept.exists():
            time.sleep(0.05)
        process.kill()
    require(kept.exists(), f"no {kept}")
    shutil.copytree(here, there)
    for run, device in ((here, "auto"), (there, "cpu")):
        again = command_line("train", *options, "--steps", RESUMED_TO, "--out", run)
        done = subprocess.run([*again, "--device", device])
        require(done.returncode == 0, f"going on with --device {device}: exit {done.returncode}")
        record = record_of(run)
        found[device] = {"status": record["status"], "attempts": record["attempts"]}
        logged = [row["step"] for row in rows_of(run)]
        require(logged == list(range(1, RESUMED_TO + 1)), f"--device {device} logged {logged}")
        require(len(record["attempts"]) == 2, f"attempts: {record['attempts']}")
    _compare(found, rows_of(here), rows_of(there), slice(KILLED_AT, KILLED_AT + 1), 1e-3)


def _compare(
    found: Figures,
    ours: Sequence[Mapping[str, float]],
    others: Sequence[Mapping[str, float]],
    rows: slice,
    tolerance: float,
) -> None:
    """Compare the losses of two runs in some rows of their logs."""
    pairs = list(zip(ours[rows], others[rows], strict=True))
    off = max(abs(a[loss] - b[loss]) for a, b in pairs for loss in ("loss_d", "loss_g"))
    found["losses differ by"] = off
    require(bool(pairs) and off <= tolerance, f"losses differ by {off}")


# --- How fast? ---------------------------------------------------------------------------------

SPEEDS = {
    "fp32": (FP32,),
    "tf32": ("training.precision=tf32",),
    "bf16": (BF16,),
    "bf16 compiled": (BF16, "training.compile=true"),
}


def speed(found: Figures) -> None:
    """Milliseconds of a step in the real loop, and graphs where compiled."""
    broken: list[str] = []
    for preset in ("quick", "celeba64"):
        for name, sets in SPEEDS.items():
            torch.compiler.reset()
            counters.clear()
            found[f"{preset} {name}, ms"] = ms_a_step(on_twins(preset, *sets))
            broken += counters["graph_break"]
        found[f"{preset} graphs"] = counters["stats"]["unique_graphs"]
    require(not broken, f"graphs break: {broken}")


def compiled_tf32(found: Figures) -> None:
    """Compiled networks with TF32 products."""
    running = on_twins("quick", "training.precision=tf32", "training.compile=true")
    found["ms"] = ms_a_step(running)


ON_THE_CARD = ("kernel", "gpu_memcpy", "gpu_memset")
PROFILED = 10


def launches(found: Figures) -> None:
    """Kernels of a step, and the share of its time in which the card works."""
    for preset in ("quick", "celeba64"):
        running = on_twins(preset, BF16, "run.log_every=1000000")
        ms = ms_a_step(running)
        work = _profiled(running)
        busy = sum(event["dur"] for event in work) / PROFILED / 1000
        names = Counter(event["name"][:60] for event in work)
        found[preset] = {
            "launches": len(work) / PROFILED,
            "ms": ms,
            "busy_ms": round(busy, 3),
            "busy_share": round(busy / ms, 3),
            "most often": {name: count / PROFILED for name, count in names.most_common(8)},
        }
        require(len(work) > 0, "the profiler saw no kernel")


def _profiled(running: Running) -> list[dict[str, Any]]:
    """Return what the card did in some steps."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        running.steps(PROFILED)
    trace = Path("trace.json")
    seen.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text())["traceEvents"]
    trace.unlink()
    return [event for event in events if event.get("cat") in ON_THE_CARD]


def repeatable(found: Figures) -> None:
    """The same 20 steps twice: which tensors of G differ?"""
    for sets in ((FP32,), (BF16,)):
        first, second = (_weights_after(on_twins("quick", *sets), 20) for _ in range(2))
        differ = [name for name in first if not torch.equal(first[name], second[name])]
        found[sets[0]] = {"differ": len(differ), "of": len(first), "such as": differ[:3]}


def _weights_after(running: Running, steps: int) -> dict[str, Tensor]:
    running.steps(steps)
    return {name: each.clone() for name, each in running.state.generator.state_dict().items()}


# --- One step as one CUDA graph ----------------------------------------------------------------

WARM, REPLAYED = 3, 10


class OneStep:
    """A step of ``quick`` on inputs that stay where they are, so that it can be captured.

    Args:
        products: the setting of the precision.
    """

    def __init__(self, products: str) -> None:
        config = configured("quick", products)
        self.state = TrainState(config, DEVICE)
        for adam in (self.state.optimizer_g, self.state.optimizer_d):
            for group in adam.param_groups:
                group["capturable"] = True
        self.recipe = Recipe(config, self.state)
        size, side, z_dim = config.training.batch_size, config.data.image_size, config.model.z_dim
        real = torch.empty(size, 3, side, side, device=DEVICE)
        self.real = real.contiguous(memory_format=torch.channels_last)
        self.z_d, self.z_g = torch.empty(2, size, z_dim, device=DEVICE)
        self.share = torch.empty(size, 1, 1, 1, device=DEVICE)
        self.finite = torch.ones((), dtype=torch.bool, device=DEVICE)

    def feed(self, number: int) -> None:
        """Put the inputs of one step in their place."""
        stream = torch.Generator().manual_seed(number)
        for place in (self.real, self.z_d, self.z_g):
            place.copy_(torch.randn(place.shape, generator=stream), non_blocking=True)
        self.share.copy_(torch.rand(self.share.shape, generator=stream), non_blocking=True)

    def take(self) -> None:
        """Update D, G and its average, and note whether all was finite."""
        measured = self.recipe.update_d(self.real, self.z_d, self.share)
        measured |= self.recipe.update_g(self.z_g)
        self.finite &= torch.stack(list(measured.values())).isfinite().all()

    def eagerly(self, numbers: range) -> None:
        """Take steps the usual way."""
        for number in numbers:
            self.feed(number)
            self.take()

    def captured(self) -> torch.cuda.CUDAGraph:
        """Take `WARM` steps, and return the next as a graph, not run yet."""
        side = torch.cuda.Stream(DEVICE)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.eagerly(range(WARM))
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.take()
        return graph


def whole_step_graph(found: Figures) -> None:
    """Replays of a captured step, against the same steps taken one operation at a time."""
    precision.use("fp32")
    cudnn: Any = torch.backends.cudnn
    cudnn.deterministic = True
    replayed, eager, again = (OneStep(FP32) for _ in range(3))
    graph = replayed.captured()
    for number in range(WARM, WARM + REPLAYED):
        replayed.feed(number)
        graph.replay()
    for other in (eager, again):
        other.eagerly(range(WARM + REPLAYED))
    floor, off = _apart(again, eager), _apart(replayed, eager)
    finite = bool(replayed.finite) and bool(eager.finite)
    found |= {"differs by": off, "two eager runs by": floor, "finite": finite}
    found["eager_ms"] = _ms(eager.take)
    found["graph_ms"] = _ms(graph.replay)
    in_bf16 = OneStep(BF16)
    found["graph_ms, bf16"] = _ms(in_bf16.captured().replay)
    require(finite, "something was not finite")
    require(off <= max(1e-5, 2 * floor), f"G differs by {off}; two eager runs by {floor}")


def _apart(one: OneStep, other: OneStep) -> float:
    """Return the largest relative difference of a tensor of G."""
    pairs = zip(
        one.state.generator.state_dict().values(),
        other.state.generator.state_dict().values(),
        strict=True,
    )
    tiny = torch.finfo(torch.float32).tiny
    return max(
        float((a.double() - b.double()).norm() / b.double().norm().clamp_min(tiny))
        for a, b in pairs
    )


def _ms(step: Callable[[], None], repeats: int = 100) -> float:
    for _ in range(10):
        step()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        step()
    torch.cuda.synchronize()
    return round(1000 * (time.perf_counter() - began) / repeats, 3)


# --- Several at once ---------------------------------------------------------------------------

COUNTS = (1, 2, 4, 8)
COUNTED_SEC = 5.0
SERVICE = "nvidia-cuda-mps-control"


def processes(found: Figures) -> None:
    """Steps a second of all processes together, time-sliced and under the service."""
    found["steps_per_sec"] = {count: together(count, os.environ) for count in COUNTS}
    if not shutil.which(SERVICE):
        found["service"] = f"{SERVICE} is not there"
        return
    with ExitStack() as stack:
        try:
            environment = stack.enter_context(service())
        except subprocess.SubprocessError as error:
            found["service"] = f"not started: {error}"
            return
        under = {count: together(count, environment) for count in COUNTS}
        found["steps_per_sec under the service"] = under
    asked = control("get_server_list", environment)
    require(asked.returncode != 0, "the service is still there")
    found["service"] = "stopped"


def together(count: int, environment: Mapping[str, str]) -> float:
    """Return the steps a second of so many processes that train at the same time."""
    command = [sys.executable, __file__, "steps"]
    environment = dict(environment) | {"OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        started = []
        for _ in range(count):
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        said = [process.stdout.readline() for process in started if process.stdout]
        require(said == ["ready\n"] * count, f"{count} processes said {said}")
        for process in started:
            print("go", file=process.stdin, flush=True)
        return round(sum(float(process.communicate()[0]) for process in started), 1)


def count_steps() -> None:
    """Say when ready, wait for a word, train for some seconds and print the steps a second."""
    running = on_twins("quick", BF16)
    running.steps(20)
    print("ready", flush=True)
    sys.stdin.readline()
    began, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < COUNTED_SEC:
        running.steps(10)
        count += 10
    print(count / spent)


@contextmanager
def service() -> Iterator[dict[str, str]]:
    """Run a Multi-Process Service of our own, and yield the environment that leads to it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        environment = os.environ | places
        subprocess.run([SERVICE, "-d"], env=environment, check=True, timeout=30)
        try:
            yield environment
        finally:
            control("quit -t 5", environment)


def control(word: str, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Give the service an order."""
    return subprocess.run(
        [SERVICE], input=f"{word}\n", env=environment, text=True, capture_output=True, timeout=20
    )


def context_placement(found: Figures) -> None:
    """What a study on the second card takes of the first."""
    need_cards(2)
    torch.ones(1, device=DEVICE)  # our own context, before anything is measured
    least = before = torch.cuda.mem_get_info(0)[0]
    study = command_line("ablate", "smoke", "--jobs", 1, "--device", "cuda:1", "--runs", "runs")
    with subprocess.Popen(study) as process:
        while process.poll() is None:
            least = min(least, torch.cuda.mem_get_info(0)[0])
            time.sleep(0.1)
    found["mib_on_the_first_card"] = (before - least) / 2**20
    require(process.returncode == 0, f"the study left with {process.returncode}")
    require(before - least < 50 * 2**20, f"it took {found['mib_on_the_first_card']} MiB")


def two_cards(found: Figures) -> None:
    """The first steps on two cards and on one."""
    need_cards(2)
    spread = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    for name, start in (("one", [sys.executable]), ("two", spread)):
        words = command_line("train", *SMALL, "--steps", 10, "--out", name)[1:]
        done = subprocess.run([*start, *words])
        require(done.returncode == 0, f"on {name}: exit {done.returncode}")
        found[name] = record_of(Path(name))["cost"]["images_per_sec"]
    _compare(found, rows_of(Path("one")), rows_of(Path("two")), slice(5), 1e-2)


# --- The large network, and scoring ------------------------------------------------------------


def paper_network(found: Figures) -> None:
    """The authors' network at its batch of 256."""
    running = on_noise("imagenet128-official", BF16)
    found["ms"] = ms_a_step(running, warm=3, steps=5)
    found["gib"] = round(torch.cuda.max_memory_allocated(DEVICE) / 2**30, 2)


SCORED = 2048


def scoring(found: Figures) -> None:
    """Figures of the same images by features of the card and of the CPU."""
    real, made = (
        shapes.draw(np.arange(start, start + SCORED), seed=0, size=32)[0] for start in (0, SCORED)
    )
    figures: dict[str, dict[str, Any]] = {}
    for device in (DEVICE, torch.device("cpu")):
        extractor = build_extractor("efficientnet-lite0", device)
        known = reference(real, None, _protocol(), extractor, Path("cache"))
        began = time.perf_counter()
        scores = score(torch.from_numpy(made), known, _protocol(), extractor)
        seconds = time.perf_counter() - began
        figures[device.type] = scores.metrics
        found[device.type] = {"metrics": scores.metrics, "seconds": scores.seconds}
        found[device.type]["images_per_sec, features"] = SCORED / scores.seconds["extract"]
        found[device.type]["images_per_sec"] = SCORED / seconds
    bad = [
        name
        for name, wanted in figures["cpu"].items()
        if not np.isclose(figures["cuda"][name], wanted, rtol=1e-3, atol=1e-3)
    ]
    require(not bad, f"figures differ: {bad}")


def _protocol() -> Protocol:
    return Protocol.fitted(
        **EXTRACTORS["efficientnet-lite0"],
        data="benchmark",
        split="train",
        n_real=SCORED,
        n_fake=SCORED,
        sampling_seed=0,
        label_law="none",
        weights="raw",
        ema_decay=None,
        batchnorm="none",
    )


# --- A process of its own ----------------------------------------------------------------------

CHECKS: dict[str, Callable[[Figures], None]] = {
    check.__name__: check
    for check in (
        identity, study_in_workers, gpu_tests, no_hidden_wait, attention_backends, out_of_memory,
        resume, speed, compiled_tf32, launches, repeatable, whole_step_graph, processes,
        context_placement, paper_network, scoring, two_cards,
    )
}  # fmt: skip


def machine() -> None:
    """Print the card's name, null if there is none, and the versions of torch and CUDA."""
    there = torch.cuda.is_available()
    name = torch.cuda.get_device_name(DEVICE) if there else None
    print(json.dumps({"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}))


def stopped(number: int, frame: object) -> None:
    """Leave as by an error, so that what must be cleaned up is."""
    sys.exit(f"stopped by signal {number}")


def run(name: str) -> None:
    """Run a check and write ``result.json``: whether it passed, its figures, and its error."""
    signal.signal(signal.SIGTERM, stopped)
    found: Figures = {}
    result: dict[str, Any] = {"pass": False, "found": found}
    try:
        CHECKS[name](found)
        result["pass"] = True
    except Skipped as why:
        result |= {"pass": None, "skipped": str(why)}
    except Exception as error:  # noqa: BLE001  # whatever it is, it is this check's result
        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {error}"
    finally:
        Path("result.json").write_text(json.dumps(result, default=str))


if __name__ == "__main__":
    {"machine": machine, "steps": count_steps}.get(sys.argv[1], lambda: run(sys.argv[1]))()
