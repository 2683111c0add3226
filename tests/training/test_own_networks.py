"""A kind of attention, a family and a loss of one's own, which nobody else names."""

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from example_tunings import SPACE, small_tuning
from torch import Tensor, nn

from sagan_bench.config.layers import override, read, resolve
from sagan_bench.config.schema import AttentionConfig, Host, RunConfig
from sagan_bench.config.section import Section
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import ATTENTION, FAMILIES, LOSSES
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block
from sagan_bench.models.build import attention_blocks, layers, layout
from sagan_bench.models.families._base import Family
from sagan_bench.models.placed import Site
from sagan_bench.models.placement import Places
from sagan_bench.training.draws import step_noise
from sagan_bench.training.losses._base import Critic, Loss
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Recipe

Pair = tuple[nn.Module, nn.Module]
HOST = Host(bf16=True, extractor="efficientnet-lite0")


class Heads(Section):
    heads: int = 2


class Groups(Block):
    def __init__(self, channels: int, config: AttentionConfig, heads: int) -> None:
        super().__init__(config)
        self.value = nn.Conv2d(channels, channels, 1, groups=heads)

    def branch(self, x: Tensor) -> Tensor:
        o: Tensor = self.value(x.mean(dim=(2, 3), keepdim=True))
        return o


class Grouped(Attention):
    title, is_attention, Settings = "grouped", False, Heads

    def block(self, site: Site) -> Block:
        return Groups(site.channels, self.config, self.settings.heads)


class Network(nn.Sequential):
    def forward(self, x: Tensor, labels: None = None) -> Tensor:
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return y


class Linear(Family):
    def networks(self, image_size: int, widths: tuple[float, float], **how: bool) -> Pair:
        width, size = round(widths[0]), image_size
        places = Places("generator", self.config, {size: width}, norm="group")
        [block] = places.at(size, {}).values()
        first = nn.Linear(self.config.z_dim, width * size**2), nn.Unflatten(1, (width, size, size))
        g = Network(*first, nn.GroupNorm(1, width), block, nn.Conv2d(width, 3, 1))
        return g, Network(nn.Flatten(), nn.Linear(3 * size**2, 1), nn.Flatten(0))

    def width_of_a_channel(self, image_size: int) -> float:
        return 1.0


