"""A table of scores in memory -> its verdict, for notebooks and scripts."""

from dataclasses import dataclass
from html import escape

import pandas as pd

from sagan_bench.analysis import lengths, scores
from sagan_bench.report import answers, caveats, compared
from sagan_bench.report.beside import beside, per_run
from sagan_bench.report.findings import findings as in_words
from sagan_bench.report.readings import Findings
from sagan_bench.runs.program import Better


@dataclass(frozen=True, repr=False)
class Verdict:
    """What can be claimed of the runs in a table.

    Attributes:
        findings: everything that can be said, figures and words.
    """

    findings: Findings

    @property
    def headline(self) -> str:
        """What all comparisons say together, in one sentence."""
        return answers.of_reading(self.findings.primary)[1]

    @property
    def sentence(self) -> str:
        """What can be claimed, in full: a sentence a comparison, each in a line."""
        return "\n".join(self.findings.headline)

    @property
    def cautions(self) -> tuple[str, ...]:
        """What speaks against it, and whose word it is."""
        of = caveats.contraries, caveats.doubts, caveats.declaration
        return tuple(text for caution in of for text in caution(self.findings))

    @property
    def comparisons(self) -> pd.DataFrame:
        """One row a variant that is compared, with the columns of ``comparisons.csv``."""
        rows = compared.comparisons(self.findings.primary)
        return pd.DataFrame([{key: row[key] for key in compared.FILED} for row in rows])

    def __str__(self) -> str:
        return "\n".join([self.sentence, *(f"  but: {text}" for text in self.cautions)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{escape(text)}</p>" for text in self.findings.headline)
        cautions = "".join(f"<li>{escape(text)}</li>" for text in self.cautions)
        return f"<p><strong>{escape(self.headline)}</strong></p>{said}<ul>{cautions}</ul>"


class SideBySide:
    """Runs of different length: their figures, of which nothing is claimed.

    Args:
        numbers: of the runs.
    """

    def __init__(self, numbers: lengths.SideBySide) -> None:
        self.findings = beside(numbers, "runs")
        """Everything that is said, figures and words."""
        self.cautions = tuple(caveats.of_lengths(numbers))
        """What is to be known of the figures."""

    @property
    def headline(self) -> str:
        """What the runs are, in one sentence."""
        return self.findings.headline[0]

    @property
    def at_step(self) -> int | None:
        """The step at which scores on the way stand side by side; None if all have none."""
        return self.findings.at_step

    @property
    def figures(self) -> pd.DataFrame:
        """One row a run: its steps, and a column a metric and protocol, as in ``figures.csv``."""
        return pd.DataFrame(per_run(self.findings))

    @property
    def differences(self) -> pd.DataFrame:
        """Every setting that differs, a column a label of runs."""
        rows = [{"setting": key, **of} for key, of in self.findings.differing.items()]
        return pd.DataFrame(rows, columns=["setting", *self.findings.variants])

    def __repr__(self) -> str:
        return "\n".join([self.headline, *(f"  note: {text}" for text in self.cautions)])

    def _repr_html_(self) -> str:
        cautions = "".join(f"<li>{escape(text)}</li>" for text in self.cautions)
        said = f"<p><strong>{escape(self.headline)}</strong></p><ul>{cautions}</ul>"
        return f"{said}{self.figures.to_html(index=False)}"


def of_frame(
    frame: pd.DataFrame,
    *,
    baseline: str,
    metric: str | None,
    better: Better | None,
    min_effect: float | str | None,
    looks: int,
) -> Verdict:
    """Return the verdict on the runs in a frame.  Raises `UserError` as `scores.findings_of`."""
    request = scores.Request(baseline, metric, better, min_effect, looks, "in the call")
    return Verdict(in_words(scores.findings_of(scores.of_frame(frame), request)))
