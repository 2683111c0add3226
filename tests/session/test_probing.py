"""Finished runs probed: what must not change, what must, and what is stored of it."""

import io
import json
import math
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from example_runs import SMALL
from PIL import Image
from torch import Tensor, nn

from sagan_bench.config.layers import override, resolve
from sagan_bench.config.schema import AttentionConfig, Host, RunConfig
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.data.pixels import quantise
from sagan_bench.evaluation.protocol import Protocol
from sagan_bench.models.attention._blocks import SelfAttention
from sagan_bench.models.attention._interventions import NONE, intervened
from sagan_bench.models.build import build, plain_discriminator, plain_generator, skeleton
from sagan_bench.models.replay import around
from sagan_bench.runs import probe as stored
from sagan_bench.runs import records
from sagan_bench.runs.probe import Arm, Outcome, Probe
from sagan_bench.runs.run import Run
from sagan_bench.session import experiment
from sagan_bench.session.events import Progress, Stopped
from sagan_bench.session.probing import _run, probe
from sagan_bench.session.probing._arms import look
from sagan_bench.session.probing._figures import Measuring, ranking
from sagan_bench.session.probing._networks import Counter, Probed, inputs_of, probe_generator
from sagan_bench.session.probing._run import _standing_over
from sagan_bench.session.probing._running import Made
from sagan_bench.training import checkpoint
from sagan_bench.training.generation import (
    _average_statistics,
    noise,
    standing_inputs,
    statistics_of,
    statistics_under,
)
from sagan_bench.training.loop import Step

HOST = Host(bf16=False, extractor="efficientnet-lite0")
BRIEF = (
    *SMALL, "run.steps=1", "run.score_weights=[]", "training.batch_size=8",
    "evaluation.bn_batches=1",
)  # fmt: skip
PLANTED = Path(__file__).parents[1] / "planted" / "odd"
IMAGES = 8
NOT_KEPT = "run.keep_training_state=false"


def make(*sets: str, variant: str = "sagan") -> RunConfig:
    return resolve(HOST, variant=variant, sets=[*BRIEF, *sets]).config


def trained(folder: Path, config: RunConfig, gamma: float | None = 1.0) -> Path:
    """A finished run of a step, whose blocks act and look somewhere."""
    path = folder / config.variant
    experiment.run(config, out=path)
    weights = checkpoint.load(path / "weights.pt")
    for name, value in weights["ema"].items():
        if "query" in name or "key" in name:
            value *= 8
        if name.endswith("gamma") and gamma is not None:
            value.fill_(gamma)
    checkpoint.save(path / "weights.pt", weights)
    return path


def probed(path: Path, **how: object) -> Probe:
    config = Run(path, records.read(path)).config
    return probe(path, config, images=IMAGES, again=True, **how)[0]  # type: ignore[arg-type]


def outcomes(arm: Arm) -> list[Outcome]:
    made = [arm.applied, arm.sham, arm.frozen, arm.sham_frozen]
    return [outcome for outcome in made if outcome is not None]


def arm_of(made: Probe, intervention: str, *, keeps_rms: bool = False) -> Arm:
    found = [
        arm
        for arm in made.arms
        if (arm.intervention, arm.keeps_rms) == (intervention, keeps_rms)
        and arm.network == "generator"
    ]
    return found[0]


