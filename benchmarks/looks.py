"""What looks cost in errors and in seeds: the long version of the slow tests, with their code.

    OMP_NUM_THREADS=1 python benchmarks/looks.py
    OMP_NUM_THREADS=1 python benchmarks/looks.py --repeats 1000000 --json

Prints Markdown row by row (docs/statistics.md), or JSON at the end; each figure is a mean over
studies and its Monte-Carlo standard error.  Seeds are fixed: the first studies are the slow tests'.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from sagan_bench.core import cpu

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from simulated import LIMITS, SHAPES, Estimate, false_claims, half_taken_for_all, stopping

PAIRS = (1, 4, 8)
EFFECTS = (0.0, 1.0, 1.5, 2.0)
Row = dict[str, str | int | float | Estimate]


def never_stopping(repeats: int) -> Iterator[Row]:
    """Yield a row for each shape of runs."""
    for shape, draw in (SHAPES | LIMITS).items():
        rates = {f"m = {m}": percent(false_claims(draw, m, repeats)) for m in PAIRS}
        yield {"runs": shape, **rates}


def half_of_what_matters(repeats: int) -> Iterator[Row]:
    """Yield the row of normal runs."""
    rates = {f"m = {m}": percent(half_taken_for_all(m, repeats)) for m in PAIRS}
    yield {"runs": "normal", **rates}


def stops(repeats: int) -> Iterator[Row]:
    """Yield a row for each difference and number of pairs."""
    for effect in EFFECTS:
        for m in PAIRS:
            ends = stopping(effect, m, repeats)._asdict()
            seeds = ends.pop("seeds")
            shares = {name: percent(share) for name, share in ends.items()}
            going_on = percent(stopping(effect, m, repeats, futility=False).worse)
            yield {"sd": effect, "m": m, "seeds a side": seeds, **shares, "going on": going_on}


def percent(share: Estimate) -> Estimate:
    """Return a share in percent."""
    return Estimate(100 * share.mean, 100 * share.error)


TABLES = {
    "False claims of m pairs at any of 11 looks to 96 seeds, % of studies": never_stopping,
    "Half of what matters said to be as much as matters, % of studies": half_of_what_matters,
    "All m pairs differ by so many sd, half a sd matters, horizon 20: seeds until they stop, "
    "% of pairs better, worse, the same, given up, % of studies whose intervals all cover, "
    "% of pairs worse if none is given up": stops,
}


def main(
    repeats: Annotated[int, typer.Option(min=2, help="Studies a cell.")] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, at the end.")] = False,
) -> None:
    """Print what was simulated, and where."""
    began = time.perf_counter()
    tables: dict[str, list[Row]] = {title: [] for title in TABLES}
    for title, rows in TABLES.items():
        for row in rows(repeats):
            if not as_json:
                show(title, row, is_first=not tables[title])
            tables[title].append(row)
    facts = {"benchmark": "looks", "repeats": repeats, "cpu": cpu.name(), "cores": cpu.cores(),
             "seconds": round(time.perf_counter() - began)}  # fmt: skip
    print(json.dumps(facts | {"tables": tables}, indent=2) if as_json else json.dumps(facts))


def show(title: str, row: Row, is_first: bool) -> None:
    """Print a row as Markdown, the first below its table's title and columns."""
    if is_first:
        print(f"\n{title}\n\n| {' | '.join(row)} |\n|{'---|' * len(row)}")
    cells = (
        f"{cell.mean:.3f} ± {cell.error:.3f}" if isinstance(cell, Estimate) else str(cell)
        for cell in row.values()
    )
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
