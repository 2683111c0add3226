"""Training with classes: labels, micro-batches, memory, scores within classes, pictures."""

import copy
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from example_runs import SMALL
from PIL import Image

from sagan_bench.cli import main
from sagan_bench.config.layers import resolve
from sagan_bench.config.schema import Host, RunConfig
from sagan_bench.core.distributed import SINGLE_PROCESS, DistributedContext
from sagan_bench.core.errors import UserError
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.pixels import quantise
from sagan_bench.data.store import Store
from sagan_bench.evaluation.frechet import intra_fid
from sagan_bench.models.layers import spectral_norms
from sagan_bench.runs.records import Status, read
from sagan_bench.session import experiment, sampling, session
from sagan_bench.session.probes import grid_labels
from sagan_bench.training.draws import Noise, step_noise
from sagan_bench.training.generation import draw, noise, truncated
from sagan_bench.training.loop import Step, train
from sagan_bench.training.state import TrainState
from sagan_bench.training.step import Recipe
from sagan_bench.training.timing import out_of_memory, seconds_per_flop, try_step

HOST = Host(bf16=False, extractor="efficientnet-lite0")
CPU = torch.device("cpu")
RESNET = ["model.architecture=resnet", "model.classes=10"]


def make(*sets: str) -> RunConfig:
    return resolve(HOST, sets=[*SMALL, *RESNET, *sets]).config


@pytest.fixture(scope="module")
def store() -> Store:
    return prepare(DataSpec("twins", 32, train_images=48, test_images=16))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conditional") / "run"
    sets = ["evaluation.intra_class=true", "evaluation.truncation=2", "evaluation.n_fake=20"]
    record = experiment.run(make(*sets, "run.steps=2", "run.sample_every=2"), out=path)
    assert record.status == "finished"
    for score in record.scores:
        assert score.protocol["label_law"] == "balanced"
        assert score.protocol["z_law"] == "normal by (seed, index), |z| < 2"
        assert "intra_fid" in score.metrics
    return path


def test_real_labels_are_the_images_own_and_fake_ones_are_drawn_apart(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, Noise, torch.Tensor]] = []
    update = Recipe.update_d

    def noted(
        self: Recipe, real: torch.Tensor, noise: Noise, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        seen.append((real, noise, labels))
        return update(self, real, noise, labels)

    monkeypatch.setattr(Recipe, "update_d", noted)
    config = make("run.steps=3")
    assert len(list(train(config, TrainState(config, CPU), store))) == 3
    images = torch.from_numpy(store.train.images.copy()).float() / 127.5 - 1
    for real, drawn, labels in seen:
        for image, label in zip(real, labels, strict=True):
            (index,) = (images == image).flatten(1).all(1).nonzero().flatten().tolist()
            assert store.train.labels[index] == label
        assert drawn.labels is not None
        assert not torch.equal(labels, drawn.labels)


def test_each_network_is_told_the_labels_of_the_images_that_it_sees() -> None:
    config = make()
    state = TrainState(config, CPU)
    told: list[tuple[str, torch.Tensor]] = []
    for name in ("generator", "discriminator"):
        network = getattr(state, name)
        network.register_forward_pre_hook(
            lambda _m, given, name=name: told.append((name, given[1]))
        )
    recipe, (real, fake, third) = Recipe(config, state), torch.arange(12).chunk(3)
    images, z = torch.rand(4, 3, 32, 32), torch.randn(4, 8)
    recipe.update_d(images, Noise(z, fake), real % 10)
    recipe.update_g(Noise(z, third % 10))
    expected = [
        ("generator", fake),
        ("discriminator", torch.cat([real, fake])),  # real images come first
        ("generator", third % 10),
        ("discriminator", third % 10),
    ]
    assert [name for name, _ in told] == [name for name, _ in expected]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(told, expected, strict=True))


def test_fake_labels_are_uniform() -> None:
    config = make("training.batch_size=5000")
    labels = step_noise(config, SINGLE_PROCESS, 1).critic[0].labels
    assert labels is not None
    counts = labels.bincount(minlength=10)
    assert len(counts) == 10
    assert (counts - 500).abs().max() < 100  # 4.7 standard deviations
    assert step_noise(make("model.classes=0"), SINGLE_PROCESS, 1).critic[0].labels is None


def test_another_number_of_classes_than_the_datas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.classes = 9, and the data have 10; add"):
        experiment.run(make("model.classes=9"), out=tmp_path / "run")


