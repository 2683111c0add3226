"""RunConfig: layers of overrides, clear refusals, and a digest of what changes results."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagan_bench.config import layers, limits, schema
from sagan_bench.config.layers import read, resolve
from sagan_bench.config.schema import Host, RunConfig, TrainingConfig, neutral_values
from sagan_bench.config.section import Section, later
from sagan_bench.config.variants import presets, shipped, variant_settings, variants
from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.trees import flatten

HOST = Host(bf16=True, extractor="efficientnet-lite0")


@pytest.mark.parametrize("preset", presets())
@pytest.mark.parametrize("variant", variants())
def test_every_preset_and_variant_resolves(preset: str, variant: str) -> None:
    resolved = resolve(HOST, preset=preset, variant=variant).config
    assert (resolved.preset, resolved.variant, resolved.name) == (preset, variant, variant)
    assert "auto" not in (resolved.training.precision, resolved.evaluation.extractor)


def test_later_layers_win_and_each_value_knows_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("seed = 3\n[training]\nlr_g = 0.5\nlr_d = 0.25\nbeta1 = 0.5")
    resolved = resolve(
        HOST,
        file=file,
        flags={"training.lr_d": ("--lr-d", 0.125), "seed": ("--seed", 7)},
        sets=["training.lr_g=2e-4"],
    )
    training, origins = resolved.config.training, resolved.origins
    assert (training.lr_g, training.lr_d, training.beta1, resolved.config.seed) == (
        2e-4, 0.125, 0.5, 7,
    )  # fmt: skip
    assert origins["training.lr_g"] == "--set"
    assert origins["training.lr_d"] == "--lr-d"
    assert origins["training.beta1"] == str(file)
    assert origins["model.width"] == "preset twins32"
    assert origins["training.beta2"] == "default"
    assert origins["training.precision"] == "this machine"


def test_a_file_may_name_preset_and_variant(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('preset = "twins64"\nvariant = "no-attention"')
    assert resolve(HOST, file=file).config.preset == "twins64"
    assert resolve(HOST, file=file).config.model.attention.generator == ()
    assert resolve(HOST, file=file, preset="quick").config.preset == "quick"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"sets": ["training.lrg=1"]}, "did you mean 'training.lr_g'?"),
        ({"sets": ["training.lr_g"]}, "expected section.key=value"),
        ({"sets": ["training.lr_g=-1"]}, "training.lr_g = -1 (--set): "),
        ({"sets": ["training.batch_size=many"]}, "training.batch_size = 'many' (--set): "),
        ({"sets": ["data.image_size=48"]}, "32, 64, 128 or 256"),
        ({"sets": ["variant=no-attention"]}, "--set: choose it with --variant no-attention"),
        ({"sets": ["training.precision=tf32"]}, "this device has none"),
        ({"preset": "qick"}, "no preset is called 'qick'; did you mean 'quick'?"),
        ({"variant": "no-atention"}, "did you mean 'no-attention'?"),
        ({"file": Path("nowhere.toml")}, "cannot read nowhere.toml"),
        ({"flags": {"training.loss": ("--loss", "wgan-gp")}}, "spectral_norm.generator=none"),
        ({"flags": {"name": ("--name", "../x")}}, "name = '../x' (--name)"),
    ],
)
def test_bad_input_is_refused_with_what_where_and_a_hint(
    asked: dict[str, object], told: str
) -> None:
    with pytest.raises(UserError) as error:
        resolve(HOST, **asked)
    assert told in str(error.value)


def test_wgan_gp_is_resolved_to_fp32_and_not_compiled() -> None:
    sets = [f"model.spectral_norm.{net}=none" for net in ("generator", "discriminator")]
    sets.append("training.loss=wgan-gp")
    assert resolve(HOST, sets=sets).config.training.precision == "fp32"
    with pytest.raises(UserError, match=r"leave out training\.compile"):
        resolve(HOST, sets=[*sets, "training.compile=true"])


def test_a_step_is_compiled_or_captured() -> None:
    with pytest.raises(UserError, match=r"leave out training\.compile, or training\.cuda_graph"):
        resolve(HOST, sets=["training.cuda_graph=true", "training.compile=true"])
    assert resolve(HOST, sets=["training.cuda_graph=true"]).config.training.cuda_graph


def test_none_empties_an_optional_setting_only() -> None:
    sets = ["evaluation.n_real=none", "model.spectral_norm.generator=none"]
    resolved = resolve(HOST, sets=sets).config
    assert resolved.evaluation.n_real is None
    assert resolved.model.spectral_norm.generator == "none"


def test_variants_are_combined_by_a_plus() -> None:
    settings = variant_settings("feat16+residual")
    assert settings == {
        "model.attention.generator": [16], "model.attention.discriminator": [16],
        "model.attention.kind": "residual",
    }  # fmt: skip
    assert resolve(HOST, variant="feat16+fp32").config.training.precision == "fp32"
    with pytest.raises(UserError, match=r"feat8\+feat16: its parts set .* to \[8\] and to \[16\]"):
        variant_settings("feat8+feat16")
    with pytest.raises(UserError, match="did you mean 'feat16'"):
        variant_settings("residual+fea16")


def test_a_preset_that_extends_another_has_its_settings_too() -> None:
    brief, quick = (resolve(HOST, preset=name).config for name in ("brief", "quick"))
    assert brief.run.steps == 1500
    assert (brief.model, brief.training) == (quick.model, quick.training)


def test_sides_are_sorted_and_unique() -> None:
    resolved = resolve(HOST, sets=["model.attention.generator=[16, 4, 16]"]).config
    assert resolved.model.attention.generator == (4, 16)


def _another(value: bool | float | None) -> bool | float:
    return not value if isinstance(value, bool) else (value or 0) + 3


def _changed(base: RunConfig, key: str) -> RunConfig:
    """Return ``base`` with another value for one key."""
    other = {
        "data.source": "folder:x", "data.image_size": 64, "data.fit": "squash",
        "run.inception_weights": "file", "run.eval_metrics": "rule", "run.score_weights": ("raw",),
        "training.precision": "tf32",
        "evaluation.extractor": "inception", "evaluation.split": "test", "run.device": "cuda:1",
        "model.spectral_norm.generator": "none", "model.spectral_norm.discriminator": "none",
        "model.attention.generator": (4,), "model.attention.discriminator": (4,),
        "model.attention.kind": "icml", "model.discriminator_sees": "halves",
        "model.layout": "flat", "model.initialisation": "glorot", "training.micro_batch": 16,
        "evaluation.sampling_seeds": (5,), "training.fixed": ("noise",),
        "preset": "p", "variant": "v", "name": "n",
        "run.track": ("tensorboard",), "run.keep_training_state": True, "run.init_from": "a-run",
        "training.init_sha256": "0" * 64,
        "run.probe": True, "training.cuda_graph": True, "model.spectral_norm.batched": True,
        "training.beta1": 0.1, "training.beta2": 0.1, "training.ema_decay": 0.1,
    }  # fmt: skip
    old = dict(flatten(base.model_dump())).get(key)  # absent where younger than records and empty
    new = other[key] if key in other else _another(old)
    values = dict(flatten(base.model_dump())) | {key: new}
    return RunConfig.model_validate(layers._nested(values))


SINGLE_VALUED = ("model.architecture", "training.loss", "evaluation.metrics")


@pytest.mark.parametrize("key", [k for k in schema.field_types() if k not in SINGLE_VALUED])
def test_digest_changes_with_result_fields_and_with_no_other(key: str) -> None:
    base = resolve(HOST, preset="quick").config
    labels = ("preset", "variant", "name", "data.source")
    operation = key in labels or key.startswith("run.")
    assert (_changed(base, key).digest("d") == base.digest("d")) == operation


def test_the_digest_of_a_configuration_without_later_fields_never_changes() -> None:
    # Taken before there were any.  A new field must be declared `later`, else every run that
    # exists gets another name; where results do change for all, DIGEST_SCHEMA says so.
    asked = {
        "data": {"crop": None},
        "training": {"precision": "fp32"},
        "evaluation": {"extractor": "inception"},
    }
    assert RunConfig.model_validate(asked).digest("d") == "dec21ea562ee"


def test_a_later_field_is_left_out_of_the_digest_while_neutral() -> None:
    class Grown(TrainingConfig):
        patience: int = later(3)

    class GrownRun(RunConfig):
        training: Grown = Grown()

    old = RunConfig.model_validate(resolve(HOST).config.model_dump())
    grown = GrownRun.model_validate(old.model_dump())
    assert grown.digest("d") == old.digest("d")
    other = grown.model_copy(update={"training": grown.training.model_copy(update={"patience": 4})})
    assert other.digest("d") != old.digest("d")


def test_what_is_young_is_stored_only_where_it_is_not_the_default() -> None:
    usual, other, batched = (
        resolve(HOST, preset="quick", sets=sets).config
        for sets in ([], ["run.score_weights=[]"], ["model.spectral_norm.batched=true"])
    )
    assert "score_weights" not in usual.model_dump(mode="json")["run"]
    assert other.model_dump(mode="json")["run"]["score_weights"] == []
    assert usual.model_dump()["model"]["spectral_norm"].keys() == {"generator", "discriminator"}
    assert batched.model_dump()["model"]["spectral_norm"]["batched"] is True
    for config in (usual, other, batched):
        assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_files_of_ones_own_find_the_base_of_settings_where_it_was() -> None:
    assert vars(schema)["Section"] is Section


def test_neutral_values_never_change() -> None:
    # A run that was digested without the field was computed with this value.
    found = neutral_values(RunConfig)
    assert found.items() >= {
        "model.attention.kind": "full", "model.attention.gamma_init": 0.0,
        "model.attention.gamma_learned": True, "model.width_factor": 1,
        "model.discriminator_sees": "whole", "model.classes": 0, "model.layout": "pyramid",
        "model.initialisation": "torch", "training.micro_batch": None,
        "evaluation.truncation": None, "evaluation.intra_class": False,
        "training.lr_scale": 1.0, "training.lr_d_over_g": None, "training.fixed": (),
        "training.cuda_graph": False,
    }.items()  # fmt: skip
    plain = dict(flatten(resolve(HOST, preset="quick").config.model_dump()))
    assert {key: plain.get(key, found[key]) for key in found} == found


def test_digest_takes_data_by_content_and_refuses_auto() -> None:
    base = resolve(HOST).config
    assert base.digest("a") != base.digest("b")
    assert len(base.digest("a")) == 12
    with pytest.raises(ValueError, match=r"training\.precision, evaluation\.extractor"):
        RunConfig().digest("a")


@given(st.permutations(["seed=1", "training.lr_g=1e-3", "model.width=16", "data.flip=true"]))
def test_digest_does_not_depend_on_the_order_of_overrides(sets: list[str]) -> None:
    assert resolve(HOST, sets=sets).config.digest("d") == (
        resolve(HOST, sets=sorted(sets)).config.digest("d")
    )


def test_digest_survives_a_round_trip_through_json() -> None:
    base = resolve(HOST).config
    again = RunConfig.model_validate(json.loads(base.model_dump_json()))
    assert again == base
    assert again.digest("d") == base.digest("d")


def test_config_is_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(resolve(HOST).config, "seed", 4)  # noqa: B010


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ([], (4e-4, 1.6e-3)),
        (["training.lr_scale=0.5"], (2e-4, 8e-4)),
        (["training.lr_d_over_g=1"], (4e-4, 4e-4)),
        (["training.lr_d_over_g=0.5", "training.lr_scale=2"], (8e-4, 4e-4)),
        (["training.lr_d_over_g=none"], (4e-4, 1.6e-3)),
    ],
)
def test_learning_rates(sets: list[str], expected: tuple[float, float]) -> None:
    config = resolve(HOST, preset="quick", sets=sets).config
    assert config.training.learning_rates == pytest.approx(expected)


def test_fixed_streams_are_a_set_of_names_and_others_are_refused() -> None:
    config = resolve(HOST, sets=["seed=7", 'training.fixed=["weights","data","weights"]']).config
    assert config.training.fixed == ("data", "weights")
    assert [config.seed_of(stream) for stream in ("weights", "data", "noise")] == [0, 0, 7]
    with pytest.raises(UserError, match=r"training\.fixed.*'weights', 'data' or 'noise'"):
        resolve(HOST, sets=['training.fixed=["weight"]'])


@pytest.mark.parametrize("setting", ["kind=pooled", "gamma_init=1", "gamma_learned=false"])
def test_a_block_that_stands_nowhere_cannot_be_changed(setting: str) -> None:
    none = [f"model.attention.{network}=[]" for network in ("generator", "discriminator")]
    key = setting.partition("=")[0]
    with pytest.raises(UserError, match=rf"model\.attention\.{key} .*no side has a block; set"):
        resolve(HOST, sets=[*none, f"model.attention.{setting}"])
    resolve(HOST, sets=[none[0], f"model.attention.{setting}"])


def test_a_wider_network_has_no_gamma_to_set() -> None:
    with pytest.raises(UserError, match=r"gamma_init changes nothing.*kind wider"):
        resolve(HOST, variant="wider", sets=["model.attention.gamma_init=1"])


def test_celeba_and_lsun_have_the_seed_projects_recipe() -> None:
    for preset in ("celeba64", "lsun64"):
        chosen = resolve(HOST, preset=preset).config
        training, model = chosen.training, chosen.model
        assert (training.lr_g, training.lr_d, training.beta1, training.beta2) == (
            1e-4, 4e-4, 0.0, 0.9,
        )  # fmt: skip
        assert (training.batch_size, model.z_dim, model.width) == (64, 128, 64)
        assert (chosen.run.sample_every, chosen.run.steps) == (100, 1_000_000)
        assert model.attention.generator == (16, 32)
        assert model.attention.discriminator == (4, 8)
        assert model.spectral_norm.generator == "hidden"
    assert resolve(HOST, preset="celeba64").config.data.crop == 160
    assert resolve(HOST, preset="lsun64").config.data.fit == "squash"


def test_the_shipped_tables_are_data_with_descriptions() -> None:
    folder = Path(schema.__file__).parent
    for path in (folder / "presets.toml", shipped("ablations") / "variants.toml"):
        for name, entry in tomllib.loads(path.read_text()).items():
            assert entry["says"], name


@pytest.mark.parametrize(
    "text",
    [
        "seed=9223372036854775808",
        "run.steps=100000000000000000000",
        "evaluation.sampling_seeds=[0, 9223372036854775808]",
    ],
)
def test_whole_numbers_that_nothing_holds_are_refused_with_the_range(text: str) -> None:
    with pytest.raises(UserError, match=r"\(--set\): whole numbers go up to 9223372036854775807"):
        read(sets=[text])
    assert read(sets=["seed=9223372036854775807"]).config.seed == 2**63 - 1


def test_a_seed_of_before_is_read() -> None:
    assert RunConfig.model_validate({"seed": 10**20}).seed == 10**20


@pytest.mark.parametrize(
    ("value", "says"), [("[" * 3000, "nested too deeply"), ("9" * 5000, "more than 40 digits")]
)
def test_values_without_end_are_refused(value: str, says: str) -> None:
    with pytest.raises(UserError, match=f"--set seed: .*{says}"):
        read(sets=[f"seed={value}"])


@pytest.mark.parametrize("text", ["preset = []", "preset = 0", "variant = 1", "variant = {a = 1}"])
def test_a_name_of_another_type_is_refused_with_the_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"c\.toml: (preset|variant) = .*: expected a name"):
        read(file=file)


def test_a_long_value_is_shown_short() -> None:
    with pytest.raises(UserError) as told:
        read(sets=[f"training.loss={'x' * 5000}"])
    assert len(str(told.value)) < 300


def test_a_hint_names_no_more_than_can_be_read() -> None:
    hint = closest("zzz", [f"run-{number}" for number in range(2000)])
    assert hint.endswith("run-29 and 1,970 more")


def test_a_name_in_another_case_is_the_closest() -> None:
    assert closest("FID", ["twin_rate", "fid"]) == "did you mean 'fid'?"


@pytest.mark.parametrize("key", limits.MOST)
def test_what_nobody_can_want_is_refused_before_it_is_built(key: str) -> None:
    most = limits.MOST[key]
    sets = [f"{key}={most + 1}"]
    with pytest.raises(UserError, match=rf"{key} = [\d,]+ \(--set\): at most {most:,}"):
        layers.read(sets=sets)


def test_a_record_of_before_may_have_more() -> None:
    values = layers._nested({"evaluation.n_fake": limits.MOST["evaluation.n_fake"] + 1})
    config = RunConfig.model_validate(values)
    assert layers.override(config, {"evaluation.isc_splits": ("--set", 2)})
    with pytest.raises(UserError, match="at most"):
        layers.override(config, {"evaluation.isc_splits": ("--set", 10**9)})
