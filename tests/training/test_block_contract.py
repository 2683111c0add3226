"""What a block is told, where it may stand and what it may add: in training, and after it."""

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from example_runs import SMALL
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sagan_bench.cli.init import FOLDER
from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import ATTENTION
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.store import Store
from sagan_bench.models import calls
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, Call
from sagan_bench.models.build import (
    attention_blocks,
    build,
    layout,
    skeleton,
    without_spectral_norm,
)
from sagan_bench.models.placed import Site
from sagan_bench.session import experiment, exporting
from sagan_bench.session.sampling import TrainedGenerator
from sagan_bench.training.diagnostics import diagnose
from sagan_bench.training.generation import draw, noise, standing
from sagan_bench.training.loop import Diverged, Step, train
from sagan_bench.training.state import TrainState
from sagan_bench.training.timing import try_step

ODD = Path(__file__).parents[1] / "planted" / "odd"
HOST = Host(bf16=False, extractor="efficientnet-lite0")
CPU = torch.device("cpu")
CLASSES = ("model.architecture=resnet", "model.classes=10")
NO_NORM = tuple(f"model.spectral_norm.{net}=none" for net in ("generator", "discriminator"))
SETS: dict[str, tuple[str, ...]] = {
    "modulated": (), "class_conditional": CLASSES, "annealed": (), "replacing": (), "nested": (),
    "extra_loss": (),
}  # fmt: skip


def config(kind: str, *sets: str) -> RunConfig:
    """Return the configuration of the smallest networks with a block in both."""
    base = [
        "model.width=8", "model.z_dim=8", "training.batch_size=4", "run.steps=4",
        "run.log_every=1", "data.train_images=64", "data.test_images=16",
        "model.attention.generator=[8]", "model.attention.discriminator=[8]",
        f"model.attention.kind={kind}",
    ]  # fmt: skip
    return resolve(HOST, preset="quick", sets=[*base, *sets]).config


@pytest.fixture(scope="module")
def store() -> Store:
    return prepare(DataSpec("twins", 32, train_images=64, test_images=16))


@pytest.fixture(autouse=True)
def _nothing_stays_known() -> Iterator[None]:
    yield
    for stem in ("mine", *SETS):
        extensions.forget(stem)
    ATTENTION.forget("listener")


def planted(stem: str, *sets: str) -> RunConfig:
    """Return the configuration of a planted block, which is known from here on."""
    ((_, kind),) = extensions.load(ODD / f"{stem}.py").components
    return config(kind, *SETS[stem], *sets)


HEARD: list[tuple[Site | None, Call, int]] = []
"""What blocks that listen were told, and how many maps came in."""


class Listener(Block):
    """Adds to `HEARD`."""

    def forward(self, x: Tensor) -> Tensor:
        HEARD.append((self.site, self.call, len(x)))
        return x


class Listening(Attention):
    """Of every word."""

    knows = ("z", "labels", "step")

    def block(self, site: Site) -> Block:
        return Listener()


@pytest.fixture
def listening() -> None:
    ATTENTION.register("listener")(Listening)


@pytest.mark.parametrize("sees", ["whole", "halves"])
@pytest.mark.usefixtures("listening")
def test_a_block_is_told_its_site_and_what_its_network_knows(sees: str) -> None:
    made = config("listener", *CLASSES, f"model.discriminator_sees={sees}")
    g, d = build(made)
    calls.begin_step(g, 3)
    HEARD.clear()
    z, labels = torch.randn(4, 8), torch.tensor([1, 2, 3, 4])
    images = copy.deepcopy(g)(z, labels)  # a copy tells its own
    d(images, labels)
    (of_g, to_g, _), (of_d, to_d, came) = HEARD
    assert of_g is not None
    assert of_d is not None
    assert (of_g.network, of_g.side, of_g.z_dim, of_g.classes) == ("generator", 8, 8, 10)
    assert (of_g.norm, of_d.norm, of_d.network) == ("conditional batch", "none", "discriminator")
    assert of_d.halves == (sees == "halves")
    assert to_g.z is z
    assert to_g.labels is labels
    assert (int(to_g.step or 0), to_g.steps) == (3, 4)
    assert (to_d.z, int(to_d.step if to_d.step is not None else -1)) == (None, 0)
    assert to_d.labels is not None
    assert len(to_d.labels) == came == (8 if sees == "halves" else 4)
    assert to_d.labels[:4].equal(labels)
    for network in (g, d):
        for block in attention_blocks(network).values():
            with pytest.raises(UserError, match=r"reads self\.call while no network runs"):
                block.call  # noqa: B018


