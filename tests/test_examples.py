"""Families in `examples`: short, what they say they are, and good for every verb."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from command_line import forget, run
from example_runs import SMALL
from own_code import lines_of_code
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu, softplus

from sagan_bench.config.layers import read, resolve
from sagan_bench.config.naming import rightly_named
from sagan_bench.config.schema import Host, ModelConfig, RunConfig
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.experiments import conformance
from sagan_bench.experiments.ablation import counted
from sagan_bench.experiments.studies import of_files
from sagan_bench.models.build import BETWEEN, attention_blocks, build, layers, skeleton
from sagan_bench.models.layers import forward_flops, spectral_norms
from sagan_bench.models.placement import norm_layers
from sagan_bench.training.draws import Noise
from sagan_bench.training.generation import _average_statistics
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Recipe

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
HOST = Host(bf16=False, extractor="efficientnet-lite0")
FAMILIES = {"stylegan_like": 40, "r3gan_like": 40, "vit_like": 61}
"""File -> the lines of code that it may have."""
PLAIN = ("model.spectral_norm.generator=none", "model.spectral_norm.discriminator=none")


def loaded(*stems: str) -> dict[str, Any]:
    files = [extensions.load(EXAMPLES / f"{stem}.py") for stem in stems]
    return {file.name: file.described for file in files}


def module(stem: str) -> ModuleType:
    loaded(stem)
    return sys.modules[extensions.MODULE + stem]


def config(*stems: str, sets: tuple[str, ...] = ()) -> RunConfig:
    small = ("model.width=16", "model.z_dim=8", "training.batch_size=4", *sets)
    return resolve(HOST, own=loaded(*stems), sets=small).config


@pytest.mark.parametrize(("stem", "most"), [*FAMILIES.items(), ("relativistic", 40)])
def test_examples_are_short(stem: str, most: int) -> None:
    assert lines_of_code(EXAMPLES / f"{stem}.py") <= most


@pytest.mark.parametrize("stem", ["stylegan_like", "r3gan_like"])
def test_pairs_have_no_batchnorm_and_blocks_at_every_side(stem: str) -> None:
    sides = (
        "model.attention.generator=[4, 8, 16, 32]", "model.attention.discriminator=[4, 8, 16]",
    )  # fmt: skip
    networks = build(config(stem, sets=sides))
    assert [len(attention_blocks(network)) for network in networks] == [4, 3]
    kinds = {type(each) for network in networks for each in network.modules()}
    assert not any("Norm" in kind.__name__ and kind.__name__ != "SpectralNorm" for kind in kinds)
    for network in networks:
        weights = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(list(spectral_norms(network))) == len(weights)
    with pytest.raises(UserError, match="asks for side 64, which the generator lacks"):
        build(config(stem, sets=("model.attention.generator=[64]",)))


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["stylegan_like", "r3gan_like"])
def test_wider_costs_what_attention_costs(stem: str) -> None:
    sets = ("model.width=32",)
    full, wider = (
        counted(resolve(HOST, own=loaded(stem), variant=variant, sets=sets).config)
        for variant in ("sagan", "wider")
    )
    assert wider.flops_per_step == pytest.approx(full.flops_per_step, rel=0.03)
    assert not wider.blocks
    assert full.blocks


def test_products_that_no_layer_makes_are_counted() -> None:
    made = config("vit_like", sets=PLAIN)
    networks, rows = skeleton(made), layers(made)
    with torch.device("meta"):
        inputs = torch.zeros(1, 8), torch.zeros(1, 3, 32, 32)
        for name, network, x in zip(networks._fields, networks, inputs, strict=True):
            counted = sum(row.flops for row in rows if row.network == name)
            assert counted == forward_flops(network, x)
    assert [(row.network, row.name) for row in rows if row.name == BETWEEN] == [
        ("generator", BETWEEN)
    ]


def test_a_styled_convolution_is_that_of_a_modulated_weight_for_each_image() -> None:
    styled = module("stylegan_like").Styled(3, 5, 4).double()
    styled.reset_parameters()
    x, styles = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 4).double()
    y = styled(x, styles)
    doubled = interpolate(x, scale_factor=2.0, mode="bilinear")
    for image, style, result in zip(doubled, 1 + styled.style(styles), y, strict=True):
        weight = styled.conv.weight * style[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        assert torch.allclose(result, leaky_relu(conv2d(image[None], weight, padding=1), 0.2)[0])


def test_groups_of_the_minibatchs_deviation_are_of_one_kind() -> None:
    judge = module("stylegan_like").Judge(2)
    real, fake = torch.randn(2, 4, 2, 4, 4)
    together, apart = judge(torch.cat([real, fake])), torch.cat([judge(real), judge(fake)])
    assert torch.allclose(together, apart, atol=1e-6)
    assert not torch.allclose(judge(real[:1]), judge(real)[:1])


def test_residuals_begin_as_shortcuts() -> None:
    residual = module("r3gan_like").Residual(8, 16, 0.5)
    residual.reset_parameters()
    x = torch.randn(2, 8, 8, 8)
    assert torch.allclose(residual(x), residual.skip(nn.functional.avg_pool2d(x, 2)), atol=1e-6)


@pytest.mark.parametrize("micro", ["none", "2"])
def test_gs_relative_loss_is_that_of_pairs(micro: str) -> None:
    made = config("r3gan_like", "relativistic", sets=(*PLAIN, f"training.micro_batch={micro}"))
    state = TrainState(made, torch.device("cpu"))
    recipe, real = Recipe(made, state), torch.rand(4, 3, 32, 32) * 2 - 1
    noise = Noise(torch.randn(4, 8))
    before = state.discriminator.state_dict()["look.weight"].clone()
    measured = recipe.update_d(real, noise)
    assert not torch.equal(before, state.discriminator.state_dict()["look.weight"])
    with torch.no_grad():
        logits = state.discriminator(state.generator(noise.z))
        wanted = softplus(state.discriminator(real) - logits).mean()
    assert recipe.update_g(noise)["loss_g"] == pytest.approx(float(wanted), rel=1e-5)
    assert measured["loss_d"].isfinite()


def test_a_penalty_on_both_is_given_the_labels_of_both() -> None:
    seen: list[tuple[int, list[int]]] = []

    class Seeing(module("relativistic").Relativistic):  # type: ignore[misc]
        def penalty(
            self, critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: None
        ) -> Tensor:
            return critic(real).mean() + critic(torch.cat([real, fake])).mean()

    made = resolve(
        HOST, own=loaded("relativistic"), sets=["model.architecture=resnet", "model.width=8",
        "model.z_dim=8", "training.batch_size=4", "model.classes=3", *PLAIN],
    ).config  # fmt: skip
    state = TrainState(made, torch.device("cpu"))
    recipe = Recipe(made, state)
    recipe.loss = Seeing(made.training)
    state.discriminator.register_forward_pre_hook(
        lambda _, given: seen.append((len(given[0]), given[1].tolist()))
    )
    noise = Noise(torch.randn(4, 8), torch.tensor([2, 2, 2, 2]))
    recipe.update_d(torch.rand(4, 3, 32, 32), noise, torch.tensor([0, 1, 0, 1]))
    both = [0, 1, 0, 1, 2, 2, 2, 2]
    assert seen == [(8, both), (4, both[:4]), (8, both)]


def test_statistics_are_those_of_batchnorms_of_all_kinds_and_cost_nothing_without_any() -> None:
    batches = [(torch.randn(8, 3), None) for _ in range(3)]
    norm = nn.BatchNorm1d(3)
    norm(100 + torch.randn(8, 3))  # left by training

    class Network(nn.Module):
        calls = 0

        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor, labels: None) -> Tensor:
            self.calls += 1
            y: Tensor = self.layer(x)
            return y

    _average_statistics(Network(norm), batches)
    assert norm.running_mean is not None
    means = torch.stack([x.mean(0) for x, _ in batches]).mean(0)
    assert torch.allclose(norm.running_mean, means, atol=1e-6)
    without = Network(nn.Linear(3, 3))
    _average_statistics(without, batches)
    assert without.calls == 0


@pytest.mark.parametrize(("asked", "normed"), [("all", 3), ("hidden", 1), ("none", 0)])
def test_norms_are_put_on_what_is_asked_for(asked: Any, normed: int) -> None:
    network = nn.Sequential()
    for name in ("first", "out", "embed"):
        network.add_module(name, nn.Linear(2, 2))
    norm_layers(network, asked, last=("out", "embed"))
    assert len(list(spectral_norms(network))) == normed


def test_a_transformer_declares_its_contrast() -> None:
    own = loaded("vit_like")
    study = of_files(own)
    assert (study.name, study.baseline) == ("with-vit_like", "vit-like")
    assert study.all_variants == ("vit-like", "vit-like-token-mlp")
    assert study.measure.metric == "twin_rate"
    facts = [counted(study.requested(name, 0).config) for name in study.all_variants]
    assert facts[1].parameters_g == pytest.approx(facts[0].parameters_g, rel=0.01)
    assert not facts[0].blocks

    for sets, name in (
        ([], "vit-like"),
        (["model.options.mixing=mlp"], "vit-like-token-mlp"),
        (["model.options.depth=2"], "vit-like"),
    ):
        assert read(own=own, sets=sets).config.variant == name
    mixed = read(own=own, variant="vit-like", sets=["model.options.mixing=mlp"])
    assert mixed.config.variant == "vit-like-token-mlp"
    assert read(variant="vit-like-token-mlp").config.model.options == {"mixing": "mlp"}
    other = read(sets=["model.architecture=resnet"]).config  # others are called as before
    assert rightly_named(other, {}).config.variant == "sagan"
    with pytest.raises(UserError, match=r"asks for side 8, which the generator lacks.*none"):
        skeleton(read(own=own, sets=["model.attention.generator=[8]"]).config)


def test_what_is_recalled_of_a_family_has_its_variants() -> None:
    own = loaded("vit_like")
    extensions.forget("vit_like")
    with pytest.raises(UserError, match="no variant is called 'vit-like'"):
        read(variant="vit-like")
    extensions.recall(own)
    assert read(variant="vit-like-token-mlp").config.variant == "vit-like-token-mlp"
    extensions.recall({"x": {"components": {"FAMILIES/odd": {"contrast": [1]}}}})  # damaged
    assert read().config.variant == "sagan"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('{"mixing": "mlp"}', '{"mixing": "attention"}', "settings of the family as it is"),
        ('{"mixing": "mlp"}', '{"depth": 4, "mixin": "mlp"}', "did you mean 'mixing'"),
        ('"token-mlp"', '"Token MLP"', "a contrast is called"),
        ("MIXERS[mixing]", "Attention", "is the family as it is"),
    ],
)
def test_a_contrast_that_is_none_is_an_error(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    text = (EXAMPLES / "vit_like.py").read_text()
    assert old in text
    file = tmp_path / "vit_like.py"
    file.write_text(text.replace(old, new))
    ((registry, name),) = extensions.load(file).components
    checks = [each for each in conformance.CHECKS[registry] if each.__name__ == "contrast"]
    (finding, *_) = conformance.examined(conformance.Subject(registry, name), checks)
    assert finding.severity == "error"
    assert words in finding.text


@pytest.mark.slow
@pytest.mark.parametrize("stem", [*FAMILIES, "relativistic"])
def test_examples_pass_the_checks(stem: str) -> None:
    findings = conformance.check(extensions.load(EXAMPLES / f"{stem}.py"))
    assert {finding.severity for finding in findings} <= {"ok", "skipped"}, findings


@pytest.mark.slow
@pytest.mark.parametrize(
    "files",
    [("stylegan_like",), ("r3gan_like", "relativistic"), ("vit_like",)],
    ids=lambda files: files[0],
)
def test_families_go_all_the_way(
    files: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A study to its verdict, in worker processes; scored again, drawn from, exported, reported."""
    sets = [*SMALL, *(PLAIN if len(files) > 1 else ())]
    more = [part for text in sets for part in ("--set", text)]
    more += [part for stem in files for part in ("--with", str(EXAMPLES / f"{stem}.py"))]

    study = [] if files == ("vit_like",) else ["smoke"]
    assert run("ablate", *study, *more, "--seeds", "0", "--jobs", "2", "--name", "mine") == 0
    assert "study:   runs/mine" in capsys.readouterr().out
    paths = sorted(path.parent for path in Path("runs/mine").glob("*/record.json"))
    assert len(paths) == 2
    for verb in (
        ("evaluate", str(paths[0]), "--n-fake", "9"), ("show", str(paths[0])),
        ("sample", str(paths[0]), "--n", "2"), ("export", str(paths[0]), "--out", "g.zip"),
        ("show", "model", *more), ("compare", "runs/mine"), ("report", "runs/mine", "--out", "p"),
    ):  # fmt: skip
        forget()  # as another process: the run's copies tell of it
        assert run(*verb) == 0, capsys.readouterr().err


def test_families_share_no_state_with_their_configuration() -> None:
    """Two builds of one configuration are alike, bit for bit, from the seed alone."""
    loaded("stylegan_like")
    made = RunConfig.model_validate(
        {"model": ModelConfig(architecture="stylegan-like", width=8, z_dim=8).model_dump()}
    )
    first, second = (build(made).generator.state_dict() for _ in range(2))
    assert all(map(torch.equal, first.values(), second.values()))
