"""The verb ``compare``: what can be claimed of runs that are there."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sagan_bench.cli import completing
from sagan_bench.cli.console import say, shown
from sagan_bench.cli.options import Json, Runs, pick
from sagan_bench.cli.probed import print_probed
from sagan_bench.cli.tables import changes, number, print_frame
from sagan_bench.core.errors import UserError

if TYPE_CHECKING:
    from sagan_bench.analysis.comparison import Findings as Numbers
    from sagan_bench.report.frames import Frame
    from sagan_bench.report.readings import Findings

What = Annotated[
    list[str],
    typer.Argument(
        help="Studies or runs: folders, or names in --runs; or a table: scores.csv",
        autocompletion=completing.place,
    ),
]
Baseline = Annotated[str | None, typer.Option(help="Variant, or one of the arguments")]
Metric = Annotated[str | None, typer.Option(help="twin_rate, fid, isc_mean, kid_mean, ...")]
MinEffect = Annotated[str | None, typer.Option(help="Smallest difference that matters: 2 or 5%")]
Better = Annotated[
    str | None, typer.Option(help="Of a table's metric: which values are, lower or higher")
]
Looks = Annotated[
    int, typer.Option(min=0, help="Of a table: how often results were looked at before")
]
WithPage = Annotated[
    bool, typer.Option("--report", help="Of a table: write its page and exports to reports/")
]
AtStep = Annotated[
    int | None,
    typer.Option(min=1, help="Of runs of different length: at which step they stand"),
]
NOT_SCORED = {"n_fake": 0, "n_real": 0}
"""Where no run has a score."""


def compare(
    what: What,
    baseline: Baseline = None,
    metric: Metric = None,
    min_effect: MinEffect = None,
    better: Better = None,
    looks: Looks = 0,
    with_page: WithPage = False,
    at_step: AtStep = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print the table as LaTeX")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="... as Markdown")] = False,
) -> None:
    """Compare runs or studies: figures, intervals, and in words what can be claimed.

    A study alone brings its own question; anything else needs --baseline. Of a table, who gives
    --metric and --min-effect declares them: a verdict; else it is post hoc. Runs of different
    length stand side by side, without a verdict.
    """
    from sagan_bench.analysis.lengths import SideBySide
    from sagan_bench.analysis.scores import is_table
    from sagan_bench.cli.side_by_side import print_side_by_side
    from sagan_bench.experiments.findings import of_places

    forms = {"json": as_json, "csv": as_csv, "latex": as_latex, "markdown": as_markdown}
    form = next((name for name, asked in forms.items() if asked), "")
    if any(map(is_table, what)):
        if at_step is not None:
            raise UserError("--at-step is for runs of different length, not for a table")
        numbers = _of_table(what, baseline, metric, min_effect, better, looks)
        if with_page:
            _write_page(numbers)
        return _print(numbers, form)
    if better or looks or with_page:
        raise UserError("--better, --looks and --report are for a table; of runs use `report`")
    places = [place(name, runs) for name in what]
    said = of_places(places, baseline, metric, _effect(min_effect), at_step)
    if isinstance(said, SideBySide):
        return print_side_by_side(said, form)
    return _print(said, form)


def _print(numbers: "Numbers", form: str) -> None:
    """Print what can be said in a form; in words if it is empty."""
    from sagan_bench.report.compared import titled
    from sagan_bench.report.findings import findings as in_words
    from sagan_bench.report.frames import to_latex, to_markdown

    findings = in_words(numbers)
    if form == "json":
        print(json.dumps(findings.plain(), indent=2))
    elif form == "csv":
        print(shown(frame(findings).to_csv(), lines=True), end="")
    elif form == "latex":
        text = to_latex(summary(findings, numbers), titled(findings, findings.name))
        print(shown(text, lines=True))
    elif form == "markdown":
        print(shown(to_markdown(summary(findings, numbers)), lines=True))
    else:
        print_findings(findings, numbers)


def _of_table(
    what: list[str],
    baseline: str | None,
    metric: str | None,
    min_effect: str | None,
    better: str | None,
    looks: int,
) -> "Numbers":
    from sagan_bench.analysis import scores

    if len(what) > 1:
        raise UserError("compare: a table is compared alone; put its runs into one file")
    ways: tuple[Literal["lower", "higher"], ...] = ("lower", "higher")
    way = pick("--better", better, ways) if better else None
    where = "on the command line"
    request = scores.Request(baseline, metric, way, _effect(min_effect), looks, where)
    return scores.findings_of(scores.read(Path(what[0])), request)


def _write_page(numbers: "Numbers") -> None:
    from sagan_bench.cli.report import rendered
    from sagan_bench.report import collect

    _, page = rendered(partial(collect.of_findings, numbers.question.name, numbers), None)
    say(f"report: {page}", error=True)


def place(name: str, runs: Path) -> Path:
    """Return the folder of a study, tuning or run.  Raises `UserError` with the closest name."""
    from sagan_bench.cli.places import experiments, find_run
    from sagan_bench.experiments import study
    from sagan_bench.experiments.tuning import definition

    if Path(name).is_file():
        table = "of a table of scores: compare FILE.csv --baseline NAME --report"
        raise UserError(f"{name} is a file, and no study, tuning or run is; {table}")
    for path in (Path(name), runs / name):
        known = (path / file for file in (study.MEMORY, definition.MEMORY))
        if any(file.exists() for file in known) or _holds_runs(path):
            return path
    return find_run(name, runs, or_what=experiments(runs))


def _holds_runs(path: Path) -> bool:
    from sagan_bench.runs.finding import holds_runs

    return path.is_dir() and holds_runs(path)


def _effect(text: str | None) -> float | str | None:
    if text is None:
        return None
    try:
        value = float(text.removesuffix("%"))
        if not 0 <= value < math.inf:
            raise ValueError
    except ValueError as error:
        wanted = "a number from 0, or a share such as 5%"
        raise UserError(f"--min-effect {text}: expected {wanted}") from error
    return text if text.endswith("%") else value


# --- The terminal ------------------------------------------------------------------------------


def print_findings(findings: "Findings", numbers: "Numbers") -> None:
    """Print what can be claimed first, then the figures behind it."""
    from sagan_bench.report import caveats
    from sagan_bench.report.findings import of_curve
    from sagan_bench.report.formats import by_variant

    say(f"{findings.name}: {findings.question}")
    say()
    for sentence in findings.headline:
        say(sentence)
    meant = numbers.question.measure.set
    against = caveats.contraries(findings, numbers.runs.attempted, meant)
    for caveat in (*against, *caveats.doubts(findings)):
        say(f"  but: {caveat}")
    for caveat in (*caveats.declaration(findings), *caveats.other_questions(findings)):
        say(f"  note: {caveat}")
    if to_come := _to_come(numbers):
        say(f"  still to come: {by_variant(to_come)}")
    for course in findings.courses:
        say(f"  {course.sentence}")
    say()
    for variant, differs in findings.differences.items():
        say(f"{variant} differs in {changes(differs) or 'nothing that changes results'}")
    for frame in _frames(findings):
        print_frame(frame)
    _print_secondary(findings)
    if findings.by_budget:
        say("By budget, from scores on the way (intervals hold at all budgets of a unit at once):")
    for curve in findings.by_budget:
        say(f"  {of_curve(curve)}")
    print_probed(findings.probes)
    _print_notes(findings, numbers)


def _print_secondary(findings: "Findings") -> None:
    """Print the readings that say something, or why they do not."""
    readings = [each for each in findings.secondary if each.absent or each.sentences]
    if readings:
        say("Secondary readings:")
    for reading in readings:
        say(f"  {reading.title}: {reading.absent or ''}".rstrip())
        for sentence in reading.sentences:
            say(f"    {sentence}")


def _to_come(numbers: "Numbers") -> dict[str, int]:
    """Return variant -> its runs that a study plans and that are not over."""
    over = {(run.variant, run.seed) for run in numbers.runs.attempted}
    planned = {*(numbers.question.planned or ())}
    if numbers.question.design:
        planned = {cell for course in numbers.courses for cell in course.missing}
    lacking = sorted(planned - over)
    return Counter(variant for variant, _ in lacking)


def _frames(findings: "Findings") -> Iterator["Frame"]:
    """Yield what a terminal has of the variants, their comparisons, blocks, and the paper's."""
    from sagan_bench.report import compared
    from sagan_bench.report.frames import Column, table

    primary = findings.primary
    yield _variants(findings)
    columns = [
        Column("pair", "against the baseline"),
        Column("effect", f"Δ {primary.label}"),
        Column("interval", show=lambda row: _interval(row["interval"])),
        Column("p_bonferroni", f"p, {'priced' if findings.courses else 'Bonferroni'}"),
        Column("hedges_g", "Hedges' g"),
        Column("ahead", "pairs ahead"),
        Column("says", "verdict"),
    ]
    yield table("comparisons", "", columns, compared.comparisons(primary))
    columns = [
        Column("variant"),
        Column("block"),
        Column("gamma", "|gamma|"),
        Column("ratio", "||γo||/||x||"),
        Column(
            "entropy",
            show=lambda row: f"{number(row['entropy'])} of {number(row['entropy_max'])}",
        ),
        Column("distance_px", "distance px"),
    ]
    yield table("blocks", "", columns, compared.blocks(findings))
    published, rows = compared.paper(findings)
    columns = [
        Column("variant"),
        Column("channels", "C"),
        Column("queries", "C/8"),
        Column("share", "side/image"),
        Column("parameters", show=lambda row: f"{row['parameters']:,}"),
        Column("GFLOPs a step", show=lambda row: number(row["flops_per_step"] / 1e9)),
        Column("mean", primary.label),
        *(Column(key, f"paper's {key}") for key in published),
    ]
    yield table("paper", "", columns, rows)


