"""The table of a study under way: each cell of a few, and counts of many."""

from pathlib import Path

import example_records
import pytest
from example_studies import FILE, here, small_study
from rich.console import Console

from sagan_bench.cli.grid import GridView
from sagan_bench.execution.engine import Ended
from sagan_bench.experiments import ablation
from sagan_bench.experiments.grid import Plan
from sagan_bench.runs.records import Status
from sagan_bench.session.events import Progress, Scored

EIGHT = [
    "sagan", "wider", "residual", "feat4", "g-only", "d-only", "attention-icml", "wider-x2",
]  # fmt: skip


def plan(folder: Path, seeds: int, *variants: str) -> Plan:
    text = FILE.replace("[0, 1]", str(list(range(seeds))))
    named = ", ".join(f'"{name}"' for name in variants or ["sagan"])
    text = text.replace('variants = ["sagan"]', f"variants = [{named}]")
    return ablation.plan(small_study(folder, text=text), folder / "small", here)


def drawn(view: GridView) -> list[list[str]]:
    """The cells of each line of the table that has any, and its title and caption."""
    console = Console(width=160)
    with console.capture() as told:
        console.print(view.drawn())
    lines = told.get().replace("┃", "│").splitlines()
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


@pytest.mark.parametrize(
    ("seeds", "variants", "by_seed"),
    [(12, [], True), (13, [], False), (11, EIGHT, True), (12, EIGHT, False)],
    ids=["12 seeds", "13 seeds", "99 cells", "108 cells"],
)
def test_beyond_12_seeds_or_100_cells_a_variant_is_a_row_of_counts(
    tmp_path: Path, seeds: int, variants: list[str], by_seed: bool
) -> None:
    table = drawn(GridView(plan(tmp_path, seeds, *variants)))
    counts = ["done", "running", "queued", "failed", "diverged", "interrupted"]
    header = [str(seed) for seed in range(seeds)] if by_seed else counts
    assert ["variant", *header] in table
    row = [""] * seeds if by_seed else ["", "", str(seeds), "", "", ""]
    for variant in ("no-attention", *(variants or ["sagan"])):
        assert [variant, *row] in table


def test_counts_follow_every_run_from_its_record_to_its_end(tmp_path: Path) -> None:
    before = plan(tmp_path, 13).points
    for status, left in zip(("finished", "diverged", "failed"), before[::2], strict=False):
        example_records.stored(left.path, status=status, variant=left.variant)
    planned = plan(tmp_path, 13)
    view = GridView(planned)
    assert ["no-attention", "1", "", "10", "1", "1", ""] in drawn(view)
    ends = (Status.FINISHED, Status.FAILED, Status.DIVERGED, Status.INTERRUPTED)
    runs = [point for point in planned.missing if point.variant == "sagan"]
    for run in runs[:6]:
        view.follow(run, None)
    view.follow(runs[4], Progress("score", 1, 2))
    assert ["sagan", "", "6", "7", "", "", ""] in drawn(view)
    for run, status in zip(runs, ends, strict=False):
        view.follow(run, Ended(status, "as it was"))
    assert ["sagan", "1", "2", "7", "1", "1", "1"] in drawn(view)
    assert ["no-attention", "1", "", "10", "1", "1", ""] in drawn(view)
    assert any(f"4/{len(planned.missing)} cells" in cells[0] for cells in drawn(view))


def test_a_run_that_waits_in_a_queue_is_counted_as_queued(tmp_path: Path) -> None:
    planned = plan(tmp_path, 13)
    view, run = GridView(planned), planned.points[1]
    view.follow(run, None)
    view.texts[run.id] = "queued: Priority"
    score = example_records.score(final=False)
    view.follow(run, Scored(score))
    assert ["sagan", "", "", "13", "", "", ""] in drawn(view)


def test_what_failed_before_is_queued_where_it_is_tried_again(tmp_path: Path) -> None:
    (first, *_) = plan(tmp_path, 13).points
    example_records.stored(first.path, status="failed", variant=first.variant)
    study, folder = small_study(tmp_path, text=FILE), tmp_path / "small"
    many = study.model_copy(update={"seeds": tuple(range(13))})
    view = GridView(ablation.plan(many, folder, here, retry=True))
    assert ["no-attention", "", "", "13", "", "", ""] in drawn(view)


def test_a_line_names_twelve_runs_under_way_and_counts_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = plan(tmp_path, 20)
    view = GridView(planned)
    for run in planned.missing[:30]:
        view.follow(run, None)
        view.follow(run, Progress("score", 1, 2))
    view._say_under_way()
    told = capsys.readouterr().err
    assert told.count("scoring 50%") == 12
    assert told.endswith(", and 18 more\n")
