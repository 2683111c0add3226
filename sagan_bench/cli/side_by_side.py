"""Runs of different length in the terminal: figures side by side, of which nothing is claimed."""

import json
from typing import TYPE_CHECKING

from sagan_bench.cli.console import say, shown
from sagan_bench.cli.tables import print_frame

if TYPE_CHECKING:
    from sagan_bench.analysis.lengths import SideBySide


def print_side_by_side(numbers: "SideBySide", form: str = "") -> None:
    """Print runs of different length.

    Args:
        numbers: of the runs.
        form: ``json``, ``csv``, ``latex`` or ``markdown``; text if empty.
    """
    from sagan_bench.report import beside
    from sagan_bench.report.frames import to_csv, to_latex, to_markdown

    said = beside.beside(numbers, "runs")
    if form == "json":
        print(json.dumps(said.plain(), indent=2))
    elif form == "csv":
        print(shown(to_csv(beside.per_run(said)), lines=True), end="")
    elif form == "latex":
        print(shown(to_latex(beside.whole_frame(said), said.headline[0]), lines=True))
    elif form == "markdown":
        print(shown(to_markdown(beside.whole_frame(said)), lines=True))
    else:
        _print(numbers)


def _print(numbers: "SideBySide") -> None:
    from sagan_bench.report import beside, caveats

    said = beside.beside(numbers, "runs")
    say(said.headline[0])
    for caveat in caveats.of_lengths(numbers):
        say(f"  note: {caveat}")
    for frame in (beside.final_frame(said), beside.at_step_frame(said)):
        if frame is not None:
            say(f"{frame.caption}:")
            print_frame(frame)
    others = [f"{step:,}" for step in said.steps if step != said.at_step]
    if others:
        say(f"All have scores on the way at {', '.join(others)} too: --at-step N shows those.")
    if said.differing:
        say("All settings that differ:")
        print_frame(beside.differing_frame(said))
    for name in said.unfinished:
        say(f"not finished: {name}")
