"""Figures and pictures under a mouse, a finger and a keyboard, and tables on a narrow screen."""

import io
import re
from pathlib import Path
from typing import Any

import command_line
import pytest
from axe_playwright_python.sync_playwright import Axe
from example_reports import CLEAR, Example, leave_run, settings
from PIL import Image
from playwright.sync_api import Browser, Page
from test_page import opened

from sagan_bench.report.films import BYTES

PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 800},
    "has_touch": True,
    "is_mobile": True,
}


IN_SIGHT = """row => {
  const box = row.getBoundingClientRect();
  return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight;
}"""


def middle(tab: Page, selector: str) -> tuple[float, float]:
    """Return where the first of these is, in the window."""
    tab.locator(selector).first.scroll_into_view_if_needed()
    box = tab.locator(selector).first.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def point(figure: str, says: str) -> str:
    return f"#fig-{figure} a.told[aria-label='{says}']"


# --- Points ------------------------------------------------------------------------------------


def test_a_point_says_its_run_under_the_mouse_and_leads_to_its_row(
    browser: Browser, clear: Example
) -> None:
    with opened(browser, clear.page) as tab:
        at = middle(tab, point("runs", "sagan, seed 2: 0.550"))
        assert tab.locator(".tip").is_hidden()
        tab.mouse.move(at[0] + 4, at[1] + 4)  # beside it is near enough
        assert tab.locator(".tip").inner_text() == "sagan, seed 2: 0.550"
        tab.mouse.click(*at)
        assert tab.locator(":target").get_attribute("id") == "run-sagan-s2-000000000000"
        tab.mouse.move(2, 2)
        assert tab.locator(".tip").is_hidden()


def test_a_point_leads_to_its_row_again_and_to_one_that_a_filter_hides(
    browser: Browser, clear: Example
) -> None:
    with opened(browser, clear.page) as tab:
        row = tab.locator("#run-sagan-s2-000000000000")
        for _ in range(2):
            at = middle(tab, point("runs", "sagan, seed 2: 0.550"))
            assert not tab.evaluate(IN_SIGHT, row.element_handle())
            tab.mouse.click(*at)
            tab.wait_for_function(IN_SIGHT, arg=row.element_handle())
        tab.get_by_label("Show variant").select_option("no-attention")
        assert row.is_hidden()
        tab.mouse.click(*middle(tab, point("runs", "sagan, seed 3: 0.500")))
        assert tab.locator("#run-sagan-s3-000000000000").is_visible()
        assert tab.get_by_label("Show variant").input_value() == ""
        other = tab.locator("#run-sagan-s3-000000000000")
        tab.wait_for_function(IN_SIGHT, arg=other.element_handle())
        tab.get_by_label("Show variant").select_option("no-attention")
        tab.locator(point("runs", "sagan, seed 3: 0.500")).focus()
        tab.keyboard.press("Enter")  # its row is the one that the address names already
        assert other.is_visible()
        tab.get_by_label("Show variant").select_option("no-attention")
        tab.reload()
        assert tab.get_by_label("Show variant").input_value() == "no-attention"


def test_a_line_is_told_between_its_points_too_and_a_point_on_it_first(
    browser: Browser, clear: Example
) -> None:
    with opened(browser, clear.page) as tab:
        interval = tab.locator("#fig-forest a.told", has=tab.locator("path")).first
        interval.scroll_into_view_if_needed()
        box = interval.bounding_box()
        assert box is not None
        said = interval.get_attribute("aria-label")
        for share in (0.2, 0.35, 0.65, 0.8):
            tab.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
            assert tab.locator(".tip").inner_text() == said, share
        tab.mouse.move(box["x"] + box["width"] / 2 + 5, box["y"] + box["height"] / 2)
        told = tab.locator(".tip").inner_text()  # the interval lies under the mouse, the point near
        assert told != said
        assert told.startswith("sagan v no-attention: ")


def test_a_gap_in_a_line_is_none_of_it(browser: Browser, clear: Example) -> None:
    with opened(browser, clear.page) as tab:
        interval = tab.locator("#fig-forest a.told", has=tab.locator("path")).first
        interval.scroll_into_view_if_needed()
        box = interval.bounding_box()
        assert box is not None
        interval.locator("path").first.evaluate(
            """path => {
              const ends = [...path.getAttribute("d").matchAll(/[ML] ?([\\d.]+) ([\\d.]+)/g)];
              const [[x, y], [to]] = ends.map(([, ...end]) => end.map(Number));
              path.setAttribute("d", `M ${x} ${y} L ${x + 1} ${y} M ${to - 1} ${y} L ${to} ${y}`);
            }"""
        )
        for share, seen in ((0.01, True), (0.25, False), (0.75, False), (0.99, True)):
            tab.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
            assert tab.locator(".tip").is_visible() is seen, share