@pytest.fixture(scope="module")
def sagan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a block at side 8 in both networks, before a BatchNorm; not to be changed."""
    config = make("run.keep_training_state=true")
    return trained(tmp_path_factory.mktemp("probing"), config)


@pytest.fixture(scope="module")
def made(sagan: Path) -> Probe:
    return probed(sagan)


# --- What must be so ----------------------------------------------------------------------------


def test_attention_that_is_uniform_does_not_change_by_a_uniform_map(tmp_path: Path) -> None:
    made = probed(trained(tmp_path, make(variant="uniform-attention")))
    for keeps_rms in (False, True):
        arm = arm_of(made, "uniform", keeps_rms=keeps_rms)
        assert [outcome.changed for outcome in outcomes(arm)] == [0.0] * 4
    left_out = arm_of(made, "none").applied
    assert left_out is not None
    assert left_out.changed is not None
    assert left_out.changed > 0.1  # and it does something


def test_where_gamma_is_0_no_intervention_changes_a_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    outcome = Measuring.outcome

    def seeing(self: Measuring, made: Made) -> Outcome:
        seen.append(made.values)
        return outcome(self, made)

    monkeypatch.setattr(Measuring, "outcome", seeing)
    made = probed(trained(tmp_path, make(NOT_KEPT, variant="gamma-fixed-0"), gamma=None))
    assert len(seen) == 1 + 4 * 15
    assert all(torch.equal(images, seen[0]) for images in seen)
    assert {each.changed for arm in made.arms for each in outcomes(arm)} == {0.0}


def test_what_stands_in_attentions_place_is_left_out(tmp_path: Path) -> None:
    made = probed(trained(tmp_path, make(NOT_KEPT, variant="residual")))
    assert [arm.intervention for arm in made.arms] == ["none"]
    assert [(block.by, block.reason) for block in made.blocks] == [
        ("branch", "Residual has no through(maps, x)")
    ]
    assert made.primary is None
    assert all(outcome.changed for outcome in outcomes(made.arms[0]))


class HandWired(nn.Module):
    """Two shapes, each in one of eight places of its half; the map brings the right one its hue."""

    def __init__(self) -> None:
        super().__init__()
        self.attention16 = SelfAttention(8, AttentionConfig(gamma_init=1.0))
        for parameter in self.attention16.parameters():
            parameter.data.zero_()
        self.attention16.gamma.data.fill_(1)
        self.attention16.query.weight.data[0, 1] = 6  # of what is in the right shape
        self.attention16.key.weight.data[0, 0] = 6  # what is in the left one
        self.attention16.value.weight.data[2:5, 2:5, 0, 0] = torch.eye(3)
        self.eval().requires_grad_(False)

    def forward(self, z: Tensor, labels: None = None) -> Tensor:
        x = z.new_zeros(len(z), 8, 16, 16)
        hue = torch.atan2(z[:, 6], z[:, 7]) / math.tau
        sector = (hue[:, None] + torch.tensor([5, 3, 1]) / 6) % 1 * 6
        colour = 0.9 * (1 - 0.9 * torch.minimum(sector, 4 - sector).clamp(0, 1))
        for image, (left, right) in enumerate(
            zip(_places(z[:, :3]), _places(z[:, 3:6]), strict=True)
        ):
            x[image, 0, left[0] : left[0] + 3, left[1] : left[1] + 3] = 1
            x[image, 1, right[0] : right[0] + 3, right[1] + 9 : right[1] + 12] = 1
            x[image, 2:5] = colour[image, :, None, None] * x[image, 0]
        y = self.attention16(x)
        shapes = x[:, :2].amax(1, keepdim=True)
        image = shapes * y[:, 2:5].clamp(0, 1) + (1 - shapes) * 0.95
        return nn.functional.interpolate(2 * image - 1, scale_factor=2.0)


def _places(z: Tensor) -> Iterator[tuple[int, int]]:
    for first, second, third in (z > 0).tolist():
        yield 4 * (2 * first + second), 4 * third


@pytest.fixture(scope="module")
def hand_wired() -> Probed:
    config = make("training.batch_size=32")
    manifest = prepare(DataSpec.of(config.data)).manifest
    measuring = Measuring(config, manifest, "ema", 64, (), None)
    counter = Counter(lambda done, total: None)
    return probe_generator(config, HandWired(), measuring, 64, counter)


def test_a_generator_wired_to_copy_the_hue_through_its_map_is_found_out(
    hand_wired: Probed,
) -> None:
    arms = {(arm.intervention, arm.keeps_rms): arm for arm in hand_wired.arms}

    def twin_rate(outcome: Outcome | None) -> float:
        value = outcome.metrics["twin_rate"] if outcome else None
        assert value is not None
        return value

    assert twin_rate(hand_wired.untouched) == 1
    for keeps_rms in (False, True):
        other = arms["another-image", keeps_rms]
        assert twin_rate(other.applied) < 0.1
        assert twin_rate(other.sham) > 0.9
        assert twin_rate(arms["uniform", keeps_rms].applied) == 0
        assert twin_rate(arms["temperature-0.5", keeps_rms].applied) == 1
        assert other.frozen == other.applied  # it has no BatchNorm
        assert other.applied is not None
        assert other.applied.breaks["all"] > 0.9
        assert other.applied.breaks["hue_match"] > 0.9
        assert other.applied.mends["all"] == 0
    mass = hand_wired.blocks[0].mass
    assert mass is not None
    assert mass.images == 64
    assert mass.mass > 0.45  # from the right to the left all of it; the left looks nowhere
    assert mass.chance < 0.2


# --- How it is made -----------------------------------------------------------------------------


def test_the_primary_arm_is_the_uniform_map_on_all_of_gs_blocks(tmp_path: Path) -> None:
    config = make("model.attention.generator=[4,8]", "model.attention.discriminator=[]")
    made = probed(trained(tmp_path, config))
    assert made.primary is not None
    assert made.primary.blocks == ("attention4", "attention8")
    assert (made.primary.intervention, made.primary.keeps_rms) == ("uniform", True)
    assert sum(arm.primary for arm in made.arms) == 1
    assert [block.norms_after for block in made.blocks] == [2, 1]
    assert made.discriminator == "it has no block"
    single = [a for a in made.arms if a.intervention == "uniform" and a.keeps_rms and not a.primary]
    assert [arm.blocks for arm in single] == [("attention4",), ("attention8",)]
    changed = {arm.applied.changed for arm in [made.primary, *single] if arm.applied}
    assert len(changed) == 3  # of three different arms


def test_statistics_are_those_of_the_changed_network_by_the_noise_of_scores(sagan: Path) -> None:
    config = Run(sagan, records.read(sagan)).config
    device = torch.device("cpu")
    weights = checkpoint.load(sagan / "weights.pt")["ema"]
    generator = plain_generator(config, weights, device).eval().requires_grad_(False)
    block = generator.get_submodule("attention8")
    assert isinstance(block, SelfAttention)
    batches = [standing_inputs(config, batch, device) for batch in range(3)]
    found = around(generator, [block], *batches[0])
    before = statistics_of(found.norms)
    changes = [partial(intervened, [block], NONE, sham=sham) for sham in (False, True)]
    fast = statistics_under(generator, found.norms, iter(batches), found.once, changes)
    assert all(map(torch.equal, sum(before, ()), sum(statistics_of(found.norms), ())))
    assert not generator.training
    for change, statistics in zip(changes, fast, strict=True):
        with change(), torch.no_grad():
            _average_statistics(generator, batches)
        wanted = statistics_of(found.norms)
        torch.testing.assert_close(sum(statistics, ()), sum(wanted, ()))


def test_statistics_are_made_over_as_many_images_as_are_drawn_or_all_batches() -> None:
    config = make("evaluation.bn_batches=64")
    batches = [_standing_over(images, config).evaluation.bn_batches for images in (4, 20, 9_999)]
    assert batches == [1, 2, 64]


def test_recomputed_and_frozen_statistics_are_told_apart(made: Probe) -> None:
    block = made.blocks[0]
    assert (block.norms_after, block.gamma, block.by) == (1, 1.0, "maps")
    arm = arm_of(made, "none")
    assert arm.applied is not None
    assert arm.frozen is not None
    assert (arm.applied.changed or 0) > 0
    assert arm.applied.changed != arm.frozen.changed
    assert arm.sham != arm.sham_frozen


def test_a_discriminator_is_probed_by_how_it_ranks_real_against_generated(
    sagan: Path, made: Probe
) -> None:
    assert made.discriminator is None
    arms = [arm for arm in made.arms if arm.network == "discriminator"]
    assert len(arms) == 15
    assert all(outcome.ranking is not None for arm in arms for outcome in outcomes(arm))
    assert made.untouched.ranking is not None
    assert ranking(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])) == 3.5 / 4
    config = Run(sagan, records.read(sagan)).config
    state = checkpoint.load(sagan / "checkpoints" / "step-00000001.ckpt")["discriminator"]
    normed = skeleton(config).discriminator.to_empty(device="cpu")
    normed.load_state_dict(state)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    plain = plain_discriminator(config, state, torch.device("cpu"))
    torch.testing.assert_close(plain.eval()(images), normed.eval()(images))


@pytest.mark.slow
def test_metrics_with_an_extractor_are_measured_where_they_are_asked_for(sagan: Path) -> None:
    made = probed(sagan, metrics=("kid_mean",))
    assert made.asked == ("kid_mean",)
    for outcome in (made.untouched, *outcomes(arm_of(made, "none"))):
        assert outcome.metrics["kid_mean"] is not None
        assert "fid" not in outcome.metrics
    assert stored.read(sagan) == made


def test_a_block_of_ones_own_is_probed_by_its_branch_until_it_has_the_hook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extension = extensions.load(PLANTED / "null_key.py")
    own = {extension.name: extension.described}
    sets = [*BRIEF, "model.attention.kind=planted-null-key"]
    config = resolve(HOST, sets=sets, own=own).config
    generator = build(config).generator.eval().requires_grad_(False)
    block = generator.get_submodule("attention8")
    block.get_parameter("gamma").fill_(1)
    batch = inputs_of(config, 4, torch.device("cpu"))[0]
    found = look(generator, batch)[0]
    assert found.reason is not None
    assert "fails" in found.reason  # what it inherits knows of no null key

    def through(maps: Tensor, x: Tensor) -> Tensor:
        parts: dict[str, Any] = dict(block.named_children())
        parts |= dict(block.named_parameters())
        null = parts["null_value"].expand(len(x), 1, -1)
        values = torch.cat([null, parts["value"](x).flatten(2).mT], 1)
        return (maps @ values).mT.unflatten(2, x.shape[2:])

    monkeypatch.setattr(type(block), "through", staticmethod(through))
    assert look(generator, batch)[0].reason is None


# --- As a run ends ------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few images as elsewhere here."""
    monkeypatch.setattr(_run, "IMAGES", IMAGES)