def _variants(findings: "Findings") -> "Frame":
    """Return the variants, and what is known of their costs."""
    from sagan_bench.report import compared, formats
    from sagan_bench.report.frames import Column, table
    from sagan_bench.report.text import ARROWS

    primary = findings.primary
    columns = [
        Column("variant"),
        Column("runs", show=lambda row: f"{row['n_ok']}/{row['n']}"),
        Column("mean", f"{primary.label} {ARROWS[primary.better]}"),
        Column("sd"),
        Column("from to", show=lambda row: f"{number(row['min'])} to {number(row['max'])}"),
    ]
    costs = [
        Column("parameters", show=lambda row: formats.number(row["parameters"])),
        Column(
            "flops_per_step", "GFLOPs a step",
            lambda row: number(row["flops_per_step"] and row["flops_per_step"] / 1e9),
        ),
        Column(
            "train_sec", "seconds",
            lambda row: number(row["train_sec"]) + "*" * row["shared_device"],
        ),
    ]  # fmt: skip
    rows = compared.variants(findings)
    columns += compared.known(costs, rows)
    return table("variants", "", columns, rows)


def _print_notes(findings: "Findings", numbers: "Numbers") -> None:
    from sagan_bench.report.caveats import of_beginning, of_program

    images = "Scored with {n_fake:,} generated and {n_real:,} real images"
    parts = [text.rstrip(".") for text in of_program(numbers.runs.attempted)]
    if "n_fake" in findings.protocol or numbers.runs.program is None:
        parts.insert(0, images.format(**NOT_SCORED | findings.protocol))
    said = "; ".join([*parts, f"smallest difference that matters: {findings.matters}."])
    budget = findings.budget and f"Budget: {findings.budget}. "
    say(f"{budget}{said[0].upper()}{said[1:]}")
    for sentence in of_beginning(numbers.runs.attempted):
        say(sentence)
    if not findings.declared:
        say("Post hoc: metric and smallest difference were chosen now, not before the runs.")
        if numbers.runs.program and not numbers.runs.has_settings:
            say("A table has a verdict where --metric and --min-effect declare the question.")
    if any(variant.shared_device for variant in findings.variants):
        say("* Several runs shared the device: times are those of a busy one.")
    for path in findings.unfinished:
        say(f"not finished: {path}")
    for path in findings.unplanned:
        say(f"left out, not of the study's plan: {path}")