def test_every_point_is_the_value_of_its_run(browser: Browser, clear: Example) -> None:
    with opened(browser, clear.page) as tab:
        told = tab.eval_on_selector_all("#fig-runs a.told", "all => all.map(a => a.ariaLabel)")
    expected = [
        f"{variant}, seed {seed}: {value:.3f}"
        for variant, values in CLEAR.items()
        for seed, value in enumerate(values)
    ]
    assert sorted(told) == sorted(expected)


def test_the_keyboard_stops_once_a_figure_and_arrows_lead_on(
    browser: Browser, clear: Example
) -> None:
    with opened(browser, clear.page) as tab:
        stops = tab.locator("#fig-runs a.told[tabindex='0']")
        assert stops.count() == 1
        stops.focus()
        first = tab.locator(".tip").inner_text()
        tab.keyboard.press("ArrowRight")
        second = tab.locator(".tip").inner_text()
        assert first.startswith("no-attention, seed")
        assert second.startswith("no-attention, seed")
        assert first != second
        tab.keyboard.press("End")
        assert tab.locator(".tip").inner_text().startswith("sagan, seed")
        tab.keyboard.press("Escape")
        assert tab.locator(".tip").is_hidden()
        tab.keyboard.press("Enter")
        assert tab.url.endswith("#run-sagan-s4-000000000000")


def test_a_touch_shows_what_a_point_is_and_only_then_leads_away(
    browser: Browser, clear: Example
) -> None:
    with opened(browser, clear.page, **PHONE) as tab:
        before = tab.url
        tab.touchscreen.tap(*middle(tab, point("runs", "sagan, seed 2: 0.550")))
        assert tab.locator(".tip").inner_text() == "sagan, seed 2: 0.550 · to the table"
        assert tab.url == before
        box = tab.locator(".tip").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        tab.locator(".tip a").tap()
        assert tab.url.endswith("#run-sagan-s2-000000000000")


# --- Curves ------------------------------------------------------------------------------------


def test_a_curve_says_step_and_value_of_the_nearest_point(browser: Browser, clear: Example) -> None:
    (series,) = [s for s in clear.document.series
                 if (s.name, s.variant, s.seed) == ("loss_d", "sagan", 3)]  # fmt: skip
    with opened(browser, clear.page) as tab:
        curve = tab.locator("#fig-loss-d a.told[aria-label='sagan, seed 3']")
        curve.focus()
        said = [tab.locator(".tip").inner_text()]
        for _ in range(3):
            tab.keyboard.press("ArrowLeft")
            said.append(tab.locator(".tip").inner_text())
    for text, step, value in zip(said, series.steps[::-1], series.values[::-1], strict=False):
        name, told_step, told = re.fullmatch(r"(.+): step (\S+), (\S+)", text).groups()  # type: ignore[union-attr]
        assert (name, told_step) == ("sagan, seed 3", f"{step:,}")
        assert value is not None
        assert float(told.replace("−", "-")) == pytest.approx(value, abs=2e-3)
        assert len(told.partition(".")[2]) >= 2  # and not as 1


def test_readings_of_g_and_d_stand_apart(browser: Browser, clear: Example) -> None:
    with opened(browser, clear.page) as tab:
        texts = tab.locator("#fig-ratio text").all_text_contents()
        titles = [text for text in texts if text.startswith("strength")]
        assert [title[-3:] for title in titles] == [", G", ", D"]
        told = tab.eval_on_selector_all("#fig-ratio a.told", "all => all.map(a => a.ariaLabel)")
    assert {"sagan, G attention8, seed 0", "sagan, D attention8, seed 0"} <= set(told)


def test_without_javascript_a_point_has_a_title_and_leads_to_its_row(
    browser: Browser, clear: Example
) -> None:
    with opened(browser, clear.page, java_script_enabled=False) as tab:
        link = tab.locator("#fig-runs a.told").first
        assert re.fullmatch(r"no-attention, seed \d: 0\.\d+", link.locator("title").inner_html())
        link.click()
        assert "#run-no-attention-s" in tab.url


