"""A document and its blocks -> one HTML page that needs nothing else."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sagan_bench.core.trees import flatten
from sagan_bench.report import formats, text
from sagan_bench.report.document import AnyDocument, Document, TuningDocument
from sagan_bench.report.method import METHODS
from sagan_bench.report.sections._base import Block, Export
from sagan_bench.report.svg import Theme
from sagan_bench.runs.program import PROGRAM

SCRIPTS = ("page.js", "figures.js", "pictures.js")
"""Of a page, one after the other."""


def render(document: AnyDocument, blocks: Sequence[Block], theme: Theme) -> str:
    """Return the page.  The same document and pictures give the same bytes.

    Args:
        document: what it says.
        blocks: what its sections say of it.
        theme: what they were rendered with.
    """
    (answer, *sections), script = blocks, "".join(map(_asset, SCRIPTS))
    is_theirs = PROGRAM in document.config and document.kind == "study"
    kind = "program" if is_theirs else document.kind
    if isinstance(document, TuningDocument):
        protocol, records = document.protocol, document.runs_over
        configuration = "Configuration of a trial with the preset's own values"
    else:
        records = len(document.runs)
        protocol = document.findings.protocol if isinstance(document, Document) else {}
        protocol = {} if protocol.get("by") == PROGRAM else protocol
        configuration = f"Configuration of {document.runs[0].id}"
    return _templates().get_template("page.html").render(
        document=document,
        kind=kind,
        answer=answer,
        blocks=sections,
        exports=exports(blocks),
        marks=theme.marks,
        method=METHODS[kind],
        protocol=protocol,
        records=records,
        configuration=configuration,
        settings=list(flatten(document.config)),
        style=_asset("page.css"),
        script=script,
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        ids=theme.ids,
    )  # fmt: skip


def exports(blocks: Iterable[Block]) -> list[Export]:
    """Return the files to take away: first single runs, at the page's end, then what they gave."""
    return [export for block in [*blocks][::-1] for export in block.files()]


def render_list(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the page that lists reports: dicts of name, question, status, answer, tone, ..."""
    template = _templates().get_template("list.html")
    return template.render(rows=list(rows), style=_asset("page.css"))


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("sagan_bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": formats.shown,
        "json": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
        "kind": lambda part: type(part).__name__,
    }
    environment.globals |= {"MARKS": text.MARKS, "ARROWS": text.ARROWS}
    return environment


def _asset(name: str) -> str:
    environment = _templates()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