def _interval(interval: tuple[float, float] | None) -> str:
    return "[{:.3g}, {:.3g}]".format(*interval) if interval else "—"


# --- To take away ------------------------------------------------------------------------------


def summary(findings: "Findings", numbers: "Numbers") -> "Frame":
    """Return the table that a paper would print, as a report's ``data/summary.tex`` has it."""
    from statistics import fmean

    from sagan_bench.evaluation.metrics import ordered
    from sagan_bench.report import compared

    runs, rows = numbers.runs, compared.variants(findings)
    finished = {name: [r for r in of if not r.lost] for name, of in runs.variants.items()}
    values = {name: [runs.values(run) for run in of] for name, of in finished.items()}
    known = dict.fromkeys(name for of in values.values() for own in of for name in own)
    known.pop(findings.primary.metric, None)
    others = ordered(known, theirs=runs.program is not None)
    for row in rows:
        for name in others:
            own = [x for of in values[row["variant"]] if (x := of.get(name)) is not None]
            row[name] = fmean(own) if own else None
    return compared.summary(findings.primary, rows, {name: runs.label(name) for name in others})


def frame(findings: "Findings") -> "Frame":
    """Return one row a variant: its runs, and what its comparison with the baseline gave."""
    from sagan_bench.report import compared
    from sagan_bench.report.frames import Column, table

    metric = findings.primary.metric
    mean, sd = f"{metric}_mean", f"{metric}_sd"
    keys = (
        "variant", "baseline", "n", "n_ok", mean, sd, "effect", "interval_low", "interval_high",
        "p_bonferroni", "hedges_g", "p_better", "pairs", "verdict", "shown_per_flop",
    )  # fmt: skip
    rows = [
        {**row, mean: row["mean"], sd: row["sd"], "verdict": row["says"] and row["says"].text}
        for row in compared.variants(findings)
    ]
    texts = ("variant", "baseline", "verdict")
    columns = [Column(key, numeric=key not in texts) for key in keys]
    return table("variants", "", columns, rows)
