"""The verb ``report``: one page of what a study's, or a tuning's, runs say."""

import time
import webbrowser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagan_bench.cli import completing
from sagan_bench.cli.console import say, shown
from sagan_bench.core.errors import NothingFinished, UserError

if TYPE_CHECKING:
    from sagan_bench.report.document import AnyDocument
    from sagan_bench.report.pictures import Files

REPORTS = Path("reports")
SECONDS_BETWEEN_LOOKS = 10.0

Render = Callable[[], tuple["AnyDocument", Path]]
Collect = Callable[[], tuple["AnyDocument", "Files"]]


def report(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY|TUNING...]",
            help="Studies, tunings, runs (one page), or a report.json \\[default: the latest]",
            autocompletion=completing.place,
        ),
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of runs")] = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="Folder of the page \\[default: reports/STUDY]")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Of runs that no study names")] = None,
    at_step: Annotated[
        int | None,
        typer.Option(min=1, help="Of runs of different length: at which step they stand"),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="URL of the database of a tuning's trials, if it has one")
    ] = None,
    zipped: Annotated[
        bool, typer.Option("--zip", help="Pack the page and its data beside its folder, to mail")
    ] = False,
    methods: Annotated[
        bool, typer.Option("--methods", help="Print what a paper says of how it was done")
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Render again and again while the study runs")
    ] = False,
) -> None:
    """Render what the runs say as one HTML page, with its data beside it."""
    if watch and any(name.endswith(".json") for name in what or ()):
        raise UserError("--watch: a report.json does not change; name the study or tuning")
    jobs = _jobs(what or [str(_latest(runs))], runs, out, baseline, storage, at_step)
    for render in jobs:
        document, page = _watched(render) if watch else render()
        if methods:
            _tell_methods(page)
        else:
            _tell(document)
        say(f"report: {page}", error=methods)
        if zipped:
            _pack(page, error=methods)
        if open_:
            webbrowser.open(page.resolve().as_uri())


def _jobs(
    what: list[str],
    runs: Path,
    out: Path | None,
    baseline: str | None,
    storage: str | None,
    at_step: int | None,
) -> list[Render]:
    """Return what renders each page: one a study or report.json, one of all the runs together."""
    from sagan_bench.cli.compare import place
    from sagan_bench.cli.places import refuse_file
    from sagan_bench.experiments import study
    from sagan_bench.experiments.tuning import definition
    from sagan_bench.report import collect, publish

    refuse_file(out)
    stored = [Path(name) for name in what if name.endswith(".json")]
    places = [place(name, runs) for name in what if not name.endswith(".json")]
    studies = [folder for folder in places if (folder / study.MEMORY).exists()]
    tunings = [folder for folder in places if (folder / definition.MEMORY).exists()]
    loose = [folder for folder in places if folder not in (*studies, *tunings)]
    if baseline and not loose:
        _refuse_other(baseline, studies)
    if at_step is not None and not loose:
        raise UserError("--at-step: it is for runs that no study names; leave it out")
    if out and len(stored) + len(studies) + len(tunings) + bool(loose) > 1:
        raise UserError("--out names the folder of one page; leave it out for several")
    collected: list[Collect] = [partial(collect.of_study, folder) for folder in studies]
    collected += [partial(collect.of_tuning, folder, storage) for folder in tunings]
    collected += [partial(_loose, loose, baseline, at_step)] if loose else []
    again = [partial(publish.again, file, out) for file in stored]
    return [*again, *(partial(rendered, documents, out) for documents in collected)]


def _refuse_other(baseline: str, studies: list[Path]) -> None:
    """Refuse a baseline that the pages do not have: theirs is part of their question."""
    from sagan_bench.experiments.study import StudyManifest

    manifests = filter(None, map(StudyManifest.of, studies))
    if {manifest.study.baseline for manifest in manifests} != {baseline}:
        raise UserError(f"--baseline {baseline}: it is for runs that no study names; leave it out")


def rendered(collect: Collect, out: Path | None) -> tuple["AnyDocument", Path]:
    """Collect and render a page, which the list of reports holds unless ``out``."""
    from sagan_bench.report import publish

    document, pictures = collect()
    page = publish.publish(document, pictures, out or REPORTS / document.name)
    if out is None:
        publish.list_reports(REPORTS)
    return document, page


def _loose(
    places: list[Path], baseline: str | None, at_step: int | None
) -> tuple["AnyDocument", "Files"]:
    from sagan_bench.report import collect
    from sagan_bench.runs.finding import find_runs

    paths = list(dict.fromkeys(run for place in places for run in find_runs(place)))
    name = places[0].resolve().name if len(places) == 1 else "runs"
    return collect.of_runs(paths, name, baseline, at_step)


def _watched(render: Render) -> tuple["AnyDocument", Path]:
    """Render until the study is complete, and wait while nothing can be said yet."""
    from sagan_bench.report.formats import plural

    shown = ""
    while True:
        try:
            document, page = render()
            text = f"{page}: {plural(document.runs_over, 'run')} over"
            if document.status != "partial":
                return document, page
        except NothingFinished as error:
            text = str(error)
        if text != shown:
            say(text, error=True)
        shown = text
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _latest(runs: Path) -> Path:
    """Return the study or tuning with the newest record.  Raises `UserError` if there is none."""
    from sagan_bench.experiments import study
    from sagan_bench.experiments.tuning import definition
    from sagan_bench.runs.finding import find_runs
    from sagan_bench.runs.records import RECORD

    def newest(memory: Path) -> float:
        return max(map(_changed, [memory, *(run / RECORD for run in find_runs(memory.parent))]))

    names = (study.MEMORY, definition.MEMORY)
    memories = [file for name in names for file in runs.glob(f"*/{name}")]
    if not memories:
        raise UserError(f"no study is in {runs}; begin one with `ablate`, or name runs")
    return max(memories, key=newest).parent


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _tell_methods(page: Path) -> None:
    from sagan_bench.report.publish import DATA
    from sagan_bench.report.sections.methods import FILE

    print(shown((page.parent / DATA / FILE).read_text(encoding="utf-8"), lines=True), end="")


def _pack(page: Path, *, error: bool) -> None:
    from sagan_bench.report.packing import pack

    say(f"packed: {pack(page.parent)}", error=error)


def _tell(document: "AnyDocument") -> None:
    from sagan_bench.report.answers import answer, sentences
    from sagan_bench.report.formats import by_variant

    say(f"{document.name}: {document.question}")
    say(answer(document)[1])
    for sentence in sentences(document):
        say(f"  {sentence}")
    if to_come := getattr(document, "to_come", None):
        say(f"  still to come: {by_variant(to_come)}")
    for warning in document.warnings:
        say(f"  note: {warning}")
