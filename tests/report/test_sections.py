"""A section is one class in one file: nobody else names it."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from example_records import unsealed
from example_reports import CLEAR, leave_study
from test_page import _Parts

from sagan_bench.core.registry import SECTIONS
from sagan_bench.report import collect, publish
from sagan_bench.report.document import Document, read
from sagan_bench.report.frames import Column, table
from sagan_bench.report.sections._base import Block, Section, Text, sections
from sagan_bench.report.svg import Theme


class Losses(Section):
    """How many runs of each variant were lost."""

    order = 25
    title = "Losses & gains"
    of = ("study",)

    def collect(self, source: Any) -> dict[str, int]:
        lost = {run.variant: 0 for run in source.runs}
        for run in source.runs:
            lost[run.variant] += run.lost
        return lost

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        counts = document.sections[self.name]
        columns = (Column("variant", "Variant", numeric=False), Column("lost", "Lost"))
        rows = [{"variant": name, "lost": count} for name, count in counts.items()]
        caption = "Lost runs of each variant"
        frame = table("lost", caption, columns, rows, file="lost.csv")
        yield self.block(Text("Lost runs are <counted>."), frame)


@pytest.fixture
def _registered() -> Iterator[None]:
    SECTIONS.register("losses-and-gains")(Losses)
    yield
    del SECTIONS._known["losses-and-gains"]


@pytest.mark.usefixtures("_registered")
def test_a_section_of_a_user_is_collected_shown_filed_and_read_back(tmp_path: Path) -> None:
    values = {**CLEAR, "g-only": [None] * 5}
    folder = leave_study(tmp_path / "study", values, pictures=False)
    document, pictures = collect.of_study(folder)
    page = publish.publish(document, pictures, tmp_path / "page")
    html, data = page.read_text(), page.parent / "data"
    places = [html.index(f'<section id="{name}"') for name in ("changes", "losses-and-gains")]
    assert places[0] < places[1] < html.index('<section id="curves"')
    assert "Losses &amp; gains" in html
    assert "Lost runs are &lt;counted&gt;." in html
    assert '<a href="data/lost.csv">lost.csv</a>: Lost runs of each variant' in html
    rows = list(csv.DictReader((data / "lost.csv").read_text().splitlines()))
    assert {row["variant"]: row["lost"] for row in rows} == {
        "no-attention": "0", "sagan": "0", "g-only": "5",
    }  # fmt: skip
    ids = _Parts(html).ids
    assert len(ids) == len(set(ids))
    stored = unsealed(data / "report.json")
    assert stored["sections"] == {"losses-and-gains": {"no-attention": 0, "sagan": 0, "g-only": 5}}
    assert read(data / "report.json") == document
    publish.again(data / "report.json")
    assert page.read_text() == html


def test_a_report_without_sections_of_users_says_nothing_of_any(tmp_path: Path) -> None:
    document, _ = collect.of_study(leave_study(tmp_path / "study", CLEAR, pictures=False))
    assert "sections" not in json.loads(document.to_json())


def test_data_of_a_section_that_is_not_there_are_kept(tmp_path: Path) -> None:
    document, _ = collect.of_study(leave_study(tmp_path / "study", CLEAR, pictures=False))
    document = document.model_copy(update={"sections": {"gone": [1]}})
    page = publish.publish(document, {}, tmp_path / "page")
    publish.again(page.parent / "data" / "report.json")
    assert read(page.parent / "data" / "report.json").sections == {"gone": [1]}


@pytest.mark.parametrize("kind", ["study", "tuning"])
def test_the_answer_comes_first_and_no_two_sections_share_a_place(kind: Any) -> None:
    known = sections(kind)
    assert known[0].name == "answer"
    orders = [section.order for section in known]
    assert orders == sorted(set(orders))
