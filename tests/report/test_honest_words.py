"""Every sentence agrees with the figures behind it, whatever the shape of a study."""

import functools
import json
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from example_findings import Values, document_of, findings_of
from scipy import stats

from sagan_bench.analysis.comparison import Findings
from sagan_bench.analysis.question import Measure
from sagan_bench.analysis.verdicts import Comparison, Lost, Verdict
from sagan_bench.report import answers, claims, compared
from sagan_bench.report.document import Document
from sagan_bench.report.sections.results import _exports

NUMBER = r"[-+−]?(?:\d[\d,]*\.?\d*(?:e[-+]\d+)?)"
NAMES = ("no-attention", "sagan", "feat4", "feat16", "g-only")


def odd_values(rng: np.random.Generator) -> tuple[Values, list[tuple[str, str]], Measure]:
    """Return a study of a shape that nobody would choose."""
    names = NAMES[: int(rng.integers(2, 6))]
    scale = float(rng.choice([1e-9, 0.01, 1, 1, 1, 30, 1e6, 1e154, 1e300]))
    centre = float(rng.choice([-1, 0, 1, 1])) * scale
    loses, reasons = rng.random() < 0.5, 3 if rng.random() < 0.4 else 1
    values: dict[str, list[float | Lost]] = {}
    for name in names:
        n = int(rng.choice([1, 2, 3, 4, 5, 5, 8, 8]))
        spread = scale * float(rng.choice([0, 0.03, 0.1, 1]))
        shift = scale * float(rng.choice([0, 0, 0.02, 0.3, 2]))
        lost = float(rng.choice([0, 0, 0.2, 1])) if loses else 0
        drawn = centre + shift + spread * rng.standard_normal(n)
        fate = rng.random(n) < lost
        why = [[*Lost][int(k)] for k in rng.integers(0, reasons, n)]
        values[name] = [
            w if gone else float(x) for x, gone, w in zip(drawn, fate, why, strict=True)
        ]
    pairs = [(name, names[0]) for name in names[1:]]
    if len(names) > 3 and rng.random() < 0.5:  # a second baseline
        pairs = [(names[1], names[0]), *((name, names[2]) for name in names[3:])]
    least: Any = rng.choice(["5%", "0", f"{0.05 * scale}", f"{0.25 * scale}", f"{0.35 * scale}"])
    metric = str(rng.choice(["fid", "twin_rate"]))
    measure = Measure(metric=metric, min_effect=least if least == "5%" else float(least))
    return values, pairs, measure


STUDIES = 120


@functools.cache
def odd(seed: int) -> tuple[Values, Findings, Document]:
    rng = np.random.default_rng([17, seed])
    values, pairs, measure = odd_values(rng)
    declared = bool(rng.random() < 0.9)
    numbers = findings_of(values, pairs, measure, declared=declared)
    return values, numbers, document_of(numbers)


def close(text: str, value: float) -> bool:
    """Return whether a text is a value, rounded to three digits or to the places it has."""
    shown = text.replace("−", "-").replace(",", "")
    places = len(shown.partition(".")[2]) if "e" not in shown else 300
    return math.isclose(float(shown), value, rel_tol=0.006, abs_tol=0.51 * 10.0**-places)


def numbers_in(pattern: str, text: str) -> Iterator[tuple[str, ...]]:
    yield from (match.groups() for match in re.finditer(pattern, text))


def check_figures(values: Values, c: Comparison[Any], family: int, better: str) -> None:
    """The figures are those of scipy on the values, and the verdict is one of its interval."""
    groups = {name: [v for v in values[name] if not isinstance(v, Lost)] for name in values}
    x, y = groups[c.variant], groups[c.baseline]
    assert (c.n_ok, c.n_baseline_ok) == (len(x), len(y))
    assert (c.n, c.n_baseline) == (len(values[c.variant]), len(values[c.baseline]))
    if c.interval is not None:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            test = stats.ttest_ind(x, y, equal_var=False)
        assert c.interval == pytest.approx(tuple(test.confidence_interval(1 - 0.05 / family)))
        assert c.p_bonferroni is not None
        assert (c.p_bonferroni < 0.05) == (c.interval[0] > 0 or c.interval[1] < 0)
    sign = 1 if better == "higher" else -1
    wins = [
        1.0 if sign * a > sign * b else 0.5 if a == b else 0.0
        for a in [*x, *[-sign * math.inf] * list(values[c.variant]).count(Lost.DIVERGED)]
        for b in [*y, *[-sign * math.inf] * list(values[c.baseline]).count(Lost.DIVERGED)]
    ]
    if c.p_better is not None:
        assert c.pairs == len(wins)
        assert c.p_better == pytest.approx(sum(wins) / len(wins))
        assert c.p_better_interval is not None
        assert c.p_better_interval[0] - 1e-9 <= c.p_better <= c.p_better_interval[1] + 1e-9
    if c.verdict is None:
        return
    improved = c.effect is not None and (c.effect > 0) == (better == "higher")
    low, high = c.interval or (-math.inf, math.inf)
    least = c.min_effect
    match c.verdict:
        case Verdict.BETTER_AS_MATTERS | Verdict.WORSE_AS_MATTERS:
            assert low > least or high < -least
        case Verdict.BETTER | Verdict.WORSE | Verdict.DIFFERS:
            assert low > 0 or high < 0
            assert c.effect is not None
            assert (abs(c.effect) > least) == (c.verdict is not Verdict.DIFFERS)
        case Verdict.SAME:
            assert -least <= low <= high <= least
            assert c.n == c.n_ok
        case Verdict.BETTER_BY_DIVERGENCE:
            assert (c.n_baseline_diverged or 0) / c.n_baseline > (c.n_diverged or 0) / c.n
        case Verdict.WORSE_BY_DIVERGENCE:
            assert (c.n_diverged or 0) / c.n > (c.n_baseline_diverged or 0) / c.n_baseline
    if not c.verdict.is_by_divergence:
        assert not c.verdict.is_better or improved
        assert not c.verdict.is_worse or not improved


