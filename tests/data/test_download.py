"""Downloads, against a server of this process that misbehaves on demand."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import SOURCES
from sagan_bench.data import download as module
from sagan_bench.data import fetching
from sagan_bench.data.building import prepare
from sagan_bench.data.download import download
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.sources._base import Archive, Published, Source


class Server(ThreadingHTTPServer):
    """Serves ``content`` at any path; what it was asked is in ``asked``."""

    daemon_threads = True
    content = b""
    etag = '"one"'
    status = 200
    kind = "application/zip"
    ranges = True
    break_after: list[int]
    """Bytes after which the next answers break off."""
    pause_sec = 0.0
    asked: list[dict[str, str]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, headers = self.server, dict(self.headers)
        server.asked.append(headers)
        start = int(headers.get("Range", "bytes=0-")[6:-1])
        if not server.ranges or headers.get("If-Range", server.etag) != server.etag:
            start = 0
        if start > len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else server.status)
        self.send_header("Content-Type", server.kind)
        self.send_header("Content-Length", str(len(server.content) - start))
        if server.etag:
            self.send_header("ETag", server.etag)
        if start:
            whole = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        self.end_headers()
        body = server.content[start:]
        if server.break_after:
            body = body[: server.break_after.pop(0)]
        for first in range(0, len(body), 4096):
            self.wfile.write(body[first : first + 4096])
            time.sleep(server.pause_sec)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetching, "PAUSE_SEC", 0.0)
    monkeypatch.setattr(fetching, "_BLOCK", 1024)
    with Server(("127.0.0.1", 0), Answer) as server:
        server.asked, server.break_after = [], []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return file.getvalue()


def tarred(files: dict[str, bytes], link: str | None = None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        if link:
            member = tarfile.TarInfo("things/link")
            member.type, member.linkname = tarfile.SYMTYPE, link
            packed.addfile(member)
    return file.getvalue()


FILES = {f"things/{number}.bin": bytes([number]) * 5000 for number in range(20)}


def publish(
    monkeypatch: pytest.MonkeyPatch,
    server: Server,
    content: bytes,
    *,
    md5: str | None = "right",
    name: str = "things.zip",
    holds: str | None = "things",
) -> None:
    """Make ``content`` the one archive of a data set called ``things``."""
    server.content = content
    md5 = hashlib.md5(content).hexdigest() if md5 == "right" else md5
    archive = Archive(name, server.url, md5, 1, holds)
    published = Published((archive,), "https://things.example", "folder:{root}/things")

    class Things(Source):
        name = "things"
        usage = "things:PATH"
        elsewhere = None

        @classmethod
        def published(cls, category: str | None) -> Published:
            return published

    monkeypatch.setitem(SOURCES._known, "things", Things)


def unpacked(root: Path) -> dict[str, bytes]:
    files = (path for path in (root / "things").rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def left(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()} - {".download.lock"}


@pytest.mark.parametrize("name", ["things.zip", "things.tar.gz"])
def test_it_is_fetched_verified_unpacked_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, name: str
) -> None:
    content = zipped(FILES) if name.endswith("zip") else tarred(FILES)
    publish(monkeypatch, server, content, name=name)
    calls: list[tuple[int, int]] = []
    source = download("things", tmp_path, progress=lambda *call: calls.append(call))
    assert source == f"folder:{tmp_path}/things"
    assert unpacked(tmp_path) == FILES
    assert left(tmp_path) == {"things", "downloads.json"}
    size = len(server.content)
    assert calls[-1] == (size, size)
    record = json.loads((tmp_path / "downloads.json").read_text())[name]
    assert record["sha256"] == hashlib.sha256(server.content).hexdigest()
    assert (record["from"], record["bytes"], record["verified"]) == (server.url, size, True)
    download("things", tmp_path)
    assert len(server.asked) == 1  # what is there is not asked for again


def test_without_a_published_sum_it_is_recorded_as_unverified(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    server: Server,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish(monkeypatch, server, zipped(FILES), md5=None)
    download("things", tmp_path)
    record = json.loads((tmp_path / "downloads.json").read_text())["things.zip"]
    assert record["verified"] is False
    assert record["sha256"] == hashlib.sha256(server.content).hexdigest()
    assert "things.zip is unverified" in caplog.text


def test_connection_that_breaks_off_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    publish(monkeypatch, server, zipped(FILES))
    server.break_after = [30_000, 0, 0, 20_000, 0, 0, 0, 10_000]  # more than `ATTEMPTS` in all
    download("things", tmp_path)
    assert unpacked(tmp_path) == FILES
    starts = [asked.get("Range") for asked in server.asked]
    assert starts == [None, *["bytes=30000-"] * 3, *["bytes=50000-"] * 4, "bytes=60000-"]
    assert all(asked["If-Range"] == '"one"' for asked in server.asked[1:])


def test_source_out_of_reach_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    publish(monkeypatch, server, zipped(FILES))
    server.break_after = [30_000, *[0] * 5]
    with pytest.raises(UserError, match="30000 bytes are kept: the same command goes on"):
        download("things", tmp_path)
    assert len(server.asked) == 1 + 4
    server.break_after = []
    download("things", tmp_path)
    assert server.asked[-1]["Range"] == "bytes=30000-"
    assert unpacked(tmp_path) == FILES


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    publish(monkeypatch, server, zipped(FILES))
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="cannot be reached"):
        download("things", tmp_path)


@pytest.mark.parametrize("md5", ["right", None])
def test_file_that_changed_at_the_source_is_not_glued_to_the_old_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, md5: str | None
) -> None:
    publish(monkeypatch, server, zipped(dict.fromkeys(FILES, b"other" * 1000)), md5=md5)
    server.break_after = [30_000, *[0] * 5]
    with pytest.raises(UserError):
        download("things", tmp_path)
    publish(monkeypatch, server, zipped(FILES), md5=md5)
    server.etag, server.break_after = '"two"', []
    download("things", tmp_path)
    assert unpacked(tmp_path) == FILES


def test_shorter_file_at_the_source_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    publish(monkeypatch, server, zipped(FILES))
    server.etag = ""
    (tmp_path / "things.zip.part").write_bytes(b"x" * (len(server.content) + 10))
    download("things", tmp_path)
    assert unpacked(tmp_path) == FILES


def test_server_without_ranges_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    publish(monkeypatch, server, zipped(FILES))
    server.ranges, server.break_after = False, [30_000]
    download("things", tmp_path)
    assert unpacked(tmp_path) == FILES


def test_neither_version_nor_sum_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    publish(monkeypatch, server, zipped(FILES), md5=None)
    server.etag, server.break_after = "", [30_000]
    download("things", tmp_path)
    assert [asked.get("Range") for asked in server.asked] == [None, None]


@pytest.mark.parametrize("status", [403, 404, 410, 429])
def test_refusal_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, status: int
) -> None:
    publish(monkeypatch, server, zipped(FILES))
    server.status = status
    with pytest.raises(UserError) as caught:
        download("things", tmp_path)
    said = str(caught.value)
    assert f"HTTP {status}" in said
    assert "fetch things.zip (about 1 MiB) by hand from https://things.example" in said
    assert f"put it into {tmp_path}" in said
    assert len(server.asked) == 1


def test_page_instead_of_a_file_is_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    publish(monkeypatch, server, b"<html>Quota exceeded</html>")
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(UserError, match=r"answers with a page(.|\n)*by hand"):
        download("things", tmp_path)
    assert left(tmp_path) == set()


def test_failing_server_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    publish(monkeypatch, server, zipped(FILES))
    server.status = 503
    with pytest.raises(UserError, match="503"):
        download("things", tmp_path)
    assert len(server.asked) == fetching.ATTEMPTS


def test_file_put_there_by_hand_is_used_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    publish(monkeypatch, server, zipped(FILES))
    (tmp_path / "things.zip").write_bytes(server.content)
    download("things", tmp_path)
    assert server.asked == []
    assert unpacked(tmp_path) == FILES
    assert (tmp_path / "things.zip").exists()
    record = json.loads((tmp_path / "downloads.json").read_text())["things.zip"]
    assert (record["from"], record["verified"]) == ("put there by hand", True)


def test_wrong_sum_is_refused_with_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    publish(monkeypatch, server, zipped(FILES), md5="0" * 32)
    found = hashlib.md5(server.content).hexdigest()
    with pytest.raises(UserError, match=f"MD5 {found}, expected {'0' * 32}; it was removed"):
        download("things", tmp_path)
    assert not (tmp_path / "things").exists()
    (tmp_path / "things.zip").write_bytes(server.content)
    with pytest.raises(UserError, match="remove it, or fetch it anew from https://things"):
        download("things", tmp_path)
    assert (tmp_path / "things.zip").exists()


@pytest.mark.parametrize("content", [b"no archive", zipped(FILES)[:-500], b""])
def test_corrupt_archive_is_removed_and_fetched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, content: bytes
) -> None:
    publish(monkeypatch, server, content, md5=None)
    with pytest.raises(UserError, match=r"things\.zip cannot be unpacked: .* fetches it anew"):
        download("things", tmp_path)
    assert left(tmp_path) <= {"things.zip.part.version"}
    publish(monkeypatch, server, zipped(FILES), md5=None)
    download("things", tmp_path)
    assert unpacked(tmp_path) == FILES


EVIL = {
    "up": zipped({"things/1": b"", "../evil": b"x"}),
    "absolute": zipped({"things/1": b"", "/tmp/evil": b"x"}),
    "up-tar": tarred({"things/1": b"", "../evil": b"x"}),
    "link-tar": tarred({"things/1": b""}, link="/etc/passwd"),
    "other": zipped({"else/1": b""}),
}


@pytest.mark.parametrize("kind", EVIL)
def test_archive_that_reaches_outside_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, kind: str
) -> None:
    name = "things.tar.gz" if kind.endswith("tar") else "things.zip"
    publish(monkeypatch, server, EVIL[kind], name=name)
    root = tmp_path / "root"
    with pytest.raises(UserError, match="cannot be unpacked"):
        download("things", root)
    assert not (tmp_path / "evil").exists()
    assert not (root / "things").exists()


def test_disk_that_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    publish(monkeypatch, server, zipped(FILES))
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="make room"):
        download("things", tmp_path)


def test_corrupt_tar_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    for content in (b"no archive", tarred({"things/1": os.urandom(9000)})[:-500]):
        publish(monkeypatch, server, content, md5=None, name="things.tar.gz")
        with pytest.raises(UserError, match=r"things\.tar\.gz cannot be unpacked"):
            download("things", tmp_path)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with module._alone(tmp_path), pytest.raises(UserError, match="another process"):
        download("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("name", "category", "said"),
    [
        ("mnist", None, "known: celeba, cifar10, cifar100, lsun"),
        ("imagenet", None, "image-net.org"),
        ("twins", None, "--data twins"),
        ("folder", None, "--data folder:PATH"),
        ("celeba", "smiling", "only lsun has categories"),
        ("lsun", "cats", "known: bedroom, bridge"),
    ],
)
def test_what_cannot_be_fetched(tmp_path: Path, name: str, category: str | None, said: str) -> None:
    with pytest.raises(UserError, match=said):
        download(name, tmp_path, category=category)


@pytest.mark.parametrize("name", ["celeba", "cifar10", "cifar100", "lsun"])
def test_published_data_sets_are_well_formed(name: str) -> None:
    dataset = SOURCES[name].published(None)
    for archive in dataset.archives:
        assert archive.url.startswith(("https://", "http://dl.yf.io/lsun/scenes/"))
        assert archive.md5 is None or len(bytes.fromhex(archive.md5)) == 16
        assert (archive.md5 is None) == (name == "lsun")
    assert dataset.source.format(root="x").startswith(f"{name}:x")


def test_what_celeba_unpacks_to_can_be_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    jpeg = io.BytesIO()
    Image.linear_gradient("L").resize((178, 218)).save(jpeg, "JPEG")
    names = [f"{number:06d}.jpg" for number in range(1, 9)]
    pictures = zipped({f"img_align_celeba/{name}": jpeg.getvalue() for name in names})
    (tmp_path / "img_align_celeba.zip").write_bytes(pictures)
    parts = "".join(f"{name} {number % 3}\n" for number, name in enumerate(names))
    (tmp_path / "list_eval_partition.txt").write_text(parts)
    (tmp_path / "list_attr_celeba.txt").write_text("0\n\n")
    md5 = hashlib.md5(pictures).hexdigest()
    published = SOURCES["celeba"].published(None)
    archives = (*published.archives[:2], published.archives[2]._replace(md5=md5))
    published = published._replace(archives=archives)
    monkeypatch.setattr(SOURCES["celeba"], "published", lambda _: published)
    source = download("celeba", tmp_path)
    store = prepare(DataSpec(source, 32, crop=160), tmp_path / "cache")
    assert (len(store.train), len(store.test or ())) == (3, 2)


SCRIPT = """
import hashlib, sys
from pathlib import Path
from sagan_bench.core.registry import SOURCES
from sagan_bench.data import fetching
from sagan_bench.data.download import download
from sagan_bench.data.sources._base import Archive, Published, Source

