"""Secondary readings have intervals and directions, and never a verdict word, on any surface."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pytest
from example_findings import document_of, question, run_of, runs_of

from sagan_bench.analysis.comparison import Findings, findings
from sagan_bench.analysis.verdicts import Verdict
from sagan_bench.cli.compare import frame, print_findings
from sagan_bench.cli.tables import number
from sagan_bench.report import compared
from sagan_bench.report.document import Document
from sagan_bench.report.frames import to_csv, to_latex, to_markdown
from sagan_bench.report.sections._base import Fold
from sagan_bench.report.sections.results import _secondary

WORDS = re.compile(
    r"\b(?:is (?:better|worse)|(?:better|worse) (?:by|than)|inconclusive|differs from|"
    r"no meaningful difference|not shown whether|matters|Bonferroni)\b"
)
VERDICTS = {verdict.value for verdict in Verdict}


def null_study(seed: int, variants: int = 1, n: int = 5) -> Findings:
    """Return a study without any difference, whose readings go together as those of real runs."""
    rng = np.random.default_rng([3, seed])
    runs = []
    for name in ("no-attention", "sagan", "feat4", "feat16")[: 1 + variants]:
        for run in range(n):
            common, *own = rng.standard_normal(7)
            end, raw, fid = (0.25 + 0.05 * (0.7 * common + 0.7 * z) for z in own[:3])
            curve = [
                (step, end * step / 600 + 0.02 * z)
                for step, z in zip((200, 400, 600), own[3:], strict=True)
            ]
            flops = 10**10 if name == "no-attention" else 11 * 10**9
            runs.append(run_of(name, run, end, raw=raw, fid=300 * fid, curve=curve, flops=flops))
    others = [name for name in dict.fromkeys(run.variant for run in runs) if name != "no-attention"]
    return findings(runs_of(runs), question([(name, "no-attention") for name in others]))


def surfaces(document: Document, terminal: str) -> Iterator[str]:
    """Yield what each surface says of secondary readings."""
    for reading in document.findings.secondary:
        yield json.dumps(asdict(reading) | {"min_effect": 0})
        rows = [
            {
                key: value
                for key, value in row.items()
                if key in compared.FILED and value is not None
            }
            for row in compared.comparisons(reading)
        ]
        yield to_csv([{k: v for k, v in row.items() if k != "p_bonferroni"} for row in rows])
    (fold,) = _secondary(document)
    assert isinstance(fold, Fold)
    for part in fold.parts:
        yield to_latex(part, "")  # type: ignore[arg-type]
        yield to_markdown(part)  # type: ignore[arg-type]
        yield part.to_csv()  # type: ignore[union-attr]
    _, _, secondary = terminal.partition("Secondary readings:")
    assert secondary
    yield secondary.partition("Budget:")[0]


def check(numbers: Findings, capsys: pytest.CaptureFixture[str]) -> bool:
    """Check a study, and return whether a reading would have had a verdict of its own."""
    document = document_of(numbers)
    capsys.readouterr()
    print_findings(document.findings, numbers)
    assert len(numbers.secondary) == 5
    for reading in numbers.secondary:
        assert all(c.verdict is None and c.interval is not None for c in reading.comparisons)
    for text in surfaces(document, capsys.readouterr().out):
        spoken = text.replace('"p_bonferroni"', "").replace("that matters", "")
        assert not WORDS.search(spoken), text
        assert not VERDICTS & set(re.findall(r': "([^"]*)"', text))
    csv_rows = csv.DictReader(io.StringIO(frame(document.findings).to_csv()))
    decided = {
        row["variant"]: row["verdict"].removesuffix(", per step")
        for row in csv_rows
        if row["baseline"]
    }
    assert decided == {c.variant: c.verdict for c in numbers.primary.comparisons}
    assert number(0.5) in to_latex(frame(document.findings), "", number) or decided
    return any(
        c.interval is not None and (c.interval[0] > 0 or c.interval[1] < 0)
        for reading in numbers.secondary
        for c in reading.comparisons
    )


def test_null_studies_have_no_verdict_word_but_the_primary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tempting = [check(null_study(seed, variants=1 + seed % 3), capsys) for seed in range(30)]
    assert any(tempting)  # some intervals exclude 0, and still say no such word


@pytest.mark.slow
def test_more_null_studies_have_no_verdict_word_but_the_primary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tempting = [check(null_study(seed, variants=1 + seed % 3), capsys) for seed in range(200)]
    share = sum(tempting) / len(tempting)
    print(f"studies in which a secondary interval excludes 0: {share:.3f}")
    assert 0.05 < share < 0.3
