"""A document and its pictures -> one HTML page that needs nothing else."""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from sagan_bench.core.trees import flatten
from sagan_bench.report import answers, figures, formats, plots, tables, text
from sagan_bench.report.document import AnyDocument, Document, Picture
from sagan_bench.report.pictures import MANY, preview

GLYPHS = dict(zip(figures.MARKERS, "●■◆▲▼✚✖★", strict=True))
"""Of the figures' markers, for text."""
GLOSSARY = {
    "FID": "Fréchet inception distance between features of generated and of real images; lower is "
    "better. It depends on the extractor and on the number of images, so only figures of one "
    "protocol compare.",
    "KID": "Kernel inception distance: likewise, without bias by the number of images.",
    "IS": "Inception score: how certain and how varied the classes of the images are.",
    "precision, recall": "Share of generated images near real ones, and the reverse.",
    "twin_rate": "Share of generated images that obey the rule of the data set twins: two shapes "
    "of one hue and size, left and right. Distant parts must agree, and no network measures it.",
    "γ": "The learned weight of an attention block in y = x + γ o; 0 at the start.",
    "P(better)": "Chance that a run of the variant beats one of its baseline; 0.5 is a tie.",
    "95 % interval": "Of the difference of means (Welch). All intervals of the study hold at once.",
    "smallest difference that matters": "Fixed before the runs; smaller ones are never a verdict.",
}
METHOD = (
    "The unit is one training run: figures over sampling seeds are averaged within it. n is the "
    "number of training seeds.",
    "The endpoint is the last step's averaged weights, never the best of the run.",
    "“Better” or “worse” needs all of: Holm's p below 0.05 over the family (Welch's t test), an "
    "interval without 0, and a difference beyond the smallest that matters.",
    "A diverged or failed run stays an attempted one: it can weaken a claim, and never drops out.",
    "Verdicts need five runs a variant, three or four give intervals only, fewer give points.",
)
NOT_CLAIMED = (
    "“Inconclusive” does not say that there is no difference.",
    "Nothing is said about other data, sizes, budgets or learning rates than those here.",
    "Secondary readings are described, not tested; no ranking follows from them.",
    "Two variants better than a baseline are not compared with each other.",
    "Maps of attention show where a block looks, not that looking there helps.",
)


class Shown(NamedTuple):
    """A picture in the page."""

    picture: Picture
    uri: str
    width: int
    height: int


def render(document: Document, content: Callable[[str], bytes]) -> str:
    """Return the page.  The same document and pictures give the same bytes.

    Args:
        document: what it says.
        content: returns the content of a picture by its name.
    """
    found = document.findings
    names = [variant.name for variant in found.variants]
    look = figures.looks(names)
    return fill(
        "page.html",
        document,
        marks=marks(look),
        sure=text.sureness(found.primary, document.status),
        claims=text.claims(found.primary, document.status),
        facts=_facts(document),
        results=tables.results(document),
        changes=tables.changes(document),
        secondary=tables.secondary(document),
        blocks=tables.blocks(document),
        paper=tables.paper(document),
        runs=tables.runs(document),
        records=len(document.runs),
        drawn=_drawn(document, look),
        pictures=list(_shown(document, content)),
        method=METHOD,
        not_claimed=NOT_CLAIMED,
        glossary=GLOSSARY,
        protocol=found.protocol,
        settings=list(flatten(document.config)),
    )  # fmt: skip


def fill(template: str, document: AnyDocument, **values: Any) -> str:
    """Return a template of a page with what every page has, and the values given."""
    script = _asset("page.js")
    tone, answer = answers.answer(document)
    return _templates().get_template(template).render(
        document=document,
        found=document.findings,
        style=_asset("page.css"),
        script=script,
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        ids=_Ids(),
        tone=tone,
        answer=answer,
        **values,
    )  # fmt: skip


def render_list(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the page that lists reports: dicts of name, question, status, answer, tone, ..."""
    template = _templates().get_template("list.html")
    return template.render(rows=list(rows), style=_asset("page.css"))


def _drawn(document: Document, look: Mapping[str, figures.Look]) -> dict[str, list[plots.Drawn]]:
    return {
        "results": list(plots.results(document, look)),
        "quality": list(plots.quality(document, look)),
        "attention": list(plots.attention(document, look)),
        "factors": list(plots.factors(document)),
        "cost": list(plots.cost(document, look)),
    }


def _shown(document: Document, content: Callable[[str], bytes]) -> Iterable[Shown]:
    many = len(document.findings.variants) > MANY
    for picture in document.pictures:
        yield Shown(picture, *preview(content(picture.file), picture.kind, many))


def _facts(document: Document) -> list[tuple[str, str]]:
    """Return what the figures rest on, in the head of the page."""
    found, runs = document.findings, document.runs
    seeds = sorted({run.seed for run in runs})
    protocol = found.protocol
    size = document.config.get("data", {}).get("image_size", "?")
    kind = document.data.get("kind") or document.config.get("data", {}).get("source", "?")
    facts = [
        ("Runs", f"{formats.plural(len(runs), 'run')}: {formats.plural(len(found.variants), 'variant')}"
         f", {formats.plural(len(seeds), 'seed')}"),
        ("Data", f"{kind}, {size} px"),
        ("Budget", found.budget),
    ]  # fmt: skip
    if protocol:
        facts.append(
            ("Scored by", f"{found.primary.label}; {protocol['n_fake']:,} generated against "
             f"{protocol['n_real']:,} real images")
        )  # fmt: skip
    if found.primary.min_effect:
        facts.append(("Would matter", f"a difference of {found.primary.min_effect:.3g} or more"))
    if document.finished_at:
        facts.append(("Last run ended", f"{document.finished_at[:16].replace('T', ' ')} UTC"))
    return facts


def marks(look: Mapping[str, figures.Look]) -> dict[str, tuple[int, str]]:
    """Return each variant's mark as in the figures: the number of its colour, and its shape."""
    return {
        name: (figures.COLOURS.index(one.colour) + 1, GLYPHS[one.marker])
        for name, one in look.items()
    }


class _Ids:
    """Ids for names of variants and runs: stable, unique, and safe in a link."""

    def __init__(self) -> None:
        self.by_name: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        if name not in self.by_name:
            slug = re.sub(r"[^A-Za-z0-9.+_-]+", "-", name)[:80].strip("-") or "x"
            taken = set(self.by_name.values())
            free = (slug if n == 1 else f"{slug}-{n}" for n in range(1, len(taken) + 2))
            self.by_name[name] = next(one for one in free if one not in taken)
        return self.by_name[name]


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("sagan_bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": formats.shown, "json": _json, "number": formats.number}
    environment.globals |= {"MARKS": text.MARKS, "ARROWS": text.ARROWS}
    return environment


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _asset(name: str) -> str:
    environment = _templates()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
