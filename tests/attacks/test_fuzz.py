"""Whatever is typed or written into a TOML file ends with 0, 2 or 3, soon, and in little memory.

One trial again: ``ATTACK=set:217 pytest -m slow -n 0 tests/attacks -k fuzz``; of all trials one in
eight is made, and with ``ATTACK=all`` each.
"""

import json
import random
import resource
import signal
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import subjects
from crash import LIMIT_SEC, forked
from example_tunings import FILE as SPACE
from subjects import STUDY, THIN, Trials

pytestmark = pytest.mark.slow

Out = pytest.CaptureFixture[str]
SECONDS = 5
"""Of the processor, so that a busy machine fails nothing."""
MEMORY_BYTES = 2 * 2**30
WORDS = (
    "", " ", "0", "-1", "1", "2", "3.5", "1e309", "-0.0", "nan", "inf", "-inf", "true", "none",
    "None", "auto", "[]", "{}", "[[8]]", "[8, 16]", "{a = 1}", '"x"', "'", '"', "\\", "=", ".",
    "..", "/dev/null", "/proc/self/mem", "\x00", "\x1b[31m", "\u202e", "é",
    "²", "٣", "日本", "\ud83d".encode("utf-8", "replace").decode(), "a" * 5000, "9" * 5000,
    "-" + "9" * 400, "[" * 3000, "{a=" * 500, "0x10", "1_000", "1979-05-27", "07:32:00", "sagan",
    "no-attention", "sagan+wider", "+", "quick", "twins", "folder:", "folder:.", "folder:/nowhere",
    "lsun:.#x", "cifar10:.", "cuda:99999999999999999999", "mps", "0-99999999999", "0,1,1", "1-",
    "9" * 20, "2147483648", "18446744073709551616", "%s", "{}", "$HOME", "*", "-", "--", "--help",
    "small.toml", "fuzzed.toml", "http://u:p@h/x", "sqlite://", "fid", "fid,fid", "twin_rate",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    0, -1, 1, 2**31, 2**64, 10**400, 1.5, -0.0, float("nan"), float("inf"), True, "", "x", "auto",
    "none", "a" * 3000, [], [1], [[1]], ["a", 1], {}, {"a": 1}, {"a": {"b": []}}, "\x1b[31m", "²",
)  # fmt: skip


def keys() -> list[str]:
    from sagan_bench.config.schema import field_types

    known = list(field_types())
    sections = sorted({key.rpartition(".")[0] for key in known if "." in key})
    return [*known, *sections, "", ".", "seed.x", "model.", ".seed", "run.stepz", "a" * 999, "é"]


def fuzzed_set(draw: random.Random) -> tuple[list[str], str | None]:
    """``--set`` of one to three keys, to a verb that resolves them."""
    settings = []
    for _ in range(draw.randint(1, 3)):
        value = draw.choice(WORDS) if draw.random() < 0.7 else toml(draw.choice(VALUES))
        settings += [
            "--set",
            f"{draw.choice(keys())}{draw.choice(['=', '=', '=', ' = ', ''])}{value}",
        ]
    verb = draw.choice((["show", "config"], ["train", "--dry-run"], ["show", "model"]))
    return [*verb, *settings], None


