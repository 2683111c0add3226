"""The loop: what a step may and may not change, streams, divergence."""

import copy
import itertools

import pytest
import torch
from torch import nn

from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.seeding import generator as stream
from sagan_bench.data.building import prepare
from sagan_bench.data.feeding import batch
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import Store
from sagan_bench.models.build import attention_blocks
from sagan_bench.training.draws import Noise
from sagan_bench.training.generation import noise, sampler, standing
from sagan_bench.training.loop import Diverged, Step, train
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Recipe

HOST = Host(bf16=False, extractor="efficientnet-lite0")
CPU = torch.device("cpu")


def make(*sets: str, variant: str = "sagan") -> RunConfig:
    base = [
        "model.width=8", "model.z_dim=8", "training.batch_size=4", "run.steps=6", "run.log_every=2",
        "data.train_images=64", "data.test_images=16",
    ]  # fmt: skip
    return resolve(HOST, preset="quick", variant=variant, sets=[*base, *sets]).config


@pytest.fixture(scope="module")
def store() -> Store:
    return prepare(DataSpec("twins", 32, train_images=64, test_images=16))


def steps(config: RunConfig, state: TrainState, store: Store) -> list[Step]:
    events = list(train(config, state, store))
    assert all(isinstance(event, Step) for event in events)
    return events  # type: ignore[return-value]


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_rows_come_every_log_every_steps_and_at_the_end(store: Store) -> None:
    config = make("run.steps=5")
    events = steps(config, TrainState(config, CPU), store)
    assert [event.step for event in events] == [1, 2, 3, 4, 5]
    assert [event.step for event in events if event.row] == [2, 4, 5]
    row = events[-1].row
    assert row is not None
    assert row.keys() == {
        "loss_d", "loss_g", "real_logits", "fake_logits", "grad_norm_d", "grad_norm_g",
        "gamma.generator.attention8", "gamma.discriminator.attention8", "images_per_sec",
    }  # fmt: skip
    assert row["images_per_sec"] > 0


def test_same_seed_same_weights_other_seed_others(store: Store) -> None:
    results = []
    for sets in ([], [], ["seed=1"]):
        config = make(*sets)
        state = TrainState(config, CPU)
        steps(config, state, store)
        results.append(weights(state.generator) | weights(state.discriminator))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_training_from_a_snapshot_is_bit_equal_to_not_stopping(store: Store) -> None:
    config = make("training.n_critic=2")
    whole = TrainState(config, CPU)
    steps(config, whole, store)
    first = TrainState(config, CPU)
    list(itertools.islice(train(config, first, store), 3))
    snapshot = copy.deepcopy(first.state_dict())
    second = TrainState(make("training.n_critic=2"), CPU)
    second.load_state_dict(snapshot)
    assert [event.step for event in steps(config, second, store)] == [4, 5, 6]
    for part in ("generator", "discriminator", "ema"):
        assert same(weights(getattr(whole, part)), weights(getattr(second, part)))


def test_global_random_state_is_neither_used_nor_changed(store: Store) -> None:
    config = make()
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        state = TrainState(config, CPU)
        steps(config, state, store)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(weights(state.generator))
    assert same(*results)


@pytest.fixture
def recipe() -> Recipe:
    config = make()
    state = TrainState(config, CPU)
    for network in (state.generator, state.discriminator):
        network.train()
        for block in attention_blocks(network).values():
            nn.init.constant_(block.gamma, 0.5)
    return Recipe(config, state)


REAL = torch.rand(4, 3, 32, 32) * 2 - 1
NOISE = Noise(torch.randn(4, 8))


def test_ds_step_builds_no_graph_through_g_and_leaves_its_weights(recipe: Recipe) -> None:
    state = recipe.state
    seen: list[bool] = []
    state.generator.register_forward_hook(lambda *args: seen.append(args[2].requires_grad))
    parameters = {name: p.clone() for name, p in state.generator.named_parameters()}
    vectors = {n: b.clone() for n, b in state.generator.named_buffers() if n.endswith((".u", ".v"))}
    before = weights(state.discriminator)
    recipe.update_d(REAL, NOISE)
    assert seen == [False]
    assert all(p.grad is None for p in state.generator.parameters())
    assert same(parameters, dict(state.generator.named_parameters()))
    assert same(vectors, {n: b for n, b in state.generator.named_buffers() if n in vectors})
    assert vectors
    assert not same(before, weights(state.discriminator))


