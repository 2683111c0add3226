"""The page as a browser, a reader without JavaScript, a printer and a screen reader have it."""

import csv
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape as html_text
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from example_reports import CLEAR, Example, leave_run, leave_study, settings
from playwright.sync_api import Browser, Page

from sagan_bench.core.errors import UserError
from sagan_bench.experiments import studies
from sagan_bench.report import collect, page, publish
from sagan_bench.report.document import AnyDocument, Document
from sagan_bench.report.sections._base import blocks, theme_of

HOSTILE = '<img src=x onerror="alert(1)">'
NASTY = "</script><script>alert(2)</script> $x^2$ {{ 7*7 }} " + "long" * 40


@contextmanager
def opened(browser: Browser, file: Path, query: str = "", **given: Any) -> Iterator[Page]:
    """Open a page offline; fail on whatever it asks of a network and on every error it reports."""
    context = browser.new_context(offline=True, **given)
    tab, troubles = context.new_page(), list[str]()
    tab.on("console", lambda message: troubles.append(message.text))
    tab.on("pageerror", lambda error: troubles.append(str(error)))
    tab.on("dialog", lambda dialog: troubles.append(dialog.message))
    tab.on("request", lambda request: troubles.extend(_outside(request.url)))
    tab.goto(file.as_uri() + query)
    yield tab
    assert not troubles
    context.close()


def _outside(url: str) -> list[str]:
    return [] if urlsplit(url).scheme in ("file", "data") else [url]


def column(tab: Page, table: str, index: int) -> list[str]:
    rows = f"#t-{table} tbody tr:not([hidden]) > :nth-child({index + 1})"
    return tab.eval_on_selector_all(rows, "cells => cells.map(cell => cell.dataset.v)")


# --- In a browser ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wrong_by_axe_and_nothing_leaves_the_page(
    browser: Browser, clear: Example, scheme: Any
) -> None:
    with opened(browser, clear.page, color_scheme=scheme) as tab:
        found = Axe().run(tab, options={"resultTypes": ["violations"]})
        assert [one["id"] for one in found.response["violations"]] == []
        background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_first_screen_answers_the_question(browser: Browser, clear: Example) -> None:
    with opened(browser, clear.page, viewport={"width": 1280, "height": 720}) as tab:
        for text in ("Does self-attention help here?", "1 better (sagan)", "+0.210"):
            box = tab.get_by_text(text).first.bounding_box()
            assert box is not None, text
            assert box["y"] + box["height"] < 720, text


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(browser: Browser, clear: Example, width: int) -> None:
    with opened(browser, clear.page, viewport={"width": width, "height": 800}) as tab:
        tab.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_a_column_sorts_keeps_what_is_pinned_and_says_so(browser: Browser, clear: Example) -> None:
    with opened(browser, clear.page) as tab:
        header = tab.locator("#t-runs thead th").nth(1)
        before = column(tab, "runs", 1)
        for direction, turn in (("ascending", False), ("descending", True)):
            header.locator("button").press("Enter")
            assert header.get_attribute("aria-sort") == direction
            assert tab.locator("#t-runs [aria-sort]").count() == 1
            values = column(tab, "runs", 1)
            known = [float(value) for value in values if value]
            assert known == sorted(known, reverse=turn)
            assert values[len(known) :] == [""] * 5  # lost runs stay last
        assert sorted(values) == sorted(before)
        tab.locator("#t-results thead th button").first.click()
        names = column(tab, "results", 0)
        assert (names[0], names[-1]) == ("no-attention", "real images")


def test_sorting_and_filters_live_in_the_address(browser: Browser, clear: Example) -> None:
    with opened(browser, clear.page) as tab:
        tab.locator("#t-runs thead th button").nth(2).click()
        tab.locator("select[name=status]").select_option("diverged")
        assert set(column(tab, "runs", 2)) == {"g-only"}
        query = "?" + urlsplit(tab.url).query
    with opened(browser, clear.page, query) as tab:
        assert set(column(tab, "runs", 2)) == {"g-only"}
        assert tab.locator("#t-runs thead th").nth(2).get_attribute("aria-sort") == "ascending"


