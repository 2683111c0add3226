"""Studies as data: what ships, what is refused, and what a folder remembers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sagan_bench.analysis.question import Measure
from sagan_bench.config.schema import Host
from sagan_bench.config.variants import variant_settings
from sagan_bench.core.errors import UserError
from sagan_bench.core.stored import load_toml
from sagan_bench.core.trees import flatten
from sagan_bench.experiments import studies, study
from sagan_bench.experiments.manifest import below
from sagan_bench.experiments.study import Study, StudyManifest

HOST = Host(bf16=False, extractor="efficientnet-lite0")
SMALLEST = """
question = "Does it?"
baseline = "no-attention"
variants = ["sagan"]
seeds = [0, 1]
[on.twins]
metric = "twin_rate"
min_effect = 0.05
"""


def written(folder: Path, text: str = SMALLEST) -> str:
    file = folder / "mine.toml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize("name", studies.shipped())
def test_every_shipped_study_resolves(name: str) -> None:
    one = studies.load(name)
    assert one.name == name
    assert one.question.endswith("?")
    for variant in one.all_variants:
        config = one.config(variant, 0, HOST).config
        assert (config.variant, config.seed) == (variant, 0)
        settings = dict(flatten(config.model_dump()))
        for key, value in variant_settings(variant).items():
            assert settings[key] == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize("name", studies.shipped())
def test_every_shipped_study_can_be_put_to_other_data(name: str) -> None:
    one = studies.load(name, set={"data.source": "folder:somewhere"})
    assert one.measure.metric == "fid"
    for variant in one.all_variants:
        assert one.config(variant, 0, HOST).config.run.eval_metrics == "all"


def test_all_verdict_studies_have_the_seeds_for_a_verdict() -> None:
    for name in studies.shipped():
        one = studies.load(name)
        assert len(one.seeds) >= 5 or not one.comparable


def test_a_variant_wins_over_the_study_and_the_command_line(tmp_path: Path) -> None:
    changed = {"model.attention.generator": [16], "training.batch_size": 8}
    one = studies.load(written(tmp_path), set=changed)
    config = one.config("no-attention", 3, HOST).config
    assert config.model.attention.generator == ()
    assert config.training.batch_size == 8


@pytest.mark.parametrize(
    ("key", "value", "way_out"),
    [
        ("model.attention.kind", "residual", "list the variant that has it: residual "),
        ("model.attention.generator", [4], "list a variant that has it"),
        ("model.attention.gamma_init", 1.0, "list the variant that has it: gamma-init-1 "),
        ("model.width_factor", 2, "list the variant that has it: wider-x2 "),
    ],
)
@pytest.mark.parametrize("shipped", [True, False])
def test_no_cell_is_called_by_a_variants_name_that_settings_contradict(
    tmp_path: Path, key: str, value: Any, way_out: str, shipped: bool
) -> None:
    if shipped:
        one, origin = studies.load("quick", set={key: value}), "--set"
    else:
        text = f"{SMALLEST}\n[set]\n{key} = {json.dumps(value)}\n"
        one, origin = studies.load(written(tmp_path, text)), "study mine"
    with pytest.raises(UserError, match=rf"variant sagan .* {key} = .*\({origin}\).*{way_out}"):
        one.requested("sagan", 0)


def test_a_study_may_say_for_its_data_where_blocks_stand_and_nothing_else() -> None:
    cifar = studies.load("presence", set={"data.source": "cifar10:x"})
    assert cifar.requested("sagan", 0).config.model.attention.generator == (16,)
    kind = cifar.on["cifar10"].set | {"model.attention.kind": "residual"}
    measure = cifar.on["cifar10"].model_copy(update={"set": kind})
    other = cifar.model_copy(update={"on": {"cifar10": measure}})
    with pytest.raises(UserError, match=r"residual. \(study presence, on.cifar10\)"):
        other.requested("sagan", 0)


def test_what_is_typed_is_not_blamed_on_the_study() -> None:
    with pytest.raises(UserError, match=r"run.steps = 'abc' \(--set\)"):
        studies.load("quick", set={"run.steps": "abc"}).requested("sagan", 0)


def test_pairs_are_with_the_baseline_or_with_one_of_their_own(tmp_path: Path) -> None:
    against = '\n[against]\nfp32 = "no-attention+fp32"\n'
    one = studies.load(written(tmp_path, SMALLEST + against))
    assert one.pairs == (("sagan", "no-attention"), ("fp32", "no-attention+fp32"))
    assert one.all_variants == ("no-attention", "sagan", "no-attention+fp32", "fp32")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('variants = ["sagan"]', "", "nothing is compared"),
        ('"sagan"', '"sagn"', "did you mean 'sagan'"),
        ("[0, 1]", "[0, 0]", "different"),
        ("[0, 1]", "[-1]", "different numbers from 0"),
        ("0.05", '"5 per cent"', "min_effect"),
        ("[on.twins]", "[on.lsun]", "add [on.twins] or [on.other]"),
        ("seeds", 'preset = "quik"\nseeds', "did you mean 'quick'"),
        ("question", "questoin", "questoin"),
    ],
)
def test_a_study_that_cannot_be_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(UserError) as refused:
        studies.load(written(tmp_path, SMALLEST.replace(old, new)))
    assert says in str(refused.value)
    assert "mine.toml" in str(refused.value) or "sagn" in str(refused.value)


def test_an_unknown_setting_is_refused_with_the_closest(tmp_path: Path) -> None:
    one = studies.load(written(tmp_path, SMALLEST.replace("[on", "set.run.step = 3\n[on")))
    with pytest.raises(UserError, match=r"study mine: .* did you mean 'run\.steps'"):
        one.config("sagan", 0, HOST)


def test_an_unknown_study_is_refused_with_the_closest() -> None:
    with pytest.raises(UserError, match="did you mean 'presence'"):
        studies.load("presense")


def test_the_smallest_effect_may_be_a_share_of_the_baseline() -> None:
    assert Measure(metric="fid", min_effect="5%").least == (0.05, True)
    assert Measure(metric="fid", min_effect=1.5).least == (1.5, False)


def test_a_folder_remembers_its_study(tmp_path: Path) -> None:
    one = studies.load(written(tmp_path))
    assert StudyManifest.of(tmp_path / "runs") is None
    StudyManifest.begun(one, HOST, "f1").write(tmp_path / "runs")
    memory = StudyManifest.of(tmp_path / "runs")
    assert memory is not None
    assert (memory.study, memory.auto, memory.data_fingerprint) == (one, HOST, "f1")


def test_a_damaged_memory_is_told(tmp_path: Path) -> None:
    (tmp_path / study.MEMORY).write_text("{")
    with pytest.raises(UserError, match=r"damaged study\.json .*; restore it"):
        StudyManifest.of(tmp_path)


def changed(one: Study, **fields: object) -> Study:
    return one.model_copy(update=fields)


def test_another_study_in_the_folder_is_refused_with_the_difference(tmp_path: Path) -> None:
    one = studies.load(written(tmp_path))
    memory = StudyManifest.begun(one, HOST, "f1")
    for same in (
        changed(one, seeds=(0, 1, 2)),
        changed(one, variants=("sagan", "wider")),
        changed(one, set={"data.source": "twins"}),
        changed(one, question="Put otherwise?"),
    ):
        memory.refuse_other(same, tmp_path)
    with pytest.raises(UserError, match=r"run\.steps: absent here, 7 asked"):
        memory.refuse_other(changed(one, set={"run.steps": 7}), tmp_path)
    stricter = {"twins": Measure(metric="twin_rate", min_effect=0.01)}
    with pytest.raises(UserError, match=r"min_effect: 0\.05 here, 0\.01 asked"):
        memory.refuse_other(changed(one, on=stricter), tmp_path)


def test_no_paper_table_is_wider_than_what_was_published() -> None:
    """Shares are of the paper's 128 px images: sides 8 to 64."""
    paper = studies.load("position").paper
    assert paper is not None
    shares = {row.share for row in paper.rows if row.share}
    assert shares == {side / 128 for side in (8, 16, 32, 64)}
    assert all(row.figures.keys() == {"fid", "isc_mean"} for row in paper.rows)