@pytest.mark.usefixtures("few")
def test_a_run_can_be_probed_as_it_ends_with_d_though_its_weights_are_not_kept(
    tmp_path: Path,
) -> None:
    seen: list[object] = []
    record = experiment.run(
        make("run.probe=true", NOT_KEPT), out=tmp_path / "at-the-end", watch=seen.append
    )
    made = stored.read(tmp_path / "at-the-end")
    assert made is not None
    assert (made.step, made.images, made.discriminator) == (1, IMAGES, None)
    assert made.config_digest == record.config_digest
    assert any(isinstance(each, Progress) and each.phase == "probe" for each in seen)
    assert not list((tmp_path / "at-the-end" / "checkpoints").iterdir())
    experiment.run(make("run.keep_training_state=true"), out=tmp_path / "later")
    path = tmp_path / "later"
    later, _ = probe(path, Run(path, records.read(path)).config, images=IMAGES)
    assert (later.arms, later.untouched) == (made.arms, made.untouched)
    assert stored.picture_of(path, later) == stored.picture_of(tmp_path / "at-the-end", made)
    again, is_new = probe(tmp_path / "at-the-end", make(), images=IMAGES)
    assert (again, is_new) == (made, False)


@pytest.mark.usefixtures("few")
def test_a_run_that_is_stopped_while_it_is_probed_goes_on_from_there(tmp_path: Path) -> None:
    seen: list[object] = []

    def stop() -> str | None:
        probing = any(isinstance(event, Progress) and event.phase == "probe" for event in seen)
        return "interrupted" if probing else None

    path, config = tmp_path / "run", make("run.probe=true")
    with pytest.raises(Stopped):
        experiment.run(config, out=path, watch=seen.append, stop=stop)
    assert records.read(path).status == "interrupted"
    assert stored.read(path) is None
    seen.clear()
    record = experiment.run(config, out=path, watch=seen.append)
    assert not [event for event in seen if isinstance(event, Step)]
    assert record.status == "finished"
    assert stored.read(path) is not None


