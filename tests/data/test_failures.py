"""A failure of the machine while data are read ends the command; the same command then goes on."""

import builtins
import errno
import gc
import io
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import layouts
import pytest
from PIL import Image, ImageFile

from sagan_bench.cli import main
from sagan_bench.core.errors import MachineError, UserError
from sagan_bench.data.building import prepare
from sagan_bench.data.decoding import Geometry, looks_like_a_picture
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.sources import _class_folders, open_source
from sagan_bench.data.sources._class_folders import read_files

SQUARE = Geometry(8, None, "centre-crop")
OF_THE_MACHINE = ("EIO", "EMFILE", "ENFILE", "ENOMEM", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EAGAIN")
OF_THE_PICTURE = ("EACCES", "EPERM", "EISDIR", "ENAMETOOLONG", "ELOOP", "EINVAL")

needs_proc = pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc here")


def fails(monkeypatch: pytest.MonkeyPatch, ending: str, error: Callable[[str], Exception]) -> None:
    """Let every opening of files that end so fail."""
    real = builtins.open

    def failing(file: Any, *args: Any, **more: Any) -> Any:
        if str(file).endswith(ending):
            raise error(str(file))
        return real(file, *args, **more)

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", failing)


def of(name: str) -> Callable[[str], OSError]:
    number = getattr(errno, name)
    return lambda path: OSError(number, os.strerror(number), path)


def command(root: Path, *more: str) -> list[str]:
    return ["data", "prepare", f"folder:{root}", "--image-size", "32", *more]


def code(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


@pytest.mark.parametrize("name", OF_THE_MACHINE)
def test_failure_of_the_machine_makes_no_store_and_the_same_command_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    root = layouts.folder(tmp_path / "root", 6)
    with monkeypatch.context() as patch:
        fails(patch, "cat/4.png", of(name))
        assert code(*command(root, "--skip-bad")) == 2
    said = capsys.readouterr().err
    assert str(root / "cat/4.png") in said
    assert "the same command then goes on" in said
    assert code(*command(root, "--skip-bad")) == 0
    data = prepare(DataSpec(f"folder:{root}", 32), workers=1)
    assert (data.manifest.refused, len(data.train) + len(data.test or ())) == (0, 6)


@pytest.mark.parametrize("name", OF_THE_PICTURE)
def test_what_only_the_picture_does_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    layouts.folder(tmp_path, 2)
    fails(monkeypatch, "0.png", of(name))
    (said,) = read_files(str(tmp_path), ["cat/0.png", "dog/1.png"], [0, 1], SQUARE).refused
    assert said == f"cat/0.png: {os.strerror(getattr(errno, name))}"


def test_lack_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.folder(tmp_path, 2)
    fails(monkeypatch, "0.png", lambda _: MemoryError())
    with pytest.raises(MachineError, match=r"not enough memory to read .*cat/0\.png; free some"):
        read_files(str(tmp_path), ["cat/0.png"], [0], SQUARE)


def test_failure_that_a_decoder_hides_behind_its_own_error_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.folder(tmp_path, 2)

    def hiding(path: str) -> Exception:
        error = ValueError("cannot decode")
        error.__cause__ = OSError(errno.EIO, "Input/output error")
        return error

    fails(monkeypatch, "0.png", hiding)
    with pytest.raises(MachineError, match=r"Input/output error; .*cat/0\.png; look at the disk"):
        read_files(str(tmp_path), ["cat/0.png"], [0], SQUARE)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), MemoryError()])
def test_failure_while_the_orientation_is_read_turns_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(self: object) -> None:
        raise error

    layouts.folder(tmp_path, 2)
    monkeypatch.setattr(Image.Image, "getexif", failing)
    with pytest.raises(MachineError):
        read_files(str(tmp_path), ["cat/0.png"], [0], SQUARE)