def toml(value: Any) -> str:
    """Return a value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    text = json.dumps(value)
    return {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}.get(text, text)


def document(tree: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in tree.items())


def mutated(tree: dict[str, Any], draw: random.Random) -> str:
    """Return a TOML document of which one to three values, keys or bytes are others."""
    for _ in range(draw.randint(1, 3)):
        tree = _mutated(tree, draw)
    text = document(tree)
    if draw.random() < 0.2:
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice(WORDS) + text[at + draw.randrange(3) :]
    return text


def _mutated(tree: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    key = draw.choice([*tree, "x"])
    inner = tree.get(key)
    if isinstance(inner, dict) and inner and draw.random() < 0.7:
        return tree | {key: _mutated(inner, draw)}
    if draw.random() < 0.2:
        return {k: v for k, v in tree.items() if k != key}
    if draw.random() < 0.1:
        return tree | {draw.choice(WORDS): inner}
    return tree | {key: draw.choice(VALUES) if draw.random() < 0.8 else draw.choice(WORDS)}


CONFIG: dict[str, Any] = {
    "preset": "quick", "variant": "sagan", "seed": 1, "data": {"image_size": 32, "source": "twins"},
    "model": {"width": 8, "attention": {"generator": [8], "kind": "full"}},
    "training": {"lr_g": 1e-4, "batch_size": 4}, "run": {"steps": 6}, "evaluation": {"n_fake": 8},
}  # fmt: skip


def fuzzed_config(draw: random.Random) -> tuple[list[str], str]:
    verb = draw.choice((["show", "config"], ["train", "--dry-run"]))
    return [*verb, "--config", "fuzzed.toml"], mutated(CONFIG, draw)


def fuzzed_study(draw: random.Random) -> tuple[list[str], str]:
    tree = tomllib.loads(STUDY) | {"preset": "quick", "set": {"run": {"steps": 9}}, "against": {}}
    return ["ablate", "fuzzed.toml", "--dry-run"], mutated(tree, draw)


def fuzzed_space(draw: random.Random) -> tuple[list[str], str]:
    command = ["tune", "--space", "fuzzed.toml", "--trials", "1", "--in-process"]
    return command, mutated(tomllib.loads(SPACE), draw)


def fuzzed_arguments(draw: random.Random) -> tuple[list[str], str | None]:
    """A verb with some of its own options and arguments, and any words for them."""
    path, verb = draw.choice(verbs())
    line = list(path)
    for parameter in draw.sample(verb.params, min(len(verb.params), draw.randint(0, 5))):
        if parameter.name in ("watch", "open_", "help"):
            continue
        word = "fuzzed.toml" if draw.random() < 0.1 else draw.choice(WORDS)
        if parameter.param_type_name == "argument":
            line.append(word)
        elif getattr(parameter, "is_flag", False):
            line.append(draw.choice(parameter.opts))
        else:
            line += [draw.choice(parameter.opts), word]
    return line, mutated(CONFIG, draw) if "fuzzed.toml" in line else None


def verbs() -> list[tuple[list[str], Any]]:
    """Return every verb by its path, but for those that fetch, or examine this machine."""
    import typer

    from sagan_bench.cli import app

    def below(command: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:
        inner = getattr(command, "commands", {})
        if not inner or path == ["tune"]:
            yield path, command
        for name, one in inner.items():
            if name not in ("download", "doctor"):
                yield from below(one, [*path, name])

    return list(below(typer.main.get_command(app), []))


FUZZERS: dict[str, tuple[int, Callable[[random.Random], tuple[list[str], str | None]]]] = {
    "set": (400, fuzzed_set), "config": (150, fuzzed_config), "study": (150, fuzzed_study),
    "space": (100, fuzzed_space), "arguments": (200, fuzzed_arguments),
}  # fmt: skip


class TooLong(BaseException):
    """Passes what catches every exception."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a study's runs; nothing is trained, scored or prepared in it."""
    made = subjects.studies(subjects.files(tmp_path_factory.mktemp("fuzz") / "begun"))
    with subjects.made_quick():
        subjects.warm(made, ("train", "--dry-run"), ("ablate", "small.toml", "--dry-run"),
                      ("compare", "the-runs/quick"), ("report", "the-runs/quick"))  # fmt: skip
        subjects.frozen()
        yield made


@pytest.mark.parametrize("name", FUZZERS)
def test_fuzz(name: str, folder: Path, capsys: Out) -> None:
    count, fuzzer = FUZZERS[name]
    trials = Trials(f"fuzzed: {name}")
    ids = [number for number in range(count // THIN) if trials.wants(f"{name}:{number}")]
    while ids:  # one process for all; another for the rest where one died
        ended = forked(partial(_run, name, fuzzer, ids), cwd=folder)
        done = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('{"id')]
        for one in done:
            trials.add(f"{one['id']} {one['line']!r:.200}", one["wrong"])
        if len(done) < len(ids):
            trials.add(f"{name}:{ids[len(done)]}", f"the process died: {ended}")
        ids = ids[len(done) + 1 :]
    trials.end(capsys)


def _run(name: str, fuzzer: Any, ids: list[int]) -> None:
    """Make trials in this process, and print how each ended."""
    _tamed()
    for number in ids:
        line, text = fuzzer(random.Random(f"{name}{number}"))
        if text is not None:
            Path("fuzzed.toml").write_text(text, encoding="utf-8", errors="replace")
        print(json.dumps({"id": f"{name}:{number}", "line": line, "wrong": _wrong(line)}))


def _tamed() -> None:
    """Bound time and memory, and take away what would train, score or prepare."""
    from sagan_bench.core.errors import UserError
    from sagan_bench.data import building
    from sagan_bench.experiments import ablation
    from sagan_bench.experiments.tuning import planning
    from sagan_bench.session import experiment

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise UserError("not here")

    for module, function in ((experiment, "run"), (experiment, "evaluate"), (ablation, "run"),
                             (ablation, "with_data"), (planning, "with_data"),
                             (building, "prepare")):  # fmt: skip
        setattr(module, function, refuse)

    def ring(*_: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGPROF, ring)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _wrong(line: list[str]) -> str | None:
    """Run a command line here, and return what is wrong with how it ended."""
    import contextlib
    import io
    import sys

    from sagan_bench import cli

    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["cli.py", *line]
    signal.alarm(LIMIT_SEC)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main(line)
    except SystemExit as end:
        if end.code in (0, 2, 3, None):
            return None
        return f"exit {end.code}: {err.getvalue().strip()[:200]}"
    except TooLong:
        return f"not over after {SECONDS} s"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return "it did not exit"
