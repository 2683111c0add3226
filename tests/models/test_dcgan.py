"""The DCGAN-like SAGAN: sizes, sides, spectral norm, names and isolation of variants."""

import copy
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.config.variants import variants
from sagan_bench.core.errors import UserError
from sagan_bench.core.seeding import generator as stream
from sagan_bench.models.attention._blocks import SelfAttention
from sagan_bench.models.build import (
    attention_blocks,
    build,
    flops_per_step,
    layers,
    parameters,
    skeleton,
    widths,
)
from sagan_bench.models.families.dcgan import channels_by_side
from sagan_bench.models.layers import SpectralNorm, frozen_spectral_norm, spectral_norms

HOST = Host(bf16=False, extractor="efficientnet-lite0")
PRESETS_AT_64 = ("twins64", "celeba64")


def make(*sets: str, preset: str = "quick", variant: str = "sagan") -> RunConfig:
    return resolve(HOST, preset=preset, variant=variant, sets=sets).config


def small(*sets: str, variant: str = "sagan") -> RunConfig:
    return make("model.width=8", "model.z_dim=8", *sets, variant=variant)


@pytest.mark.parametrize(("z_dim", "expected"), [(128, 3_832_885), (100, 3_603_509)])
def test_parameter_counts_are_the_seed_projects(z_dim: int, expected: int) -> None:
    networks = skeleton(make(f"model.z_dim={z_dim}", preset="celeba64"))
    assert parameters(networks.generator) == expected
    assert parameters(networks.discriminator) == 3_175_299


def test_spectral_norm_adds_no_trainable_parameter() -> None:
    counts = {
        parameters(network)
        for kind in ("all", "hidden", "none")
        for network in skeleton(small(f"model.spectral_norm.generator={kind}"))[:1]
    }
    assert len(counts) == 1


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_shapes_and_ranges(size: int) -> None:
    config = small(f"data.image_size={size}")
    g, d = build(config)
    images = g(torch.randn(2, 8))
    assert images.shape == (2, 3, size, size)
    assert images.dtype == torch.float32
    assert images.abs().max() < 1
    assert d(images).shape == (2,)


@pytest.mark.parametrize(("network", "name"), [(0, "generator"), (1, "discriminator")])
@pytest.mark.parametrize("sides", [[], [4], [8, 16], [4, 8, 16, 32]])
def test_exactly_one_block_at_each_requested_side(
    network: int, name: str, sides: list[int]
) -> None:
    built = skeleton(small("data.image_size=64", f"model.attention.{name}={sides}"))[network]
    assert set(attention_blocks(built)) == {f"attention{side}" for side in sides}
    shapes: dict[str, int] = {}
    for block_name, block in attention_blocks(built).items():
        block.register_forward_hook(
            lambda _m, _i, output, key=block_name: shapes.update({key: output.shape[-1]})
        )
    inputs = (1, 8) if name == "generator" else (1, 3, 64, 64)
    built(torch.zeros(inputs, device="meta"))
    assert shapes == {f"attention{side}": side for side in sides}


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_side_the_network_lacks_is_refused_with_those_it_has(network: str) -> None:
    with pytest.raises(UserError, match=r"side 32, 64, .* 4, 8, 16$") as error:
        skeleton(small(f"model.attention.{network}=[8, 64, 32]"))
    assert f"model.attention.{network}" in str(error.value)


@pytest.mark.parametrize("variant", ["wgan-gp", "no-spectral-norm"])
def test_ds_attention_knows_of_gradient_penalties(variant: str) -> None:
    (block,) = attention_blocks(skeleton(make(variant=variant)).discriminator).values()
    assert isinstance(block, SelfAttention)
    assert block.needs_double_backward == (variant == "wgan-gp")


def test_attention_refuses_channels_that_eight_does_not_divide() -> None:
    with pytest.raises(UserError, match="multiple of 8"):
        skeleton(make("model.width=12", "model.attention.generator=[16]"))


def test_shared_layers_start_identical_in_every_variant() -> None:
    full = build(small())
    others = [
        small(variant="no-attention"),
        small("model.attention.generator=[4, 8]", "model.attention.discriminator=[]"),
        small("model.spectral_norm.generator=none", "model.spectral_norm.discriminator=hidden"),
    ]
    for config in others:
        for ours, theirs in zip(full, build(config), strict=True):
            a, b = _by_plain_name(ours), _by_plain_name(theirs)
            assert len(a.keys() & b.keys()) >= 8
            for name in a.keys() & b.keys():
                assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("variant", variants())
