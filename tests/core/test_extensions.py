"""Files of components: run once, known under their names, wrong in words that name the line."""

import sys
from pathlib import Path

import pytest

from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import ATTENTION, LOSSES

BLOCK = """
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention

RAN = []

@ATTENTION.register("{name}")
class Mine(Attention):
    title = "{title}"
"""


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_a_file_is_known_by_what_it_registers(tmp_path: Path) -> None:
    extension = extensions.load(written(tmp_path, BLOCK.format(name="my-block", title="a")))
    assert extension.components == (("ATTENTION", "my-block"),)
    assert (extension.name, len(extension.sha256)) == ("mine", 64)
    assert ATTENTION["my-block"].title == "a"
    assert ATTENTION["my-block"].name == "my-block"
    assert ATTENTION["my-block"].__module__ == "sagan_bench_own_mine"


def test_the_same_content_is_run_once_and_another_takes_its_place(tmp_path: Path) -> None:
    file = written(tmp_path, BLOCK.format(name="my-block", title="a"))
    first, kind = extensions.load(file), ATTENTION["my-block"]
    assert extensions.load(file) is first
    assert ATTENTION["my-block"] is kind
    other = extensions.load(written(tmp_path, BLOCK.format(name="her-block", title="b")))
    assert other.sha256 != first.sha256
    assert "my-block" not in ATTENTION
    assert ATTENTION["her-block"].title == "b"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ny = (\n", r"mine\.py, line 2: SyntaxError: "),
        ("x = 1\n\nx.y\n", r"mine\.py, line 3: AttributeError: 'int' object has no attribute 'y'"),
        ("def f():\n    return 1 / 0\nf()\n", r"mine\.py, line 2: ZeroDivisionError"),
        ("x = 1\n", r"registers no component; decorate a class"),
        (BLOCK.format(name="full", title=""), r"mine\.py, line 7: .*'full' already"),
        (BLOCK.format(name="My Block", title=""), r"line 7: .*a name is of small letters"),
        ("raise SystemError('\\0')", "SystemError"),
        ("\0", r"mine\.py.*null bytes"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        extensions.load(written(tmp_path, text))
    assert "sagan_bench_own_mine" not in sys.modules


def test_what_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    text = BLOCK.format(name="my-block", title="") + "\nraise RuntimeError('later')\n"
    with pytest.raises(UserError, match="line 11: RuntimeError: later"):
        extensions.load(written(tmp_path, text))
    assert "my-block" not in ATTENTION


@pytest.mark.parametrize("name", ["mine.txt", "my-block.py", "1.py"])
def test_only_python_files_are_taken(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="expected a Python file"):
        extensions.load(written(tmp_path, "", name))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nosuch\.py: No such file"):
        extensions.load(tmp_path / "nosuch.py")


def test_what_the_package_has_is_never_forgotten() -> None:
    assert LOSSES["hinge"].name == "hinge"
    LOSSES.forget("hinge")
    assert LOSSES["hinge"].name == "hinge"
    assert "hinge" not in LOSSES.own