@pytest.mark.usefixtures("listening")
def test_between_classes_a_block_is_told_of_the_nearer() -> None:
    g = build(config("listener", *CLASSES)).generator
    HEARD.clear()
    first, second = torch.tensor([1, 1]), torch.tensor([2, 2])
    g(torch.randn(2, 8), first, second, torch.tensor([0.2, 0.8]))
    assert HEARD[0][1].labels is not None
    assert HEARD[0][1].labels.tolist() == [1, 2]


def test_a_network_whose_blocks_want_to_know_nothing_has_no_hook() -> None:
    g, d = build(config("full"))
    assert not any(net._forward_pre_hooks or net._forward_hooks for net in (g, d))
    assert not any("run_step" in name for name in g.state_dict())


@pytest.mark.usefixtures("listening")
def test_a_kind_may_know_the_three_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Listening, "knows", ("steps",))
    with pytest.raises(UserError, match=r"knows: 'steps' is no word of .* did you mean 'step'"):
        skeleton(config("listener"))


@pytest.mark.parametrize(
    ("stem", "sets"),
    [
        *((stem, ()) for stem in SETS),
        ("class_conditional", ("model.discriminator_sees=halves",)),
        ("replacing", (*CLASSES, "model.attention.discriminator=[8]")),
        (
            "annealed",
            (
                "training.loss=wgan-gp",
                "model.spectral_norm.discriminator=none",
                "model.spectral_norm.generator=none",
            ),
        ),
        ("modulated", ("training.micro_batch=2",)),
    ],
)
def test_each_trains_on_to_the_same_bits_where_it_was_stopped(
    stem: str, sets: tuple[str, ...], store: Store
) -> None:
    made = planted(stem, *sets)
    whole, first, second = (TrainState(made, CPU) for _ in range(3))
    before = [weight.clone() for weight in whole.generator.parameters()]
    events = list(train(made, whole, store))
    assert len(events) == 4
    assert all(isinstance(event, Step) for event in events)
    assert any(not a.equal(b) for a, b in zip(before, whole.generator.parameters(), strict=True))
    list(itertools.islice(train(made, first, store), 2))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    list(train(made, second, store))
    for part in ("generator", "discriminator", "ema"):
        a, b = (getattr(state, part).state_dict() for state in (whole, second))
        assert a.keys() == b.keys()
        assert all(value.equal(b[name]) for name, value in a.items()), part


def test_averages_checkpoints_and_scored_networks_know_their_step(store: Store) -> None:
    made = planted("annealed")
    state = TrainState(made, CPU)
    list(itertools.islice(train(made, state, store), 2))
    scored = standing(made, state.ema, 1)
    for network in (state.generator, state.discriminator, state.ema, scored):
        (block,) = attention_blocks(network).values()
        assert (int(block.get_buffer("run_step")), block.steps) == (2, 4)


def test_a_block_that_is_told_of_how_many_steps_makes_them_a_setting() -> None:
    four, eight = planted("annealed"), planted("annealed", "run.steps=8")
    assert four.digest("d") != eight.digest("d")
    assert planted("modulated").digest("d") == planted("modulated", "run.steps=8").digest("d")
    own = four.model_dump(mode="json")["own"]
    extensions.forget("annealed")
    extensions.recall(own)  # by its facts alone, as records are read
    try:
        again = RunConfig.model_validate(four.model_dump(mode="json"))
        assert again.digest("d") == four.digest("d")
    finally:
        ATTENTION._recalled.clear()


