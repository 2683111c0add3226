"""The verb ``list``: the runs that are there, and the variants and studies that are shipped."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sagan_bench.cli.console import say
from sagan_bench.cli.options import Json, Runs, program
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest


def list_(
    what: Annotated[str, typer.Argument(help="runs, variants or studies")] = "runs",
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the runs with their status and scores, or the shipped variants or studies."""
    match what:
        case "runs":
            _list_runs(runs, as_json)
        case "variants":
            _list_variants(as_json)
        case "studies":
            _list_studies(as_json)
        case _:
            raise UserError(f"list {what}: {closest(what, ['runs', 'variants', 'studies'])}")


def _list_variants(as_json: bool) -> None:
    from sagan_bench.config.variants import variants

    says = {name: settings["says"] for name, settings in variants().items()}
    if as_json:
        print(json.dumps(says, indent=2))
    else:
        _print_words("variant", says)
        print(f"next: {program()} show variant NAME; a + between names combines them")


def _list_studies(as_json: bool) -> None:
    from sagan_bench.experiments import study

    studies = [study.load(name) for name in study.studies()]
    if as_json:
        print(json.dumps([study.model_dump(mode="json") for study in studies], indent=2))
        return
    cells = {study.name: len(study.all_variants) * len(study.seeds) for study in studies}
    _print_words("study", {s.name: f"{s.question} ({cells[s.name]} cells)" for s in studies})
    print(f"next: {program()} ablate NAME --dry-run")


def _print_words(header: str, words: dict[str, str]) -> None:
    width = max(map(len, [header, *words]))
    for name, text in words.items():
        say(f"{name:<{width}}  {text}")


def _list_runs(runs: Path, as_json: bool) -> None:
    from sagan_bench.runs.finding import find_runs
    from sagan_bench.runs.run_directory import read_all
    from sagan_bench.runs.table import frame, listed

    paths = find_runs(runs)
    if as_json:
        print(frame(paths).to_json(orient="records", indent=2))
        return
    from sagan_bench.cli.tables import number, print_table
    from sagan_bench.evaluation.metrics import shown

    if not paths:
        say(f"no runs in {runs}; begin with: {program()} train --variant sagan")
        return
    columns = {name: metric.column for name, metric in shown().items() if metric.column}
    header = ("run", "status", "step", "weights", "extractor", "n_fake", *columns.values())
    rows = []
    for _, record in read_all(paths):
        for score in listed(record):
            row: list[Any] = [record.run, record.status, record.step]
            if score:
                values = (score.metrics.get(name) for name in columns)
                row += [score.weights, score.protocol.get("extractor"), score.n_fake, *values]
            rows.append([number(cell) for cell in row + [None] * (len(header) - len(row))])
    print_table("", header, rows)
