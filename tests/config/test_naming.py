"""A run carries a variant's name only while its settings are that variant's."""

from pathlib import Path
from typing import Any

import pytest

from sagan_bench.config.layers import assemble, read
from sagan_bench.config.naming import contradictions, described
from sagan_bench.config.variants import clash, presets, variant_settings, variants
from sagan_bench.core.errors import UserError
from sagan_bench.experiments.studies import load, shipped

SIDES = ("model.attention.generator", "model.attention.discriminator")
NO_NORM = ["model.spectral_norm.generator=none", "model.spectral_norm.discriminator=none"]


def at(*sides: int) -> list[str]:
    return [f"{key}={list(sides)}" for key in SIDES]


@pytest.mark.parametrize("preset", presets())
@pytest.mark.parametrize("variant", variants())
def test_a_variant_as_it_is_shipped_contradicts_nothing(preset: str, variant: str) -> None:
    resolved = read(preset=preset, variant=variant)
    assert (resolved.note, contradictions(resolved.config)) == ("", [])
    assert described(resolved.config) == [variants()[variant]["says"]]


@pytest.mark.parametrize(
    ("variant", "sets", "culprit"),
    [
        ("no-attention", at(8), r"generator = \[8\] \(--set\), which it sets to \[\]"),
        ("wgan-gp", ["training.loss=hinge"], 'training.loss = "hinge"'),
        ("feat16", ["model.attention.generator=[8]"], r"which it sets to \[16\]"),
        ("feat16+residual", ["model.attention.kind=full"], "which it sets to .residual"),
        ("residual", ["model.attention.kind=full"], "which it sets to .residual"),
        ("gamma-fixed-0", ["model.attention.gamma_learned=true"], "which it sets to false"),
        ("wider-x2", ["model.width_factor=3"], "which it sets to 2"),
        ("equal-learning-rates", ["training.lr_d_over_g=4"], "which it sets to 1.0"),
        ("fp32", ["training.precision=bf16"], "which it sets to .fp32"),
    ],
)
def test_what_a_variant_sets_cannot_be_set_to_something_else(
    variant: str, sets: list[str], culprit: str
) -> None:
    with pytest.raises(
        UserError, match=rf"variant {variant.replace('+', '.')} does not go with"
    ) as e:
        read(variant=variant, sets=sets)
    assert e.match(culprit)
    assert e.match("leave that out, or choose --variant sagan")


def test_a_file_that_contradicts_its_variant_is_refused_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('variant = "no-attention"\nmodel.attention.generator = [8]')
    with pytest.raises(UserError, match=rf"generator = \[8\] \({file}\)"):
        read(file=file)


def test_a_file_is_named_by_what_it_sets_whatever_it_calls_itself(tmp_path: Path) -> None:
    """As the winner of a tuning is, and the configuration of a record."""
    file = tmp_path / "mine.toml"
    file.write_text('variant = "sagan"\nname = "sagan"\nmodel.attention.generator = [4]')
    resolved = read(file=file)
    assert (resolved.config.variant, resolved.config.name) == ("sagan+own", "sagan+own")
    assert "called sagan+own" in resolved.note


@pytest.mark.parametrize(
    ("variant", "sets"),
    [
        ("wgan-gp", ["training.loss=wgan-gp"]),
        ("feat8-16", at(16, 8)),
        ("no-attention", at()),
        ("sagan", at(8)),
        ("sagan", ["training.lr_g=1e-3", "model.width=64"]),
        ("equal-learning-rates", ["training.lr_d_over_g=1"]),
        ("sagan+own", []),
        ("sagan", [*NO_NORM, "training.loss=wgan-gp"]),
    ],
)
def test_equal_values_and_what_makes_no_variant_leave_the_name(
    variant: str, sets: list[str]
) -> None:
    resolved = read(variant=variant, sets=sets)
    shipped = variant.removesuffix("+own")
    assert (resolved.config.variant, resolved.config.name) == (shipped, shipped)
    assert resolved.note == ""