def test_everything_is_there_without_javascript(browser: Browser, clear: Example) -> None:
    count = "tbody tr, svg, img, pre, li, dd"
    with opened(browser, clear.page, java_script_enabled=False) as plain:
        assert plain.locator("#t-runs tbody tr").count() == 15
        without = plain.locator(count).count()
        assert plain.locator("button, select").count() == 0  # nothing that would do nothing
    with opened(browser, clear.page) as tab:
        assert tab.locator(count).count() == without


def test_every_image_decodes_and_says_what_it_shows(browser: Browser, clear: Example) -> None:
    with opened(browser, clear.page) as tab:
        images = tab.eval_on_selector_all("img", "all => all.map(i => [i.alt, i.naturalWidth])")
        assert len(images) == len(clear.document.pictures)
        assert all(alt and width for alt, width in images)
        titles = tab.eval_on_selector_all("svg[aria-labelledby]", """all => all.map(one =>
            one.getAttribute('aria-labelledby').split(' ')
               .map(id => document.getElementById(id).textContent).join(' '))""")  # fmt: skip
        assert titles
        assert "sagan 0.490 to 0.560 in 5" in titles[0]  # the finding, not only what is drawn


@pytest.mark.parametrize("target", ["v-sagan", "run-sagan-s3-000000000000", "fig-forest", "method"])
def test_deep_links_land(browser: Browser, clear: Example, target: str) -> None:
    with opened(browser, clear.page, f"#{target}") as tab:
        box = tab.locator(":target").bounding_box()
        assert box is not None
        assert -1 <= box["y"] < 720


def test_print_is_dark_on_white_with_everything_open(browser: Browser, clear: Example) -> None:
    with opened(browser, clear.page, color_scheme="dark") as tab:
        tab.emulate_media(media="print", color_scheme="dark")
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
        assert not tab.locator("nav").is_visible()
        folded = tab.locator("details:not([open]) p, details:not([open]) td").first
        assert folded.is_visible()
        assert len(tab.pdf()) > 20_000


def test_hostile_names_and_reasons_stay_text(browser: Browser, tmp_path: Path) -> None:
    paths = [
        leave_run(tmp_path / "a-s0", settings("no-attention", 0), 0.3),
        leave_run(tmp_path / "b-s0", settings("sagan", 0), 0.5, variant=HOSTILE),
        leave_run(tmp_path / "c-s0", settings("sagan", 0), None, variant=NASTY, reason=HOSTILE),
    ]
    document, pictures = collect.of_runs(paths, "runs", "no-attention")
    file = publish.publish(document, pictures, tmp_path / "out")
    with opened(browser, file, viewport={"width": 360, "height": 800}) as tab:
        assert tab.get_by_text(HOSTILE).count() > 3
        assert tab.locator("img:not([src^='data:'])").count() == 0
        assert tab.locator("script").count() == 1
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert "{{ 7*7 }}" in file.read_text()
    assert r"\textless{}img" in (tmp_path / "out" / "data" / "summary.tex").read_text()


def test_the_list_of_reports_leads_to_them(browser: Browser, clear: Example) -> None:
    file = publish.list_reports(clear.page.parents[1])
    with opened(browser, file) as tab:
        assert Axe().run(tab).response["violations"] == []
        tab.get_by_role("link", name="quick").click()
        assert tab.url == clear.page.as_uri()


# --- Without one -------------------------------------------------------------------------------


