"""The section "Is it used?" of a page: what probes say, a picture, and the mass on the twin."""

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from example_probes import outcome, probe_of
from example_reports import CLEAR, STEPS, _grid, leave_study
from test_page import _Parts

from sagan_bench.report import collect, publish
from sagan_bench.report.document import Series, read
from sagan_bench.report.sections.used import beyond_chance
from sagan_bench.runs import probe as stored
from sagan_bench.runs import records
from sagan_bench.runs.probe import Arm, MassReading, Outcome, ProbedBlock, ProbePicture
from sagan_bench.runs.run import Run

BREAKS = {"all": 0.8, "hue_match": 0.75, "area_match": 0.2}


def leave_probes(folder: Path, excesses: Sequence[float], *, images: int = 512) -> None:
    """Leave a probe in each of sagan's runs: under a uniform map 0.5 plus its excess."""
    for seed, excess in enumerate(excesses):
        path = next(folder.glob(f"sagan-s{seed}-*"))
        picture = _grid(seed)
        (path / "probe.png").write_bytes(picture)
        of_d = Arm(
            network="discriminator", blocks=("attention8",), intervention="another-image",
            keeps_rms=False, applied=Outcome(ranking=0.6), sham=Outcome(ranking=0.9),
        )  # fmt: skip
        pooled = Arm(
            network="generator", blocks=("attention16",), intervention="own-position",
            keeps_rms=False, reason="its keys are pooled from 2 x 2 positions",
        )  # fmt: skip
        made = probe_of(Run(path, records.read(path)), 0.5 + excess)
        applied = outcome(0.5 + excess).model_copy(update={"breaks": BREAKS})
        arms = [
            arm.model_copy(update={"applied": applied}) if arm.primary else arm for arm in made.arms
        ]
        block = ProbedBlock(
            network="generator", name="attention16", gamma=0.5, by="maps", reason=None,
            mass=MassReading(mass=0.4 + 0.01 * seed, chance=0.1, images=100),
        )  # fmt: skip
        stored.write(path, made.model_copy(update={
            "arms": (*arms, of_d, pooled),
            "blocks": (block,),
            "untouched": made.untouched.model_copy(update={"ranking": 0.95}),
            "images": images,
            "picture": ProbePicture(
                blocks=("attention16",), rows=("untouched", "uniform", "sham"),
                sha256=hashlib.sha256(picture).hexdigest(),
            ),
        }))  # fmt: skip


def published(folder: Path, root: Path, *, again: bool = False) -> tuple[str, Path]:
    page = publish.publish(*collect.of_study(folder), root / "page")
    html = page.read_text()
    if again:
        publish.again(page.parent / "data" / "report.json")
        assert page.read_text() == html  # of its data alone
    ids = _Parts(html).ids
    assert len(ids) == len(set(ids))
    return html, page.parent / "data"


def section(html: str) -> str:
    return html.split('<section id="used"')[1].split("</section>")[0]


EXCESSES = (-0.40, -0.41, -0.39, -0.42, -0.38)


def test_a_probed_study_says_whether_its_attention_is_used(tmp_path: Path) -> None:
    folder = leave_study(tmp_path / "study")
    leave_probes(folder, EXCESSES)
    html, data = published(folder, tmp_path, again=True)
    part = section(html)
    assert "and its finished weights depend on the map" in part
    assert "depends on the map" in part
    assert "nothing of why training went better" in part
    assert "−0.400" in part
    assert "42%" in part  # the mass on the twin, of five runs
    assert "10%" in part
    assert "hue_match 75%" in part
    assert "not made: its keys are pooled" in part
    assert html.index('id="attention"') < html.index('id="used"') < html.index('id="cost"')
    rows = list(csv.DictReader((data / "arms.csv").read_text().splitlines()))
    of = {(row["network"], row["intervention"]): row for row in rows}
    primary, ranked = of["generator", "uniform"], of["discriminator", "another-image"]
    assert float(primary["excess"]) == pytest.approx(-0.4)
    assert (primary["n"], primary["keeps_rms"], primary["primary"]) == ("5", "True", "True")
    assert (primary["breaks"], primary["breaks_share"]) == ("hue_match", "0.75")
    assert [float(ranked[key]) for key in ("untouched", "figure", "sham")] == [0.95, 0.6, 0.9]
    assert of["generator", "own-position"]["n"] == "0"