fetching._BLOCK = 1024

@SOURCES.register("things")
class Things(Source):
    elsewhere = None

    @classmethod
    def published(cls, category):
        archive = Archive("things.zip", sys.argv[1], sys.argv[2], 1, "things")
        return Published((archive,), "", "")

download("things", Path(sys.argv[3]))
"""


def test_killed_download_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    publish(monkeypatch, server, zipped(FILES))
    server.pause_sec = 0.02
    md5 = hashlib.md5(server.content).hexdigest()
    command = [sys.executable, "-c", SCRIPT, server.url, md5, str(tmp_path)]
    process = subprocess.Popen(command)
    part = tmp_path / "things.zip.part"
    while not (part.exists() and part.stat().st_size > 20_000):
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    server.pause_sec = 0.0
    download("things", tmp_path)
    assert unpacked(tmp_path) == FILES
    assert int(server.asked[-1]["Range"][6:-1]) > 10_000


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_decompression_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, kind: str
) -> None:
    monkeypatch.setattr(module, "_SMALL", 2**20, raising=False)
    zeros, file = bytes(2**22), io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("things/zeros", zeros)
    content = file.getvalue() if kind == "zip" else tarred({"things/zeros": zeros})
    publish(monkeypatch, server, content, name=f"things.{kind}", md5=None)
    with pytest.raises(UserError, match=r"more than 1 MiB or 5000000 files, a decompression bomb"):
        download("things", tmp_path)
    assert not (tmp_path / "things").exists()


def test_archive_of_too_many_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setattr(module, "_MOST_MEMBERS", 3, raising=False)
    publish(monkeypatch, server, zipped(FILES), md5=None)
    with pytest.raises(UserError, match="or 3 files, a decompression bomb"):
        download("things", tmp_path)


def test_record_of_another_shape_and_litter_of_killed_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    (tmp_path / "downloads.json").write_text("[1]")
    (tmp_path / ".downloads.json.0a1b2c3d.tmp").touch()
    publish(monkeypatch, server, zipped(FILES))
    download("things", tmp_path)
    assert list(json.loads((tmp_path / "downloads.json").read_text())) == ["things.zip"]
    assert not list(tmp_path.glob(".*.tmp"))