class _Parts(HTMLParser):
    """Collects what a test looks at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [value for key in ("id",) if (value := given.get(key))]
        self.links += [v for k in ("href", "src", "xlink:href") if (v := given.get(k))]


def test_ids_are_unique_and_links_lead_somewhere(clear: Example) -> None:
    parts = _Parts(clear.page.read_text())
    assert len(parts.ids) == len(set(parts.ids))
    for link in parts.links:
        if link.startswith("#"):
            assert link[1:] in parts.ids, link
        elif not link.startswith("data:"):
            assert (clear.page.parent / link).exists(), link


def test_the_same_document_and_pictures_give_the_same_bytes(clear: Example) -> None:
    html = clear.page.read_text()
    before = {file.name: file.read_bytes() for file in (clear.page.parent / "data").iterdir()}
    _, again = publish.again(clear.page.parent / "data" / "report.json")
    assert again == clear.page
    assert again.read_text() == html
    assert {file.name: file.read_bytes() for file in again.parent.joinpath("data").iterdir()} == (
        before
    )
    assert len(html) < 1_000_000


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def test_the_data_can_be_taken_away(clear: Example) -> None:
    data = clear.page.parent / "data"
    runs = rows(data / "runs.csv")
    assert len(runs) == 15
    assert float(runs[5]["twin_rate"]) == CLEAR["sagan"][0]
    lost = [run for run in runs if run["variant"] == "g-only"]
    assert {(run["twin_rate"], run["status"]) for run in lost} == {("", "diverged")}
    compared = rows(data / "comparisons.csv")
    primary = {row["variant"]: row["verdict"] for row in compared if "(primary)" in row["reading"]}
    assert primary == {"sagan": "better by as much as matters", "g-only": "worse by divergence"}
    assert all(row["label"] for row in compared)
    assert {row["label"] for row in compared if row["metric"] == "fid"} <= {"FID[effnet-lite0]"}
    table = (data / "summary.tex").read_text()
    assert r"\toprule" in table
    assert r"sagan & 5/5 & 0.524 $\pm$ 0.030 & +0.210" in table
    assert "| sagan | 5/5 |" in (data / "summary.md").read_text()


def html_of(document: AnyDocument) -> str:
    """Return the page of a document that has no pictures."""
    theme = theme_of(document, lambda name: b"")
    return page.render(document, blocks(document, theme), theme)


def bare(document: Document) -> str:
    """Return the page without what takes long to draw."""
    return html_of(document.model_copy(update={"pictures": (), "series": ()}))


def one_run(root: Path) -> Document:
    path = leave_run(root / "run", settings("sagan", 0), 0.5)
    document = collect.of_runs([path], "run", None)[0]
    assert isinstance(document, Document)
    return document


def only_lost(root: Path) -> Document:
    folder = leave_study(root / "study", {"no-attention": [None] * 5, "sagan": [None] * 5})
    return collect.of_study(folder)[0]


@pytest.mark.parametrize(
    ("make", "told"), [(one_run, "Nothing is compared here"), (only_lost, "cannot be compared")]
)
def test_hopeless_input_gives_a_page_that_says_so(
    tmp_path: Path, make: Callable[[Path], Document], told: str
) -> None:
    document = make(tmp_path)
    html = bare(document)
    assert told in html
    assert "diverged" in html or document.status == "complete"


def test_sides_become_a_map_of_variants_that_change_nothing_else(tmp_path: Path) -> None:
    values = {"no-attention": 0.3, "feat4": 0.4, "feat8": 0.5, "feat4+learning-rate-half": 0.9}
    folder = leave_study(tmp_path / "study", {k: [v, v] for k, v in values.items()}, pictures=False)
    html = bare(collect.of_study(folder)[0])
    assert "Best mean twin_rate: 0.500, attention in G and D at side 8 px" in html


def test_the_published_table_stands_beside_by_share_of_the_side(tmp_path: Path) -> None:
    values = {"no-attention": 0.3, "feat4": 0.4, "feat8": 0.5, "feat8+residual-ungated": 0.2}
    changed = {"paper": studies.load("position").paper}
    folder = leave_study(
        tmp_path / "study", {k: [v, v] for k, v in values.items()}, changed=changed, pictures=False
    )
    html = bare(collect.of_study(folder)[0])
    table = html[html.index("Beside the published table") :].partition("</table>")[0]
    assert "paper's FID" in html_text(table)
    assert "paper's FID[" not in html_text(table)
    found = [re.sub(r"<[^>]+>|\s+", " ", row).split() for row in table.split("<tr")[2:]]
    paper = {row[2]: row for row in found}
    assert "22.14" in paper["feat4"]  # 4 of 32 px is the paper's 16 of 128
    assert "18.28" in paper["feat8"]
    assert "27.33" in paper["feat8+residual-ungated"]
    assert "22.96" in paper["no-attention"]


def test_a_folder_of_something_else_is_left_alone(clear: Example, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="no report left"):
        publish.publish(clear.document, clear.pictures, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
