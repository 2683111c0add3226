"""The verb ``report``: one page of what a study's runs say."""

import sys
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagan_bench.errors import UserError

if TYPE_CHECKING:
    from sagan_bench.report.document import Document

REPORTS = Path("reports")
SECONDS_BETWEEN_LOOKS = 10.0

Render = Callable[[], tuple["Document", Path]]


def report(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY...]",
            help="Studies, runs (together one page), or a report.json [default: the latest study]",
        ),
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of runs")] = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="Folder of the page [default: reports/STUDY]")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Of runs that no study names")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Render again and again while the study runs")
    ] = False,
) -> None:
    """Render what the runs say as one HTML page, with its data beside it."""
    jobs = _jobs(what or [str(_latest(runs))], runs, out, baseline)
    for render in jobs:
        document, page = _watched(render) if watch else render()
        _tell(document, page)
        if open_:
            webbrowser.open(page.resolve().as_uri())


def _jobs(what: list[str], runs: Path, out: Path | None, baseline: str | None) -> list[Render]:
    """Return what renders each page: one a study or report.json, one of all the runs together."""
    from sagan_bench.cli.compare import place
    from sagan_bench.study import MEMORY

    stored = [Path(one) for one in what if one.endswith(".json")]
    places = [place(one, runs) for one in what if not one.endswith(".json")]
    studies = [one for one in places if (one / MEMORY).exists()]
    loose = [one for one in places if one not in studies]
    if out and len(stored) + len(studies) + bool(loose) > 1:
        raise UserError("--out names the folder of one page; leave it out for several")
    jobs = [_again(file) for file in stored]
    jobs += [_study(folder, out) for folder in studies]
    return jobs + ([_runs(loose, out, baseline)] if loose else [])


def _again(file: Path) -> Render:
    def render() -> tuple["Document", Path]:
        from sagan_bench.report import publish

        return publish.again(file)

    return render


def _study(folder: Path, out: Path | None) -> Render:
    def render() -> tuple["Document", Path]:
        from sagan_bench.report import collect, publish

        document, pictures = collect.of_study(folder)
        page = publish.publish(document, pictures, out or REPORTS / document.name)
        if out is None:
            publish.list_reports(REPORTS)
        return document, page

    return render


def _runs(places: list[Path], out: Path | None, baseline: str | None) -> Render:
    def render() -> tuple["Document", Path]:
        from sagan_bench.report import collect, publish
        from sagan_bench.run_directory import find_runs

        paths = list(dict.fromkeys(run for place in places for run in find_runs(place)))
        name = places[0].resolve().name if len(places) == 1 else "runs"
        document, pictures = collect.of_runs(paths, name, baseline)
        page = publish.publish(document, pictures, out or REPORTS / name)
        if out is None:
            publish.list_reports(REPORTS)
        return document, page

    return render


def _watched(render: Render) -> tuple["Document", Path]:
    """Render until the study is complete, and wait while nothing can be said yet."""
    from sagan_bench.report.words import plural

    told = ""
    while True:
        try:
            document, page = render()
            text = f"{page}: {plural(len(document.findings.runs), 'run')} over"
            if document.status != "partial":
                return document, page
        except UserError as error:
            text = str(error)
            if "no run is finished yet" not in text:
                raise
        if text != told:
            print(text, file=sys.stderr)
        told = text
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _latest(runs: Path) -> Path:
    """Return the study whose records are the newest.  Raises `UserError` if there is none."""
    from sagan_bench.records import RECORD
    from sagan_bench.study import MEMORY

    def newest(folder: Path) -> float:
        files = [folder / MEMORY, *folder.glob(f"*/{RECORD}")]
        return max(file.stat().st_mtime for file in files)

    studies = [file.parent for file in runs.glob(f"*/{MEMORY}")]
    if not studies:
        raise UserError(f"no study is in {runs}; begin one with `ablate`, or name runs")
    return max(studies, key=newest)


def _tell(document: "Document", page: Path) -> None:
    from sagan_bench.report.words import answer

    print(f"{document.name}: {document.findings.question}")
    print(answer(document)[1])
    for sentence in document.findings.primary.sentences:
        print(f"  {sentence}")
    for warning in document.warnings:
        print(f"  note: {warning}")
    print(f"report: {page}")