@pytest.mark.parametrize("stem", ["modulated", "class_conditional", "annealed", "replacing"])
def test_an_exported_program_makes_what_the_network_makes(stem: str) -> None:
    made = planted(stem)
    generator = build(without_spectral_norm(made)).generator.eval()
    calls.begin_step(generator, 3)
    for block in attention_blocks(generator).values():
        block.gamma.data.fill_(1)
    program = exporting.program(TrainedGenerator(made, generator, (), 0))
    for images in (1, 5):
        inputs = noise(0, 0, images, 8), *[torch.arange(images) % 10] * bool(made.model.classes)
        expected = draw(generator, *inputs)
        assert torch.allclose(program.module()(*inputs), expected, rtol=0, atol=1e-6)


def test_a_block_stands_instead_of_the_layer_of_its_side() -> None:
    made = planted("replacing")
    g, d = skeleton(made)
    assert [name for name, _ in g.named_children()] == ["up4", "window8", "up16", "out"]
    assert [name for name, _ in d.named_children()] == ["down16", "window8", "down4", "out"]
    (of_g,), (of_d,) = (attention_blocks(net).values() for net in (g, d))
    assert of_g.site is not None
    assert of_d.site is not None
    assert (of_g.site.channels_in, of_g.site.side_in, of_g.site.norm) == (32, 4, "batch")
    assert (of_d.site.channels_in, of_d.site.side_in, of_d.site.norm) == (8, 16, "none")
    assert [(place.network, place.side) for place in layout(made).blocks] == [
        ("generator", 8), ("discriminator", 8),
    ]  # fmt: skip
    for first in ("dcgan", "resnet"):
        with pytest.raises(UserError, match=r"generator = 4: planted-replacing stands instead of"):
            skeleton(
                planted("replacing", "model.attention.generator=[4]", f"model.architecture={first}")
            )
    with pytest.raises(
        UserError, match=r"gamma_init changes nothing, .* stands instead of a layer"
    ):
        planted("replacing", "model.attention.gamma_init=1")


def test_a_family_of_ones_own_has_both_places_by_a_line(tmp_path: Path, store: Store) -> None:
    (tmp_path / "mine.py").write_text((FOLDER / "family.py").read_text())
    extensions.load(tmp_path / "mine.py")
    made = planted("replacing", "model.architecture=my-family", "model.attention.generator=[16]")
    g, d = skeleton(made)
    assert [name for name, _ in g.named_children()][-3:] == ["window16", "up32", "out"]
    assert "window8" in dict(d.named_children())
    try_step(made, TrainState(made, CPU))
    first = "model.architecture=my-family", "model.attention.generator=[4]"
    with pytest.raises(UserError, match=r"generator = 4: planted-replacing stands instead of"):
        skeleton(planted("replacing", *first))


def test_what_a_block_refuses_is_said_with_its_place() -> None:
    with pytest.raises(
        UserError, match=r"= 8, 16 channels: planted-class-conditional cannot stand there: it needs"
    ):
        skeleton(planted("class_conditional", "model.architecture=dcgan", "model.classes=0"))


def test_controls_of_a_replacing_block_are_networks_of_another_width() -> None:
    made = planted("replacing", "model.width=32")
    like = "model.attention.options.like=planted-replacing"
    sized = config("wider", "model.width=32", like, "model.attention.options.by=parameters")
    wider = config("wider", "model.width=32", like)
    none = config(
        "full", "model.width=32", "model.attention.generator=[]", "model.attention.discriminator=[]"
    )
    for network in ("generator", "discriminator"):
        ours, theirs, before = (layout(each).parameters(network) for each in (made, sized, none))
        assert ours < before  # so that the control is narrower
        assert theirs == pytest.approx(ours, rel=0.05)
    assert layout(wider).flops_per_step == pytest.approx(layout(made).flops_per_step, rel=0.05)
    with pytest.raises(UserError, match=r"residual cannot .* instead of a layer; .*by=parameters"):
        skeleton(config("residual", like))


