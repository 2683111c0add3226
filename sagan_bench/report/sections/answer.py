"""What the whole page says, how sure that is, and what the figures rest on."""

from collections.abc import Iterator, Sequence
from typing import Any

from sagan_bench.core.registry import SECTIONS
from sagan_bench.report import answers, claims
from sagan_bench.report.document import AnyDocument, Document, LengthsDocument, TuningDocument
from sagan_bench.report.findings import settling
from sagan_bench.report.formats import by_variant, plural
from sagan_bench.report.readings import Reading
from sagan_bench.report.sections._base import Block, Section, Terms, Verdict
from sagan_bench.report.svg import Theme
from sagan_bench.report.text import Words, lost
from sagan_bench.runs.program import PROGRAM


@SECTIONS.register("answer")
class Answer(Section):
    """The question's answer, in front of everything."""

    order = 0
    title = "Answer"
    of = ("study", "lengths", "tuning")

    def render(self, document: AnyDocument, theme: Theme) -> Iterator[Block]:
        """Yield the answer, and the facts that stand below it."""
        tone, answer = answers.answer(document)
        if isinstance(document, TuningDocument):
            said = _said(answers.foremost(document.findings), document, "search")
            facts = _of_tuning(document)
        elif isinstance(document, LengthsDocument):
            said = (), None
            facts = _of_lengths(document)
        else:
            said = _said(document.findings.primary, document, "run")
            facts = _of_study(document)
        if document.finished_at:
            ended = document.finished_at[:16].replace("T", " ")
            facts.append(("Last run ended", f"{ended} UTC"))
        verdict = Verdict(*said, document.warnings)
        yield Block("verdict", answer, (verdict, Terms(facts, "facts")), tone=tone)


def _said(
    reading: Reading, document: AnyDocument, unit: str
) -> tuple[Sequence[claims.Claim], str | None]:
    """Return what may be claimed, and how sure it is."""

    def besides(c: Words) -> Iterator[str]:
        yield from (text for text in lost(c, unit) if f"{text}." not in document.warnings)
        if isinstance(document, Document) and _knows_curves(document):
            yield settling(c, document.findings.variants)

    status = document.status
    return claims.claims(reading, status, unit, besides), claims.sureness(reading, status, unit)


def _knows_curves(document: Document) -> bool:
    """Return whether it can be asked if runs had settled: of a program's, only where it says."""
    is_ours = PROGRAM not in document.config
    return is_ours or any(variant.curves for variant in document.findings.variants)


def _of_lengths(document: LengthsDocument) -> list[tuple[str, str]]:
    said = document.findings
    lengths = ", ".join(f"{n:,}" for n in sorted({run.steps for run in said.runs}))
    at = "none that all runs have" if said.at_step is None else f"{said.at_step:,}"
    return [
        ("Runs", f"{plural(len(said.runs), 'run')} under {plural(len(said.variants), 'label')}"),
        ("Lengths", f"{lengths} updates of G"),
        ("Step of scores side by side", at),
        *([("Still to be finished", ", ".join(said.unfinished))] if said.unfinished else []),
    ]


def _of_study(document: Document) -> list[tuple[str, str]]:
    numbers, runs = document.findings, document.runs
    seeds = {run.seed for run in runs}
    counts = f"{plural(len(numbers.variants), 'variant')}, {plural(len(seeds), 'seed')}"
    facts = [
        ("Runs", f"{plural(len(runs), 'run')}: {counts}"),
        *_data(document),
        *([("Budget", numbers.budget)] if numbers.budget else []),
        *_scored(numbers.primary.label, numbers.protocol),
    ]
    margins = {comparison.min_effect for comparison in numbers.primary.comparisons}
    if len(margins) > 1 and numbers.matters:
        facts.append(("Would matter", f"{numbers.matters} of each baseline's mean or more"))
    elif numbers.primary.min_effect:
        matters = f"a difference of {numbers.primary.min_effect:.3g} or more"
        facts.append(("Would matter", matters))
    if document.to_come:
        facts.append(("Still to come", by_variant(document.to_come)))
    return facts


def _data(document: Document) -> Iterator[tuple[str, str]]:
    """Yield which images a study is of, unless only the program that made its runs knows."""
    data = document.config.get("data", {})
    if PROGRAM not in document.config:
        kind = document.data.get("kind") or data.get("source", "?")
        yield "Data", f"{kind}, {data.get('image_size', '?')} px"


def _of_tuning(document: TuningDocument) -> list[tuple[str, str]]:
    numbers = document.findings
    searches, trials = numbers.searches, sum(len(search.trials) for search in numbers.searches)
    counts = f"{plural(len(numbers.variants), 'variant')}, {plural(trials, 'trial')}"
    how = f"{numbers.sampler.upper()}, pruner {numbers.pruner}, space {numbers.space}"
    return [
        ("Searches", f"{plural(len(searches), 'search')} of {counts}"),
        ("Data", f"{document.data.get('kind', '?')}, {document.config['data']['image_size']} px"),
        ("Budget of a trial", f"{numbers.steps:,} updates of G; preset {numbers.preset}"),
        ("Searched by", how),
        *_scored(numbers.labels[0], document.protocol),
    ]


def _scored(label: str, protocol: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "n_fake" in protocol:
        images = f"{protocol['n_fake']:,} generated against {protocol['n_real']:,} real images"
        yield "Scored by", f"{label}; {images}"
