"""What is done to a block under an intervention, and that nothing of it is left behind."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sagan_bench.config.schema import AttentionConfig
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._blocks import Block, SelfAttention
from sagan_bench.models.attention._interventions import (
    IDENTITY,
    NONE,
    TABLE,
    UNIFORM,
    Intervention,
    cannot,
    changed_maps,
    intervened,
    permutation,
    refusal,
    rms,
)
from sagan_bench.models.attention._shares import MassOnTwin, Weighted, shares, taken, weighted
from sagan_bench.models.placed import Site

BY_NAME = {each.name: each for each in TABLE}
WITH_MAPS = ("full", "icml", "pooled", "uniform")
ROWS, COLUMNS, CHANNELS = 6, 4, 16


def drawn(block: Block, gamma: float = 0.7) -> Block:
    """A block in fp64 whose weights are large enough that its maps are no uniform ones."""
    source = torch.Generator().manual_seed(1)
    for name, weight in [*block.named_parameters(), *block.named_buffers()]:
        law = torch.randn(weight.shape, generator=source, dtype=torch.float64)
        weight.data = torch.full_like(law, gamma) if name == "gamma" else 0.5 * law
    return block.eval().requires_grad_(False)


def of_kind(kind: str) -> Block:
    config = AttentionConfig(kind=kind)
    block: Block = ATTENTION[kind](config).block(Site("generator", ROWS, CHANNELS))
    return drawn(block)


def features(images: int = 5) -> Tensor:
    source = torch.Generator().manual_seed(2)
    return torch.randn(images, CHANNELS, ROWS, COLUMNS, generator=source, dtype=torch.float64)


class Heads(Block):
    """Two heads, a null key, and a layer behind them: all that a block of one's own may have."""

    def __init__(self) -> None:
        super().__init__(AttentionConfig())
        self.query, self.key, self.value, self.out = (
            nn.Conv2d(CHANNELS, CHANNELS, 1) for _ in range(4)
        )
        self.null = nn.Parameter(torch.empty(CHANNELS))

    def split(self, x: Tensor) -> Tensor:
        return x.flatten(2).unflatten(1, (2, -1)).mT

    def maps(self, x: Tensor) -> Tensor:
        scores = self.split(self.query(x)) @ self.split(self.key(x)).mT
        return torch.cat([torch.zeros_like(scores[..., :1]), scores], -1).softmax(-1)

    def branch(self, x: Tensor) -> Tensor:
        return self.through(self.maps(x), x)

    def through(self, maps: Tensor, x: Tensor) -> Tensor:
        null = self.null.view(2, 1, -1).expand(len(x), -1, -1, -1)
        o = maps @ torch.cat([null, self.split(self.value(x))], 2)
        made: Tensor = self.out(o.mT.flatten(1, 2).unflatten(2, x.shape[2:]))
        return made


BLOCKS: dict[str, Callable[[], Block]] = {
    **{kind: partial(of_kind, kind) for kind in WITH_MAPS},
    "heads": lambda: drawn(Heads()),
}


@torch.no_grad()
def under(block: Block, intervention: Intervention, x: Tensor, **how: bool) -> Tensor:
    with intervened([block], intervention, **how):
        made: Tensor = block(x)
    return made


@pytest.mark.parametrize("name", BLOCKS)
def test_a_map_replaced_by_itself_changes_nothing(name: str) -> None:
    block, x = BLOCKS[name](), features()
    wanted = block(x)
    for keeps_rms in (False, True):
        made = under(block, IDENTITY, x, keeps_rms=keeps_rms)
        torch.testing.assert_close(made, wanted, rtol=0, atol=1e-12)
    assert refusal(block, x) is None
    assert not torch.allclose(wanted, x)


def test_every_kind_with_maps_can_be_given_others() -> None:
    """A kind of the package that has maps and no `through` would be probed by its branch alone."""
    for kind in ATTENTION:
        if ATTENTION[kind].has_block:
            block = of_kind(kind)
            assert (block.maps(features()) is None) == (refusal(block, features()) is not None)


