"""From the meta device to networks: nothing starts from uninitialised memory."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import AttentionConfig, Host, RunConfig
from sagan_bench.core.registry import FAMILIES
from sagan_bench.models.attention._blocks import SelfAttention
from sagan_bench.models.build import build, plain_generator, skeleton
from sagan_bench.models.families._base import Family
from sagan_bench.models.layers import SpectralNorm, initialise, spectral_norm

HOST = Host(bf16=False, extractor="efficientnet-lite0")
CONFIG = resolve(HOST, preset="quick", sets=["model.width=8", "model.z_dim=8"]).config


class Constant(nn.Module):
    """Weights of its own, a table that no state holds, and a mask; a rule for all of them."""

    table: Tensor
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(3))
        self.register_buffer("table", torch.empty(4), persistent=False)
        self.register_buffer("mask", torch.empty(4, dtype=torch.bool))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.scale, 0.25)
        self.table.copy_(torch.arange(4.0))
        self.mask.copy_(torch.tensor([True, False, True, False]))


class Bare(nn.Module):
    """A parameter without a rule."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


class Half(Constant):
    """Its rule forgets the mask."""

    def reset_parameters(self) -> None:
        nn.init.constant_(self.scale, 0.25)
        self.table.copy_(torch.arange(4.0))


class ByChance(Bare):
    """Its rule draws from the generator that all share."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.scale)


class Biased(nn.Linear):
    """A layer whose weights are drawn, with a gain that is not."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.gain = nn.Parameter(torch.ones(4))


class OfAllKinds(Family):
    """A family whose generator holds ``made()`` besides layers of all kinds."""

    made: Callable[[], nn.Module]

    def width_of_a_channel(self, image_size: int) -> float:
        return 1.0

    def networks(self, *given: object, **named: object) -> tuple[nn.Module, nn.Module]:
        generator = nn.Sequential(
            spectral_norm(nn.Conv2d(3, 8, 3)),
            nn.BatchNorm2d(8),
            nn.GroupNorm(2, 8),
            SelfAttention(8, AttentionConfig(gamma_init=0.5)),
            nn.LayerNorm(8),
            nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
            nn.Linear(8, 4),
        )
        generator.add_module("made", type(self).made())
        return generator, nn.Sequential(nn.Linear(4, 1))


def holding(made: Callable[[], nn.Module]) -> type[OfAllKinds]:
    return type("Holding", (OfAllKinds,), {"made": staticmethod(made)})


@pytest.fixture
def of_family(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], nn.Module]], RunConfig]:
    def configured(made: Callable[[], nn.Module]) -> RunConfig:
        monkeypatch.setitem(FAMILIES._known, "dcgan", holding(made))
        monkeypatch.setattr(nn.Module, "to_empty", garbage)
        return CONFIG

    return configured


to_empty = nn.Module.to_empty


def garbage(network: nn.Module, **where: Any) -> nn.Module:
    """What memory may hold, made sure of."""
    made = to_empty(network, **where)
    for tensor in made.state_dict(keep_vars=True).values():
        tensor.detach().fill_(77)
    for tensor in made.buffers():
        tensor.fill_(77)
    return made


def expected(made: nn.Module) -> nn.Module:
    """The same generator, made in memory."""
    generator, _ = holding(lambda: made)(CONFIG.model).networks(32, (8, 8))
    initialise(generator, CONFIG.seed, "generator", CONFIG.model.initialisation)
    return generator


def everything(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


Of = Callable[[Callable[[], nn.Module]], RunConfig]


def test_every_parameter_and_buffer_has_its_value_at_the_start(of_family: Of) -> None:
    made = everything(build(of_family(Constant)).generator)
    whole = everything(expected(Constant()))
    assert made.keys() == whole.keys()
    assert {"2.weight", "4.bias", "5.running_var", "made.table", "made.mask"} <= made.keys()
    assert [name for name in whole if not torch.equal(made[name], whole[name])] == []


def test_networks_are_laid_out_without_a_use_of_their_norms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def used(*args: Any) -> Tensor:
        raise AssertionError("a norm was used, which takes long on the meta device")

    monkeypatch.setattr(SpectralNorm, "forward", used)
    networks = skeleton(resolve(HOST, preset="twins32").config)
    assert any(isinstance(each, SpectralNorm) for each in networks.generator.modules())


def test_a_plain_generator_has_what_no_state_holds(of_family: Of) -> None:
    config = of_family(Constant)
    state = build(config).generator.state_dict()
    assert "made.table" not in state
    generator = plain_generator(config, state, torch.device("cpu"))
    assert generator.get_buffer("made.table").tolist() == [0, 1, 2, 3]
    loaded = generator.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in state.items())


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (Bare, r"nothing sets scale of made \(Bare\) at the start"),
        (Half, r"nothing sets scale, table, mask of made \(Half\)"),
        (ByChance, r"nothing sets scale of made \(ByChance\)"),
        (Biased, r"nothing sets gain of made \(Biased\)"),
        (lambda: nn.MultiheadAttention(8, 2), r"nothing sets in_proj_weight, .* of made \(Multih"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), "original0, original1"),
    ],
    ids=["bare", "half", "chance", "biased", "multihead", "weight norm"],
)
def test_what_no_rule_fills_is_refused_by_name(
    made: Callable[[], nn.Module], told: str, of_family: Of
) -> None:
    with pytest.raises(TypeError, match=told):
        build(of_family(made))


@pytest.mark.parametrize("sets", [[], ["model.architecture=resnet", "model.classes=3"]])
def test_todays_networks_start_the_same_whatever_memory_holds(
    sets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolve(HOST, sets=["model.width=8", "model.z_dim=8", *sets]).config
    before = torch.get_rng_state()
    clean = build(config)
    monkeypatch.setattr(nn.Module, "to_empty", garbage)
    for one, other in zip(clean, build(config), strict=True):
        assert any(isinstance(module, SpectralNorm) for module in one.modules())
        ours, theirs = everything(one), everything(other)
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert torch.equal(torch.get_rng_state(), before)