def test_a_figure_on_its_own_has_titles_and_leads_nowhere(clear: Example) -> None:
    text = (clear.page.parent / "data" / "fig-runs.svg").read_text()
    assert "<title>sagan, seed 2: 0.550</title>" in text
    assert "told:" not in text
    assert "<a" not in text


# --- Pictures ----------------------------------------------------------------------------------


def mean(tab: Page, selector: str) -> float:
    """Return how bright a picture is on the page."""
    drawn = Image.open(io.BytesIO(tab.locator(selector).screenshot())).convert("L").resize((1, 1))
    value = drawn.getpixel((0, 0))
    assert isinstance(value, int)
    return value


def test_one_slider_moves_all_grids_over_training(browser: Browser, clear: Example) -> None:
    with opened(browser, clear.page) as tab:
        of = "#samples .pictures:not(.small) img[data-of={}]"
        before = {name: mean(tab, of.format(name)) for name in ("sagan", "no-attention", "real")}
        slider = tab.locator("#samples .slider input")
        assert slider.get_attribute("aria-valuetext") == "step 600"
        slider.focus()
        tab.keyboard.press("Home")
        assert tab.locator("#samples .slider output").inner_text() == "step 100"  # of a lost run
        after = {name: mean(tab, of.format(name)) for name in before}
        assert after["sagan"] > before["sagan"] + 5  # the fixture is pale while it trains
        assert after["no-attention"] > before["no-attention"] + 5
        assert after["real"] == before["real"]
        alt = tab.locator(of.format("sagan")).get_attribute("alt")
        assert alt is not None
        assert alt.endswith("; picture of step 200, words of the end")
        caption = tab.locator("#samples figcaption", has_text="sagan").first
        assert caption.inner_text().endswith("· picture of step 200, words of the end")
        tab.keyboard.press("End")
        assert mean(tab, of.format("sagan")) == before["sagan"]


def test_a_grid_enlarges_and_flips_with_another_of_the_same_noise(
    browser: Browser, clear: Example
) -> None:
    with opened(browser, clear.page) as tab:
        tab.get_by_role("link", name="Samples of sagan, seed 0").click()
        view = tab.get_by_role("dialog")
        large = view.locator("img")
        box = large.bounding_box()
        assert box is not None
        assert box["width"] > 450
        assert view.locator("option").all_inner_texts() == ["● no-attention", "◆ g-only"]
        shown = large.get_attribute("src")
        tab.keyboard.press("f")
        assert large.get_attribute("alt", timeout=1000) != "Samples of sagan, seed 0"
        assert (large.get_attribute("alt") or "").startswith("Samples of no-attention, seed 0")
        assert view.locator("p").inner_text().startswith("● no-attention, seed 0")
        tab.keyboard.press("f")
        assert large.get_attribute("src") == shown
        assert Axe().run(tab).response["violations"] == []
        tab.keyboard.press("Escape")
        assert view.count() == 0
        assert tab.evaluate("document.activeElement.className") == "large"


def test_what_to_flip_with_is_named_whole(browser: Browser) -> None:
    for steps in (600, 1200):
        config = settings("sagan", 0, [f"run.steps={steps}"])
        leave_run(Path("runs") / f"of-{steps}", config, 0.4, pictures=True)
    assert command_line.run("report", "runs/of-600", "runs/of-1200", "--out", "mine") == 0
    with opened(browser, Path("mine/index.html").resolve()) as tab:
        tab.get_by_role("link", name="Samples of sagan, 600 steps").click()
        assert tab.get_by_role("dialog").locator("option").all_inner_texts() == [
            "■ sagan, 1,200 steps"
        ]