def test_layers_start_identical_in_every_shipped_variant(variant: str) -> None:
    size = {"feat64": 128, "feat32": 64, "seed-sides": 64}.get(variant, 32)
    model = resolve(HOST, variant=variant).config.model
    wider = model.attention.kind == "wider" or model.width_factor != 1
    narrower_values = model.attention.kind in ("icml", "pooled")
    for other in ("sagan", "no-attention"):
        for ours, theirs in zip(_started(variant, size), _started(other, size), strict=True):
            shared = ours.keys() & theirs.keys()
            assert {"up4.conv", "down4.conv", "out"} & shared
            for layer in shared:
                a, b = ours[layer], theirs[layer]
                same = all(torch.equal(a[name], b[name]) for name in a.keys() & b.keys())
                assert same or wider or (narrower_values and layer.endswith(".value")), layer


@cache
def _started(variant: str, size: int) -> list[dict[str, dict[str, torch.Tensor]]]:
    """The state of G's and of D's layers by name, but for gamma."""
    started = []
    for network in build(small(f"data.image_size={size}", variant=variant)):
        layers: dict[str, dict[str, torch.Tensor]] = {}
        for name, value in _by_plain_name(network).items():
            layer, _, what = name.rpartition(".")
            if what != "gamma":
                layers.setdefault(layer, {})[what] = value
        started.append(layers)
    return started


def _by_plain_name(network: nn.Module) -> dict[str, torch.Tensor]:
    plain = {}
    for name, value in network.state_dict().items():
        name = name.replace("parametrizations.weight.original", "weight")
        plain[name.replace("parametrizations.weight.0.", "")] = value
    return plain


def test_seeds_differ_and_repeat() -> None:
    first, again, other = build(small()), build(small()), build(small("seed=1"))
    for a, b, c in zip(*(net.generator.state_dict().values() for net in (first, again, other)),
                       strict=True):  # fmt: skip
        assert torch.equal(a, b)
        assert a.numel() < 8 or a.unique().numel() == 1 or not torch.equal(a, c)


def test_initial_law_is_torchs_default() -> None:
    weight = build(make(preset="celeba64")).discriminator.out.weight  # type: ignore[union-attr]
    assert isinstance(weight, torch.Tensor)
    bound = 1 / (512 * 16) ** 0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    torch.nn.init.kaiming_uniform_(reference := torch.empty_like(weight), a=5**0.5)
    assert reference.abs().max().item() == pytest.approx(bound, rel=0.01)


def test_spectral_norm_divides_by_the_largest_singular_value() -> None:
    g, d = build(small())
    found = 0
    for network in (g, d):
        for norm, weight in spectral_norms(network):
            matrix = weight.transpose(0, norm.output_dim).flatten(1)
            norm.iterate(weight, 200)
            true = torch.linalg.matrix_norm(matrix, ord=2)
            norm.eval()
            top = torch.linalg.matrix_norm(
                norm(weight).transpose(0, norm.output_dim).flatten(1), ord=2
            )
            assert top.item() == pytest.approx(1, abs=1e-3)
            assert torch.allclose(norm(weight) * true, weight, rtol=1e-3)
            found += 1
    assert found == 4 + 4 + 3 + 3  # up4..16 + out, down16..4 + out, and both attention blocks


def test_spectral_norm_starts_near_its_limit() -> None:
    for norm, weight in spectral_norms(build(small()).discriminator):
        matrix = weight.transpose(0, norm.output_dim).flatten(1)
        sigma = torch.dot(norm.u, matrix @ norm.v)
        assert sigma.item() == pytest.approx(torch.linalg.matrix_norm(matrix, 2).item(), rel=0.05)


@pytest.mark.parametrize(("kind", "expected"), [("all", 7), ("hidden", 3), ("none", 0)])
def test_spectral_norm_is_where_it_was_set(kind: str, expected: int) -> None:
    networks = skeleton(
        small(f"model.spectral_norm.generator={kind}", f"model.spectral_norm.discriminator={kind}")
    )
    for network in networks:
        assert len(list(spectral_norms(network))) == expected
        assert parametrize.is_parametrized(network.out, "weight") == (kind == "all")  # type: ignore[arg-type]