@torch.no_grad()
def changed(name: str, beta: Tensor, rows: int = ROWS, columns: int = COLUMNS) -> Tensor:
    return changed_maps(BY_NAME[name], beta, rows, columns)


def some_maps(keys: int = ROWS * COLUMNS, nulls: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(3)
    scores = torch.randn(3, ROWS * COLUMNS, nulls + keys, generator=source, dtype=torch.float64)
    return (3 * scores).softmax(-1)


def test_maps_become_what_the_table_says() -> None:
    beta = some_maps()
    count = ROWS * COLUMNS
    torch.testing.assert_close(changed("uniform", beta), torch.full_like(beta, 1 / count))
    torch.testing.assert_close(
        changed("own-position", beta), torch.eye(count).to(beta).expand_as(beta)
    )
    order = permutation(count)
    assert torch.equal(changed("shuffled", beta)[1, 2], beta[1, 2, order])
    assert sorted(order.tolist()) == [*range(count)] != order.tolist()
    for temperature, name in ((0.5, "temperature-0.5"), (2.0, "temperature-2")):
        wanted = (beta.log() / temperature).softmax(-1)
        torch.testing.assert_close(changed(name, beta), wanted)
    window = changed("window", beta)
    query = 2 * COLUMNS + 1  # row 2, column 1
    near = [row * COLUMNS + column for row in (1, 2, 3) for column in (0, 1, 2)]
    assert window[0, query].nonzero().flatten().tolist() == near
    torch.testing.assert_close(
        window[0, query, near], beta[0, query, near] / beta[0, query, near].sum()
    )


def test_a_window_without_weight_is_looked_at_evenly() -> None:
    beta = torch.zeros(1, ROWS * COLUMNS, ROWS * COLUMNS)
    beta[..., -1] = 1  # the last key, far from the first query
    row = changed("window", beta)[0, 0]
    assert row[[0, 1, COLUMNS, COLUMNS + 1]].tolist() == [0.25] * 4
    assert row.sum() == 1


@pytest.mark.parametrize("name", [each.name for each in TABLE if each.change])
def test_null_keys_keep_what_they_have_and_rows_their_sums(name: str) -> None:
    beta = some_maps(nulls=2)
    made = changed(name, beta)
    assert torch.equal(made[..., :2], beta[..., :2])
    torch.testing.assert_close(made.sum(-1), torch.ones_like(beta[..., 0]))


def test_pooled_keys_have_a_window_of_their_own_and_no_own_position() -> None:
    block, x = of_kind("pooled"), features()
    assert cannot(block, BY_NAME["own-position"], x) == "its keys are pooled from 2 x 2 positions"
    assert cannot(block, BY_NAME["window"], x) is None
    made = changed("window", some_maps(keys=ROWS * COLUMNS // 4))
    assert made[0, 0].nonzero().flatten().tolist() == [0, 1, 2, 3]  # of 3 x 2 keys, 2 x 2
    with pytest.raises(ValueError, match="not over 6 x 4 positions"):
        changed("uniform", torch.ones(1, 5, 5))


class Signed(SelfAttention):
    """Dot products: no distribution."""

    def branch(self, x: Tensor) -> Tensor:
        return self.through(self.maps(x), x)

    def maps(self, x: Tensor) -> Tensor:
        return self.query(x).flatten(2).mT @ self.key(x).flatten(2) / x[0, 0].numel()


def test_maps_with_negative_entries_have_no_temperature() -> None:
    block, x = drawn(Signed(CHANNELS)), features()
    assert refusal(block, x) is None
    assert cannot(block, BY_NAME["temperature-2"], x) == "its maps have negative entries"
    assert cannot(block, UNIFORM, x) is None


def test_the_map_of_another_image_is_that_of_the_one_before() -> None:
    block, x = of_kind("full"), features()
    made = under(block, BY_NAME["another-image"], x)
    maps = block.maps(x)
    assert isinstance(maps, Tensor)
    for image, before in ((2, 1), (0, 4)):
        o = block.through(maps[[before]], x[[image]])
        assert isinstance(o, Tensor)
        torch.testing.assert_close(made[[image]], x[[image]] + block.gamma * o)


def test_what_is_made_some_images_at_a_time_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = of_kind("full"), features()
    wanted = under(block, BY_NAME["another-image"], x)
    monkeypatch.setattr("sagan_bench.models.attention._interventions.MAP_BYTES", 1)
    torch.testing.assert_close(under(block, BY_NAME["another-image"], x), wanted)


def test_without_its_branch_a_block_passes_x_on() -> None:
    block, x = of_kind("residual"), features()
    assert torch.equal(under(block, NONE, x), x)
    assert refusal(block, x) == "Residual has no through(maps, x)"


@pytest.mark.parametrize("name", ["uniform", "another-image", "temperature-0.5"])
def test_a_branch_keeps_its_size_and_a_sham_is_as_large_as_the_change(name: str) -> None:
    block, x = of_kind("full"), features()
    o = block.branch(x)
    kept = (under(block, BY_NAME[name], x, keeps_rms=True) - x) / block.gamma
    torch.testing.assert_close(rms(kept), rms(o))
    for keeps_rms, branch in (
        (True, kept),
        (False, (under(block, BY_NAME[name], x) - x) / block.gamma),
    ):
        sham = (under(block, BY_NAME[name], x, keeps_rms=keeps_rms, sham=True) - x) / block.gamma
        torch.testing.assert_close(rms(sham - o), rms(branch - o))
        source = o.roll(1, 0).flatten(2)[:, :, permutation(ROWS * COLUMNS)]
        flat = (sham - o).flatten(2)
        torch.testing.assert_close(
            flat / rms(flat[..., None])[..., 0], source / rms(source[..., None])[..., 0]
        )
    assert not torch.allclose(rms(block.branch(x)), rms(branch))  # what was not kept is another


def test_the_sham_of_leaving_a_branch_out_is_as_large_as_the_branch() -> None:
    block, x = of_kind("residual"), features()
    o = block.branch(x)
    sham = (under(block, NONE, x, sham=True) - x) / block.gamma
    torch.testing.assert_close(rms(sham - o), rms(o))


def test_an_intervention_leaves_nothing_behind_and_is_no_part_of_training() -> None:
    block, x = of_kind("full"), features()
    state, wanted = copy.deepcopy(block.state_dict()), block(x)
    with pytest.raises(RuntimeError, match="no part of training"), intervened([block], UNIFORM):
        block(x)
    assert not torch.allclose(under(block, UNIFORM, x), wanted)
    assert torch.equal(block(x), wanted)
    assert all(torch.equal(value, state[key]) for key, value in block.state_dict().items())


class Scaled(SelfAttention):
    """What is inherited does not know of the factor."""

    def branch(self, x: Tensor) -> Tensor:
        return 2 * super().branch(x)


class OwnForward(SelfAttention):
    """y = x + 2 o, without gamma's help."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 2 * self.branch(x)


def test_a_block_that_is_not_what_its_maps_say_is_changed_by_its_branch_alone() -> None:
    x = features()
    assert "is not what the block adds" in str(refusal(drawn(Scaled(CHANNELS)), x))
    block = drawn(OwnForward(CHANNELS))
    assert "is not what the block adds" in str(refusal(block, x))
    assert torch.equal(under(block, NONE, x), x)
    assert refusal(drawn(OwnForward(CHANNELS), gamma=2.0), x) is None


class SameForward(SelfAttention):
    """y = x + gamma * o, written anew."""

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.gamma * self.branch(x)).to(x.dtype)


@pytest.mark.parametrize("gamma", [0.7, -0.25, 1e-6])
@pytest.mark.parametrize("keeps_rms", [False, True])
@pytest.mark.parametrize("sham", [False, True])
def test_a_forward_written_anew_is_changed_as_the_usual_one(
    gamma: float, keeps_rms: bool, sham: bool
) -> None:
    x = features()
    usual, anew = (drawn(kind(CHANNELS), gamma) for kind in (SelfAttention, SameForward))
    assert refusal(anew, x) is None
    for intervention in (IDENTITY, *TABLE):
        keeps = keeps_rms and intervention.change is not None
        wanted, found = (
            under(block, intervention, x, keeps_rms=keeps, sham=sham) for block in (usual, anew)
        )
        torch.testing.assert_close(found - x, wanted - x, rtol=1e-6, atol=1e-13)
    assert "is not what the block adds" in str(refusal(drawn(OwnForward(CHANNELS), gamma), x))


def test_a_gamma_near_0_is_no_reason_to_refuse_a_forward_of_a_blocks_own() -> None:
    for gamma in (1e-7, 1e-5, 1e-3):
        block = drawn(SameForward(CHANNELS), gamma).float()
        assert refusal(block, features().float()) is None


def test_shares_are_weighted_by_what_the_values_add() -> None:
    block, x = of_kind("full"), features()
    values = block.get_submodule("value")(x).flatten(2)
    maps = block.maps(x)
    assert isinstance(maps, Tensor)
    products = maps * values.norm(dim=1)[:, None]
    found = weighted(block, x)
    amounts = taken(found.maps, found.sizes)
    torch.testing.assert_close(shares(amounts, amounts), products / products.sum(2, keepdim=True))
    assert found.grid == (ROWS, COLUMNS, 1, 0)
    heads = weighted(drawn(Heads()), x)
    assert (heads.grid.nulls, heads.maps.shape[1]) == (1, 2)
    amounts = taken(heads.maps, heads.sizes)
    assert amounts.shape == (5, ROWS * COLUMNS, ROWS * COLUMNS)


def test_mass_on_the_twin_is_held_to_the_maps_of_other_images() -> None:
    parts = torch.zeros(4, 2, ROWS, COLUMNS, dtype=torch.bool)
    places = [(0, 3), (1, 2), (4, 3), (5, 2)]
    maps = torch.zeros(4, 1, ROWS * COLUMNS, ROWS * COLUMNS)
    sizes = torch.ones(4, 1, ROWS * COLUMNS)
    for image, (row, column) in enumerate(places):
        parts[image, 0, row, 0] = parts[image, 1, row, column] = True
        left, right = row * COLUMNS, row * COLUMNS + column
        maps[image, 0, :, 0] = 1
        maps[image, 0, left] = maps[image, 0, right] = 0
        maps[image, 0, left, right] = maps[image, 0, right, left] = 1
    parts[3, 1] = False  # and one has no twin
    grid = weighted(of_kind("full"), features()).grid
    summed = MassOnTwin()
    for half in (slice(2), slice(2, 4)):
        summed.add(Weighted(maps[half], sizes[half], grid), parts[half])
    mass = summed.mass()
    assert mass is not None
    assert (mass.mass, mass.images) == (1.0, 3)
    assert mass.chance == pytest.approx(1 / 6)  # (0, 0) is of image 0 and everyone's favourite


def test_maps_that_are_alike_for_all_images_have_the_mass_of_chance_whatever_the_values() -> None:
    parts = torch.zeros(5, 2, ROWS, COLUMNS, dtype=torch.bool)
    parts[:, 0, :3, 0] = parts[:, 1, 2:, 3] = True
    block, summed = of_kind("uniform"), MassOnTwin()
    for image in range(5):  # values are large where the parts are
        x = features()[image : image + 1] * (1 + 9 * parts[image].any(0))
        summed.add(weighted(block, x), parts[image : image + 1])
    mass = summed.mass()
    assert mass is not None
    assert mass.mass == pytest.approx(mass.chance, rel=1e-12)
    assert mass.mass > 5 / 24  # what the cells alone are of all
