"""All spectral norms of a network at once say what each says by itself."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.config.variants import presets
from sagan_bench.core.distributed import SINGLE_PROCESS
from sagan_bench.core.errors import UserError
from sagan_bench.models.batched import BatchedNorms, batch_spectral_norms
from sagan_bench.models.build import build, skeleton
from sagan_bench.models.layers import (
    frozen_spectral_norm,
    normed_layers,
    plain_state,
    spectral_norm,
    spectral_norms,
)
from sagan_bench.training.draws import step_noise
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Recipe

HOST = Host(bf16=True, extractor="efficientnet-lite0")
QUICK = {"quick", "celeba64"}
"""Presets whose networks are looked at in the default tier."""
TINY = ["model.width=16", "model.z_dim=8", "training.batch_size=4", "training.precision=fp64"]


def config(*sets: str, preset: str = "quick", batched: bool = True) -> RunConfig:
    chosen = f"model.spectral_norm.batched={str(batched).lower()}"
    return resolve(HOST, preset=preset, sets=[*sets, chosen]).config


def networks() -> list[str]:
    """Return of the presets with the same networks the first."""
    first: dict[str, str] = {}
    for name in presets():
        of_preset = config(preset=name, batched=False)
        first.setdefault(f"{of_preset.model}{of_preset.data.image_size}", name)
    return list(first.values())


def worst(found: Tensor | None, wanted: Tensor | None) -> float:
    assert found is not None
    assert wanted is not None
    return float((found - wanted).detach().norm() / wanted.detach().norm())


def pairs(
    preset: str, dtype: torch.dtype, *sets: str
) -> Iterator[tuple[nn.ModuleList, nn.ModuleList, BatchedNorms]]:
    """Yield the layers with a spectral norm of G and of D: each by itself, and all at once."""
    for network in skeleton(config(*sets, preset=preset, batched=False)):
        alone = nn.ModuleList(layer for layer, _, _ in normed_layers(network))
        alone = alone.to_empty(device="cpu").to(dtype).to(memory_format=torch.channels_last)
        for number, (_, _, held) in enumerate(normed_layers(alone)):
            draw = torch.Generator().manual_seed(number)
            nn.init.normal_(held.original, std=0.1, generator=draw)
        together = copy.deepcopy(alone)
        batch = BatchedNorms(together)
        yield alone, together, batch


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize(
    "preset",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in networks()],
)
def test_sigma_and_its_gradient_are_those_of_each_layer(
    preset: str, dtype: torch.dtype, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = []
    if dtype == torch.float64:  # whose bound holds before sigma has converged, and of any width
        monkeypatch.setattr("sagan_bench.models.layers.POWER_ITERATIONS_AT_START", 3)
        narrow = ["model.width=16"]
    for alone, together, batch in pairs(preset, dtype, *narrow):
        for training in (True, False):
            for layers in (alone, together):
                layers.train(training).zero_grad()
                for _, norm, held in normed_layers(layers):
                    norm.begin(held.original, torch.ones_like(norm.u))
                if layers is together:
                    batch.give()
                torch.manual_seed(1)
                weights: list[Tensor] = [getattr(layer, "weight") for layer in layers]  # noqa: B009
                towards = [torch.randn(weight.shape, dtype=dtype) for weight in weights]
                torch.autograd.backward(weights, towards)
            batch.take_back()
            both = zip(normed_layers(together), normed_layers(alone), strict=True)
            for (_, mine, here), (_, theirs, there) in both:
                sigma, wanted = (
                    torch.dot(norm.u, norm._matrix(held.original) @ norm.v)
                    for norm, held in ((mine, here), (theirs, there))
                )
                assert abs(sigma / wanted - 1) < most
                assert worst(here.original.grad, there.original.grad) < most


@pytest.mark.parametrize("more", [[], ["model.discriminator_sees=halves"]])
def test_twenty_steps_lose_the_same(more: list[str]) -> None:
    lost = []
    for batched in (False, True):
        of_run = config(*TINY, *more, batched=batched)
        state = TrainState(of_run, torch.device("cpu"))
        recipe, rows = Recipe(of_run, state), list[list[float]]()
        draw = torch.Generator().manual_seed(0)
        for step in range(1, 21):
            noise = step_noise(of_run, SINGLE_PROCESS, step)
            real = torch.rand(4, 3, 32, 32, generator=draw, dtype=torch.float64)
            measured = recipe.update_d(real, noise.critic[0]) | recipe.update_g(noise.generator)
            state.step = step
            rows.append([float(measured[name]) for name in ("loss_d", "loss_g")])
        lost.append(torch.tensor(rows, dtype=torch.float64))
    assert (lost[0][-1] - lost[0][0]).abs().min() > 1e-3
    assert float((lost[1] - lost[0]).abs().max()) < 1e-9


class Called(nn.Module):
    """Three layers, two of one shape and one that is transposed, and a table."""

    def __init__(self) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(4, 4, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(4, 4, 3, padding=1))
        self.up = spectral_norm(nn.ConvTranspose2d(4, 6, 4))
        self.table = spectral_norm(nn.Embedding(5, 6))
        self.seen = list[torch.dtype]()

    def forward(self, x: Tensor, fail: bool = False) -> Tensor:
        if fail:
            raise RuntimeError("on purpose")
        self.seen = [self.first.weight.dtype, self.table.weight.dtype]
        with torch.autocast("cpu", enabled=False):
            self.seen.append(self.first.weight.dtype)
        h = self.up(self.second(self.first(x)))
        return (h.sum((2, 3)) * self.table(torch.arange(len(x)))).sum(1)


def called() -> tuple[Called, Called]:
    torch.manual_seed(0)
    alone = Called().to(memory_format=torch.channels_last)
    together = copy.deepcopy(alone)
    batch_spectral_norms(together)
    for network in (alone, together):
        for _, norm, held in normed_layers(network):
            norm.begin(held.original, torch.ones_like(norm.u))
    return alone, together


def test_under_autocast_weights_are_cast_at_once_and_tables_and_what_is_outside_are_not() -> None:
    alone, together = called()
    x = torch.randn(3, 4, 5, 5)
    outputs = []
    for network in (alone, together):
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(network(x))
        outputs[-1].sum().backward()
    assert alone.seen == [torch.float32] * 3
    assert together.seen == [torch.bfloat16, torch.float32, torch.float32]
    assert worst(outputs[1], outputs[0]) < 1e-2
    for mine, theirs in zip(together.parameters(), alone.parameters(), strict=True):
        assert worst(mine.grad, theirs.grad) < 1e-2


def test_outside_of_a_call_and_after_one_that_failed_each_layer_makes_its_own() -> None:
    alone, together = called()
    for network in (alone, together):
        network.eval()
    with pytest.raises(RuntimeError, match="on purpose"):
        together(torch.randn(3, 4, 5, 5), fail=True)
    with torch.no_grad():
        together.first.weight  # noqa: B018
        for mine in spectral_norms(together):
            mine[1].mul_(2)
        for name, value in plain_state(together).items():
            assert torch.allclose(value, plain_state(alone)[name], atol=1e-6), name


class Recomputing(nn.Module):
    """A layer that a backward pass computes again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = checkpoint(lambda h: self.first(h).relu(), x, use_reentrant=False)
        return result