def test_spectral_norm_is_fp32_under_autocast() -> None:
    norm = SpectralNorm(torch.randn(4, 3, 2, 2), 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(torch.randn(4, 3, 2, 2)).dtype == torch.float32


def test_spectral_norm_gradient_is_that_of_the_equation() -> None:
    weight = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    norm = SpectralNorm(weight.detach(), 0).double()
    norm.iterate(weight, 500)
    norm.eval()
    probe = torch.randn(4, 6, dtype=torch.float64)
    (ours,) = torch.autograd.grad((norm(weight) * probe).sum(), weight)
    exact = (weight / torch.linalg.matrix_norm(weight, 2) * probe).sum()
    (theirs,) = torch.autograd.grad(exact, weight)
    assert torch.allclose(ours, theirs, atol=1e-9)


def test_looking_at_a_network_changes_nothing() -> None:
    for network, inputs in zip(
        build(small()), (torch.randn(4, 8), torch.randn(4, 3, 32, 32)), strict=True
    ):
        network.eval()
        before = copy.deepcopy(network.state_dict())
        first, second = network(inputs), network(inputs)
        assert torch.equal(first, second)
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name


def test_frozen_spectral_norm_stops_iterations_only_inside() -> None:
    g = build(small()).generator.train()
    norm, weight = next(spectral_norms(g))
    with torch.no_grad():
        weight.add_(torch.randn(weight.shape))  # u is no longer the fixed point
        before = norm.u.clone()
        with frozen_spectral_norm(g):
            g(torch.randn(4, 8))
            assert torch.equal(norm.u, before)
        g(torch.randn(4, 8))
    assert not torch.equal(norm.u, before)


def test_biases_before_batchnorm_have_no_gradient() -> None:
    g = build(small()).generator.double().train()
    g(torch.randn(8, 8, dtype=torch.float64)).square().mean().backward()
    for name, weight in g.named_parameters():
        assert weight.grad is not None
        invariant = name.startswith("up") and name.endswith("conv.bias")
        inside_attention = name.startswith("attention") and not name.endswith("gamma")
        if invariant:
            assert weight.grad.abs().max() < 1e-12, name
        elif not inside_attention:  # gamma is 0: see test_attention
            assert weight.grad.abs().max() > 1e-8, name


def test_layer_table_adds_up_and_counts_products() -> None:
    config = make(preset="celeba64")
    table = layers(config)
    networks = skeleton(config)
    for title, network in networks._asdict().items():
        rows = [row for row in table if row.network == title]
        assert sum(row.parameters for row in rows) == parameters(network)
    by_name = {(row.network, row.name): row for row in table}
    down = by_name["discriminator", "down16.conv"]
    assert down.output_shape == (128, 16, 16)
    assert down.flops == 2 * 128 * 16 * 16 * 64 * 4 * 4
    attention = by_name["generator", "attention16"]
    n, c = 256, 128
    assert attention.flops == 2 * n * c * (2 * c // 8 + c) + 2 * n * n * (c // 8 + c)
    g = sum(row.flops for row in table if row.network == "generator")
    d = sum(row.flops for row in table if row.network == "discriminator")
    assert flops_per_step(config) == 64 * (4 * g + 8 * d)


@pytest.mark.parametrize(
    ("kind", "products", "pairs", "keys"),
    [
        ("full", 2 / 8 + 1, 1 / 8 + 1, 256),
        ("icml", 2 / 8 + 2 / 8, 1 / 8 + 1 / 8, 256),
        ("pooled", 2 / 8 + 2 / 2, 1 / 8 + 1 / 2, 64),
        ("uniform", 1 / 256, 0, 256),
        ("residual", 2 * 80 / 128, 0, 256),
    ],
)
def test_layer_table_counts_the_products_of_every_kind(
    kind: str, products: float, pairs: float, keys: int
) -> None:
    table = layers(make(f"model.attention.kind={kind}", preset="celeba64"))
    name = "residual16" if kind == "residual" else "attention16"
    (row,) = (row for row in table if row.network == "generator" and row.name == name)
    n, c = 256, 128
    assert row.flops == 2 * n * c * c * products + 2 * n * keys * c * pairs
    assert row.output_shape == (c, 16, 16)


# Controls


@pytest.mark.parametrize("preset", ["quick", "celeba64"])
def test_a_wider_network_has_no_block_and_costs_what_attention_costs(preset: str) -> None:
    config, wider = (make(preset=preset, variant=name) for name in ("sagan", "wider"))
    networks = skeleton(wider)
    assert not any(attention_blocks(network) for network in networks)
    tables = layers(config), layers(wider)
    for title in networks._fields:
        target, found = (sum(r.flops for r in rows if r.network == title) for rows in tables)
        assert found == pytest.approx(target, rel=0.01)
    assert flops_per_step(wider) == pytest.approx(flops_per_step(config), rel=0.01)


def test_the_widths_of_wider_networks_never_change() -> None:
    # They are no setting, so that no digest would tell.
    found = {name: widths(make(preset=name, variant="wider").model, 64) for name in PRESETS_AT_64}
    assert found == {"twins64": (88.875, 67.5), "celeba64": (88.875, 67.5)}
    assert widths(make(variant="wider").model, 32) == (34.25, 34.25)
    only_g = make("model.attention.discriminator=[]", preset="celeba64", variant="wider")
    assert widths(only_g.model, 64) == (88.875, 64)


def test_no_width_near_a_wider_networks_has_nearer_flops() -> None:
    config = make("model.width=16", variant="wider")
    target = flops_per_step(make("model.width=16"))
    chosen = widths(config.model, 32)
    assert chosen[0] > 16
    errors = {}
    for width in (16, 17, 18, 19, 20):
        plain = make(f"model.width={width}", variant="no-attention")
        errors[width] = abs(flops_per_step(plain) - target)
    assert abs(flops_per_step(config) - target) <= min(errors.values())


def test_a_wider_network_still_refuses_sides_it_lacks() -> None:
    with pytest.raises(UserError, match=r"side 64, which the discriminator lacks"):
        skeleton(make("model.attention.discriminator=[64]", variant="wider"))


def test_widths_are_rounded_to_channels() -> None:
    assert channels_by_side(64, 64) == {4: 512, 8: 256, 16: 128, 32: 64}
    assert channels_by_side(64, 67.625) == {4: 541, 8: 270, 16: 135, 32: 68}


def test_the_planted_improvement_has_twice_the_channels() -> None:
    ours, doubled = (
        {(row.network, row.name): row.output_shape for row in layers(make(variant=name))}
        for name in ("sagan", "wider-x2")
    )
    for key, (channels, *rest) in ours.items():
        factor = 1 if key[1] == "out" else 2
        assert doubled[key] == (factor * channels, *rest)


def test_a_discriminator_of_halves_cannot_see_whether_they_match() -> None:
    for variant in ("half-sight", "sagan"):
        d = build(small(variant=variant)).discriminator.double().eval()
        nn.init.constant_(d.attention8.gamma, 2)  # type: ignore[union-attr, arg-type]
        a, b = torch.randn(2, 4, 3, 32, 32, generator=stream(0, variant), dtype=torch.float64)
        both = torch.cat([a[..., :16], b[..., 16:]], 3), torch.cat([b[..., :16], a[..., 16:]], 3)
        assert d(a).shape == (4,)
        mixed = d(both[0]) + d(both[1])
        assert torch.allclose(d(a) + d(b), mixed, atol=1e-12) == (variant == "half-sight")
        exchanged = torch.cat([a[..., 16:], a[..., :16]], 3)
        assert torch.allclose(d(exchanged), d(a), atol=1e-12) == (variant == "half-sight")
        assert (d(a) - d(b)).abs().max() > 1e-2


def test_the_logit_of_an_image_is_the_mean_of_those_of_its_halves() -> None:
    d = build(small(variant="half-sight")).discriminator.double().eval()
    image = torch.randn(2, 3, 32, 32, generator=stream(0, "image"), dtype=torch.float64)
    assert isinstance(d, nn.Sequential)
    halves = [nn.Sequential.forward(d, half).flatten() for half in image.chunk(2, 3)]  # type: ignore[no-untyped-call]
    assert torch.allclose(d(image).double(), (halves[0] + halves[1]) / 2, atol=1e-6)


def test_networks_are_channels_last() -> None:
    for network in build(small()):
        for name, weight in network.named_parameters():
            if weight.dim() == 4:
                assert weight.is_contiguous(memory_format=torch.channels_last), name