@pytest.mark.usefixtures("few")
def test_what_was_measured_of_d_is_not_lost_with_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "run"
    experiment.run(make("run.probe=true", NOT_KEPT), out=path)
    first = stored.read(path)
    assert first is not None
    of_d = [arm for arm in first.arms if arm.network == "discriminator"]
    config = Run(path, records.read(path)).config
    with pytest.raises(UserError, match=r"D's weights are gone: add --images 8, or --again"):
        probe(path, config, images=4)
    assert stored.read(path) == first
    for how in ({"again": True}, {"metrics": ("twin_rate",)}):
        again, is_new = probe(path, config, images=IMAGES, **how)
        assert is_new
        assert again.discriminator is None
        assert [arm for arm in again.arms if arm.network == "discriminator"] == of_d
        assert again.untouched.ranking == first.untouched.ranking
        assert again.blocks == first.blocks
    fewer, _ = probe(path, config, images=4, again=True)
    assert fewer.discriminator is not None


def test_a_picture_that_is_gone_is_made_again(sagan: Path, made: Probe) -> None:
    config = Run(sagan, records.read(sagan)).config
    (sagan / "probe.png").unlink()
    assert probe(sagan, config, images=IMAGES)[1]
    now = stored.read(sagan)
    assert now is not None
    assert stored.picture_of(sagan, now) is not None
    assert now.arms == made.arms


