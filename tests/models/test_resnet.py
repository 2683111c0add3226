"""The residual SAGAN: sizes of the authors' code, blocks as they have them, classes, sides."""

import copy
import json

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sagan_bench.cli import main
from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.models.attention._blocks import SelfAttention
from sagan_bench.models.build import attention_blocks, build, layers, parameters, skeleton, widths
from sagan_bench.models.families.resnet import (
    Down,
    Up,
    discriminator_channels,
    generator_channels,
    strides,
)
from sagan_bench.models.layers import ConditionalBatchNorm2d, spectral_norms
from sagan_bench.models.placed import Site
from sagan_bench.training.draws import Noise
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Recipe

HOST = Host(bf16=False, extractor="efficientnet-lite0")
NETWORKS = ("generator", "discriminator")


def make(*sets: str, preset: str = "quick", variant: str = "sagan") -> RunConfig:
    return resolve(HOST, preset=preset, variant=variant, sets=sets).config


def small(*sets: str, classes: int = 3, variant: str = "sagan") -> RunConfig:
    network = ["model.architecture=resnet", "model.width=8", "model.z_dim=8"]
    return make(*network, f"model.classes={classes}", *sets, variant=variant)


def test_the_numbers_of_parameters_are_the_authors() -> None:
    networks = skeleton(make(preset="imagenet128-official"))
    assert parameters(networks.generator) == 42_078_852
    assert parameters(networks.discriminator) == 39_463_618