@pytest.mark.parametrize(
    ("variant", "sets", "label"),
    [
        ("sagan", at(8, 16), "feat8-16"),
        ("sagan", ["model.attention.generator=[8,16]"], "sagan+own"),
        ("sagan+own", ["model.attention.generator=[8,16]"], "sagan+own"),
        ("sagan", at(), "no-attention"),
        ("sagan", [at(16)[0], at()[1]], "feat16-g"),
        ("sagan", ["model.attention.kind=residual"], "residual"),
        ("sagan", ["model.attention.gamma_init=1"], "gamma-init-1"),
        ("sagan", ["model.attention.gamma_init=0.5"], "sagan+own"),
        ("sagan", [*NO_NORM, "training.loss=wgan-gp", *at()], "no-attention"),
        (
            "no-spectral-norm-g",
            ["model.spectral_norm.discriminator=hidden"],
            "no-spectral-norm-g+own",
        ),
        ("sagan", ["model.width_factor=2"], "wider-x2"),
        ("sagan", ["model.discriminator_sees=halves", *at(4)], "sagan+own"),
        ("g-only", ["model.attention.generator=[16]"], "feat16-g"),
        ("g-only", ["model.attention.generator=[4]"], "g-only+own"),
        ("no-spectral-norm-g", NO_NORM[1:], "no-spectral-norm"),
        ("feat16+residual", ["model.attention.gamma_init=0.5"], "feat16+residual+own"),
    ],
)
def test_networks_of_their_own_are_called_what_they_are(
    variant: str, sets: list[str], label: str
) -> None:
    resolved = read(variant=variant, sets=sets)
    config = resolved.config
    assert (config.variant, config.name) == (label, label)
    assert (f"called {label}" in resolved.note) == (variant != label)
    # The same settings under the new name mean the same, and are called the same.
    again = read(variant=label, sets=sets)
    assert (again.config, again.note) == (config, "")


def test_a_label_changes_no_digest_and_a_name_of_the_users_stays() -> None:
    ready = ["data.crop=none", "training.precision=fp32", "evaluation.extractor=efficientnet-lite0"]
    named = read(sets=[*at(16), *ready], flags={"name": ("--version", "sagan_celeb")}).config
    assert (named.variant, named.name) == ("feat16", "sagan_celeb")
    shipped = read(variant="feat16", sets=ready).config
    assert named.digest("d") == shipped.digest("d")


def test_no_run_is_called_by_another_variants_name() -> None:
    def called(name: str, *sets: str) -> Any:
        return read(sets=sets, flags={"name": ("--name", name)}).config.name

    with pytest.raises(UserError, match=r"name = no-attention \(--name\): .* this run is sagan;"):
        called("no-attention")
    assert called("no-attention", *at()) == "no-attention"
    assert called("sagan", *at(4)[:1]) == "sagan+own"
    assert called("wgan-gp", *NO_NORM, "training.loss=wgan-gp") == "wgan-gp"
    with pytest.raises(UserError, match="name = wgan-gp"):
        called("wgan-gp", *NO_NORM)


def test_a_record_of_before_is_described_by_what_it_is_not() -> None:
    sets = {"model.attention.generator": [8], "model.attention.discriminator": [8]}
    wrong = assemble("quick", "no-attention", ("--set", sets)).config
    (told,) = described(wrong)
    assert told == (
        "Unlike no-attention on the preset quick: model.attention.generator is [8], not [], "
        "model.attention.discriminator is [8], not []"
    )
    moved = assemble("quick", "sagan", ("--set", {SIDES[0]: [16]})).config
    assert described(moved)[0].startswith("Unlike sagan on the preset quick: ")


def test_of_a_preset_that_is_not_shipped_only_what_the_variant_sets_is_known() -> None:
    config = assemble("quick", "sagan", ("--set", {SIDES[0]: [16]})).config
    assert described(config.model_copy(update={"preset": "mine"})) == [variants()["sagan"]["says"]]
    with pytest.raises(UserError, match="no variant is called 'mine'"):
        described(config.model_copy(update={"variant": "mine"}))


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        ("g-only+d-only", "g-only and d-only both say what model.attention.generator and"),
        ("g-only+feat8-g", "choose one"),
        ("gamma-init-1+gamma-fixed-0", "both say what model.attention.gamma_init and"),
        ("no-spectral-norm-g+no-spectral-norm", "choose one"),
        ("sagan+no-attention", "adds nothing; use no-attention"),
        ("sagan+residual+fp32", r"adds nothing; use residual\+fp32"),
    ],
)
def test_parts_that_contradict_each_others_sentences_are_refused(variant: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read(variant=variant)
    values = variant_settings(variant)
    if variant != "gamma-init-1+gamma-fixed-0":
        assert described(assemble("quick", variant, ("", values)).config)[0].startswith(
            ("Contradicts itself: ", "Unlike ")
        )


@pytest.mark.parametrize("study", shipped())
def test_parts_that_shipped_studies_combine_do_not_clash(study: str) -> None:
    for variant in load(study).all_variants:
        assert clash(variant) is None


def test_no_sentence_of_wider_layers_speaks_of_attention() -> None:
    wider = read(variant="wider-x2+no-attention").config
    assert "attention as" not in " ".join(described(wider))


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("feat16+residual", True),
        ("no-attention+fp32", True),
        ("sagan+own", True),
        ("No-Attention", True),
        ("mine+fp32", False),
        ("mine+own", False),
        ("sagan_celeb", False),
        ("SAGAN", False),
    ],
)
def test_a_name_is_no_other_variants_in_any_of_its_parts_and_any_case(
    name: str, taken: bool
) -> None:
    def named() -> str:
        return read(flags={"name": ("--name", name)}).config.name

    if taken:
        with pytest.raises(UserError, match="that is a variant, and this run is sagan;"):
            named()
    else:
        assert named() == name