def test_a_picture_of_few_images_has_a_row_each_way(sagan: Path) -> None:
    config = Run(sagan, records.read(sagan)).config
    few, _ = probe(sagan, config, images=5, again=True)
    content = stored.picture_of(sagan, few)
    assert content is not None
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.size == (5 * 34 + 2, 5 * 34 + 2)
    probe(sagan, config, images=IMAGES, again=True)


def test_a_run_whose_probe_fails_is_finished_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*given: object) -> None:
        raise LookupError("a block of one's own")

    monkeypatch.setattr(_run, "probe_generator", broken)
    assert experiment.run(make("run.probe=true"), out=tmp_path / "run").status == "finished"
    assert "is not probed: LookupError: a block of one's own" in caplog.text


def test_a_run_whose_probe_the_memory_does_not_suffice_for_is_finished_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def too_large(*given: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(_run, "probe_generator", too_large)
    record = experiment.run(make("run.probe=true"), out=tmp_path / "run")
    assert record.status == "finished"
    assert "is not probed: out of memory" in caplog.text
    assert stored.read(tmp_path / "run") is None


def test_a_run_without_a_block_is_not_probed_and_no_digest_knows_of_it(tmp_path: Path) -> None:
    plain, asked = make(variant="no-attention"), make("run.probe=true", variant="no-attention")
    assert experiment.run(asked, out=tmp_path / "run").status == "finished"
    assert not (tmp_path / "run" / "probe.json").exists()
    assert plain.digest("f") == asked.digest("f")
    assert "probe" not in plain.model_dump(mode="json")["run"]


# --- What is kept -------------------------------------------------------------------------------


def test_a_probe_is_kept_and_made_anew_where_something_is_other(
    sagan: Path, made: Probe, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(sagan, path)
    config = Run(path, records.read(path)).config
    record = (path / "record.json").read_bytes()
    first, is_new = probe(path, config, images=IMAGES, again=True)
    assert is_new
    content = (path / "probe.json").read_bytes()
    assert probe(path, config, images=IMAGES) == (first, False)
    assert (path / "probe.json").read_bytes() == content
    assert (path / "record.json").read_bytes() == record
    fewer, is_new = probe(path, config, images=4)
    assert (is_new, fewer.images) == (True, 4)
    weights = checkpoint.load(path / "weights.pt")
    weights["ema"]["attention8.gamma"].fill_(0)
    checkpoint.save(path / "weights.pt", weights)
    other, is_new = probe(path, config, images=4)
    assert is_new
    assert other.weights_sha256 != fewer.weights_sha256
    assert arm_of(other, "none").applied != arm_of(fewer, "none").applied


def test_the_picture_shows_the_same_noise_in_every_row(sagan: Path, made: Probe) -> None:
    assert made.picture is not None
    assert made.picture.rows == ("untouched", "uniform", "sham", "another-image", "none")
    assert made.picture.blocks == ("attention8",)
    content = stored.picture_of(sagan, made)
    assert content is not None
    with Image.open(io.BytesIO(content)) as opened:
        sheet = np.asarray(opened)
    assert sheet.shape == (5 * 34 + 2, 8 * 34 + 2, 3)
    rows = [sheet[2 + 34 * row : 34 + 34 * row] for row in range(5)]
    assert len({row.tobytes() for row in rows}) == 5
    config = Run(sagan, records.read(sagan)).config
    states = checkpoint.load(sagan / "weights.pt")
    generator = plain_generator(config, states["ema"], torch.device("cpu")).eval()
    z = noise(0, 0, IMAGES, config.model.z_dim, None)
    with torch.no_grad():
        _average_statistics(generator, [standing_inputs(config, 0, torch.device("cpu"))])
        first = quantise(generator.eval()(z))[0].permute(1, 2, 0).numpy()
    shown = rows[0][:, 2:34].astype(int)
    assert np.abs(shown - first.astype(int)).max() <= 1
    (sagan / "probe.png").write_bytes(b"another")
    assert stored.picture_of(sagan, made) is None
    (sagan / "probe.png").write_bytes(content)


def test_a_probe_that_is_damaged_is_named_and_made_anew(sagan: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(sagan, path)
    file = path / "probe.json"
    config = Run(path, records.read(path)).config
    whole, _ = probe(path, config, images=IMAGES)
    content = json.loads(file.read_text())
    for text in ("{", json.dumps({**content, "images": 9}), json.dumps({"schema_version": 2})):
        file.write_text(text)
        with pytest.raises(UserError, match=r"probe.json.*delete it, or make it anew"):
            probe(path, config, images=IMAGES)
    again, is_new = probe(path, config, images=IMAGES, again=True)
    assert is_new
    assert again.arms == whole.arms
    assert stored.read(path) == again
    assert again.protocol["batchnorm"] == "standing-1x8"
    assert Protocol.model_validate(again.protocol).fingerprint() == again.fingerprint


def test_what_cannot_be_probed_is_said(sagan: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(sagan, path)
    config = Run(path, records.read(path)).config

    def says(text: str, given: RunConfig = config, **how: object) -> None:
        with pytest.raises(UserError, match=text):
            probe(path, given, images=IMAGES, **how)  # type: ignore[arg-type]

    says("--metrics fit: did you mean", metrics=("fit",))
    for file in path.glob("checkpoints/*"):
        file.unlink()
    (path / "probe.json").unlink()
    without = probe(path, config, images=IMAGES)[0]
    assert without.discriminator is not None
    assert "run.keep_training_state=true" in without.discriminator
    assert without.untouched.ranking is None
    none = override(
        config, {"model.attention.generator": ("", ()), "model.attention.discriminator": ("", ())}
    )
    says("no block of attention", none)
    (path / "weights.pt").unlink()
    says("has no exported weights", again=True)
    record = json.loads((path / "record.json").read_text())
    del record["sha256"]
    (path / "record.json").write_text(json.dumps(record | {"status": "interrupted"}))
    says("is interrupted.*only the weights of a finished run")