def test_show_model_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["show", "model", "--preset", "imagenet128-official", "--json"])
    totals = json.loads(capsys.readouterr().out)["totals"]
    assert [totals[net]["parameters"] for net in NETWORKS] == [42_078_852, 39_463_618]


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_shapes_and_ranges(size: int, classes: int) -> None:
    g, d = build(small(f"data.image_size={size}", classes=classes))
    labels = (torch.tensor([0, 2]),) if classes else ()
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    images = g(z, *labels)
    assert images.shape == (2, 3, size, size)
    assert images.dtype == torch.float32
    assert 0 < images.abs().max() < 1
    assert d(images, *labels).shape == (2,)


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_widths_and_sides_follow_from_the_strides(size: int) -> None:
    g, d = skeleton(small(f"data.image_size={size}", "model.width=64"))
    seen: dict[str, torch.Size] = {}
    for network in (g, d):
        for name, module in network.named_modules():
            if isinstance(module, Up | Down):
                module.register_forward_hook(
                    lambda _m, _i, output, name=name: seen.update({name: output.shape[1:]})
                )
    with torch.device("meta"):
        label = torch.zeros(1, dtype=torch.int64)
        d(g(torch.zeros(1, 8), label), label)
    for name, (channels, side, _) in seen.items():
        if name.startswith("up"):
            assert (name, channels) == (f"up{side}", 64 * min(16, size // side))
        elif name != "stay4":
            assert (name, channels) == (f"down{side}", 64 * min(16, size // 2 // side))
    assert seen["stay4"][1] == 4
    assert seen["stay4"][0] == 64 * min(16, size // 4)
    assert len(seen) == 2 * len(generator_channels(size, 64, "pyramid")) - 1


def test_flat_networks_are_those_of_cifar10() -> None:
    assert generator_channels(32, 256, "flat") == dict.fromkeys((4, 8, 16, 32), 256)
    assert discriminator_channels(32, 256, "flat") == [128] * 4
    assert strides(32, "flat") == [2, 2, 1, 1]
    d = skeleton(small("model.layout=flat", "model.width=16")).discriminator
    assert [n for n, m in d.named_children() if isinstance(m, Down)] == [
        "down16", "down8", "stay8", "stay8_2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "sides"),
    [
        ("full", [4]),
        ("full", [4, 8, 16, 32]),
        ("icml", [8, 16]),
        ("pooled", [4, 8, 16, 32]),
        ("uniform", [32]),
        ("residual", [8, 32]),
    ],
)
def test_exactly_one_block_at_each_requested_side(kind: str, sides: list[int]) -> None:
    asked = [f"model.attention.{net}={sides}" for net in NETWORKS]
    config = small("data.image_size=64", f"model.attention.kind={kind}", *asked)
    title = "residual" if kind == "residual" else "attention"
    for network, built in skeleton(config)._asdict().items():
        assert set(attention_blocks(built)) == {f"{title}{side}" for side in sides}
        rows = {row.name: row for row in layers(config) if row.network == network}
        for side in sides:
            assert rows[f"{title}{side}"].output_shape[1:] == (side, side)


@pytest.mark.parametrize(
    ("network", "told"), [("generator", "4, 8, 16, 32$"), ("discriminator", "4, 8, 16$")]
)
def test_a_side_the_network_lacks_is_refused_with_those_it_has(network: str, told: str) -> None:
    with pytest.raises(UserError, match=f"model.attention.{network}.* side 64, .*{told}"):
        skeleton(small(f"model.attention.{network}=[64]"))


@pytest.mark.parametrize("setting", ["model.classes=3", "model.layout=flat"])
def test_the_dcgan_refuses_what_only_the_resnet_has(setting: str) -> None:
    with pytest.raises(UserError, match=r"add --set model\.architecture=resnet"):
        skeleton(make(setting))


def test_blocks_of_the_resnet_have_no_bias() -> None:
    for network in skeleton(small("model.attention.kind=pooled")):
        for block in attention_blocks(network).values():
            assert isinstance(block, SelfAttention)
            assert [name for name, _ in block.named_parameters() if name.endswith("bias")] == []


@pytest.mark.parametrize("channels", [64, 128, 256])
def test_a_residual_control_without_bias_has_as_many_parameters(channels: int) -> None:
    from sagan_bench.config.schema import AttentionConfig
    from sagan_bench.core.registry import ATTENTION

    kinds = (ATTENTION[kind](AttentionConfig(kind=kind)) for kind in ("full", "residual"))
    site = Site("generator", 8, channels, bias=False)
    full, residual = (parameters(kind.block(site)) for kind in kinds)
    assert residual == full == 1.25 * channels**2 + 1


def test_up_is_the_authors_block() -> None:
    """Nearest upsampling before the 1x1 convolution, as they have it."""
    torch.manual_seed(0)
    block, labels = Up(8, 4, 5).double(), torch.tensor([0, 4, 0])
    nn.init.normal_(block.norm1.gain)  # type: ignore[arg-type]
    nn.init.normal_(block.norm2.bias)  # type: ignore[arg-type]
    x = torch.randn(3, 8, 4, 4, dtype=torch.float64)

    def conditional(norm: nn.Module, h: Tensor) -> Tensor:
        h = F.batch_norm(h, None, None, training=True)
        shape = (3, -1, 1, 1)
        return h * norm.gain[labels].view(shape) + norm.bias[labels].view(shape)  # type: ignore[index]

    h = F.interpolate(conditional(block.norm1, x).relu(), scale_factor=2)
    h = block.conv2(conditional(block.norm2, block.conv1(h)).relu())
    expected = h + block.shortcut(F.interpolate(x, scale_factor=2))
    assert torch.allclose(block(x, labels), expected)


@pytest.mark.parametrize(("inputs", "stride"), [(8, 2), (4, 2), (4, 1), (8, 1)])
def test_down_is_the_authors_block_and_its_shortcut_sees_x_as_it_is(
    inputs: int, stride: int
) -> None:
    """Pooling after the 1x1 convolution, as they have it; in-place ReLU would change x."""
    torch.manual_seed(0)
    block = Down(inputs, 4, stride).double()
    x = torch.randn(3, inputs, 8, 8, dtype=torch.float64)
    before = x.clone()
    h = block.conv2(block.conv1(x.relu()).relu())
    expected = h + block.shortcut(x)
    if stride == 2:
        expected = F.avg_pool2d(expected, 2)
    assert torch.allclose(block(x), expected)
    assert torch.equal(x, before)
    assert isinstance(block.shortcut, nn.Identity) == (inputs == 4 and stride == 1)


def test_the_first_block_of_d_has_no_relu_before_it() -> None:
    d = build(small()).discriminator
    assert [block.first for block in d.modules() if isinstance(block, Down)] == [
        True, False, False, False,
    ]  # fmt: skip
    block = Down(3, 4, 2, first=True).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = block.conv2(block.conv1(x).relu()) + block.shortcut(x)
    assert torch.allclose(block(x), F.avg_pool2d(expected, 2))


def test_logits_are_a_projection_of_the_class() -> None:
    d = build(small()).discriminator.eval()
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 1])
    sums: list[Tensor] = []
    d.out.register_forward_pre_hook(lambda _m, inputs: sums.append(inputs[0]))  # type: ignore[union-attr]
    maps: list[Tensor] = []
    last = d.get_submodule(str(d.blocks[-1]))  # type: ignore[index]
    last.register_forward_hook(lambda _m, _inputs, output: maps.append(output))
    logits = d(images, labels)
    (h,), (map_,) = sums, maps
    assert h.shape == (4, 64)
    assert torch.allclose(h, map_.relu().sum((2, 3)))  # a sum, of what a ReLU lets through
    projected = (d.embed.weight[labels] * h).sum(1)  # type: ignore[index, union-attr]
    assert torch.allclose(logits, F.linear(h, d.out.weight, d.out.bias)[:, 0] + projected)  # type: ignore[union-attr, arg-type]
    assert not torch.allclose(logits, d(images, labels.flip(0)))


def test_gs_last_convolution_sees_what_a_relu_lets_through() -> None:
    g = build(small()).generator.eval()
    seen: dict[str, Tensor] = {}
    g.norm.register_forward_hook(lambda _m, _inputs, output: seen.update(norm=output))  # type: ignore[union-attr]
    g.out.register_forward_pre_hook(lambda _m, inputs: seen.update(out=inputs[0]))  # type: ignore[union-attr]
    g(torch.randn(2, 8), torch.tensor([0, 1]))
    assert seen["norm"].min() < 0
    assert torch.equal(seen["out"], seen["norm"].relu())


def test_a_conditional_norm_starts_as_batchnorm_and_then_knows_the_class() -> None:
    norm, x = ConditionalBatchNorm2d(4, 3), torch.randn(6, 4, 2, 2)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    assert torch.allclose(norm(x, labels), nn.BatchNorm2d(4)(x), atol=1e-6)
    with torch.no_grad():
        norm.gain[1] = 2
        norm.bias[2] = 5
    plain, seen = nn.BatchNorm2d(4)(x), norm(x, labels)
    assert torch.allclose(seen[[0, 3]], plain[[0, 3]], atol=1e-6)
    assert torch.allclose(seen[[1, 4]], 2 * plain[[1, 4]], atol=1e-6)
    assert torch.allclose(seen[[2, 5]], plain[[2, 5]] + 5, atol=1e-6)
    assert norm.norm.running_mean is not None


def test_everything_but_the_class_tables_of_g_has_spectral_norm() -> None:
    g, d = skeleton(small())
    for network in (g, d):
        normed = {id(weight) for _, weight in spectral_norms(network)}
        plain = {
            name
            for name, weight in network.named_parameters()
            if weight.dim() > 1 and id(weight) not in normed
        }
        assert all(name.rpartition(".")[2] in ("gain", "bias") for name in plain), plain
    assert any(name.endswith("norm1.gain") for name, _ in g.named_parameters())
    assert "embed.parametrizations.weight.original" in dict(d.named_parameters())


@pytest.mark.parametrize("kind", ["hidden", "none"])
def test_spectral_norm_is_where_it_was_set(kind: str) -> None:
    config = small(*(f"model.spectral_norm.{net}={kind}" for net in NETWORKS))
    for network in skeleton(config):
        names = {n for n in plain_names(network) if "parametrizations" in n}
        ends = {name.partition(".")[0] for name in names}
        assert not ends & {"out", "embed", "attention16"}
        assert bool(ends) == (kind == "hidden")


def plain_names(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_parameters()]


def test_spectral_norms_start_near_their_limit() -> None:
    for network in build(small()):
        for norm, weight in spectral_norms(network):
            matrix = weight.flatten(1)
            sigma = torch.dot(norm.u, matrix @ norm.v)
            assert sigma.item() == pytest.approx(
                torch.linalg.matrix_norm(matrix, 2).item(), rel=0.05
            )


def test_glorots_law() -> None:
    g, d = build(small("model.initialisation=glorot", "model.width=32"))
    for name, module in [*g.named_modules(), *d.named_modules()]:
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            (weight,) = [w for _, w in spectral_norms(module)] or [module.weight]
            nn.init.xavier_uniform_(reference := torch.empty_like(weight))
            bound = (6 / sum(nn.init._calculate_fan_in_and_fan_out(weight))) ** 0.5
            assert weight.abs().max() <= bound, name
            assert weight.std().item() == pytest.approx(reference.std().item(), rel=0.2), name
            bias = getattr(module, "bias", None)
            assert bias is None or not bias.any(), name


def test_shared_layers_start_identical_in_every_variant() -> None:
    ours = build(small())
    for config in (small(variant="no-attention"), small("model.attention.generator=[4, 32]"),
                   small(variant="residual"), small(classes=0)):  # fmt: skip
        for a, b in zip(ours, build(config), strict=True):
            first, second = a.state_dict(), b.state_dict()
            shared = {name for name in first.keys() & second.keys() if "attention" not in name}
            assert len(shared) > 20
            for name in shared:
                same = torch.equal(first[name], second[name])
                assert same or (not config.model.classes and ".norm" in name), name


def test_gradients_reach_every_weight() -> None:
    g, d = build(small())
    for network in (g, d):
        for block in attention_blocks(network).values():
            block.gamma.data.fill_(0.5)
    z, labels = torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    d(g(z, labels), labels).square().mean().backward()
    for network in (g, d):
        for name, weight in network.named_parameters():
            assert weight.grad is not None, name
            before_norm = name.startswith("up") and name.endswith("conv1.bias")
            assert weight.grad.abs().max() > 0 or before_norm, name


def test_looking_at_a_network_changes_nothing() -> None:
    for network, inputs in zip(
        build(small()), (torch.randn(4, 8), torch.randn(4, 3, 32, 32)), strict=True
    ):
        network.eval()
        before = copy.deepcopy(network.state_dict())
        network(inputs, torch.tensor([0, 1, 2, 0]))
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("layout", ["pyramid", pytest.param("flat", marks=pytest.mark.slow)])
def test_a_wider_network_costs_what_attention_costs(layout: str) -> None:
    sides = [f"model.attention.{net}=[16]" for net in NETWORKS]
    sets = [f"model.layout={layout}", "model.width=16", *sides]
    config, wider = (small(*sets, variant=name) for name in ("sagan", "wider"))
    assert min(widths(wider.model, 32)) > 16
    tables = layers(config), layers(wider)
    for title in NETWORKS:
        target, found = (sum(r.flops for r in rows if r.network == title) for rows in tables)
        assert found == pytest.approx(target, rel=0.02 if layout == "pyramid" else 0.1)


def test_half_sight_scores_halves_apart() -> None:
    d = build(small("model.discriminator_sees=halves")).discriminator.eval()
    whole = build(small()).discriminator.eval()
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 2])
    left, right = images.chunk(2, dim=3)
    expected = (whole(left, labels) + whole(right, labels)) / 2
    assert torch.allclose(d(images, labels), expected, atol=1e-5)


def test_networks_are_channels_last() -> None:
    for network in build(small()):
        for name, weight in network.named_parameters():
            if weight.dim() == 4:
                assert weight.is_contiguous(memory_format=torch.channels_last), name
    inputs: list[Tensor] = []
    g = build(small()).generator
    g.up8.conv1.register_forward_pre_hook(lambda _m, given: inputs.append(given[0]))  # type: ignore[union-attr]
    g(torch.randn(2, 8), torch.tensor([0, 1]))
    assert inputs[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_the_official_networks_d_learns_one_batch_by_heart() -> None:
    """On 4 real and 4 generated images; 20 steps of D in 2 GiB, minutes on a CPU."""
    sets = ["training.batch_size=4", "training.precision=fp32"]
    config = make(*sets, preset="imagenet128-official")
    state = TrainState(config, torch.device("cpu"))
    torch.manual_seed(0)
    real = (torch.rand(4, 3, 128, 128) * 2 - 1).contiguous(memory_format=torch.channels_last)
    z, (labels, fake_labels) = torch.randn(4, 128), torch.randint(1000, (2, 4))
    recipe, losses = Recipe(config, state), list[float]()
    while len(losses) < 20 and min(losses, default=2) >= 0.5:
        measured = recipe.update_d(real, Noise(z, fake_labels), labels)
        losses.append(measured["loss_d"].item())
    assert losses[0] > 1
    assert losses[-1] < 0.5, losses