def test_gs_step_leaves_d_alone_and_gives_it_no_gradient(recipe: Recipe) -> None:
    state = recipe.state
    state.optimizer_d.zero_grad()
    before, g_before = weights(state.discriminator), weights(state.generator)
    recipe.update_g(NOISE)
    assert same(before, weights(state.discriminator))
    assert all(p.grad is None for p in state.discriminator.parameters())
    assert all(p.requires_grad for p in state.discriminator.parameters())
    assert state.discriminator.training
    assert not same(g_before, weights(state.generator))


def test_d_sees_real_and_fake_in_one_forward_with_one_power_iteration(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sagan_bench.models.layers import SpectralNorm

    iterated: list[int] = []
    plain = SpectralNorm.iterate

    def counted(self: SpectralNorm, weight: torch.Tensor, times: int = 1) -> None:
        iterated.append(times)
        plain(self, weight, times)

    monkeypatch.setattr(SpectralNorm, "iterate", counted)
    batches: list[int] = []
    recipe.state.discriminator.register_forward_hook(lambda *args: batches.append(len(args[2])))
    recipe.update_d(REAL, NOISE)
    assert batches == [8]
    assert iterated == [1] * 7  # D's four convolutions and attention's three; none in G


def test_every_weight_of_both_networks_learns(recipe: Recipe) -> None:
    state = recipe.state
    before = {net: weights(getattr(state, net)) for net in ("generator", "discriminator")}
    recipe.update_d(REAL, NOISE)
    recipe.update_g(NOISE)
    for net, old in before.items():
        for name, parameter in getattr(state, net).named_parameters():
            invariant = name.endswith("key.bias") or (net == "generator" and ".conv.bias" in name)
            # Inside the hinge's margins real and fake images pull D's last bias equally.
            if not invariant and (net, name) != ("discriminator", "out.bias"):
                assert not torch.equal(parameter, old[name]), f"{net}.{name}"


def test_the_average_follows_g_by_its_decay(store: Store) -> None:
    config = make("training.ema_decay=0.75", "run.steps=2")
    state = TrainState(config, CPU)
    events = train(config, state, store)
    next(events)
    first = {n: p.clone() for n, p in state.generator.named_parameters()}
    assert same(first, dict(state.ema.named_parameters()))
    next(events)
    for name, parameter in state.generator.named_parameters():
        average = dict(state.ema.named_parameters())[name]
        assert torch.allclose(average, 0.75 * first[name] + 0.25 * parameter, atol=1e-7)


def test_bf16_keeps_master_weights_and_losses_in_fp32(store: Store) -> None:
    config = make("training.precision=bf16", "run.steps=2")
    state = TrainState(config, CPU)
    seen: set[torch.dtype] = set()
    for module in state.discriminator.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *args: seen.add(args[2].dtype))
    recipe_logits: list[torch.dtype] = []
    state.discriminator.register_forward_hook(lambda *args: recipe_logits.append(args[2].dtype))
    steps(config, state, store)
    assert seen == {torch.bfloat16}
    assert set(recipe_logits) == {torch.float32}
    assert {p.dtype for p in state.generator.parameters()} == {torch.float32}
    assert {b.dtype for b in state.generator.buffers() if b.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("loss", ["hinge", "wgan-gp"])
def test_both_losses_train(loss: str, store: Store) -> None:
    sets = [f"model.spectral_norm.{net}=none" for net in ("generator", "discriminator")]
    config = make(f"training.loss={loss}", "run.steps=3", *sets)
    events = steps(config, TrainState(config, CPU), store)
    assert events[-1].row is not None


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_weight_that_is_not_finite_is_a_divergence_with_its_step(
    network: str, store: Store
) -> None:
    config = make()
    state = TrainState(config, CPU)
    events = train(config, state, store)
    next(events)
    with torch.no_grad():
        getattr(state, network).out.bias.fill_(float("nan"))
    event = next(events)
    assert isinstance(event, Diverged)
    assert event.step == 2
    assert "loss_d = nan" in event.reason
    assert next(events, None) is None


def test_a_block_with_gamma_0_trains_bit_for_bit_as_no_block(store: Store) -> None:
    trained = []
    for variant in ("no-attention", "gamma-fixed-0"):
        config = make("run.steps=20", "training.precision=fp32", variant=variant)
        state = TrainState(config, CPU)
        before = weights(state.generator)
        steps(config, state, store)
        trained.append([weights(net) for net in (state.generator, state.discriminator, state.ema)])
    assert not same(before, trained[1][0])
    assert any(".query." in name for name in before)
    for without, fixed in zip(*trained, strict=True):
        assert same(without, {name: fixed[name] for name in without})
        assert all(name.startswith("attention8.") for name in fixed.keys() - without.keys())
    frozen = {name: value for name, value in before.items() if name.endswith("original")}
    projections = {name for name in frozen if name.startswith("attention8.")}
    assert len(projections) == 3
    assert same(
        {name: before[name] for name in projections},
        {name: trained[1][0][name] for name in projections},
    )


@pytest.mark.parametrize(
    ("variant", "start", "moves"), [("gamma-fixed-1", 1, False), ("gamma-init-1", 1, True)]
)
def test_gamma_is_trained_only_where_it_should_be(
    variant: str, start: float, moves: bool, store: Store
) -> None:
    config = make(variant=variant)
    state = TrainState(config, CPU)
    blocks = [*attention_blocks(state.generator).values()]
    blocks += attention_blocks(state.discriminator).values()
    assert [block.gamma.item() for block in blocks] == [start, start]
    row = steps(config, state, store)[-1].row
    assert [block.gamma.item() != start for block in blocks] == [moves, moves]
    assert row is not None
    assert row["gamma.generator.attention8"] == blocks[0].gamma.item()


@pytest.mark.parametrize("variant", ["icml", "pooled", "uniform", "residual", "wider"])
@pytest.mark.parametrize("loss", ["hinge", "wgan-gp"])
def test_every_kind_trains_under_both_losses(variant: str, loss: str, store: Store) -> None:
    sets = [f"model.spectral_norm.{net}=none" for net in ("generator", "discriminator")]
    config = make(f"model.attention.kind={variant}", f"training.loss={loss}", "run.steps=3", *sets)
    state = TrainState(config, CPU)
    steps(config, state, store)
    gammas = [
        block.gamma.item()
        for network in (state.generator, state.discriminator)
        for block in attention_blocks(network).values()
    ]
    assert len(gammas) == (0 if variant == "wider" else 2)
    assert all(gammas)
    plain = standing(config, state.generator, 2)
    assert attention_blocks(plain).keys() == attention_blocks(state.generator).keys()


def test_halves_train_and_the_optimizers_have_their_learning_rates(store: Store) -> None:
    sets = ["training.lr_scale=0.5", "training.lr_d_over_g=2"]
    config = make("model.discriminator_sees=halves", "run.steps=2", *sets)
    state = TrainState(config, CPU)
    steps(config, state, store)
    assert state.optimizer_g.param_groups[0]["lr"] == 2e-4
    assert state.optimizer_d.param_groups[0]["lr"] == 4e-4


def test_infinite_logits_that_a_hinge_would_hide_are_a_divergence(store: Store) -> None:
    config = make()
    state = TrainState(config, CPU)
    with torch.no_grad():
        state.discriminator.out.bias.fill_(float("inf"))  # type: ignore[union-attr, operator]
    event = next(train(config, state, store))
    assert isinstance(event, Diverged)
    assert "real_logits = inf" in event.reason


def test_noise_is_the_same_however_it_is_cut() -> None:
    whole = noise(3, 0, 2500, 4)
    assert whole.shape == (2500, 4)
    for start, stop in ((0, 1), (1000, 1100), (1023, 1025), (2048, 2500), (7, 2200)):
        assert torch.equal(noise(3, start, stop, 4), whole[start:stop])
    assert not torch.equal(noise(4, 0, 5, 4), whole[:5])
    assert abs(whole.mean().item()) < 0.05
    assert whole.std().item() == pytest.approx(1, abs=0.03)


def test_standing_statistics_belong_to_the_weights_and_change_nothing(store: Store) -> None:
    config = make()
    state = TrainState(config, CPU)
    steps(config, state, store)
    before = weights(state.generator)
    first, second = (standing(config, state.generator, 8) for _ in range(2))
    assert same(before, weights(state.generator))
    assert same(weights(first), weights(second))
    assert not first.training
    means = [name for name in before if name.endswith("running_mean")]
    assert means
    assert not any(torch.equal(before[name], weights(first)[name]) for name in means)
    sample = sampler(first, 8)
    assert torch.allclose(sample(0, 0, 8)[3:5], sample(0, 3, 5), atol=1e-6)
    assert sample(0, 0, 2).shape == (2, 3, 32, 32)


def test_standing_weights_are_divided_by_their_largest_singular_value() -> None:
    config = make()
    generator = TrainState(config, CPU).generator
    plain = standing(config, generator, 2)
    for name, weight in plain.named_parameters():
        if name.startswith("up") and name.endswith("conv.weight"):
            sigma = torch.linalg.matrix_norm(weight.transpose(0, 1).flatten(1), 2)
            assert sigma.item() == pytest.approx(1, abs=2e-2), name


def test_standing_statistics_are_those_of_the_fixed_noise() -> None:
    config = make()
    plain = standing(config, TrainState(config, CPU).generator, 4)
    outputs: list[torch.Tensor] = []
    plain.up4.conv.register_forward_hook(lambda *args: outputs.append(args[2]))  # type: ignore[union-attr]
    z = [
        torch.randn(4, 8, generator=stream(0, "standing", k), dtype=torch.float64).float()
        for k in range(4)
    ]
    plain(torch.cat(z))
    expected = outputs[0].mean((0, 2, 3))
    assert torch.allclose(plain.up4.norm.running_mean, expected, atol=1e-5)  # type: ignore[union-attr, arg-type]


def test_every_update_of_d_sees_images_and_noise_of_its_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("training.n_critic=2", "run.steps=3", "data.flip=true")
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    update = Recipe.update_d

    def noted(
        self: Recipe, real: torch.Tensor, noise: Noise, labels: None
    ) -> dict[str, torch.Tensor]:
        seen.append((real, noise.z))
        return update(self, real, noise, labels)

    monkeypatch.setattr(Recipe, "update_d", noted)
    steps(config, TrainState(config, CPU), store)
    assert len(seen) == 6
    for index, (real, z) in enumerate(seen):
        expected = batch(store.train, config.seed, index, 4, flip=True).images
        assert torch.equal(real, expected.float() / 127.5 - 1)
        assert not any(torch.equal(z, other) for _, other in seen[:index])
    plain = [batch(store.train, config.seed, index, 4).images for index in range(6)]
    assert any(
        not torch.equal(real, unflipped.float() / 127.5 - 1)
        for (real, _), unflipped in zip(seen, plain, strict=True)
    )


def test_the_gradient_penalty_counts_by_its_weight() -> None:
    sets = [f"model.spectral_norm.{net}=none" for net in ("generator", "discriminator")]
    losses, noise = [], NOISE._replace(share=torch.rand(4, 1, 1, 1))
    for weight in (0, 5, 10):
        config = make("training.loss=wgan-gp", f"training.gp_weight={weight}", *sets)
        recipe = Recipe(config, TrainState(config, CPU))
        losses.append(recipe.update_d(REAL, noise)["loss_d"])
    none, half, whole = (loss.item() for loss in losses)
    assert half - none > 0.1
    assert whole - none == pytest.approx(2 * (half - none), rel=1e-4)
