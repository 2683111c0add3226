"""What is compared as rows of values, and the columns that pages, terminals and files share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sagan_bench.report.claims import places_of
from sagan_bench.report.formats import MISSING, decimals, number, span
from sagan_bench.report.frames import Cell, Column, Frame, table
from sagan_bench.report.readings import Findings, Reading
from sagan_bench.report.text import ARROWS, Words, ahead, label, tone

VARIANT = Column(
    "variant", "Variant", lambda row: Cell(row["variant"], row["variant"], look=row["variant"]),
    numeric=False,
)  # fmt: skip
EFFECT = (
    Column(
        "effect", "Difference", lambda row: number(row["effect"], row["places"], signed=True),
        help="of means, variant minus baseline",
    ),
    Column(
        "interval", "95 % interval",
        lambda row: Cell(span(row["interval"], row["places"]), row["interval_low"]),
        help="those of all comparisons hold at once",
    ),
    Column(
        "p_better", "Pairs ahead",
        lambda row: Cell(row.get("ahead") or MISSING, row.get("p_better")),
        help="of a run and one of the baseline; in brackets the chance of that, 95 %",
    ),
)  # fmt: skip
FILED = (
    "reading", "metric", "better", "min_effect", "variant", "baseline", "n", "n_ok", "n_baseline",
    "n_baseline_ok", "n_diverged", "n_failed", "n_baseline_diverged", "n_baseline_failed", "effect",
    "standing", "p", "p_bonferroni", "p_rank", "p_divergence", "hedges_g", "p_better", "pairs",
    "verdict", "shown_per_flop", "seeds_needed", "interval_low", "interval_high",
    "interval_alone_low", "interval_alone_high", "p_better_interval_low", "p_better_interval_high",
)  # fmt: skip
"""Values of a comparison in a file."""
SUMMARY = (
    "variant", "n", "n_ok", "n_diverged", "n_failed", "mean", "median", "sd", "min", "max",
    "divergence_rate", "metric", "divergence_low", "divergence_high", "parameters",
    "flops_per_step", "train_sec", "images_per_sec",
)  # fmt: skip
"""Values of a variant in a file."""
NOT_COMPARED = dict.fromkeys([*FILED, "interval", "places", "says", "ahead"])


def comparisons(reading: Reading) -> list[dict[str, Any]]:
    """Return a reading's comparisons as rows, the bounds of intervals apart."""
    about = {"reading": reading.title, "metric": reading.metric, "better": reading.better}
    about |= {"label": reading.label, "places": places_of(reading)}  # type: ignore[dict-item]
    rows = []
    for comparison in reading.comparisons:
        figures = asdict(comparison)
        for name in ("interval", "interval_alone", "p_better_interval"):
            low, high = figures[name] or (None, None)
            figures |= {f"{name}_low": low, f"{name}_high": high}
        says = label(comparison)
        pair = f"{comparison.variant} v {comparison.baseline}"
        words = {"says": Cell(says, says, tone(comparison)), "ahead": _counted(comparison)}
        rows.append({**about, **figures, "pair": pair, **words})
    return rows


def _counted(c: Words) -> str:
    """Return in how many pairs a variant is ahead, as a cell has it."""
    return ahead(c).removeprefix("ahead in ").replace(" pairs", "") or MISSING


def variants(findings: Findings) -> list[dict[str, Any]]:
    """Return a row for each variant: what its runs, and its comparison with a baseline, gave."""
    compared = {row["variant"]: row for row in comparisons(findings.primary)}
    level = decimals(variant.summary.mean for variant in findings.variants)
    rows = []
    for variant in findings.variants:
        figures = asdict(variant.summary)
        low, high = figures.pop("divergence_interval") or (None, None)
        rows.append({
            **compared.get(variant.name, NOT_COMPARED),
            **figures,
            "metric": findings.primary.metric,
            "divergence_low": low,
            "divergence_high": high,
            "level": level,
            "parameters": variant.parameters,
            "flops_per_step": variant.flops_per_step,
            "train_sec": variant.train_sec,
            "images_per_sec": variant.images_per_sec,
            "shared_device": variant.shared_device,
        })  # fmt: skip
    return rows


def mean(row: Mapping[str, Any]) -> str:
    """Return the mean ± sd of a variant's row."""
    spread = "" if row["sd"] is None else f" ± {number(row['sd'], row['level'])}"
    return number(row["mean"], row["level"]) + spread


def summary(
    primary: Reading, rows: Sequence[Mapping[str, Any]], others: Mapping[str, str]
) -> Frame:
    """Return what a paper would print: a row a variant, with the means of other metrics.

    Args:
        primary: the reading that decides.
        rows: of `variants`, each with its mean of every other metric.
        others: metric -> its name for readers.
    """
    columns = (
        Column("variant", numeric=False),
        Column("runs", show=lambda row: f"{row['n_ok']}/{row['n']}"),
        Column("mean", f"{primary.label} {ARROWS[primary.better]}", mean),
        Column("effect", "difference",
               lambda row: number(row["effect"], row["level"], signed=True)),
        Column("interval", "95 % interval",
               lambda row: span(row["interval"], row["level"]) if row["interval"] else ""),
        Column("says", "verdict"),
        *(Column(name, label) for name, label in others.items()),
    )  # fmt: skip
    bare = {"effect": Cell(""), "says": Cell("baseline")}
    return table("summary", "", columns, [row if row["says"] else {**row, **bare} for row in rows])


def known(columns: Iterable[Column], rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the columns of which a row has a value."""
    return [column for column in columns if any(row[column.key] is not None for row in rows)]


def titled(findings: Findings, name: str) -> str:
    """Return what a table of variants is of: a name, and the budget where that is known."""
    return ": ".join(filter(None, (name, findings.budget)))


def blocks(findings: Findings) -> list[dict[str, Any]]:
    """Return what each block of each variant did, as rows."""
    return [
        {**asdict(block), "variant": variant.name, "block": f"{block.network} {block.name}"}
        for variant in findings.variants
        for block in variant.blocks
    ]


def paper(findings: Findings) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the metrics of a published table, and its lines beside a study's own as rows."""
    lines = [
        {**asdict(line), **(line.paper or {}), "queries": line.channels and line.channels // 8}
        for line in findings.paper
    ]
    return list(dict.fromkeys(key for line in findings.paper for key in line.paper or {})), lines
