"""A section is one class in one file: nobody else names it."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from example_records import unsealed
from example_reports import CLEAR, leave_study
from own_components import loaded
from test_page import _Parts

from sagan_bench.report import collect, publish
from sagan_bench.report.document import read
from sagan_bench.report.sections._base import sections


def test_a_section_of_a_user_is_collected_shown_filed_and_read_back(tmp_path: Path) -> None:
    values = {**CLEAR, "g-only": [None] * 5}
    folder = leave_study(tmp_path / "study", values, pictures=False)
    with loaded("lost_runs"):
        document, pictures = collect.of_study(folder)
        page = publish.publish(document, pictures, tmp_path / "page")
        _shown_and_filed(page)
        assert read(page.parent / "data" / "report.json") == document


def _shown_and_filed(page: Path) -> None:
    html, data = page.read_text(), page.parent / "data"
    places = [html.index(f'<section id="{name}"') for name in ("changes", "lost-runs")]
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
    assert stored["sections"] == {"lost-runs": {"no-attention": 0, "sagan": 0, "g-only": 5}}
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
