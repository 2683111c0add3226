"""Diagnostics against hand-made maps, and of networks with every kind of block."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.seeding import generator as stream
from sagan_bench.models.attention._blocks import SelfAttention
from sagan_bench.models.attention._shares import MassOnTwin, weighted
from sagan_bench.models.build import Networks, attention_blocks, build
from sagan_bench.training import diagnostics
from sagan_bench.training.diagnostics import diagnose, distance, entropy

HOST = Host(bf16=False, extractor="efficientnet-lite0")
Z = torch.randn(5, 8, generator=stream(0, "z"))
IMAGES = torch.rand(5, 3, 32, 32, generator=stream(0, "images")) * 2 - 1


def make(*sets: str) -> RunConfig:
    base = ["model.width=8", "model.z_dim=8", "model.attention.generator=[8,16]"]
    return resolve(HOST, sets=[*base, *sets]).config


def lively(config: RunConfig) -> Networks:
    """Networks in training mode whose maps are far from uniform, and gammas from 0."""
    networks = build(config)
    for network in networks:
        network.train()
        for block in attention_blocks(network).values():
            nn.init.constant_(block.gamma, 0.5)
            for name, weight in block.named_parameters():
                if "query" in name or "key" in name:
                    weight.data.mul_(8)
    return networks


def features(network: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """What each block receives."""
    received: dict[str, Tensor] = {}
    for name, block in attention_blocks(network).items():
        block.register_forward_hook(lambda _b, x, _y, name=name: received.update({name: x[0]}))
    with torch.no_grad():
        network(inputs)
    return received


# Hand-made maps


@pytest.mark.parametrize("keys", [16, 4])
def test_uniform_maps_have_the_entropy_log_m(keys: int) -> None:
    beta = torch.full((16, keys), 1 / keys, dtype=torch.float64)
    assert entropy(beta).item() == pytest.approx(math.log(keys), abs=1e-12)


def test_uniform_maps_look_as_far_as_positions_are_apart() -> None:
    beta = torch.full((4, 4), 1 / 4, dtype=torch.float64)
    assert distance(beta, 2, 2).item() == pytest.approx((2 + 2**0.5) / 4, abs=1e-12)
    line = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    expected = (0 + 1 + 2 + 1 + 0 + 1 + 2 + 1 + 0) / 9
    assert distance(line, 1, 3).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("positions", [(4, 4), (8, 16), (32, 32)])
def test_positions_that_see_themselves_look_nowhere(positions: tuple[int, int]) -> None:
    beta = torch.eye(math.prod(positions))
    assert distance(beta, *positions).item() == 0
    assert entropy(beta).item() == 0


def test_every_position_looking_at_one_corner() -> None:
    beta = torch.zeros(8, 8, dtype=torch.float64)
    beta[:, 3] = 1  # row 0, column 3, of 2 x 4
    far = [math.hypot(row, 3 - column) for row in range(2) for column in range(4)]
    assert distance(beta, 2, 4).item() == pytest.approx(sum(far) / 8, abs=1e-12)


def test_a_pooled_key_lies_between_its_cells() -> None:
    beta = torch.eye(4, dtype=torch.float64)  # key k is the 2 x 2 patch k of 4 x 4 cells
    patch_of_cell = [2 * (row // 2) + column // 2 for row in range(4) for column in range(4)]
    assert distance(beta[patch_of_cell], 4, 4).item() == pytest.approx(0.5**0.5, abs=1e-12)


def test_entropy_is_a_mean_over_queries() -> None:
    beta = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    assert entropy(beta).item() == pytest.approx(math.log(2) / 2, abs=1e-12)


# Networks


@pytest.mark.parametrize("kind", ["full", "icml", "pooled", "uniform"])
def test_figures_are_those_of_the_blocks_own_maps(kind: str) -> None:
    networks = lively(make(f"model.attention.kind={kind}"))
    for network, inputs in zip(networks, (Z, IMAGES), strict=True):
        received = features(network.eval(), inputs)
        for name, found in diagnose(network, inputs).items():
            block, x = attention_blocks(network)[name], received[name]
            with torch.no_grad():
                beta, added = block.maps(x), block(x) - x
            assert found.maps is not None
            assert beta is not None
            side, keys = x.shape[2], beta.shape[2]
            ratios = added.flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
            assert found.gamma == 0.5
            assert found.ratio == pytest.approx(ratios.mean().item(), rel=1e-3)
            entropies = -(beta * beta.log()).sum(dim=2).mean()
            assert found.maps.entropy == pytest.approx(entropies.item(), rel=1e-4)
            assert found.maps.entropy_max == pytest.approx(math.log(keys))
            far = torch.stack([distance(one, side, side) for one in beta]).mean().item()
            assert found.maps.distance_px == pytest.approx(far * 32 / side, rel=1e-4)
            half = side // 2
            key_side = math.isqrt(keys)
            assert found.maps.queries[0] == (half, half)
            assert found.maps.beta.shape == (4, 5, key_side, key_side)
            assert found.maps.beta.dtype == np.float32
            for place, (row, column) in enumerate(found.maps.queries):
                expected = beta[:4, row * side + column].view(4, key_side, key_side)
                assert np.allclose(found.maps.beta[:, place], expected.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("nulls", "heads"), [(0, 2), (1, None), (4, 2)], ids=["heads", "a null key", "both"]
)
def test_of_heads_the_mean_is_looked_at_and_null_keys_are_nowhere(
    monkeypatch: pytest.MonkeyPatch, nulls: int, heads: int | None
) -> None:
    generator = lively(make()).generator
    plain = SelfAttention.maps

    def maps(block: SelfAttention, x: Tensor) -> Tensor:
        own = plain(block, x)
        if heads:
            own = torch.stack([own.flip(1), 2 * own - own.flip(1)], 1)
        null = own.new_full((*own.shape[:-1], nulls), 0.5 / max(1, nulls))
        return torch.cat([null, own / 2], -1) if nulls else own

    before = diagnose(generator, Z)
    monkeypatch.setattr(SelfAttention, "maps", maps)
    for name, found in diagnose(generator, Z).items():
        then = before[name].maps
        assert then is not None
        assert found.maps is not None
        share = 0.5 if nulls else 1
        assert found.maps.beta == pytest.approx(then.beta * share, abs=1e-6)
        assert found.maps.distance_px == pytest.approx(then.distance_px * share, rel=1e-4)
        assert found.maps.entropy_max == pytest.approx(math.log(then.beta[0, 0].size + nulls))


@pytest.mark.parametrize("kind", ["full", "icml", "pooled"])
def test_the_largest_logit_is_that_of_all_keys_queries_and_images(kind: str) -> None:
    networks = lively(make(f"model.attention.kind={kind}"))
    for network, inputs in zip(networks, (Z, IMAGES), strict=True):
        received = features(network.eval(), inputs)
        for name, found in diagnose(network, inputs).items():
            block, x = attention_blocks(network)[name], received[name]
            assert isinstance(block, SelfAttention)
            with torch.no_grad():
                query, key = block.query(x).flatten(2), block.pool(block.key(x)).flatten(2)
            largest = torch.einsum("bdn,bdm->bnm", query, key).max().item()
            assert found.figures()["largest_logit"] == pytest.approx(largest, rel=1e-4)


def test_maps_that_are_no_softmax_have_no_largest_logit() -> None:
    found = diagnose(lively(make("model.attention.kind=uniform")).generator, Z)["attention8"]
    assert "largest_logit" not in found.figures()
    assert "mass" not in found.figures()


PARTS = torch.zeros(5, 2, 32, 32, dtype=torch.bool)
for image in range(4):  # the last has no parts
    PARTS[image, 0, 4 * image : 4 * image + 9, 2:11] = True
    PARTS[image, 1, 20 - 3 * image : 30 - 3 * image, 18:29] = True


@pytest.mark.parametrize("chunk", [16, 2])
@pytest.mark.parametrize("kind", ["full", "pooled", "uniform"])
def test_what_parts_take_in_from_each_other_is_told_beside_chance(
    kind: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "CHUNK_IMAGES", chunk)
    networks = lively(make(f"model.attention.kind={kind}"))
    for network, inputs in zip(networks, (Z, IMAGES), strict=True):
        received = dict(features(network.eval(), inputs))
        for name, found in diagnose(network, inputs, parts=PARTS).items():
            whole = MassOnTwin()
            whole.add(weighted(attention_blocks(network)[name], received[name]), PARTS)
            expected, figures = whole.mass(), found.figures()
            assert expected is not None
            assert expected.images == 4
            assert figures["mass"] == pytest.approx(expected.mass, rel=1e-4)
            assert figures["chance"] == pytest.approx(expected.chance, rel=1e-4)
            if kind == "uniform":  # it looks nowhere, however large some values are
                assert figures["chance"] == pytest.approx(figures["mass"], rel=1e-6)
            else:
                assert figures["chance"] != figures["mass"]


def test_without_parts_or_of_halves_nothing_is_said_of_them() -> None:
    networks = lively(make())
    assert "mass" not in diagnose(networks.generator, Z)["attention8"].figures()
    nowhere = torch.zeros_like(PARTS)
    assert "mass" not in diagnose(networks.generator, Z, parts=nowhere)["attention8"].figures()
    halves = lively(make("model.discriminator_sees=halves")).discriminator
    found = diagnose(halves, IMAGES, parts=PARTS)["attention8"].figures()
    assert "mass" not in found
    assert found["largest_logit"] > 0


def test_query_points_are_the_centre_and_the_quarter_points() -> None:
    found = diagnose(build(make()).generator.eval(), Z)["attention8"].maps
    assert found is not None
    assert found.queries == ((4, 4), (2, 2), (2, 6), (6, 2), (6, 6))


def test_uniform_attention_has_the_largest_entropy_and_a_known_distance() -> None:
    config = make("model.attention.kind=uniform", "model.attention.discriminator=[4]")
    found = diagnose(lively(config).discriminator, IMAGES)["attention4"].maps
    assert found is not None
    assert found.entropy == pytest.approx(found.entropy_max, rel=1e-5)
    cells = [(row, column) for row in range(4) for column in range(4)]
    apart = [math.dist(a, b) for a in cells for b in cells]
    assert found.distance_px == pytest.approx(8 * sum(apart) / len(apart), rel=1e-5)


def test_a_residual_block_has_gamma_and_ratio_only() -> None:
    networks = lively(make("model.attention.kind=residual"))
    found = diagnose(networks.generator, Z)
    assert found.keys() == {"residual8", "residual16"}
    for one in found.values():
        assert one.maps is None
        assert one.gamma == 0.5
        assert one.ratio > 0


def test_at_gamma_0_the_ratio_is_0() -> None:
    assert diagnose(build(make()).discriminator, IMAGES)["attention8"].ratio == 0


def test_a_network_without_blocks_has_no_diagnostics() -> None:
    config = make("model.attention.generator=[]")
    assert diagnose(build(config).generator, Z) == {}


def test_halves_are_images_of_half_the_width() -> None:
    config = make("model.discriminator_sees=halves")
    discriminator = lively(config).discriminator
    found = diagnose(discriminator, IMAGES, pictured=99)["attention8"].maps
    assert found is not None
    assert found.entropy_max == pytest.approx(math.log(8 * 4))
    assert found.beta.shape == (10, 5, 8, 4)
    assert found.queries == ((4, 2), (2, 1), (2, 3), (6, 1), (6, 3))
    mirrored = torch.cat([IMAGES[..., 16:], IMAGES[..., :16]], dim=3)
    other = diagnose(discriminator, mirrored)["attention8"].maps
    assert other is not None
    assert other.distance_px == pytest.approx(found.distance_px, rel=1e-5)


def test_chunks_change_nothing_and_bound_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = lively(make()).generator
    whole = diagnose(generator, Z, pictured=5)
    monkeypatch.setattr(diagnostics, "CHUNK_IMAGES", 2)
    features: list[int] = []
    maps: list[int] = []
    generator.up16.register_forward_hook(lambda *args: features.append(len(args[2])))  # type: ignore[union-attr]
    plain = SelfAttention.maps

    def spy(self: SelfAttention, x: Tensor) -> Tensor:
        maps.append(len(x))
        return plain(self, x)

    monkeypatch.setattr(SelfAttention, "maps", spy)
    cut = diagnose(generator, Z, pictured=5)
    assert features == [2, 2, 1]
    assert maps == [1] * 10
    for name, one in whole.items():
        other = cut[name]
        assert one.maps is not None
        assert other.maps is not None
        assert other.ratio == pytest.approx(one.ratio, rel=1e-5)
        assert other.maps.entropy == pytest.approx(one.maps.entropy, rel=1e-5)
        assert np.allclose(other.maps.beta, one.maps.beta, atol=1e-6)


def test_figures_are_means_over_all_images() -> None:
    discriminator = lively(make()).discriminator
    each = [diagnose(discriminator, image)["attention8"] for image in IMAGES.split(1)]
    found = diagnose(discriminator, IMAGES)["attention8"]
    assert found.ratio == pytest.approx(sum(one.ratio for one in each) / 5, rel=1e-5)
    entropies = [one.maps.entropy for one in each if one.maps]
    assert found.maps is not None
    assert found.maps.entropy == pytest.approx(sum(entropies) / 5, rel=1e-5)
    assert max(entropies) - min(entropies) > 1e-3


def test_looking_changes_nothing_and_is_fp32_under_autocast() -> None:
    for network, inputs in zip(lively(make()), (Z, IMAGES), strict=True):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        found = diagnose(network, inputs)
        with torch.autocast("cpu", torch.bfloat16):
            again = diagnose(network, inputs)
        assert network.training
        assert all(torch.equal(value, before[n]) for n, value in network.state_dict().items())
        assert all(weight.grad is None for weight in network.parameters())
        assert not any(block._forward_pre_hooks for block in attention_blocks(network).values())
        assert [one.ratio for one in again.values()] == [one.ratio for one in found.values()]


def test_a_compiled_network_is_looked_at_without_compiling_it_anew() -> None:
    discriminator = lively(make("model.spectral_norm.batched=false")).discriminator.eval()
    expected = diagnose(discriminator, IMAGES)
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    discriminator.compile(backend=backend)
    discriminator(IMAGES)
    before = len(graphs)
    assert before > 0
    assert diagnose(discriminator, IMAGES)["attention8"].ratio == expected["attention8"].ratio
    assert len(graphs) == before


def test_the_network_is_left_as_it_was_after_an_error() -> None:
    generator = lively(make()).generator
    with pytest.raises(RuntimeError):
        diagnose(generator, torch.zeros(2, 9))
    assert generator.training
    assert not any(block._forward_pre_hooks for block in attention_blocks(generator).values())
