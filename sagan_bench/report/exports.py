"""A document as files to take away: CSV, LaTeX, Markdown."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sagan_bench.experiments.tuning.planning import best_name
from sagan_bench.report import answers, formats
from sagan_bench.report import text as words
from sagan_bench.report.document import (
    AnyDocument,
    Document,
    Reading,
    TuningDocument,
    TuningFindings,
)
from sagan_bench.report.formats import decimals, number
from sagan_bench.report.tables import means, shown_metrics
from sagan_bench.report.text import Words

LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "−": "$-$", "—": "---",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$",
})  # fmt: skip
FORMULA = re.compile(r"^[=+@\t\r]|^-(?![\d.])")
"""What a spreadsheet would compute instead of show."""


def files(document: AnyDocument) -> dict[str, bytes]:
    """Return the content of every file by its name."""
    of = _of_tuning(document) if isinstance(document, TuningDocument) else _of_study(document)
    texts = {**of, "report.json": document.to_json()}
    return {name: text.encode() for name, text in texts.items()}


def _of_study(document: Document) -> dict[str, str]:
    return {
        "runs.csv": _csv(_runs(document)),
        "summary.csv": _csv(_summary(document)),
        "comparisons.csv": _csv(_comparisons(document)),
        "summary.tex": _latex(document),
        "summary.md": _markdown(document),
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; a missing value is an empty cell."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    written = io.StringIO()
    writer = csv.DictWriter(written, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in row.items()} for row in rows)
    return written.getvalue()


def _inert(value: Any) -> Any:
    """Return a text that a spreadsheet shows as it is, behind an apostrophe if need be."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def _runs(document: Document) -> list[dict[str, Any]]:
    return [
        {
            **run.model_dump(exclude={"metrics", "command"}),
            **run.metrics,
            "command": run.command,
        }
        for run in document.runs
    ]


def _summary(document: Document) -> list[dict[str, Any]]:
    rows = []
    for variant in document.findings.variants:
        summary = asdict(variant.summary)
        low, high = summary.pop("divergence_interval") or (None, None)
        rows.append({
            **summary,
            "metric": document.findings.primary.metric,
            "divergence_low": low,
            "divergence_high": high,
            "parameters": variant.parameters,
            "flops_per_step": variant.flops_per_step,
            "train_sec": variant.train_sec,
            "images_per_sec": variant.images_per_sec,
        })  # fmt: skip
    return rows


def _comparisons(document: Document) -> list[dict[str, Any]]:
    found = document.findings
    return [
        _comparison(reading, one)
        for reading in (found.primary, *found.secondary)
        for one in reading.comparisons
    ]


def _comparison(reading: Reading, one: Words) -> dict[str, Any]:
    figures = asdict(one)
    for name in ("interval", "interval_alone"):
        low, high = figures.pop(name) or (None, None)
        figures |= {f"{name}_low": low, f"{name}_high": high}
    return {
        "reading": reading.title,
        "metric": reading.metric,
        "better": reading.better,
        "min_effect": reading.min_effect,
        **figures,
    }


# --- One row a variant, for a paper ------------------------------------------------------------


def _cells(document: Document) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of what a paper would print."""
    found = document.findings
    primary, metrics = found.primary, shown_metrics(document)
    arrow = words.ARROWS[primary.better]
    header = ["variant", "runs", f"{primary.label} {arrow}", "difference", "95 % interval"]
    header += ["verdict", *(document.labels.get(metric, metric) for metric in metrics)]
    compared = {one.variant: one for one in primary.comparisons}
    level = decimals(v.summary.mean for v in found.variants)
    rows = []
    for variant in found.variants:
        s, one = variant.summary, compared.get(variant.name)
        spread = "" if s.sd is None else f" ± {number(s.sd, level)}"
        rows.append([
            variant.name,
            f"{s.n_ok}/{s.n}",
            number(s.mean, level) + spread,
            number(one.effect, level, signed=True) if one else "",
            formats.span(one.interval, level) if one and one.interval else "",
            (one.verdict or one.standing) if one else "baseline",
            *(number(mean) for mean in means(document, variant.name, metrics)),
        ])  # fmt: skip
    return header, rows


def _latex(document: Document) -> str:
    header, rows = _cells(document)
    cells = [[" ".join(cell.split()).translate(LATEX) for cell in row] for row in (header, *rows)]
    lines = [" & ".join(row) + r" \\" for row in cells]
    comment = " ".join(f"{document.name}: {document.findings.budget}".split())
    return "\n".join([
        f"% {comment}",
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        lines[0],
        r"\midrule",
        *lines[1:],
        r"\bottomrule",
        r"\end{tabular}",
        "",
    ])  # fmt: skip


def _markdown(document: Document) -> str:
    header, rows = _cells(document)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    told = "\n".join(f"| {' | '.join(map(_plain, row))} |" for row in lines)
    _, answer = answers.answer(document)
    return f"**{_plain(answer)}** {_plain(document.findings.budget)}.\n\n{told}\n"


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    text = " ".join(text.split())
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text) if text.strip("-:") else text


# --- Tuning ------------------------------------------------------------------------------------


def _of_tuning(document: TuningDocument) -> dict[str, str]:
    found = document.findings
    return {
        "trials.csv": _csv(_trials(found)),
        "fresh.csv": _csv(_fresh(found)),
        **{best_name(variant): text for variant, text in document.winners.items()},
    }


def _trials(found: TuningFindings) -> list[dict[str, Any]]:
    return [
        {
            "search": one.id,
            "variant": one.variant,
            "trial": trial.number,
            "outcome": trial.outcome,
            **dict(
                zip(found.objectives, trial.values or [None] * len(found.objectives), strict=True)
            ),
            "last_score": trial.curve[-1][1] if trial.curve else None,
            "steps": trial.steps,
            "seconds": trial.seconds,
            "reason": trial.reason,
            **{axis.key: trial.params.get(axis.key) for axis in one.axes},
        }
        for one in found.searches
        for trial in one.trials
    ]


def _fresh(found: TuningFindings) -> list[dict[str, Any]]:
    return [
        {
            "search": one.id,
            "variant": one.variant,
            "trial": candidate.number,
            "chosen": candidate.number == one.chosen,
            "set": name,
            "seed": seed,
            found.objectives[0]: value,
            "in_search": candidate.searched,
        }
        for one in found.searches
        for candidate in one.candidates
        for name, runs in (("A", candidate.on_a), ("B", candidate.on_b))
        for seed, value in runs.items()
    ]