def test_every_weight_inside_has_spectral_norm_unless_the_kind_sees_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def normed(made: RunConfig) -> dict[str, bool]:
        (block,) = attention_blocks(skeleton(made).discriminator).values()
        return {
            name: parametrize.is_parametrized(layer, "weight")
            for name, layer in block.named_modules()
            if isinstance(layer, nn.Linear)
        }

    made = planted("nested")
    assert normed(made) == dict.fromkeys(["heads.1.made", "heads.1.mixed", "f.0", "f.2.0"], True)
    assert not any(normed(planted("nested", "model.spectral_norm.discriminator=hidden")).values())
    monkeypatch.setattr(ATTENTION["planted-nested"], "own_spectral_norm", True)
    assert not any(normed(made).values())


def rows(made: RunConfig, store: Store) -> list[dict[str, float]]:
    """Return the rows of training."""
    events = [*train(made, TrainState(made, CPU), store)]
    return [event.row for event in events if isinstance(event, Step) and event.row]


def test_an_extra_loss_enters_the_loss_of_its_network_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = planted("extra_loss", "run.steps=1")
    (row,) = rows(made, store)
    (halved,) = rows(planted("extra_loss", "run.steps=1", "training.micro_batch=2"), store)
    module = __import__("sys").modules[ATTENTION["planted-extra-loss"].__module__]
    monkeypatch.setattr(module.Odd, "extra_loss", lambda self: None)
    (plain,) = rows(made, store)
    for letter in ("d", "g"):
        extra = row[f"extra_{letter}"]
        assert extra > 0
        assert plain[f"extra_{letter}"] == 0
        assert halved[f"extra_{letter}"] == pytest.approx(extra, rel=0.05)
    assert row["loss_d"] == pytest.approx(plain["loss_d"] + row["extra_d"], rel=1e-5)
    assert "extra_d" not in rows(config("full", "run.steps=1"), store)[0]
    monkeypatch.setattr(module.Odd, "extra_loss", lambda self: self.entropy * float("nan"))
    (event,) = train(made, TrainState(made, CPU), store)
    assert isinstance(event, Diverged)
    assert "extra_d = nan" in event.reason
    monkeypatch.setattr(module.Odd, "extra_loss", lambda self: torch.zeros(3))
    with pytest.raises(UserError, match=r"Odd\.extra_loss\(\) returns \(3,\); return a scalar"):
        try_step(made, TrainState(made, CPU))


@pytest.mark.parametrize("stem", ["modulated", "class_conditional", "replacing"])
def test_diagnostics_look_at_each_of_them(stem: str) -> None:
    made = planted(stem)
    networks = build(made)
    labels: Any = torch.arange(3) if made.model.classes else None
    inputs = {"generator": noise(0, 0, 3, 8), "discriminator": torch.rand(3, 3, 32, 32)}
    for name, network in networks._asdict().items():
        (block,) = attention_blocks(network).values()
        block.gamma.data.fill_(0.5)
        (seen,) = diagnose(network, inputs[name], labels).values()
        figures = seen.figures()
        if stem == "replacing":
            assert figures["gamma"] != figures["gamma"]  # NaN: it has none
            assert figures["ratio"] != figures["ratio"]
        else:
            assert figures["gamma"] == 0.5
            assert figures["ratio"] > 0
        assert block.heard is None


@pytest.mark.slow  # three runs
def test_a_run_of_other_steps_is_another_where_a_block_is_told_of_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for steps, says in ((1, False), (2, True), (2, False)):
        caplog.clear()
        made = planted("annealed", *SMALL, f"run.steps={steps}")
        assert experiment.run(made).step == steps
        said = "is of 1 steps, and this run of 2 is another" in caplog.text
        assert said == says
    assert len(list(Path("runs").iterdir())) == 2
    (first, *_) = Path("runs").iterdir()
    with pytest.raises(UserError, match=r"another run is here: .*run\.steps: \d here, 3 asked"):
        experiment.run(planted("annealed", *SMALL, "run.steps=3"), out=first)
