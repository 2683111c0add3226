"""The verb ``compare``: what can be claimed of runs that are there."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sagan_bench.cli.console import say, shown
from sagan_bench.cli.tables import changes, number, print_table
from sagan_bench.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from sagan_bench.analysis.comparison import Findings, Reading


def compare(
    what: Annotated[list[str], typer.Argument(help="Studies or runs: folders, or names in --runs")],
    baseline: Annotated[str | None, typer.Option(help="Variant, or one of the arguments")] = None,
    metric: Annotated[str | None, typer.Option(help="twin_rate, fid, isc_mean, kid_mean, ...")] = (
        None
    ),
    min_effect: Annotated[
        str | None, typer.Option(help="Smallest difference that matters: 2 or 5%")
    ] = None,
    runs: Annotated[Path, typer.Option("--runs", help="Folder of runs")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the table as CSV")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print the table as LaTeX")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="... as Markdown")] = False,
) -> None:
    """Compare runs or studies: figures, intervals, and in words what can be claimed.

    A study alone brings its own question; anything else needs --baseline.
    """
    found = _findings(what, baseline, metric, min_effect, runs)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    elif as_csv:
        print(shown(frame(found).to_csv(index=False), lines=True), end="")
    elif as_latex:
        print(shown(_latex(found), lines=True))
    elif as_markdown:
        print(shown(_markdown(found), lines=True))
    else:
        print_findings(found)


def _findings(
    what: list[str], baseline: str | None, metric: str | None, min_effect: str | None, runs: Path
) -> "Findings":
    from sagan_bench.analysis import comparison
    from sagan_bench.experiments.findings import of_study
    from sagan_bench.experiments.study import MEMORY

    places = [place(one, runs) for one in what]
    studies = [place for place in places if (place / MEMORY).exists()]
    if len(places) == len(studies) == 1 and not (baseline or metric or min_effect):
        return of_study(studies[0])
    if baseline is None:
        raise UserError("compare: say with --baseline NAME which variant the others are held to")
    return comparison.of_runs(_runs_in(places), baseline, metric, _effect(min_effect))


def place(name: str, runs: Path) -> Path:
    """Return the folder of a study, tuning or run.  Raises `UserError` with the closest name."""
    from sagan_bench.cli.places import find_run
    from sagan_bench.experiments import study
    from sagan_bench.experiments.tuning import definition

    for path in (Path(name), runs / name):
        known = (path / file for file in (study.MEMORY, definition.MEMORY))
        if any(file.exists() for file in known) or _holds_runs(path):
            return path
    return find_run(name, runs)


def _holds_runs(path: Path) -> bool:
    from sagan_bench.runs.run_directory import holds_runs

    return path.is_dir() and holds_runs(path)


def _runs_in(places: Iterable[Path]) -> list[Path]:
    from sagan_bench.runs.run_directory import find_runs

    return [run for place in places for run in find_runs(place)]


def _effect(text: str | None) -> float | str | None:
    if text is None or text.endswith("%"):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"--min-effect {text}: expected a number, or a share such as 5%") from error


# --- The terminal ------------------------------------------------------------------------------


def print_findings(found: "Findings") -> None:
    """Print what can be claimed first, then the figures behind it."""
    say(f"{found.name}: {found.question}")
    say()
    for sentence in found.headline:
        say(sentence)
    say()
    for variant, differs in found.differences.items():
        say(f"{variant} differs in {changes(differs) or 'nothing that changes results'}")
    _print_variants(found)
    _print_comparisons(found.primary)
    _print_blocks(found)
    _print_paper(found)
    say("Secondary readings:")
    for reading in found.secondary:
        say(f"  {reading.title}: {reading.absent or ''}".rstrip())
        for sentence in reading.sentences:
            say(f"    {sentence}")
    _print_notes(found)


def _print_variants(found: "Findings") -> None:
    rows = []
    for variant in found.variants:
        s = variant.summary
        rows.append(
            [
                variant.name,
                f"{s.n_ok}/{s.n}",
                number(s.mean),
                number(s.sd),
                f"{number(s.min)} to {number(s.max)}",
                f"{variant.parameters or 0:,}",
                number((variant.flops_per_step or 0) / 1e9),
                number(variant.train_sec) + ("*" if variant.shared_device else ""),
            ]
        )
    arrow = "↓" if found.primary.better == "lower" else "↑"
    header = ("variant", "runs", f"{found.primary.label} {arrow}", "sd", "from to", "parameters")
    print_table("", (*header, "GFLOPs a step", "seconds"), rows)


def _print_comparisons(reading: "Reading") -> None:
    rows = [
        [
            f"{one.variant} v {one.baseline}",
            number(one.effect),
            _interval(one.interval),
            number(one.p_holm),
            number(one.hedges_g),
            number(one.p_better),
            one.verdict or one.standing,
        ]
        for one in reading.comparisons
    ]
    if rows:
        header = ("against the baseline", f"Δ {reading.label}", "interval", "Holm p", "Hedges' g")
        print_table("", (*header, "P(better)", "verdict"), rows)


def _print_blocks(found: "Findings") -> None:
    rows = [
        [
            variant.name,
            f"{block.network} {block.name}",
            number(block.gamma),
            number(block.ratio),
            f"{number(block.entropy)} of {number(block.entropy_max)}",
            number(block.distance_px),
        ]
        for variant in found.variants
        for block in variant.blocks
    ]
    if rows:
        header = ("variant", "block", "|gamma|", "||γo||/||x||", "entropy", "distance px")
        print_table("", header, rows)


def _print_paper(found: "Findings") -> None:
    figures = list(dict.fromkeys(key for line in found.paper for key in line.paper or {}))
    rows = [
        [
            line.variant,
            number(line.channels),
            number(line.channels and line.channels // 8),
            number(line.share),
            f"{line.parameters:,}",
            number(line.flops_per_step / 1e9),
            number(line.mean),
            *(number((line.paper or {}).get(key)) for key in figures),
        ]
        for line in found.paper
    ]
    if rows:
        header = ("variant", "C", "C/8", "side/image", "parameters", "GFLOPs a step")
        print_table(
            "", (*header, found.primary.label, *(f"paper's {key}" for key in figures)), rows
        )


def _print_notes(found: "Findings") -> None:
    protocol = found.protocol
    say(
        f"Budget: {found.budget}. Scored with {protocol.get('n_fake', 0):,} generated and "
        f"{protocol.get('n_real', 0):,} real images; smallest difference that matters: "
        f"{found.primary.min_effect:.3g}."
    )
    if not found.declared:
        say("Metric and smallest difference were chosen now, not before the runs.")
    if any(variant.shared_device for variant in found.variants):
        say("* Several runs shared the device: times are those of a busy one.")
    for path in found.unfinished:
        say(f"not finished: {path}")


def _interval(interval: tuple[float, float] | None) -> str:
    return "[{:.3g}, {:.3g}]".format(*interval) if interval else "—"


# --- To take away ------------------------------------------------------------------------------


def frame(found: "Findings") -> "pd.DataFrame":
    """Return one row a variant: its runs, and what its comparison with the baseline gave."""
    import pandas as pd

    compared = {one.variant: one for one in found.primary.comparisons}
    rows = []
    for variant in found.variants:
        summary, one = variant.summary, compared.get(variant.name)
        low, high = one.interval if one and one.interval else (None, None)
        rows.append(
            {
                "variant": variant.name,
                "baseline": one and one.baseline,
                "n": summary.n,
                "n_ok": summary.n_ok,
                f"{found.primary.metric}_mean": summary.mean,
                f"{found.primary.metric}_sd": summary.sd,
                "effect": one and one.effect,
                "interval_low": low,
                "interval_high": high,
                "p_holm": one and one.p_holm,
                "hedges_g": one and one.hedges_g,
                "p_better": one and one.p_better,
                "verdict": one and (one.verdict or one.standing),
            }
        )
    return pd.DataFrame(rows)


def _latex(found: "Findings") -> str:
    text = frame(found).to_latex(index=False, escape=True, float_format="%.4g", na_rep="--")
    return f"% {found.name}: {found.budget}\n{text}"


def _markdown(found: "Findings") -> str:
    table = frame(found).astype(object)
    rows: list[list[str]] = [list(table.columns), ["---"] * len(table.columns)]
    rows += [
        [number(cell) for cell in row]
        for row in table.where(table.notna(), None).itertuples(index=False)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