def test_what_is_enlarged_says_its_own_step_and_follows_the_slider(
    browser: Browser, clear: Example
) -> None:
    with opened(browser, clear.page) as tab:
        tab.get_by_role("link", name="Samples of g-only").click()
        said = tab.get_by_role("dialog").locator("p")
        assert said.inner_text().endswith(", at step 300")  # where its runs were lost
        tab.keyboard.press("f")
        assert said.inner_text().startswith("● no-attention")
        assert said.inner_text().endswith(", at step 600")
        tab.keyboard.press("Escape")
        tab.locator("#samples .slider input").focus()
        tab.keyboard.press("Home")
        tab.get_by_role("link", name="Real images of the training").click()
        tab.keyboard.press("ArrowRight")
        told = said.inner_text()
        assert told.endswith("; picture of step 200, words of the end")  # the first of its own
        tab.get_by_role("dialog").locator("input[type=range]").focus()
        tab.keyboard.press("End")
        assert said.inner_text().endswith(", at step 600")
        tab.keyboard.press("ArrowRight")  # of the slider, which stays in its place
        tab.get_by_role("button", name="Next").click()
        tab.get_by_role("dialog").locator("input[type=range]").focus()
        before = said.inner_text()
        tab.keyboard.press("f")  # beside the slider as well
        assert said.inner_text() != before
        assert tab.locator("#samples .slider output").first.inner_text() == "step 600"


def test_maps_slide_too_and_flip_only_with_the_same_block(browser: Browser, clear: Example) -> None:
    with opened(browser, clear.page) as tab:
        tab.locator("#attention a.large").first.click()
        view = tab.get_by_role("dialog")
        others = view.locator("option").all_inner_texts()
        assert others == ["◆ g-only"]
        before = view.locator("img").get_attribute("src")
        view.locator("input[type=range]").focus()
        tab.keyboard.press("Home")
        assert view.locator("img").get_attribute("src") != before
        view.get_by_role("button", name="Close").click()
        assert view.count() == 0


def test_without_javascript_a_picture_leads_to_the_lossless_one_and_frames_are_folded(
    browser: Browser, clear: Example
) -> None:
    with opened(browser, clear.page, java_script_enabled=False) as tab:
        for link in tab.locator("a.large").all():
            href = link.get_attribute("href")
            assert href is not None
            assert (clear.page.parent / href).is_file()
        tab.locator("#samples details.film summary").click()
        assert tab.locator("#samples details.film img").first.is_visible()


def test_frames_take_no_more_than_their_share_of_the_page(clear: Example) -> None:
    data = clear.page.parent / "data"
    frames = [picture for picture in clear.document.pictures if picture.kind == "film"]
    size = sum((data / frame.file).stat().st_size for frame in frames)
    assert {frame.step for frame in frames if frame.variant == "sagan"} == {200, 400}
    assert 0 < size <= sum(BYTES.values())


# --- Tables ------------------------------------------------------------------------------------


def test_what_decides_is_seen_at_once_and_the_rest_behind_one_switch(
    browser: Browser, clear: Example
) -> None:
    with opened(browser, clear.page, viewport={"width": 1280, "height": 800}) as tab:
        place = tab.locator(".frame:has(#t-results)")
        fits = "place => place.scrollWidth <= place.clientWidth"
        assert place.locator(".table").evaluate(fits)
        assert place.locator("thead th:visible").count() == 6
        assert not place.locator(".hint").is_visible()
        place.get_by_label(re.compile("all 16 columns")).check()
        assert place.locator("thead th:visible").count() == 16
        assert place.locator(".hint").is_visible()
        query = tab.url
    with opened(browser, clear.page, "?" + query.partition("?")[2]) as tab:
        assert tab.locator("#t-results thead th:visible").count() == 16


def test_the_switch_needs_no_javascript(browser: Browser, clear: Example) -> None:
    with opened(browser, clear.page, java_script_enabled=False) as tab:
        assert tab.locator("#t-results thead th:visible").count() == 6
        tab.get_by_label("all 16 columns").check()
        assert tab.locator("#t-results thead th:visible").count() == 16


@pytest.mark.parametrize("table", ["results", "runs"])
def test_a_table_that_scrolls_says_so_and_keeps_its_first_column(
    browser: Browser, clear: Example, table: str
) -> None:
    with opened(browser, clear.page, **PHONE) as tab:
        place = tab.locator(f".frame:has(#t-{table})")
        place.scroll_into_view_if_needed()
        assert place.locator(".hint").is_visible()
        box = place.get_by_role("columnheader", name="twin_rate").bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 390  # what decides is seen at once
        first = place.locator("tbody th").first
        before = first.bounding_box()
        place.locator(".table").evaluate("place => place.scrollLeft = 9999")
        tab.wait_for_timeout(100)
        after = first.bounding_box()
        assert before is not None
        assert after is not None
        assert before["x"] == pytest.approx(after["x"], abs=1)
        assert "end" in (place.get_attribute("class") or "")
