"""What a terminal shows: tables that fit, and text that it never obeys."""

import io
import logging
import sys

import pytest

from sagan_bench.cli.console import ShownFormatter, shown
from sagan_bench.cli.tables import fits, print_table

Out = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain — γ ⟶ 日本", "plain — γ ⟶ 日本"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\tb\rc\nd\x00", "a\\x09b\\x0dc\\x0ad\\x00"),
        ("\x7f\x9b1m", "\\x7f\\x9b1m"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\u2028", "\\u2028"),
        ("\udc80", "\\udc80"),
        ("\xa0", "\xa0"),
    ],
)
def test_control_characters_are_shown(text: str, seen: str) -> None:
    assert shown(text) == seen


def test_a_message_keeps_its_lines() -> None:
    assert shown("a\nb\r\x1b", lines=True) == "a\nb\\x0d\\x1b"


def test_what_is_logged_is_shown() -> None:
    logged = logging.LogRecord("x", logging.WARNING, "", 0, "%s", ("\x1b[31m",), None)
    assert ShownFormatter("%(message)s").format(logged) == "\\x1b[31m"


def test_a_table_is_drawn_as_before(capsys: Out) -> None:
    print_table("of two", ("name", "n"), [["a", "1"], ["bcd", "22"], ["日本", ""]])
    assert capsys.readouterr().out.splitlines() == [
        "of two",
        "┏━━━━━━┳━━━━┓",
        "┃ name ┃  n ┃",
        "┡━━━━━━╇━━━━┩",
        "│ a    │  1 │",
        "│ bcd  │ 22 │",
        "│ 日本 │    │",
        "└──────┴────┘",
    ]


def test_a_wide_table_is_folded_but_for_its_first_column(capsys: Out) -> None:
    print_table("", ("x" * 40, "b", "c"), [["a", "word " * 40, "y" * 200], ["", "", ""]])
    lines = capsys.readouterr().out.splitlines()
    assert {len(line) for line in lines} == {160}
    assert "x" * 40 in lines[1]
    assert "".join(lines).count("word") == 40
    assert "".join(lines).count("y") == 200


def test_a_cell_cannot_forge_a_row(capsys: Out) -> None:
    print_table("", ("a",), [["x\nfinished\x1b[2J"]])
    assert "x\\x0afinished\\x1b[2J" in capsys.readouterr().out


def test_an_ascii_terminal_gets_an_ascii_table(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    print_table("", ("a", "b"), [["1", "2"]])
    sys.stdout.flush()
    assert raw.getvalue().splitlines()[1] == b"| a | b |"


def test_words_are_broken_last(capsys: Out) -> None:
    rows = [["run-0", "word " * 30, "249.9", "word " * 30]]
    print_table("", ("run", "a", "FID[effnet-lite0]", "b"), rows, left=("b",))
    out = capsys.readouterr().out
    assert "FID[effnet-lite0]" in out
    assert {len(line) for line in out.splitlines()} == {160}
    first = out.splitlines()[3].split("│")
    assert first[2].endswith("word ")
    assert first[4].startswith(" word")  # set to the left


def test_a_table_fits_or_not() -> None:
    assert fits(("a", "b"), [["x" * 150, "1"]])
    assert not fits(("a", "b"), [["x" * 153, "1"]])
