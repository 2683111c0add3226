"""Components by name: found in their files, registered by others, refused when unknown."""

from pathlib import Path

import pytest

from sagan_bench.core import registry
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import Registry


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[object]:
    """A kind with a component `round-one` in a file, and a file of what is shared."""
    package = tmp_path / "sagan_bench_shapes"
    package.mkdir()
    (package / "round_one.py").write_text("raise RuntimeError('read too early')")
    (package / "_shared.py").write_text("")
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    return Registry("shape", "sagan_bench_shapes")


def test_names_are_known_without_reading_a_module(shapes: Registry[object]) -> None:
    assert list(shapes) == ["round-one"]
    assert shapes.check("round-one") == "round-one"
    assert len(shapes) == 1


def test_an_unknown_name_gives_the_closest(shapes: Registry[object]) -> None:
    with pytest.raises(ValueError, match="no shape is called 'round-on'; did you mean 'round-one'"):
        shapes.check("round-on")
    with pytest.raises(UserError, match="no shape is called 'square'; known are: round-one"):
        shapes["square"]


def test_a_file_of_a_user_registers_its_own(shapes: Registry[object]) -> None:
    @shapes.register("mine")
    class Mine: ...

    assert list(shapes) == ["round-one", "mine"]
    assert shapes["mine"] is Mine
    assert Mine.name == "mine"  # type: ignore[attr-defined]


def test_a_name_is_given_once(shapes: Registry[object]) -> None:
    shapes.register("mine")(type("A", (), {}))
    with pytest.raises(UserError, match="there is a shape 'mine' already"):
        shapes.register("mine")(type("B", (), {}))
    with pytest.raises(UserError, match="there is a shape 'round-one' already"):
        shapes.register("round-one")(type("C", (), {}))


def test_a_name_is_a_word_and_a_file_registers_its_own(
    shapes: Registry[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"shape 'a\.b': a name is of small letters"):
        shapes.register("a.b")
    monkeypatch.setattr("importlib.import_module", lambda name: None)
    with pytest.raises(UserError, match="registers no shape 'round-one'; call it as its file"):
        shapes["round-one"]
