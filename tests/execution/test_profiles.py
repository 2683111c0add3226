"""Profiles of engines: a table of a file, what is typed over it, and each refusal."""

from pathlib import Path

import pytest

from sagan_bench.core.errors import UserError
from sagan_bench.execution.engines._ray.settings import Settings as RaySettings
from sagan_bench.execution.engines._slurm.settings import Settings, typed
from sagan_bench.execution.profiles import Profile, chosen, elsewhere

GPU = """
[gpu]
kind = "slurm"
jobs = 16
signal_sec = 60
setup = ["module load cuda"]
python = "python"
sbatch = { partition = "gpu", time = "8:00:00", gres = "gpu:1", cpus-per-task = 4, nice = false }
"""


def refused(text: str, name: str = "gpu", **more: object) -> str:
    Path("engines.toml").write_text(text)
    with pytest.raises(UserError) as error:
        chosen(name, **more)  # type: ignore[arg-type]
    return str(error.value)


def test_a_profile_is_a_table_of_engines_toml() -> None:
    Path("engines.toml").write_text(GPU)
    kind, settings = chosen("gpu")
    assert kind == "slurm"
    assert isinstance(settings, Settings)
    assert (settings.jobs, settings.threads) == (16, 4)
    options = settings.options()
    assert options[:4] == [
        "--partition=gpu", "--time=8:00:00", "--gres=gpu:1", "--cpus-per-task=4",
    ]  # fmt: skip
    assert "--signal=B:USR1@60" in options
    assert not [option for option in options if "nice" in option]
    script = settings.of_runs(Path("/study of mine/1.jobs"), Path("/c"), "auto").splitlines()
    assert script[0] == "#!/bin/bash"
    assert "module load cuda" in script
    assert "export OMP_NUM_THREADS=4" in script
    assert "export PYTHONPATH=/c${PYTHONPATH:+:$PYTHONPATH}" in script
    assert script[-1].startswith("exec python -P -m sagan_bench.")
    assert script[-1].endswith(".cell '/study of mine/1.jobs' auto 4")


def test_what_is_typed_lies_over_a_profile_or_is_one() -> None:
    Path("engines.toml").write_text(GPU)
    settings = chosen("gpu", typed={"sbatch": typed("time=1,partition=low,exclusive")}).settings
    assert isinstance(settings, Settings)
    assert settings.options()[:3] == ["--partition=low", "--time=1", "--gres=gpu:1"]
    assert "--exclusive" in settings.options()
    alone = chosen("slurm", typed={"sbatch": typed("time=10")}).settings
    assert isinstance(alone, Settings)
    assert alone.sbatch == {"time": "10"}


def test_engines_of_this_machine_need_no_profile() -> None:
    assert chosen("processes") == Profile("processes", None)


def test_the_file_may_be_named_and_that_of_the_user_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "sagan-bench").mkdir(parents=True)
    (tmp_path / "config" / "sagan-bench" / "engines.toml").write_text(GPU)
    assert chosen("gpu").kind == "slurm"
    (tmp_path / "mine.toml").write_text(GPU.replace("gpu]", "mine]"))
    assert chosen("mine", tmp_path / "mine.toml").kind == "slurm"
    with pytest.raises(UserError, match="--engine gpu: known are: mine"):
        chosen("gpu", tmp_path / "mine.toml")
    with pytest.raises(UserError, match=r"cannot read .*none\.toml"):
        chosen("gpu", tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[gpu]", "[gpus]"), "--engine gpu: did you mean 'gpus'?"),
        (('"slurm"', '"slrum"'), r"engines.toml [gpu]: kind is 'slrum'; did you mean 'slurm'?"),
        (('kind = "slurm"', ""), "engines.toml [gpu]: kind? known are"),
        (("signal_sec", "signal_secs"), "[gpu]: signal_secs: did you mean 'signal_sec'?"),
        (("jobs = 16", "jobs = 0"), "jobs: expected 1 or more"),
        (("jobs = 16", 'jobs = "many"'), "jobs: expected a whole number"),
        (("signal_sec = 60", "signal_sec = 1"), "signal_sec: expected 10 or more"),
        (("time = ", "begin = "), "sbatch: no time: clusters' defaults are minutes"),
        (("gres", "array"), "array: the engine sets --array itself"),
        (("gres", "req"), "req: the engine sets --requeue itself"),
        (("gres", "no-requeue"), "the engine sets --no-requeue itself"),
        (("gres", "cpus_per_task"), "cpus_per_task: expected the long name"),
        (("gres", "p"), "p: expected the long name"),
        (('"gpu:1"', '"gpu:4"'), "one process on one device"),
        (('"gpu:1"', '"gpu:a100:2"'), "torchrun"),
        (("gres = ", "ntasks = 2, x-y = "), "one process on one device"),
        (("cpus-per-task = 4", 'cpus-per-task = "four"'), "cpus-per-task: expected a whole number"),
        (("cpus-per-task = 4", "cpus-per-tas = 4"), "the whole name of an option of sbatch"),
        (("gres", "gr"), "gr: expected the whole name of an option of sbatch, such as gres"),
        (("gres = ", "gpus-per-socket = 4, x-y = "), "one process on one device"),
        (("gres = ", "ntasks-per-gpu = 2, x-y = "), "one process on one device"),
        (("gres = ", 'nodes = "1k", x-y = '), "one process on one device"),
        (('gres = "gpu:1"', 'tres-per-task = "cpu=4,gres/gpu:4"'), "one process on one device"),
        (('gres = "gpu:1"', 'tres-per-node = "gres/gpu:a100=2"'), "one process on one device"),
        (('"8:00:00"', "08:00:00"), "time: expected a text in quotes"),
        (('"8:00:00"', '"8\\n#"'), "time: expected a text in quotes"),
        (("sbatch = {", 'sbatch = "x" #'), "sbatch: expected a table such as"),
        (("[gpu]", "gpu = 3\n[x]"), "engines.toml [gpu]: expected a table"),
        (("[gpu]", "[gpu"), "engines.toml is not valid TOML"),
        (("[gpu]", "[slurm-2]"), "--engine gpu:"),
    ],
)
def test_what_a_profile_cannot_say_is_refused(change: tuple[str, str], words: str) -> None:
    assert words in refused(GPU.replace(*change))