def test_failure_while_a_picture_is_read_without_its_remarks_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.folder(tmp_path, 2)
    path = tmp_path / "cat/0.png"
    path.write_bytes(path.read_bytes()[:-30])

    def failing(self: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error", str(self))

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(MachineError, match="Input/output error"):
        read_files(str(tmp_path), ["cat/0.png"], [0], SQUARE)


def test_lack_of_memory_without_remarks_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.folder(tmp_path, 2)
    loaded: list[int] = []

    def failing(self: object) -> None:
        loaded.append(1)
        raise ValueError("damaged") if len(loaded) == 1 else MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", failing)
    with pytest.raises(MachineError, match="not enough memory"):
        read_files(str(tmp_path), ["cat/0.png"], [0], SQUARE)


def test_picture_that_vanished_since_the_listing_stops_it(tmp_path: Path) -> None:
    root = layouts.folder(tmp_path / "root", 6)
    spec = DataSpec(f"folder:{root}", 8)
    kept = (root / "cat/4.png").read_bytes()
    tasks = open_source(spec).listing().train.tasks
    assert "cat/4.png" in tasks[0].args[1]  # type: ignore[attr-defined]
    (root / "cat/4.png").unlink()
    with pytest.raises(MachineError, match=r"cat/4\.png was there when the folder was listed"):
        tasks[0]()
    (root / "cat/4.png").write_bytes(kept)
    assert tasks[0]().refused == ()


def test_a_link_to_nothing_is_the_pictures_own_fault(tmp_path: Path) -> None:
    root = layouts.folder(tmp_path / "root", 6)
    (root / "cat/gone.png").symlink_to(tmp_path / "nowhere/gone.png")
    data = prepare(DataSpec(f"folder:{root}", 8), tmp_path / "cache", skip_bad=True)
    assert data.manifest.refused_first == ("cat/gone.png: No such file or directory",)


@needs_proc
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Pillow leaves the file to be collected
@pytest.mark.parametrize("workers", [1, 2])
def test_failing_disk_is_told_of_through_processes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(_class_folders, "_FILES_A_TASK", 2)
    root = layouts.folder(tmp_path / "root", 20)
    (root / "cat/4.png").unlink()
    (root / "cat/4.png").symlink_to("/proc/self/mem")  # of which reading fails as on a bad disk
    with pytest.raises(MachineError, match=r"Input/output error; .*cat/4\.png; look at the disk"):
        prepare(DataSpec(f"folder:{root}", 8), tmp_path / "c", workers=workers, skip_bad=True)
    gc.collect()


# --- what is looked into before it is read -------------------------------------------------------


def test_failing_disk_hides_no_picture_of_an_unusual_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(layouts.encoded(0, (16, 16), "BMP"))

    def failing(self: Path, *args: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(self))

    assert looks_like_a_picture(path)
    with monkeypatch.context() as patch:
        fails(patch, "a.dat", of("EIO"))  # when Pillow opens it
        with pytest.raises(MachineError, match=r"Input/output error; .*a\.dat"):
            looks_like_a_picture(path)
    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(MachineError, match=r"Input/output error; .*a\.dat"):
        looks_like_a_picture(path)


@contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_lack_of_open_files_is_no_damage_of_a_data_set(tmp_path: Path) -> None:
    roots = {
        "folder": layouts.folder(tmp_path / "folder"),
        "cifar10": layouts.cifar10(tmp_path / "cifar"),
        "celeba": layouts.celeba(tmp_path / "celeba"),
        "lsun": layouts.lsun(tmp_path / "lsun", church_train=4),
    }
    for kind, root in roots.items():
        word = "#church_train" if kind == "lsun" else ""
        spec = DataSpec(f"{kind}:{root}{word}", 8)

        def build(spec: DataSpec = spec) -> None:
            open_source(spec).listing().train.tasks[0]()

        with no_more_files(), pytest.raises((OSError, UserError)) as failed:
            build()
        told = failed.value
        assert isinstance(told, MachineError) or getattr(told, "errno", 0) == errno.EMFILE, told
        build()
