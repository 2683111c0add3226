"""What a study costs its driver grows as its cells do: calls are counted, nothing is timed."""

import gc
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from example_reports import STEPS, leave_run
from example_studies import FILE, HOST, Nothing, here, small_study

from sagan_bench.cli.plan import print_plan
from sagan_bench.cli.running import Where
from sagan_bench.config.layers import at_seed, of_experiment
from sagan_bench.core.errors import UserError
from sagan_bench.execution.profiles import Profile
from sagan_bench.experiments import ablation
from sagan_bench.experiments.findings import of_study
from sagan_bench.experiments.grid import Plan
from sagan_bench.experiments.study import Study
from sagan_bench.report.findings import findings as in_words

WHERE = Where(1, "cpu", Profile("inline"))


def study(folder: Path, cells: int) -> Study:
    few = small_study(folder, f"run.steps={STEPS}", "run.eval_images=512")
    return few.model_copy(update={"seeds": tuple(range(cells // 2))})


def run(folder: Path, cells: int) -> Plan:
    """Plan a new study, run it where nothing is done, and say what it would run."""
    planned = ablation.with_data(ablation.plan(study(folder, cells), folder / "small", here))
    ablation.run(planned, Nothing(), lambda point, what: None, lambda: None)
    for as_json in (False, True):
        with redirect_stdout(StringIO()):
            print_plan(planned, WHERE, measure=False, spread=0.03, as_json=as_json)
    return planned


def finished(folder: Path, cells: int) -> None:
    """Find a study finished, and say what came of it."""
    planned = ablation.plan(study(folder, cells), folder / "small", here)
    assert not planned.missing
    in_words(of_study(planned.folder))


def calls(function: Callable[..., Any], *given: Any) -> int:
    """How many calls of Python functions, and from those to C, a call takes in all."""
    seen = 0

    def count(frame: Any, event: str, of: Any) -> None:
        nonlocal seen
        seen += event in ("call", "c_call")

    before = sys.getprofile()
    gc.collect()
    gc.disable()  # what other tests left behind would be counted where it happens to be collected
    sys.setprofile(count)
    try:
        function(*given)
    finally:
        sys.setprofile(before)
        gc.enable()
    return seen


def test_planning_running_and_a_dry_run_grow_as_the_cells_do(tmp_path: Path) -> None:
    few, many, more = (tmp_path / str(cells) for cells in (100, 200, 300))
    for folder in (few, many, more):
        folder.mkdir()
    run(tmp_path, 2)  # what is imported and prepared once
    taken = [calls(run, folder, int(folder.name)) for folder in (few, many, more)]
    assert taken[2] - taken[1] == pytest.approx(taken[1] - taken[0], rel=0.01)


def test_a_finished_study_is_told_of_in_calls_that_grow_as_its_cells_do(tmp_path: Path) -> None:
    taken = []
    for cells in (20, 40, 60):
        folder = tmp_path / str(cells)
        folder.mkdir()
        planned = ablation.plan(study(folder, cells), folder / "small", here)
        planned.manifest.write(planned.folder)
        for point in planned.points:
            leave_run(point.path, point.ours, 0.3 + point.seed / 1000, pictures=False)
        finished(folder, cells)
        taken.append(calls(finished, folder, cells))
    assert taken[2] - taken[1] == pytest.approx(taken[1] - taken[0], rel=0.01)


def test_a_variant_is_resolved_once_for_all_its_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = list[str]()

    def counted(preset: str, variant: str, *layers: Any, **rest: Any) -> Any:
        resolved.append(variant)
        return of_experiment(preset, variant, *layers, **rest)

    monkeypatch.setattr("sagan_bench.experiments.study.of_experiment", counted)
    study(tmp_path, 200).configs(HOST)
    assert resolved == ["no-attention", "sagan"]


def test_the_configuration_of_each_cell_is_that_of_its_variant_and_seed(tmp_path: Path) -> None:
    few = small_study(tmp_path).model_copy(update={"seeds": (3, 0, 7)})
    each = [few.config(variant, seed, HOST).config for variant, seed in few.in_turn]
    assert few.configs(HOST) == each
    told = [config.model_dump(mode="json") for config in each]
    assert [config.model_dump(mode="json") for config in few.configs(HOST)] == told


def test_a_seed_that_cannot_be_is_refused_in_the_words_of_before(tmp_path: Path) -> None:
    text = FILE.replace("[0, 1]", f"[0, {2**63}, 1]")
    with pytest.raises(UserError, match=r"seed = 9223372036854775808 \(the cell\): whole numbers"):
        ablation.plan(small_study(tmp_path, text=text), tmp_path / "small", here)
    config = small_study(tmp_path).config("sagan", 0, HOST).config
    with pytest.raises(UserError, match=r"seed = -1 \(the cell\)"):
        at_seed(config, -1)