def test_a_layer_that_is_computed_again_in_a_backward_pass_is_refused_with_what_to_do() -> None:
    alone = Recomputing()
    together = copy.deepcopy(alone)
    batch_spectral_norms(together)
    x = torch.randn(3, 4)
    alone(x).sum().backward()
    with pytest.raises(UserError, match=r"add --set model\.spectral_norm\.batched=false"):
        together(x).sum().backward()


def test_while_only_some_iterate_each_layer_makes_its_own() -> None:
    alone, together = called()
    x = torch.randn(3, 4, 5, 5)
    for network in (alone, together):
        network.train()
        with frozen_spectral_norm(network.first):
            network(x)
    for (mine, _), (theirs, _) in zip(spectral_norms(together), spectral_norms(alone), strict=True):
        assert worst(mine.u, theirs.u) < 1e-6


@pytest.mark.parametrize("training", [True, False])
def test_it_iterates_once_a_call_while_training_and_never_else(training: bool) -> None:
    _, together = called()
    for _, held in spectral_norms(together):
        held.data.add_(torch.randn_like(held))
    before = [norm.u.clone() for norm, _ in spectral_norms(together)]
    together.train(training)(torch.randn(3, 4, 5, 5))
    for u, (norm, weight) in zip(before, spectral_norms(together), strict=True):
        matrix = norm._matrix(weight.detach())
        once = functional.normalize(matrix @ functional.normalize(u @ matrix, dim=0), dim=0)
        assert torch.allclose(norm.u, once if training else u, atol=1e-6)


def test_a_copy_has_norms_of_its_own() -> None:
    _, together = called()
    copied = copy.deepcopy(together)
    for parameter in copied.parameters():
        parameter.data.mul_(3)
    before = [norm.u.clone() for norm, _ in spectral_norms(together)]
    copied.train()(torch.randn(3, 4, 5, 5)).sum().backward()
    assert all(parameter.grad is None for parameter in together.parameters())
    assert all(
        torch.equal(u, norm.u)
        for u, (norm, _) in zip(before, spectral_norms(together), strict=True)
    )
    assert all(norm.given is None for norm, _ in spectral_norms(copied))


def test_a_weight_of_zeros_is_no_number_as_by_itself_and_leaves_the_others_alone() -> None:
    alone, together = called()
    for network in (alone, together):
        next(held for _, _, held in normed_layers(network)).original.data.zero_()
        network.train()
    batch = BatchedNorms(together)
    batch.give()
    for layer in ("first", "second", "up", "table"):
        mine, theirs = getattr(together, layer).weight, getattr(alone, layer).weight
        assert mine.isnan().all() == theirs.isnan().all() == (layer == "first")
    assert [norm.u.isfinite().all().item() for norm, _ in spectral_norms(together)] == [True] * 4


def test_checkpoints_name_the_same_tensors() -> None:
    alone, together = (build(config(*TINY, batched=batched)) for batched in (False, True))
    for mine, theirs in zip(together, alone, strict=True):
        shapes = {name: value.shape for name, value in theirs.state_dict().items()}
        assert {name: value.shape for name, value in mine.state_dict().items()} == shapes


def test_it_enters_the_digest_and_the_two_presets_of_before_are_without_it() -> None:
    assert config(batched=True).digest("x") != config(batched=False).digest("x")
    assert resolve(HOST, preset="quick").config.digest("x") == config(batched=False).digest("x")
    without = {
        name
        for name in presets()
        if not resolve(HOST, preset=name).config.model.spectral_norm.batched
    }
    assert without == {"quick", "brief"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_it_is_the_same_and_breaks_no_graph() -> None:
    sets = [*TINY[:3], "training.precision=fp32"]
    alone, together = (build(config(*sets, batched=each)).discriminator for each in (False, True))
    together.compile()
    counters.clear()
    x = torch.randn(4, 3, 32, 32)
    for _ in range(3):
        outputs = [network(x) for network in (alone, together)]
        for output in outputs:
            output.sum().backward()
    assert not counters["graph_break"]
    assert worst(outputs[1], outputs[0]) < 1e-5
    for mine, theirs in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-5)
