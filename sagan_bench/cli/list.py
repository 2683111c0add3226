"""The verb ``list``: the runs that are there, and the variants and studies that are shipped."""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from sagan_bench.cli.console import say
from sagan_bench.cli.options import Json, Runs, program
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest

if TYPE_CHECKING:
    from sagan_bench.runs.records import Score

SHARED = ("study", "data", "step", "n", "protocol")
"""Columns that are said once where all runs have the same there."""
DISPENSABLE = ("IS", "variant", "ended", "study")
"""Columns in the order in which they are left out where a table is too wide, figures after them.

The others say what a figure is of.
"""
OF_RUN = ("run", "study", "variant", "data", "status", "step", "ended", "n", "protocol")
WORDS = ("study", "variant", "data", "status")


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
    from sagan_bench.experiments import studies

    known = [studies.load(name) for name in studies.shipped()]
    if as_json:
        print(json.dumps([study.model_dump(mode="json") for study in known], indent=2))
        return
    cells = {study.name: len(study.all_variants) * len(study.seeds) for study in known}
    _print_words("study", {s.name: f"{s.question} ({cells[s.name]} cells)" for s in known})
    print(f"next: {program()} ablate NAME --dry-run")


def _print_words(header: str, words: dict[str, str]) -> None:
    width = max(map(len, [header, *words]))
    for name, text in words.items():
        say(f"{name:<{width}}  {text}")


def _list_runs(runs: Path, as_json: bool) -> None:
    from sagan_bench.runs.finding import find_runs
    from sagan_bench.runs.table import frame

    paths = find_runs(runs)
    if as_json:
        table = frame(paths)
        table["study"] = [_experiment(Path(path).parent, runs) for path in table.path]
        print(table.to_json(orient="records", indent=2))
    elif paths:
        _print_runs(_rows(paths, runs))
    else:
        say(f"no runs in {runs}; begin with: {program()} train --variant sagan")


@cache
def _experiment(place: Path, runs: Path) -> str | None:
    """Return the name of the study or tuning that a folder is of, or in, at or below ``runs``."""
    from sagan_bench.experiments import study
    from sagan_bench.experiments.tuning import definition

    for folder in (place, *place.parents):
        if any((folder / name).exists() for name in (study.MEMORY, definition.MEMORY)):
            return folder.resolve().name
        if folder == runs:
            break
    return None


def _rows(paths: list[Path], runs: Path) -> Iterator[dict[str, str]]:
    """Yield title -> cell of each run and protocol: figures of two are never put together."""
    from sagan_bench.cli.tables import number
    from sagan_bench.core.names import kind_of
    from sagan_bench.core.trees import flatten
    from sagan_bench.runs.program import has_length
    from sagan_bench.runs.run_directory import read_all
    from sagan_bench.runs.table import ended, listed

    families: dict[str, int] = {}
    for path, record in read_all(paths):
        over, source = ended(record), dict(flatten(record.config)).get("data.source")
        for scores in listed(record):
            yield {
                "run": record.run,
                "study": _experiment(path.parent, runs) or "",
                "variant": record.variant,
                "data": kind_of(str(source or "")),
                "status": f"{record.status}{', not scored' if record.is_unscored else ''}",
                "step": str(record.step) if has_length(record) else "",
                "ended": f"{over:%Y-%m-%d}" if over else "",
                "n": number(scores[0].n_fake) if scores and scores[0].n_fake else "",
                "protocol": _protocol(scores, families),
                **dict(_figures(scores, record.step)),
            }


def _protocol(scores: "list[Score]", families: dict[str, int]) -> str:
    """Return the number of the protocol of final scores, in the order in which they are listed."""
    from sagan_bench.runs.run import family

    if not scores or not scores[0].final:
        return ""
    return str(families.setdefault(family(scores[0].protocol), len(families) + 1))


def _figures(scores: "list[Score]", step: int) -> Iterator[tuple[str, str]]:
    """Yield the metrics of a list, by their names for readers, and their means over the seeds."""
    from sagan_bench.cli.tables import number
    from sagan_bench.core.registry import METRICS
    from sagan_bench.evaluation.metrics import ordered
    from sagan_bench.evaluation.protocol import label_in
    from sagan_bench.runs.program import PROGRAM

    theirs = any(score.protocol.get("by") == PROGRAM for score in scores)
    measured = dict.fromkeys(name for score in scores for name in score.metrics)
    for name in ordered(measured, theirs=theirs):
        values = [score.metrics.get(name) for score in scores]
        if name not in METRICS or METRICS[name].column:
            known = [value for value in values if value is not None]
            text = number(fmean(known) if len(known) == len(values) else None)
            is_last = scores[0].final and scores[0].step == step
            before = "" if is_last else f" at {scores[0].step}"
            yield label_in(name, scores[0].protocol), text + before


def _print_runs(rows: Iterable[dict[str, str]]) -> None:
    """Print as many columns as fit: what all runs share stands above, what is wide goes first."""
    from sagan_bench.cli.tables import fits, print_table

    known = list(rows)
    titles = list(dict.fromkeys(title for row in known for title in row))
    cells = {title: [row.get(title, "—") for row in known] for title in titles}
    of_finals = {(row["data"], row["n"], row["protocol"]) for row in known if row["protocol"]}
    if len(of_finals) == len({what[:2] for what in of_finals}):
        titles.remove("protocol")  # they are told apart without it
    same = [title for title in titles if len({*cells[title]}) == 1 and len(known) > 1]
    shared = [title for title in same if title in SHARED]
    if texts := [f"{title} {cells[title][0]}" for title in shared if cells[title][0]]:
        say(f"all: {', '.join(texts)}")
    left = [title for title in titles if title not in shared and any(cells[title])]
    figures = [title for title in left if title not in OF_RUN]
    out = list[str]()
    for title in (*DISPENSABLE, *reversed(figures[1:]), "protocol"):
        if not fits(left, zip(*(cells[t] for t in left), strict=True)):
            out += [name for name in left if title in (name, name.partition("[")[0])]
            left = [name for name in left if name not in out]
    print_table("", left, zip(*(cells[title] for title in left), strict=True), left=WORDS)
    if out:
        say(f"left out, because the terminal is narrow: {', '.join(out)}; --json has all")
