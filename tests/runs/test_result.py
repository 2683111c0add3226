"""What another program leaves: whatever it is, it is a result or one error that names its file."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sagan_bench.core.errors import UserError
from sagan_bench.runs.program import Program
from sagan_bench.runs.result import Progress, Result, progress, read

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
KEYS = st.sampled_from([*Result.model_fields, "other"])
RESULTS = st.dictionaries(KEYS, ANYTHING) | st.fixed_dictionaries(
    {"metrics": st.dictionaries(st.sampled_from(["fid", "x"]), LEAVES)},
    optional={
        "curve": st.dictionaries(st.just("fid"), st.lists(st.lists(LEAVES, max_size=3))),
        "steps": LEAVES,
        "seconds": LEAVES,
    },
)
PROGRAM = Program(source="train {seed} {out}", better={"fid": "lower"})
QUIET = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUIET
@given(left=RESULTS | ANYTHING)
def test_whatever_is_left_is_a_result_or_an_error_with_the_file(tmp_path: Path, left: Any) -> None:
    (tmp_path / "result.json").write_text(json.dumps(left))
    try:
        result = read(tmp_path, ["fid"])
    except UserError as error:
        said = str(error)
    else:
        said = "result.json"
        _takes_its_place(result)
    assert "result.json" in said


def _takes_its_place(result: Result) -> None:
    diverged = result.why_diverged()
    record = PROGRAM.record("r", "a", 0, "finished", [*result.scores(PROGRAM, ["fid"])])  # type: ignore[arg-type]
    record.to_json()
    assert bool(diverged) != any(score.final for score in record.scores)


@QUIET
@given(content=st.binary(max_size=80))
def test_whatever_progress_is_it_is_a_count(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "progress.jsonl").write_bytes(content)
    assert all(number >= 0 for number in progress(tmp_path))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ('{"step": 5}\n', Progress(5, 0)),
        ('{"step": 5, "steps": 9}\n{"step": 6', Progress(5, 9)),
        ("x" * 9000 + '\n{"step": 7, "steps": null}\n', Progress(7, 0)),
        ("", Progress(0, 0)),
    ],
)
def test_the_last_whole_line_says_how_far_it_is(
    tmp_path: Path, lines: str, expected: Progress
) -> None:
    (tmp_path / "progress.jsonl").write_text(lines)
    assert progress(tmp_path) == expected