def test_a_micro_batch_changes_no_gradient_of_d() -> None:
    """G is looked at in evaluation mode: its BatchNorm would see other images together."""
    found = []
    for micro in ("none", "2"):
        config = make("training.batch_size=6", "training.precision=fp64",
                      f"training.micro_batch={micro}")  # fmt: skip
        state = TrainState(config, CPU)
        state.generator.eval()
        torch.manual_seed(0)
        real, z = torch.randn(6, 3, 32, 32).double(), torch.randn(6, 8).double()
        labels, fake_labels = torch.randint(10, (2, 6))
        measured = Recipe(config, state).update_d(real, Noise(z, fake_labels), labels)
        norms = [norm.u.clone() for norm, _ in spectral_norms(state.discriminator)]
        found.append((measured, copy.deepcopy(state.discriminator.state_dict()), norms))
    (whole, weights, norms), (parts, others, other_norms) = found
    for name in whole:
        assert torch.allclose(whole[name], parts[name], atol=1e-10), name
    for name, value in weights.items():
        assert torch.allclose(value, others[name], atol=1e-10), name
    for one, other in zip(norms, other_norms, strict=True):
        assert torch.allclose(one, other, atol=1e-12)  # one power iteration, not three


def test_g_iterates_its_spectral_norms_once_an_update_whatever_the_micro_batch() -> None:
    found = []
    for micro in ("none", "2"):
        state = TrainState(make("training.batch_size=6", f"training.micro_batch={micro}"), CPU)
        config = make("training.batch_size=6", f"training.micro_batch={micro}")
        Recipe(config, state).update_g(Noise(torch.ones(6, 8), torch.arange(6)))
        found.append([norm.u.clone() for norm, _ in spectral_norms(state.generator)])
    assert found[0]
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_out_of_memory_names_the_batch_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make("training.batch_size=12", "run.steps=2")

    class Small(TrainState):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)  # type: ignore[arg-type]
            self.discriminator.register_forward_pre_hook(_no_more_than_eight)

    monkeypatch.setattr(session, "TrainState", Small)
    with pytest.raises(UserError, match=r"out of memory on cpu with 12 images .*; 4 fit: add --mi"):
        experiment.run(config, out=tmp_path / "run")


def _no_more_than_eight(_module: object, given: tuple[torch.Tensor, ...]) -> None:
    if len(given[0]) > 8:
        raise torch.OutOfMemoryError("no more")


def test_a_batch_that_cannot_be_cut_says_so() -> None:
    config = make("training.batch_size=7")
    told = str(out_of_memory(config, TrainState(config, CPU)))
    assert "no micro-batch divides a batch of 7; choose another --batch-size" in told


@pytest.mark.parametrize(
    ("batch", "world", "advice"),
    [(24, 8, "add --micro-batch 8,"), (6, 2, "add --micro-batch 2,"), (8, 8, "divides a batch of")],
)
def test_advice_to_many_processes_can_be_followed(batch: int, world: int, advice: str) -> None:
    config = make(f"training.batch_size={batch}")
    state = TrainState(config, CPU)
    state.context = DistributedContext(0, world)
    assert advice in str(out_of_memory(config, state))


def test_where_nothing_fits_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make()
    state = TrainState(config, CPU)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(Recipe, "update_g", full)
    assert "and with fewer" in str(out_of_memory(config, state))


def test_a_step_is_timed() -> None:
    assert 0 < seconds_per_flop(make(), CPU) < 1e-6
    config = make()
    state = TrainState(config, CPU)
    before = state.discriminator.out.bias.clone()  # type: ignore[union-attr, operator]
    try_step(config, state)
    assert not torch.equal(before, state.discriminator.out.bias)  # type: ignore[union-attr, arg-type]


