"""The verb ``list``: the runs that are there, and all that can be named."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from sagan_bench.cli.console import say
from sagan_bench.cli.options import Json, Runs, program
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest, kind_of

if TYPE_CHECKING:
    from sagan_bench.runs.records import Record, Score

SHARED = ("study", "data", "step", "n", "protocol")
"""Columns that are said once where all runs have the same there."""
DISPENSABLE = ("IS", "variant", "ended", "study")
"""Columns in the order in which they are left out where a table is too wide, figures after them.

The others say what a figure is of.
"""
OF_RUN = ("run", "study", "variant", "data", "status", "step", "ended", "n", "protocol")
WORDS = ("study", "variant", "data", "status")


class Shipped(NamedTuple):
    """What there is of something that can be named.

    Attributes:
        words: name -> what it is.
        data: as JSON has it.
        then: the command that makes use of it, and a word on it.
        note: what else to know.
    """

    words: dict[str, str]
    data: Any
    then: str
    note: str = ""


def list_(
    what: Annotated[
        str,
        typer.Argument(help="runs, variants, studies, presets, spaces, metrics or kinds"),
    ] = "runs",
    runs: Runs = Path("runs"),
    study: Annotated[str | None, typer.Option(help="Of runs: of this study alone")] = None,
    variant: Annotated[str | None, typer.Option(help="Likewise, of this variant")] = None,
    status: Annotated[str | None, typer.Option(help="Likewise, of this status")] = None,
    data: Annotated[str | None, typer.Option(help="Likewise, of this kind of data")] = None,
    as_json: Json = False,
) -> None:
    """List the runs with their status and scores, or what there is to be named."""
    if what == "runs":
        _list_runs(runs, Filters(study, variant, status, data), as_json)
        return
    if what not in SHIPPED:
        raise UserError(f"list {what}: {closest(what, ['runs', *SHIPPED])}")
    if any(value is not None for value in (study, variant, status, data)):
        raise UserError(f"list {what}: --study, --variant, --status and --data are of runs alone")
    found = SHIPPED[what]()
    if as_json:
        print(json.dumps(found.data, indent=2))
        return
    _print_words(found.words)
    if found.note:
        say(found.note)
    say(f"next: {program()} {found.then}")


def _variants() -> Shipped:
    from sagan_bench.config.variants import variants

    says = {name: settings["says"] for name, settings in variants().items()}
    return Shipped(says, says, "show variant NAME; a + between names combines them")


def _studies() -> Shipped:
    from sagan_bench.experiments import studies

    known = [studies.load(name) for name in studies.shipped()]
    cells = {study.name: len(study.all_variants) * len(study.seeds) for study in known}
    words = {s.name: f"{s.question} ({cells[s.name]} cells)" for s in known}
    return Shipped(words, [s.model_dump(mode="json") for s in known], "ablate NAME --dry-run")


def _presets() -> Shipped:
    from sagan_bench.config.variants import presets

    known = presets()
    words = {name: settings["says"] for name, settings in known.items()}
    return Shipped(words, known, "train --preset NAME; show config --preset NAME has all of it")


def _spaces() -> Shipped:
    from sagan_bench.experiments.tuning import space

    known = [space.load(name) for name in space.spaces()]
    words = {
        each.name: f"{each.says} ({', '.join(each.parameters)}; for {', '.join(each.presets)})"
        for each in known
    }
    data = {each.name: each.model_dump(mode="json") for each in known}
    return Shipped(words, data, "tune --space NAME --trials 12")


def _metrics() -> Shipped:
    from sagan_bench.evaluation.metrics import shown

    known = {
        name: {
            "better": metric.better,
            "default": metric.default,
            "switch": None if metric.default else metric.switch(),
            "glossary": metric.glossary[1] if metric.glossary else None,
        }
        for name, metric in shown().items()
    }
    words = {
        name: f"{of['better']} is better; {of['switch'] or 'in every score'}"
        for name, of in known.items()
    }
    switch = next(of["switch"] for of in known.values() if of["switch"])
    then = f"train --set {switch}; a study declares one under [on.DATA]"
    return Shipped(words, known, then, "figures say whose features: FID is Inception's alone; "
                   "of others it is FID[effnet-lite0] and so on")  # fmt: skip


def _kinds() -> Shipped:
    from sagan_bench.core.extensions import KINDS

    known = {kind.what: list(kind) for kind in KINDS.values()}
    words = {what: ", ".join(names) for what, names in known.items()}
    return Shipped(words, known, "init block FILE: a template of one of your own (docs/own.md)")


SHIPPED: dict[str, Callable[[], Shipped]] = {
    "variants": _variants, "studies": _studies, "presets": _presets, "spaces": _spaces,
    "metrics": _metrics, "kinds": _kinds,
}  # fmt: skip


def _print_words(words: dict[str, str]) -> None:
    width = max(map(len, words))
    for name, text in words.items():
        say(f"{name:<{width}}  {text}")


class Filters(NamedTuple):
    """Which runs are listed: those that have all of it."""

    study: str | None
    variant: str | None
    status: str | None
    data: str | None

    @property
    def said(self) -> str:
        """What is asked of runs, in words."""
        return " and ".join(
            f"{key} {value}" for key, value in self._asdict().items() if value is not None
        )

    def passes(self, record: "Record", study: str | None) -> bool:
        """Return whether a run of this record and study is listed."""
        has = self.of(record, study)
        return all(value is None or value in has[key] for key, value in self._asdict().items())

    @staticmethod
    def of(record: "Record", study: str | None) -> dict[str, tuple[str, ...]]:
        """Return what a run of this record and study may be listed by."""
        from sagan_bench.core.trees import flatten

        source = str(dict(flatten(record.config)).get("data.source") or "")
        return {
            "study": (study,) if study else (),
            "variant": (record.variant,),
            "status": (str(record.status),),
            "data": (kind_of(source), source),
        }

    def unknown(self, has: Iterable[Mapping[str, Sequence[str]]]) -> str:
        """Return of the first that no run has those that there are; empty if each is some run's."""
        from sagan_bench.runs.records import Status

        known = list(has)
        for key, value in self._asdict().items():
            there = list(dict.fromkeys(each for of in known for each in of[key] if each))
            if key == "status" and value in {*Status}:
                continue  # that no run failed is an answer
            if value is not None and value not in there:
                none = f"no run here is of a {key}"
                return f"; --{key} {value}: {closest(value, there) if there else none}"
        return ""


def _list_runs(runs: Path, filters: Filters, as_json: bool) -> None:
    from sagan_bench.runs.finding import find_runs
    from sagan_bench.runs.run_directory import read_all
    from sagan_bench.runs.table import frame

    if runs != Path("runs") and not runs.is_dir():
        why = "that is a file" if runs.exists() else "there is no such folder"
        raise UserError(f"--runs {runs}: {why}")
    paths = everything = find_runs(runs)
    if any(value is not None for value in filters):
        of = [(path, r, _experiment(path.parent, runs)) for path, r in read_all(everything)]
        paths = [path for path, record, study in of if filters.passes(record, study)]
        if everything and not paths:
            known = filters.unknown(Filters.of(record, study) for _, record, study in of)
            raise UserError(f"no run of {len(everything)} in {runs} is of {filters.said}{known}")
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