RAY = """
[lab]
kind = "ray"
address = "head.lab:6379"
cpus_per_cell = 2
gpus_per_cell = 0.3
resources = { big = 1 }
"""


def test_a_profile_of_ray_says_what_a_run_needs() -> None:
    Path("engines.toml").write_text(RAY)
    settings = chosen("lab", typed={"gpus_per_cell": 0.25, "address": "[::1]:6379"}).settings
    assert isinstance(settings, RaySettings)
    assert settings.needs == {"CPU": 2, "GPU": 0.25, "big": 1}
    assert (settings.threads, settings.shared_by, settings.lease_sec) == (2, 4, 300)
    assert settings.address == "[::1]:6379"
    assert RaySettings().shared_by == 1
    assert {*elsewhere()} == {"ray", "slurm"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("head.lab:6379", "http://head:8265"), "ray job submit"),
        (("head.lab:6379", "head lab"), "address: head lab: expected auto"),
        (('"head.lab:6379"', "6379"), "address: expected a text"),
        (("gpus_per_cell = 0.3", "gpus_per_cell = nan"), "gpus_per_cell: "),
        (("big = 1", "GPU = 1"), "resources: GPU: set cpus_per_cell or gpus_per_cell"),
        (("big = 1", "big = 0"), "resources: big: expected a number from 0.001"),
        (("{ big = 1 }", "3"), "resources: "),
        (("cpus_per_cell", "cpu_per_cell"), "did you mean 'cpus_per_cell'?"),
        (("cpus_per_cell = 2", "lease_sec = 5"), "lease_sec: expected 60 or more"),
    ],
)
def test_what_a_profile_of_ray_cannot_say_is_refused(change: tuple[str, str], words: str) -> None:
    assert words in refused(RAY.replace(*change), "lab")


def test_names_of_engines_and_settings_of_those_without_are_refused() -> None:
    assert "processes is an engine" in refused(GPU.replace("[gpu]", "[processes]"), "processes")
    text = '[lab]\nkind = "processes"\njobs = 3\n'
    assert "has no settings" in refused(text, "lab")
    assert "options of sbatch are not for" in refused("", "processes", typed={"sbatch": {}})
    assert "no time" in refused("", "slurm")


def test_what_is_typed_may_have_commas_in_a_value_and_options_without() -> None:
    options = typed("partition=low,frail,exclusive,time=10,exclude=n1,n2,--hold")
    assert options == {
        "partition": "low,frail", "exclusive": True, "time": "10", "exclude": "n1,n2", "hold": True,
    }  # fmt: skip


def test_an_option_of_the_engine_is_refused_by_name_where_it_is_typed_too() -> None:
    assert "the engine sets --requeue itself" in refused(
        "", "slurm", typed={"sbatch": typed("time=10,requeue")}
    )


@pytest.mark.parametrize("text", ["", "partition=", "=x", "a,,b", "help", "exclusive,help,time=1"])
def test_what_is_typed_must_be_options(text: str) -> None:
    with pytest.raises(UserError, match=r"--slurm .*expected partition=gpu"):
        typed(text)
