"""Records -> document: what is counted, chosen, warned of, and refused."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from example_records import contents, unsealed
from example_reports import CLEAR, Example, leave_run, leave_study, score, settings

from sagan_bench import cli
from sagan_bench.config.diff import in_results
from sagan_bench.config.layers import read as read_config
from sagan_bench.core.errors import UserError
from sagan_bench.experiments.tuning import trials
from sagan_bench.report import answers, collect, publish, repeating
from sagan_bench.report.claims import sureness
from sagan_bench.report.document import OLDER_RULE, SCHEMA_VERSION, Document, read
from sagan_bench.report.sections import _curves
from sagan_bench.report.sections.attention import frame_of
from sagan_bench.runs import records
from sagan_bench.runs.records import Status
from sagan_bench.runs.records import read as read_record


def of(tmp_path: Path, values: object = CLEAR, **given: object) -> Document:
    folder = leave_study(tmp_path / "study", values, **given)  # type: ignore[arg-type]
    return collect.of_study(folder)[0]


def test_the_answer_says_who_is_better_by_how_much_and_how_sure(tmp_path: Path) -> None:
    document = of(tmp_path, pictures=False)
    tone, answer = answers.answer(document)
    assert (tone, answer) == (
        "better",
        "sagan is better than no-attention by as much as matters: "
        "its twin_rate is higher by 0.210.",
    )  # fmt: skip
    assert sureness(document.findings.primary, document.status) == (
        "The runs put the difference between +0.168 and +0.252 (95 % interval); all of it is "
        "beyond the 0.05 that would matter."
    )


@pytest.mark.parametrize(
    ("sagan", "told"),
    [
        ([0.21, 0.46, 0.27, 0.43, 0.30], "Not shown whether sagan differs from no-attention."),
        (
            [0.1, 0.11, 0.1, 0.12, 0.1],
            "sagan is worse than no-attention by as much as matters: its twin_rate is lower by",
        ),
        (
            [0.27, 0.27, 0.26, 0.29, 0.28],
            "sagan differs from no-attention, but not shown by as much as matters: its twin_rate",
        ),
        ([0.25, 0.20, 0.26, 0.27, 0.21], "sagan is worse than no-attention: its twin_rate is low"),
        ([0.5, 0.5, 0.5], "No verdict on sagan and no-attention: exploratory."),
        (
            [None] * 5,
            "sagan is worse than no-attention by divergence: 5 of 5 runs diverged against 0 of 5.",
        ),
    ],
)
def test_the_answer_claims_no_more_than_the_verdict(
    tmp_path: Path, sagan: list[float | None], told: str
) -> None:
    baseline = [0.31, 0.35, 0.28, 0.33, 0.30][: len(sagan)]
    document = of(tmp_path, {"no-attention": baseline, "sagan": sagan}, pictures=False)
    assert answers.answer(document)[1].startswith(told)


def test_several_comparisons_are_counted_not_ranked(clear: Example) -> None:
    tone, answer = answers.answer(clear.document)
    assert (
        answer
        == "Of 2 comparisons with no-attention: 1 better (sagan); 1 worse (g-only by divergence)."
    )
    assert tone == "open"


def test_a_reader_is_warned(tmp_path: Path) -> None:
    values = {"no-attention": [0.3, 0.3, None, 0.3], "sagan": [0.5, 0.5, 0.5, 0.5]}
    document = of(tmp_path, values, sets=["run.cells_on_device=2"], pictures=False)
    told = " ".join(document.warnings)
    assert "1 of 4 runs of no-attention diverged" in told
    assert "A verdict needs 5 runs a variant: no-attention has 4, sagan has 4." in told
    assert "shared a device" in told
    assert "not Inception" in told


def test_a_study_with_runs_to_come_is_partial(tmp_path: Path) -> None:
    folder = leave_study(tmp_path / "study", CLEAR, pictures=False)
    path = next(folder.glob("sagan-s4-*"))
    record = read_record(path).model_copy(update={"status": Status.RUNNING, "scores": ()})
    (path / "record.json").write_bytes(record.to_json())
    document = collect.of_study(folder)[0]
    assert document.status == "partial"
    assert answers.answer(document) == (
        "open", "Nothing can be claimed yet: 9 runs are over and 1 are still to come."
    )  # fmt: skip
    assert {run.status for run in document.runs} == {"finished", "interrupted"}


def test_all_variants_are_shown_at_one_seed_chosen_by_rule(clear: Example) -> None:
    pictures = clear.document.pictures
    shown = [(p.variant, p.seed) for p in pictures if p.kind == "samples"]
    assert shown[:2] == [("no-attention", 0), ("sagan", 0)]  # the medians 0.31 and 0.52
    maps = {p.block for p in pictures if p.kind == "attention" and p.variant == "sagan"}
    assert maps == {"generator.attention8", "discriminator.attention8"}
    assert {p.file for p in pictures} == clear.pictures.keys()
    for file, content in clear.pictures.items():
        assert content.startswith(b"RIFF" if file.startswith("film-") else b"\x89PNG"), file


def test_a_lost_variant_shows_its_last_grid(clear: Example) -> None:
    (lost,) = [p for p in clear.document.pictures if p.variant == "g-only" and p.kind == "samples"]
    assert "every run was lost" in lost.caption


def test_gamma_stands_beside_the_strength_of_the_same_weights(clear: Example) -> None:
    table = frame_of(clear.document)
    found = [block for variant in clear.document.findings.variants for block in variant.blocks]
    gammas = [table.columns[2].cell(row.values).sort for row in table.rows]
    assert gammas == [block.gamma for block in found]
    raw = {s.values[-1] for s in clear.document.series if s.name.startswith("gamma.")}
    assert not raw & set(gammas)


def test_curves_are_thinned_and_keep_their_ends(
    clear: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_curves, "POINTS", (2, 7))
    series = collect.of_study(clear.folder)[0].series
    assert max(len(one.steps) for one in series) == 7
    losses = [one for one in series if one.name == "loss_d"]
    assert len(losses) == 15
    assert {one.steps[-1] for one in losses if one.variant != "g-only"} == {600}


def test_the_command_of_a_run_asks_for_its_configuration(tmp_path: Path) -> None:
    config = settings("g-only", 3, ["training.batch_size=32", "data.flip=true"])
    path = leave_run(tmp_path / "run", config, 0.3, pictures=False)
    command = repeating.of_run(read_record(path), path)
    assert command is not None
    words_ = shlex.split(command)
    sets = [word for before, word in pairwise(words_) if before == "--set"]
    preset, variant, seed = (
        words_[words_.index(f"--{name}") + 1] for name in ("preset", "variant", "seed")
    )
    again = read_config(preset=preset, variant=variant, sets=[*sets, f"seed={seed}"]).config
    assert again.model_dump(exclude={"run"}) == config.model_dump(exclude={"run"})
    assert again.run.steps == config.run.steps


def test_the_command_of_a_run_with_blocks_of_its_own_asks_for_them(tmp_path: Path) -> None:
    config = settings("sagan", 3, ["model.attention.generator=[8,16]"])
    path = leave_run(tmp_path / "run", config, 0.3, pictures=False)
    command = repeating.of_run(read_record(path), path)
    assert command is not None
    assert " --variant sagan+own --seed 3 " in command
    assert " --set 'model.attention.generator=[8, 16]'" in command


def test_the_command_of_a_run_that_is_not_its_variant_is_that_of_what_it_is(tmp_path: Path) -> None:
    """The command is one that ``train`` takes, and makes the same run."""
    for variant, sets, says in (
        ("no-attention", (), "--variant feat8 "),
        ("no-attention", ("model.attention.kind=residual",), "--variant residual "),
        ("no-attention", ("model.attention.gamma_init=0.5",), "--variant sagan "),
        ("wgan-gp", ("model.attention.kind=icml",), "--variant attention-icml "),
    ):
        config = settings("sagan", 3, sets)
        path = leave_run(tmp_path / f"{variant}{sets}", config, 0.3, pictures=False,
                         variant=variant)  # fmt: skip
        command = repeating.of_run(read_record(path), path)
        assert command is not None
        assert says in command
        words = shlex.split(command)
        options = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
        again = read_config(
            preset="brief", variant=words[words.index("--variant") + 1], sets=options
        ).config
        assert in_results(again, config) == []


def test_the_command_of_a_run_with_a_name_names_it(tmp_path: Path) -> None:
    config = settings("sagan", 3).model_copy(update={"name": "mine"})
    path = leave_run(tmp_path / "run", config, 0.3)
    command = repeating.of_run(read_record(path), path)
    assert command is not None
    assert " --name mine " in command


def test_no_run_is_described_by_a_sentence_that_its_settings_contradict(tmp_path: Path) -> None:
    """As ``--variant no-attention --set model.attention.generator=[8] ...`` once left one."""
    paths = [
        leave_run(
            tmp_path / f"{variant}-{seed}", settings("sagan", seed), 0.3 + seed / 10,
            pictures=False, variant=variant,
        )
        for variant in ("no-attention", "sagan", "mine") for seed in (0, 1)
    ]  # fmt: skip
    document = collect.of_runs(paths, "runs", "sagan")[0]
    assert isinstance(document, Document)
    assert document.says == {
        "sagan": "The network as the preset has it, with self-attention",
        "no-attention": "Unlike no-attention on the preset brief: model.attention.generator is "
        "[8], not [], model.attention.discriminator is [8], not []",
    }


def test_runs_that_may_not_be_compared_are_refused_with_the_difference(tmp_path: Path) -> None:
    paths = [
        leave_run(tmp_path / f"sagan-{n}", settings("sagan", n), 0.5, pictures=False,
                  scores=[score(0.5, 600, n_real=n_real)])
        for n, n_real in enumerate((2000, 1000))
    ]  # fmt: skip
    with pytest.raises(UserError, match="n_real: 2000 and 1000"):
        collect.of_runs(paths, "runs", None)


def test_a_record_of_a_newer_schema_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = leave_study(tmp_path / "study", CLEAR, pictures=False)
    file = next(folder.glob("sagan-s0-*")) / "record.json"
    file.write_text(json.dumps(unsealed(file) | {"schema_version": 99}))
    document, _ = collect.of_study(folder)
    assert "1 run is left out, because of: a newer sagan-bench wrote this" in caplog.text
    assert str(file) in caplog.text
    assert document.warnings[0] == "1 run is left out: what is stored there cannot be read."
    assert document.status == "partial"
    assert len(document.runs) == 2 * len(CLEAR["sagan"]) - 1


def test_a_report_is_read_back_as_it_was(clear: Example) -> None:
    read_back = read(clear.page.parent / "data" / "report.json")
    assert read_back.pictured.keys() == {picture.file for picture in clear.document.pictures}
    assert read_back.model_copy(update={"pictured": {}}) == clear.document
    assert str(clear.folder.parent) not in clear.document.to_json()  # no path of this machine


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 0}'])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"is not a report|damaged report\.json"):
        read(file)


def test_an_older_report_is_upgraded_and_a_newer_one_refused(
    clear: Example, tmp_path: Path
) -> None:
    stored = unsealed(clear.page.parent / "data" / "report.json")
    first = {key: value for key, value in stored.items() if key != "kind"} | {"tuning": None}
    file = tmp_path / "report.json"
    file.write_text(json.dumps(first | {"schema_version": 1}))
    now, then = read(clear.page.parent / "data" / "report.json"), read(file)
    assert isinstance(now, Document)
    assert isinstance(then, Document)
    assert then.findings.primary == now.findings.primary
    assert then.warnings == (OLDER_RULE, *now.warnings)
    assert {s for reading in then.findings.secondary for s in reading.sentences} == set()
    with_holm = json.loads(json.dumps(first | {"schema_version": 1}))
    comparison = with_holm["findings"]["primary"]["comparisons"][0]
    comparison |= {"p_holm": 0.03, "p": 0.03}
    del comparison["p_bonferroni"]
    file.write_text(json.dumps(with_holm))
    upgraded = read(file)
    assert isinstance(upgraded, Document)
    assert upgraded.findings.primary.comparisons[0].p_bonferroni == 0.06  # of two comparisons
    file.write_text(json.dumps(stored | {"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(UserError, match=rf"newer sagan-bench.*{re.escape(str(file))}"):
        read(file)


def test_help_names_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", "--help"])
    assert exit_.value.code == 0
    assert "--watch" in capsys.readouterr().out


def changed_report(
    clear: Example, folder: Path, change: Callable[[dict[str, Any]], object]
) -> Path:
    """Leave a copy of a report from elsewhere, changed."""
    shutil.copytree(clear.page.parent, folder)
    file = folder / "data" / "report.json"
    stored = unsealed(file)
    change(stored)
    file.write_text(json.dumps(stored))
    return file


@pytest.mark.parametrize(
    "name", ["../../key.png", "/etc/key.png", "..", ".png", "a/b.png", "a\\b.png", "key", "a.png\n"]
)
def test_a_picture_is_a_file_of_the_report_only(clear: Example, tmp_path: Path, name: str) -> None:
    file = changed_report(clear, tmp_path / "r", lambda d: d["pictures"][0].update(file=name))
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"not a report \(study\.pictures\.0\.file"):
        publish.again(file)
    assert contents(tmp_path) == before


def test_a_picture_that_is_a_link_or_none_is_refused(clear: Example, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("PRIVATE")
    file = changed_report(clear, tmp_path / "r", lambda d: d)
    picture = next(file.parent.glob("*.png"))
    picture.write_bytes(b"no picture")
    with pytest.raises(UserError, match="picture of the report is damaged"):
        publish.again(file)
    picture.unlink()
    picture.symlink_to(key)
    with pytest.raises(UserError, match="picture of the report is a link"):
        publish.again(file)
    assert picture.is_symlink()


def test_a_report_that_contradicts_itself_is_refused_and_nothing_written(
    clear: Example, tmp_path: Path
) -> None:
    file = changed_report(clear, tmp_path / "r", lambda d: d["findings"]["variants"].clear())
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"report\.json is not a report"):
        publish.again(file)
    assert contents(tmp_path) == before


def test_one_bad_report_hides_no_other(
    clear: Example, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        shutil.copytree(clear.page.parent, tmp_path / name)
    (tmp_path / "a/data/report.json").write_text("{")
    text = publish.list_reports(tmp_path).read_text()
    assert 'href="b/index.html"' in text
    assert "a/data/report.json" in caplog.text


def test_what_a_run_left_damaged_is_left_out_of_its_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = leave_study(tmp_path / "study", CLEAR)
    for file in (*folder.glob("*/samples/*.png"), *folder.glob("*/diagnostics/*.npz")):
        file.write_bytes(file.read_bytes()[:40])
    for run in folder.glob("*-s*"):
        with (run / "metrics.jsonl").open("a") as metrics:
            metrics.write('{"step": 100, "loss_d": {"a": 1}}\n')
    document, pictures = collect.of_study(folder)
    assert not document.pictures
    assert not pictures
    assert "left out of the report" in caplog.text
    publish.publish(document, pictures, tmp_path / "page")


def test_rows_that_are_not_what_was_written_give_no_curve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = leave_study(tmp_path / "study", CLEAR, pictures=False)
    whole, _ = collect.of_study(folder)
    metrics = next(folder.glob("sagan-s0-*")) / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("1", "2"))
    document, _ = collect.of_study(folder)
    lost = [s for s in whole.series if s not in document.series]
    assert {(s.variant, s.seed) for s in lost} == {("sagan", 0)}
    assert {s.name for s in lost} >= {"loss_d", "loss_g"}
    assert "left out of the report: damaged metrics.jsonl" in caplog.text


def test_another_sound_picture_is_refused_and_the_page_stays(
    clear: Example, tmp_path: Path
) -> None:
    shutil.copytree(clear.page.parent, tmp_path / "r")
    one = next((tmp_path / "r" / "data").glob("samples-*.png"))
    one.write_bytes(one.with_name("real.png").read_bytes())
    before = contents(tmp_path)
    with pytest.raises(UserError, match=rf"not what was written: .*{re.escape(one.name)}"):
        publish.again(tmp_path / "r" / "data" / "report.json")
    assert contents(tmp_path) == before


def test_a_report_without_its_own_pictures_is_not_listed(
    clear: Example, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        shutil.copytree(clear.page.parent, tmp_path / name)
    next((tmp_path / "a" / "data").glob("samples-*.png")).unlink()
    text = publish.list_reports(tmp_path).read_text()
    assert 'href="b/index.html"' in text
    assert 'href="a/index.html"' not in text
    assert "a picture of the report is missing" in caplog.text


def test_figures_of_another_protocol_change_nothing(tmp_path: Path) -> None:
    """Evaluated again with more images, a run has two final figures of one step."""
    folder = leave_study(tmp_path / "study", CLEAR, pictures=False)
    before, _ = collect.of_study(folder)
    run = next(folder.glob("sagan-s0-*"))
    record = read_record(run)
    other = score(0.99, record.steps, n_fake=4096)
    changed = record.model_copy(update={"scores": (*record.scores, other)})
    (run / "record.json").write_bytes(changed.to_json())
    after, _ = collect.of_study(folder)
    assert after.runs == before.runs
    assert after.findings.variants == before.findings.variants
    assert trials.value(changed, "fid") == trials.value(record, "fid")


def test_a_report_reads_each_record_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = leave_study(tmp_path / "study", CLEAR)
    reads: list[str] = []
    opened = records.read_object

    def counted(file: Path, **how: bool) -> dict[str, Any]:
        reads.append(str(file))
        return opened(file, **how)

    monkeypatch.setattr(records, "read_object", counted)
    document, _ = collect.of_study(folder)
    assert len(reads) == len(set(reads)) == len(document.runs)
    reads.clear()
    collect.of_runs([*folder.glob("*-s*")], "runs", "no-attention")
    assert len(reads) == len(set(reads)) == len(document.runs)