def test_toml_of_every_study_is_data_only() -> None:
    for file in studies.shipped().values():
        assert set(load_toml(file)) <= set(Study.model_fields)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[on.twins]", "on = 1\n[x]", "on: expected a table, found 1"),
        ("[on.twins]", "on.twins = 1\n[x]", "on.twins: expected a table, found 1"),
        ("[on.twins]", "[on.twins]\nset = 1", "on.twins.set: expected a table, found 1"),
        ("question", "set = 1\nquestion", "set: expected a table, found 1"),
        ("question", "preset = []\nquestion", "preset: "),
        ("question", "preset = 'qick'\nquestion", "did you mean"),
        ("question", "variants = ['x']\nquestion", "no variant is called 'x'"),
    ],
)
def test_a_file_of_the_wrong_shape_is_refused_with_file_and_field(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    file = tmp_path / "s.toml"
    text = 'question = "?"\nbaseline = "sagan"\nseeds = [0]\n'
    text += '[on.twins]\nmetric = "fid"\nmin_effect = 1\n'
    text = text if "variants" in new else f'variants = ["no-attention"]\n{text}'
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(str(file)) + f": (.|\n)*{re.escape(says)}"):
        studies.load(str(file))


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".x", "", "x\n"])
def test_the_name_of_a_folder_is_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"(?s)--name .*choose another folder with --runs"):
        below(tmp_path, name)
    assert below(tmp_path, "a.b-1") == tmp_path / "a.b-1"