class Softplus(Loss):
    needs_double_backward = True  # for R1 (Mescheder et al. 2018)

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def g(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()

    def penalty(self, critic: Critic, real: Tensor, fake: Tensor, share: Tensor | None) -> Tensor:
        real = real.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
        return self.config.gp_weight * gradient.square().flatten(1).sum(1).mean()


SETS = [
    "model.attention.discriminator=[]",
    "model.attention.generator=[32]",
    "model.attention.kind=grouped",
    "model.architecture=linear",
    "training.loss=softplus",
    "training.batch_size=4",
    "model.width=8",
]


OWN = (
    (ATTENTION, "grouped", Grouped),
    (FAMILIES, "linear", Linear),
    (LOSSES, "softplus", Softplus),
)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    for components, name, component in OWN:
        components.register(name)(component)
    yield
    for components, name, _ in OWN:
        del components._known[name]


def make(*sets: str) -> RunConfig:
    return resolve(HOST, sets=[*SETS, *sets]).config


def test_they_are_built_and_trained() -> None:
    config = make()
    assert config.training.precision == "fp32"  # because of the double backward
    state = TrainState(config, torch.device("cpu"))
    recipe, real = Recipe(config, state), torch.rand(4, 3, 32, 32) * 2 - 1
    for step in (1, 2):
        noise = step_noise(config, state.context, step)
        assert noise.critic[0].share is None
        measured = recipe.update_d(real, noise.critic[0]) | recipe.update_g(noise.generator)
        assert all(math.isfinite(value) for value in measured.values())
    (block,) = attention_blocks(state.generator).values()
    assert block.gamma.item() != 0
    assert [row.name for row in layers(config)] == ["0", "2", "3", "4", "1"]
    assert [(place.network, place.side) for place in layout(config).blocks] == [("generator", 32)]


def test_own_settings_enter_the_digest_where_they_are_not_the_defaults() -> None:
    plain, neutral, other = (
        make(), make("model.attention.options.heads=2"), make("model.attention.options.heads=4"),
    )  # fmt: skip
    assert neutral == plain
    assert "options" not in plain.model_dump()["model"]["attention"]
    assert neutral.digest("d") == plain.digest("d") != other.digest("d")
    assert other.model_dump()["model"]["attention"]["options"] == {"heads": 4}
    again = RunConfig.model_validate_json(other.model_dump_json())
    assert again == other
    assert again.digest("d") == other.digest("d")
    weights = [layers(config)[2].parameters for config in (plain, other)]
    assert weights == [8 * 4 + 8 + 1, 8 * 2 + 8 + 1]
    tuned = override(plain, {"model.attention.options.heads": ("trial", 4)})
    assert tuned == other


def test_own_settings_go_with_their_component() -> None:
    sets = [*SETS, "model.attention.options.heads=4"]
    resolved = read(sets=sets)
    assert resolved.origins["model.attention.options.heads"] == "--set"
    other = override(resolved.config, {"model.attention.kind": ("trial", "full")})
    assert other.model.attention.options == {}
    again = read(sets=list(reversed(sets)))  # in whichever order they are written
    assert again.config == resolved.config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model.attention.options.heads=x",
            r"options\.heads = 'x' \(--set\): expected a whole number",
        ),
        ("model.attention.options.head=4", "kind grouped is called 'head'; did you mean 'heads'"),
        (
            "training.options.weight=4",
            r"training\.options\.weight = 4 \(--set\): no .* softplus is called 'weight'; it has",
        ),
        ("model.options=4", r"no setting is called 'model\.options'"),
        ("model.attention.options.heads.x=4", r"no setting is called 'model\.attention\.options"),
        ("model.options.=4", r"no setting is called 'model\.options\.'"),
        ("model.classes=3", r"model\.classes = 3: the linear knows none; .*architecture=resnet"),
        ("training.compile=true", "loss softplus needs second derivatives"),
    ],
)
def test_what_they_do_not_have_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        layers(make(text))


def test_an_unknown_name_gives_the_closest() -> None:
    with pytest.raises(UserError, match=r"no attention kind is called 'groupd'; .* 'grouped'"):
        make("model.attention.kind=groupd")


def test_shipped_attention_and_losses_are_read_without_torch() -> None:
    code = (
        "import sys; from sagan_bench.core.registry import ATTENTION, LOSSES;"
        "from sagan_bench.config.layers import read; read(variant='wgan-gp');"
        "print([*ATTENTION.values(), *LOSSES.values()] and 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


HEADS = SPACE.replace(
    '[parameters."training.n_critic"]', '[parameters."model.attention.options.heads"]'
)


def test_own_settings_can_be_searched(tmp_path: Path) -> None:
    sets = [text for text in SETS if not text.startswith(("model.width", "training.batch"))]
    tuning = small_tuning(tmp_path, *sets, text=HEADS.replace("high = 2", "high = 4"))
    parameters = tuning.parameters("sagan", HOST)
    first = tuning.space.own_values(parameters, tuning.config("sagan", 0, HOST))
    assert first["model.attention.options.heads"] == 2  # the default, which no record holds
    other = tuning.config("sagan", 0, HOST, params={"model.attention.options.heads": 4})
    assert other.model.attention.options == {"heads": 4}
    without = small_tuning(tmp_path, text=HEADS)
    with pytest.raises(UserError, match=r"full has no setting model\.attention\.options\.heads"):
        without.space.own_values(without.space.parameters, without.config("sagan", 0, HOST))
