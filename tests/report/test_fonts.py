"""Lighter fonts draw what the whole ones draw."""

import os
import subprocess
import sys
import time
from pathlib import Path

import matplotlib as mpl
import pytest
from fontTools.ttLib import TTFont
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font

from sagan_bench.report import fonts, svg

DRAWS = (
    "import sys; from matplotlib.figure import Figure; from sagan_bench.report import svg;"
    "figure = Figure(); figure.text(0.1, 0.1, 'difference in twin_rate');"
    "sys.stdout.buffer.write(svg.drawn(figure, 'a', 'a', 'a').files()['fig-a.pdf'])"
)
TEXTS = (
    "twin_rate of no-attention",
    "−0.044 [−0.089, 0.002]",
    "AVATAR Wo. Ty, ±×→ äöß ✚★",
)


@pytest.mark.parametrize("weight", ["normal", "bold"])
def test_glyphs_and_widths_are_those_of_the_whole_fonts(weight: str) -> None:
    folder = fonts.lighten()
    assert folder is not None
    light = Path(findfont(FontProperties(family="DejaVu Sans", weight=weight)))
    assert light.parent == folder
    whole = Path(mpl.get_data_path()) / "fonts/ttf" / light.name
    with TTFont(light) as ours, TTFont(whole) as theirs:
        assert ours["head"].modified == theirs["head"].modified  # the same bytes at any time
        assert theirs.reader.keys() - ours.reader.keys() == set(fonts.RULES)
        for table in ours.reader.keys() - {"head"}:  # which has the sum of all
            assert ours.reader[table] == theirs.reader[table], table
    for text in TEXTS:
        widths = []
        for file in (light, whole):
            font = FT2Font(file)
            font.set_size(10.5, 72)
            font.set_text(text, 0.0)
            widths.append(font.get_width_height())
        assert widths[0] == widths[1], text


def test_the_same_figure_is_drawn_with_either() -> None:
    def of(family: Path | str) -> svg.Drawn:
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        axes.set_title("difference in twin_rate", font=family)
        axes.set_ylabel("−0.044 [−0.089, 0.002]", font=family)
        return svg.drawn(figure, "a", "a", "a")

    whole = of(Path(mpl.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")
    light = of("DejaVu Sans")
    assert light.svg.replace("'DejaVu Sans'", "sans-serif") == whole.svg
    assert len(light.files()["fig-a.pdf"]) < len(whole.files()["fig-a.pdf"])


def test_another_process_writes_the_same_bytes_at_another_time() -> None:
    made = set()
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", DRAWS], capture_output=True, check=True)
        made.add(done.stdout)
        time.sleep(1.1)  # what a font counts in
    assert len(made) == 1
    assert made.pop().startswith(b"%PDF")


@pytest.mark.parametrize("place", ["made", "a file", "damaged"])
def test_without_a_place_for_them_figures_are_drawn_with_the_whole_ones(
    tmp_path: Path, place: str
) -> None:
    """What another program left in the place of a copy is written again."""
    if place == "a file":
        (tmp_path / "cache").touch()
    elif place == "damaged":
        folder = tmp_path / "cache" / "fonts" / f"matplotlib-{mpl.__version__}"
        folder.mkdir(parents=True)
        (folder / fonts.FILES[0]).write_bytes(b"no font")
    code = f"from sagan_bench.report import fonts;{DRAWS}; print(fonts.lighten(), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"SAGAN_BENCH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(b"%PDF")
    assert (done.stderr.strip() == b"None") is (place == "a file")