def test_its_picture_is_that_of_the_seed_that_all_samples_are_of(tmp_path: Path) -> None:
    folder = leave_study(tmp_path / "study")
    leave_probes(folder, EXCESSES)
    document, files = collect.of_study(folder)
    shown = [picture for picture in document.pictures if picture.kind == "probe"]
    grids = [picture for picture in document.pictures if picture.kind == "samples"]
    assert [(picture.variant, picture.seed) for picture in shown] == [("sagan", grids[0].seed)]
    assert grids[0].seed is not None
    assert files[shown[0].file] == _grid(grids[0].seed)
    assert "rows from above: as it is, a uniform map, the sham of that" in shown[0].caption
    html, _ = published(folder, tmp_path)
    assert shown[0].caption in section(html)
    assert section(html).count("<img") == 1
    samples = html.split('<section id="samples"')[1].split("</section>")[0]
    assert samples.count('class="large"') == 3  # real images, and a grid of each variant
    for path in folder.glob("sagan-*/probe.png"):
        path.write_bytes(_grid(99))
    document, _ = collect.of_study(folder)
    assert not [picture for picture in document.pictures if picture.kind == "probe"]


def test_a_study_that_was_not_probed_has_no_such_section(tmp_path: Path) -> None:
    html, _ = published(leave_study(tmp_path / "study", CLEAR, pictures=False), tmp_path)
    assert 'id="used"' not in html


def test_where_only_the_mass_on_the_twin_is_known_the_page_says_how_to_probe(
    tmp_path: Path,
) -> None:
    folder = leave_study(tmp_path / "study", CLEAR, pictures=False)
    for path in folder.glob("sagan-*/diagnostics.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            for block in set(row) - {"step"}:
                row[block] |= {"mass": row["step"] / STEPS, "chance": 0.25, "largest_logit": 3.0}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        _sealed_anew(path.parent)
    html, _ = published(folder, tmp_path, again=True)
    part = section(html)
    assert "python cli.py probe study" in part
    assert "attention on the twin, beyond chance, at the end" in part
    assert "0.750" in part
    attention = html.split('<section id="attention"')[1].split("</section>")[0]
    assert "largest logit, at the end" in attention


def _sealed_anew(path: Path) -> None:
    from sagan_bench.runs.run_directory import RunDirectory

    record = records.read(path)
    directory = RunDirectory(path, digest=record.config_digest, config=record.config)
    directory.write(record.model_copy(update={"files": directory.seals()}))


def test_chance_is_taken_off_where_both_are_known() -> None:
    def series(name: str, values: Sequence[float | None], **changed: Any) -> Series:
        fields: dict[str, Any] = {"variant": "sagan", "seed": 0, "steps": (1, 2, 3)}
        return Series(name=name, values=tuple(values), **(fields | changed))

    known = (
        series("mass.generator.attention8", (0.5, None, 0.7)),
        series("chance.generator.attention8", (0.1, 0.1, 0.2)),
        series("mass.discriminator.attention8", (0.5, 0.5, 0.7)),
        series("mass.generator.attention8", (0.5, 0.5, 0.7), seed=1),
        series("ratio.generator.attention8", (0.5, 0.5, 0.7)),
    )
    found = list(beyond_chance(known))
    assert [(each.name, each.seed) for each in found] == [("mass.generator.attention8", 0)]
    assert found[0].values == pytest.approx((0.4, None, 0.5))


def test_the_data_of_a_page_keep_every_arm(tmp_path: Path) -> None:
    folder = leave_study(tmp_path / "study", pictures=False)
    leave_probes(folder, EXCESSES)
    _, data = published(folder, tmp_path)
    kept = read(data / "report.json").sections["used"]
    assert [arm["intervention"] for arm in kept["arms"]] == [
        "uniform", "another-image", "own-position",
    ]  # fmt: skip
    assert kept["masses"][0]["mass"] == pytest.approx(0.42)
