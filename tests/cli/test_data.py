"""The verbs of ``data`` as a user types them."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import command_line
import numpy as np
import pytest
from PIL import Image

from sagan_bench import cli
from sagan_bench.cli import signals

ROOT = Path(cli.__file__).parents[2]
SMALL = ("--set", "data.train_images=200", "--set", "data.test_images=20")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGAN_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


run = partial(command_line.run, "data")


def pictures(root: Path, count: int) -> str:
    for number in range(count):
        path = root / f"{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return f"folder:{root}"


def test_prepare_list_and_remove(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pictures(tmp_path / "mine", 12)
    assert (
        run(
            "prepare",
            source,
            "--image-size",
            "64",
            "--set",
            "data.crop=40",
            "--set",
            "data.fit=squash",
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "64 px (centre crop 40 px, squash, bicubic" in said
    assert "enlarged      12" in said
    assert run("list", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["source"], entry["image_size"], entry["classes"]) == (source, 64, 2)
    assert entry["train"] + entry["test"] == 12
    assert entry["mib"] == pytest.approx(12 * 3 * 64**2 / 2**20, abs=0.06)
    assert run("list") == 0
    assert entry["store"] in capsys.readouterr().out
    assert run("remove", entry["store"]) == 0
    assert run("list") == 0
    assert "nothing is prepared" in capsys.readouterr().out
    assert (tmp_path / "mine/a/0.png").exists()


def test_removing_by_source_takes_all_its_stores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = pictures(tmp_path / "mine", 4)
    for size in ("32", "64"):
        assert run("prepare", source, "--image-size", size) == 0
    assert run("prepare", "twins", *SMALL) == 0
    assert run("remove", source) == 0
    capsys.readouterr()
    assert run("list", "--json") == 0
    assert [entry["source"] for entry in json.loads(capsys.readouterr().out)] == ["twins"]
    assert run("remove", "nothing") == cli.USAGE
    assert "there is:\n  twins-32px-" in capsys.readouterr().err


def test_show_writes_a_labelled_grid_and_the_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("show", "twins", *SMALL) == 0
    said = capsys.readouterr().out
    assert "train         200 images" in said
    assert "classes       10: disc (" in said
    sheet = np.asarray(Image.open("twins-32px.png"))
    assert sheet.shape == (10 * 66, 160 + 8 * 66, 3)
    assert all((sheet[row * 66 : row * 66 + 64, :160] < 128).any() for row in range(10))  # names
    assert all((sheet[row * 66 : row * 66 + 64, 160:224] != 255).any() for row in range(10))


def test_show_one_class_in_several_rows(tmp_path: Path) -> None:
    pictures(tmp_path / "mine", 40)
    assert run("show", f"folder:{tmp_path / 'mine/a'}", "--out", "a.png") == 0
    assert np.asarray(Image.open("a.png")).shape == (3 * 66, 160 + 8 * 66, 3)  # of 17 images


def test_prepared_is_what_training_takes(tmp_path: Path) -> None:
    from sagan_bench.config.layers import resolve
    from sagan_bench.config.schema import Host
    from sagan_bench.data.building import prepare
    from sagan_bench.data.listing import DataSpec

    (tmp_path / "mine").mkdir()
    source = pictures(tmp_path / "mine", 12).replace("folder", "celeba")
    assert run("prepare", source, "--preset", "celeba64", "--set", "data.crop=40") == 0
    host = Host(bf16=False, extractor="efficientnet-lite0")
    config = resolve(host, preset="celeba64", sets=[f"data.source={source}", "data.crop=40"]).config
    calls: list[tuple[int, int]] = []
    prepare(DataSpec.of(config.data), progress=lambda *call: calls.append(call))
    assert calls == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("prepare", "nope"), "unknown data 'nope'"),
        (("prepare", "folder:/nowhere"), "there is no folder /nowhere"),
        (("prepare", "celeba:/nowhere"), "or fetch it: data download celeba /nowhere"),
        (("show", "twins", *SMALL, "--out", "/proc/x/a.png"), "--out /proc/x/a.png: "),
        (("show", "twins", *SMALL, "--out", "a.what"), "unknown file extension"),
        (("prepare", "twins", "--image-size", "48"), "--image-size"),
        (("prepare", "twins", "--set", "data.crop=many"), "data.crop"),
        (("show", "twins", "--set", "data.fit=stretch"), "--set"),
    ],
)
def test_errors_name_what_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert run(*arguments) == cli.USAGE
    assert said in capsys.readouterr().err


def test_bad_pictures_are_named_and_can_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = pictures(tmp_path / "mine", 12)
    (tmp_path / "mine/a/bad.png").write_bytes(b"no")
    assert run("prepare", source) == cli.USAGE
    assert "a/bad.png: not a picture" in capsys.readouterr().err
    assert run("prepare", source, "--skip-bad") == 0
    assert "left out      1, a/bad.png: not a picture" in capsys.readouterr().out


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "cli.py"), "data", "prepare", "twins", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--image-size", "128"], stderr=subprocess.PIPE, text=True, env=environment
    )
    stores = tmp_path / "cache/stores"
    while not any(stores.glob("*.building/progress.json")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == signals.INTERRUPTED
    assert "the same command again goes on" in error
    (unfinished,) = stores.glob("*.building")
    assert json.loads((unfinished / "progress.json").read_text())["done"]["train"]["tasks"] > 0


def test_data_verbs_import_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from sagan_bench import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as done: sys.exit(done.code or 100 * ('torch' in sys.modules))"
    )
    for verb in (("show", "twins", *SMALL), ("list",), ("remove", "twins")):
        command = [sys.executable, "-c", code, "data", *verb]
        assert subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_prepare_says_what_was_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = pictures(tmp_path / "mine", 12)
    (tmp_path / "mine/a/x.heic").touch()
    (tmp_path / "mine/more.zip").touch()
    assert run("prepare", source) == 0
    said = capsys.readouterr().out
    assert "remark        passed over, archives left packed: 1 .zip (as more.zip)" in said
    assert run("prepare", source, "--json") == 0
    assert "1 .heic (as a/x.heic)" in json.loads(capsys.readouterr().out)["remarks"][0]