def check_text(c: Comparison[Any], text: str, values: Values) -> None:
    """Every figure in a text is one of the comparison."""
    for (margin,) in numbers_in(rf"within ±({NUMBER})", text):
        assert close(margin, c.min_effect)
    for (margin,) in numbers_in(rf"the ({NUMBER}) that (?:would )?matter", text):
        assert close(margin, c.min_effect)
    for low, high in numbers_in(rf"({NUMBER}) and ({NUMBER}) \(95 % interval\)", text):
        assert c.interval is not None
        assert close(low, c.interval[0])
        assert close(high, c.interval[1])
    for n, m in numbers_in(r"n = (\d+) v (\d+)", text):
        assert (int(n), int(m)) == (c.n, c.n_baseline)
    for won, pairs in numbers_in(r"ahead in ([\d.]+) of (\d+) pairs", text):
        assert int(pairs) == c.pairs
        assert float(won) == pytest.approx((c.p_better or 0) * int(pairs))
    reasons = {"diverged": Lost.DIVERGED, "failed": Lost.FAILED, "finished": Lost.NO_FIGURE}
    for k, n, name, how in numbers_in(
        r"(\d+) of (\d+) runs of (\S+) (diverged|failed|finished)", text
    ):
        assert int(n) == len(values[name])
        assert int(k) == list(values[name]).count(reasons[how])
    assert "beyond the" not in text.partition("; ")[2] or c.interval is not None
    if "all of it is beyond" in text:
        assert c.interval is not None
        assert c.interval[0] > c.min_effect or c.interval[1] < -c.min_effect
    if "all of it is within" in text:
        assert c.interval is not None
        assert -c.min_effect <= c.interval[0] <= c.interval[1] <= c.min_effect
    if "that includes 0" in text:
        assert c.interval is not None
        assert c.interval[0] <= 0 <= c.interval[1]


SAYS = {
    Verdict.BETTER: "is better than",
    Verdict.WORSE: "is worse than",
    Verdict.BETTER_AS_MATTERS: "by as much as matters",
    Verdict.WORSE_AS_MATTERS: "by as much as matters",
    Verdict.BETTER_BY_DIVERGENCE: "by divergence",
    Verdict.WORSE_BY_DIVERGENCE: "by divergence",
    Verdict.DIFFERS: "but not shown by as much as matters",
}


def check(values: Values, numbers: Findings, document: Document) -> None:
    """Every surface of a study says what its figures say."""
    primary, words = numbers.primary, document.findings.primary
    family, better = len(primary.comparisons), primary.how.better
    json.dumps(asdict(document.findings), allow_nan=False)
    tone, answer = answers.answer(document)
    said = claims.claims(words, document.status)
    for number, word, claim in zip(primary.comparisons, words.comparisons, said, strict=True):
        check_figures(values, number, family, better)
        for text in (claim.text, claim.sentence):
            check_text(word, text, values)
            for verdict, phrase in SAYS.items():
                if verdict is number.verdict:
                    assert phrase in text
            if number.verdict is None or not number.verdict.is_claim:
                assert "is better" not in text
                assert "is worse" not in text
        way = "higher" if (number.effect or 0) > 0 else "lower"
        other = "lower" if way == "higher" else "higher"
        assert f"is {other} by" not in claims.with_size(word, words)
    if family == 1:
        check_text(words.comparisons[0], claims.sureness(words, document.status) or "", values)
        check_text(words.comparisons[0], answer, values)
        decided = primary.comparisons[0].verdict
        assert (tone == "better") == bool(decided and decided.is_better)
        assert (tone == "worse") == bool(decided and decided.is_worse)
    rows = [
        {**row, **dict.fromkeys(("fid", "isc_mean"))}
        for row in compared.variants(document.findings)
    ]
    files = next(iter(_exports(document, rows))).files
    for text in (*files.values(), *document.warnings, *document.findings.headline):
        assert not re.search(r"\b(nan|inf|infinity)\b", text, re.IGNORECASE)


@pytest.mark.parametrize("first", range(0, STUDIES, 20))
def test_what_is_said_of_odd_studies_is_what_their_figures_say(first: int) -> None:
    for seed in range(first, first + 20):
        check(*odd(seed))


def test_odd_studies_come_in_all_shapes() -> None:
    verdicts, bases, states = set(), set(), set()
    for seed in range(STUDIES):
        values, numbers, _ = odd(seed)
        verdicts |= {c.verdict for c in numbers.primary.comparisons}
        bases |= {c.standing.basis.value for c in numbers.primary.comparisons}
        states |= {v for own in values.values() for v in own if isinstance(v, Lost)}
    assert verdicts == {None, *Verdict}
    assert states == {*Lost}
    assert bases >= {"points", "exploratory", "confirmatory", "post hoc"}