def test_truncated_noise_is_the_conditional_law() -> None:
    z = torch.randn(200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cut, kept = truncated(z, 1.0), z[z.abs() < 1]
    assert cut.abs().max() < 1
    for share in (0.1, 0.25, 0.5, 0.9):
        assert cut.quantile(share).item() == pytest.approx(kept.quantile(share).item(), abs=0.02)
    assert torch.equal(noise(0, 0, 4, 8), noise(0, 0, 4, 8, None))
    assert torch.allclose(noise(0, 0, 4, 8, 50.0), noise(0, 0, 4, 8), atol=1e-6)
    assert torch.equal(noise(0, 1000, 1100, 8, 1.0)[30:], noise(0, 1030, 1100, 8, 1.0))


def test_the_fid_within_classes_sees_a_swap_that_the_whole_does_not() -> None:
    source = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    real = torch.randn(400, 4, generator=source) + 5 * labels[:, None]
    fake = torch.randn(400, 4, generator=source) + 5 * labels[:, None]
    own, swapped = (intra_fid(fake, y, real, labels) for y in (labels, 1 - labels))
    assert own < 1
    assert swapped == pytest.approx(100, rel=0.1)  # ||5 - 0||^2 in four dimensions
    assert math.isnan(intra_fid(fake, labels, real[labels == 0], labels[labels == 0]))


def test_grids_have_a_class_a_row() -> None:
    assert grid_labels(0) is None
    few, many = grid_labels(3), grid_labels(1000)
    assert few is not None
    assert many is not None
    assert few.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert many[::8].tolist() == list(range(0, 1000, 100))


def test_samples_by_class_and_interpolations(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    exported = sampling.load(finished, "ema", "cpu")
    assert exported.classes_called(["3", "disc"]) == (3, 0)
    with pytest.raises(UserError, match="no class is called 'dsc'; did you mean 'disc'"):
        exported.classes_called(["dsc"])
    alike = exported.images(16, 0, (4,))
    assert alike.shape == (16, 3, 32, 32)
    other = exported.images(16, 0, (4, 5))
    assert torch.equal(alike[:8], other[:8])
    assert exported.truncation == 2

    between = exported.interpolations(2, 0, (1, 2)).unflatten(0, (2, 8)).float()
    z = noise(0, 0, 4, 8)
    ends = draw(exported.generator, z, torch.tensor([1, 2, 2, 1]))
    expected = quantise(ends).float()
    assert (between[0, 0] - expected[0]).abs().max() <= 1
    assert (between[0, 7] - expected[1]).abs().max() <= 1
    assert (between[1, 7] - expected[3]).abs().max() <= 1

    for options in (["--classes", "disc,star"], ["--interpolate", "--truncation", "1"]):
        file = tmp_path / f"{len(options)}.png"
        asked = ["sample", str(finished), "--n", "9", "--device", "cpu", "--out", str(file)]
        with pytest.raises(SystemExit, match="0"):
            main([*asked, *options])
        assert capsys.readouterr().out.strip() == str(file)
        assert file.stat().st_size > 100


def test_a_resumed_run_with_classes_ends_with_the_same_bits(store: Store) -> None:
    config = make("run.steps=4")
    whole, part = TrainState(config, CPU), TrainState(config, CPU)
    list(train(config, whole, store))
    events = train(config, part, store)
    assert isinstance(next(events), Step)
    saved = copy.deepcopy(part.state_dict())
    again = TrainState(config, CPU)
    again.load_state_dict(saved)
    list(train(config, again, store))
    for name, value in whole.ema.state_dict().items():
        assert np.array_equal(value.numpy(), again.ema.state_dict()[name].numpy()), name


def test_classes_are_named_with_care(finished: Path) -> None:
    exported = sampling.load(finished, "ema", "cpu")
    assert exported.classes_called(["0", " 3", "ring"]) == (0, 3, 1)
    for word in ("\u00b2", "", "10", "-1"):
        with pytest.raises(UserError, match="no class is called"):
            exported.classes_called([word])


def test_a_way_through_one_dimension_is_straight() -> None:
    a, b = torch.tensor([1.0]), torch.tensor([-3.0])
    way = sampling._great_circle(a, b, torch.linspace(0, 1, 3))
    assert way[:, 0].tolist() == [1.0, -1.0, -3.0]


def test_a_run_that_diverged_has_no_generator_to_use(finished: Path, tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    shutil.copytree(finished, lost)
    record = read(lost).model_copy(update={"status": Status.DIVERGED, "reason": "step 2: NaN"})
    (lost / "record.json").write_bytes(record.to_json())
    with pytest.raises(UserError, match=r"lost diverged \(step 2: NaN\)"):
        sampling.load(lost, "ema", "cpu")


@pytest.mark.parametrize("out", ["x.jpg", "x", "taken/x.png"])
def test_pictures_go_to_a_png(
    finished: Path, tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(SystemExit, match="2"):
        main(["sample", str(finished), "--out", str(tmp_path / out)])
    assert "expected a PNG file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main(["sample", str(finished), "--n", "8", "--out", str(tmp_path / "new" / "x.png")])
    assert (tmp_path / "new" / "x.png").exists()


@pytest.mark.slow
def test_g_obeys_its_class(tmp_path: Path) -> None:
    """Two classes that differ by colour, learned in 150 steps; shapes take far longer."""
    random, colours = np.random.default_rng(0), {"blue": (40, 60, 200), "red": (200, 60, 40)}
    for name, colour in colours.items():
        (tmp_path / "colours" / name).mkdir(parents=True)
        for i in range(100):
            pixels = random.normal(colour, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "colours" / name / f"{i}.png")
    config = make(
        "model.classes=2", f"data.source=folder:{tmp_path / 'colours'}", "training.batch_size=16",
        "training.lr_g=4e-4", "training.lr_d=1e-3", "training.ema_decay=0.9", "run.steps=150",
        "run.sample_every=150", "run.checkpoint_every=150",
    )  # fmt: skip
    assert experiment.run(config, out=tmp_path / "run").status == "finished"
    exported = sampling.load(tmp_path / "run", "ema", "cpu")
    for label, colour in enumerate(colours.values()):
        mean = exported.images(32, 0, (label,)).float().mean((0, 2, 3))
        assert (mean - torch.tensor(colour)).abs().max() < 60  # the colours are 160 apart
