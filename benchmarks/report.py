"""What a report costs: seconds from records to page, and the page's size.

    python benchmarks/report.py

The records are made by hand (tests/example_reports.py), with curves, grids and maps of 32 px.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import typer

from sagan_bench.core import cpu
from sagan_bench.report import collect, publish

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from example_reports import leave_study, many

SIZES = ((2, 5), (8, 5), (40, 10))


def measured(variants: int, seeds: int) -> dict[str, float]:
    """Return wall and CPU seconds of one report, and the sizes of its files in MB."""
    with tempfile.TemporaryDirectory() as folder:
        study = leave_study(Path(folder) / "quick", many(variants, seeds))
        wall, cpu_sec = time.perf_counter(), time.process_time()
        document, pictures = collect.of_study(study)
        page = publish.publish(document, pictures, Path(folder) / "report")
        return {
            "variants": variants,
            "seeds": seeds,
            "wall_sec": round(time.perf_counter() - wall, 1),
            "cpu_sec": round(time.process_time() - cpu_sec, 1),
            "page_mb": round(page.stat().st_size / 1e6, 2),
            "report_json_mb": round((page.parent / "data/report.json").stat().st_size / 1e6, 2),
        }


def main() -> None:
    """Print a line for each size; the first is a warm-up of what is only imported once."""
    for variants, seeds in SIZES:
        print(json.dumps(measured(variants, seeds) | {"cores": cpu.cores()}), flush=True)


if __name__ == "__main__":
    typer.run(main)
