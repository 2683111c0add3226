"""What a run is: `RunConfig`, its digest, and which of its fields are young.

Every field outside the section ``run`` changes results and enters the digest; no field inside it
does.  One section, one meaning: see docs/adr/0001-digest-and-steps.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator
from pydantic.fields import FieldInfo

from sagan_bench.config import seeds
from sagan_bench.config.digest import digest
from sagan_bench.config.options import Options, by_dotted_key, of_measuring, options_of
from sagan_bench.config.section import LATER, Growing, Section, later
from sagan_bench.core.names import device_called, kind_of
from sagan_bench.core.registry import (
    ATTENTION,
    EXTRACTORS,
    FAMILIES,
    LOSSES,
    METRICS,
    SOURCES,
    TRACKERS,
)
from sagan_bench.core.trees import flatten

NAME = r"^\w[\w.+-]*$"
"""Of what is a folder's name too."""
Sides = Annotated[tuple[int, ...], AfterValidator(lambda sides: tuple(sorted(set(sides))))]
Precision = Literal["auto", "fp32", "tf32", "bf16", "fp64"]
ExtractorName = Annotated[
    str, AfterValidator(lambda name: name if name == "auto" else EXTRACTORS.check(name))
]
Crop = Literal["auto"] | Annotated[int, Field(ge=1)] | None
SpectralNormed = Literal["all", "hidden", "none"]
Stream = Literal["weights", "data", "noise"]
"""What chance gives to training: where networks begin; which images when, and mirrored or not; and
the noise, labels and points between real and fake of each update."""
AttentionKind = Annotated[str, AfterValidator(ATTENTION.check)]
Weights = Literal["ema", "raw"]
"""Of a generator: its moving average, or as the optimizer left it."""
WEIGHTS: tuple[Weights, ...] = get_args(Weights)


class DataConfig(Section):
    """Which images, and how they become squares."""

    source: str = Field(
        "twins",
        description=f"KIND, KIND:PATH or KIND:PATH#PART; kinds: {', '.join(SOURCES)}",
    )
    image_size: Literal[32, 64, 128, 256] = Field(32, description="side of an image in pixels")
    crop: Crop = Field(
        "auto", description="centre crop in source pixels; auto: the kind's, or none"
    )
    fit: Literal["centre-crop", "squash"] = Field(
        "centre-crop", description="how an oblong image becomes a square"
    )
    flip: bool = Field(False, description="mirror each training image with probability 1/2")
    train_images: int | None = Field(None, ge=1, description="use this many only; none is all")
    test_images: int | None = Field(None, ge=0, description="likewise, held-out images")

    @property
    def crop_px(self) -> int | None:
        """The side of the centre crop in source pixels, with ``auto`` resolved; None is no crop."""
        if self.crop != "auto":
            return self.crop
        kind = kind_of(self.source)
        return SOURCES[kind].auto_crop_px if kind in SOURCES else None


class AttentionConfig(Growing):
    """Feature-map sides in pixels that carry a self-attention block; an empty list is none.

    ``kind`` is what stands there: attention, or a control (`sagan_bench.models.attention`).
    """

    generator: Sides = Field((16,), description="sides in G")
    discriminator: Sides = Field((16,), description="sides in D")
    kind: AttentionKind = later("full", description="attention or control at these sides")
    gamma_init: float = later(0.0, description="gamma at the start, in y = x + gamma * o")
    gamma_learned: bool = later(True, description="whether gamma is trained")
    options: Annotated[Options, options_of(ATTENTION, "kind")] = Options()


class SpectralNormConfig(Growing):
    """Which convolutions are divided by their spectral norm.

    ``all``: every one; ``hidden``: all but the output's and attention's (the seed project's
    choice); ``none``.
    """

    young = ("batched",)

    generator: SpectralNormed = Field("all", description="in G")
    discriminator: SpectralNormed = Field("all", description="in D")
    batched: bool = later(False, description="all norms of a network at once, in few launches")


class ModelConfig(Growing):
    """The two networks."""

    architecture: Annotated[str, AfterValidator(FAMILIES.check)] = Field(
        "dcgan", description="family of networks"
    )
    width: int = Field(64, ge=8, description="channels of the widest feature map's neighbour")
    z_dim: int = Field(128, ge=1, description="components of the noise vector")
    attention: AttentionConfig = AttentionConfig()
    spectral_norm: SpectralNormConfig = SpectralNormConfig()
    width_factor: int = later(1, ge=1, description="times the width: a known difference, to detect")
    discriminator_sees: Literal["whole", "halves"] = later(
        "whole", description="halves: left and right are scored apart, and the logits averaged"
    )
    classes: int = later(
        0, ge=0, description="classes that G and D are told of; 0 is unconditional"
    )
    layout: Literal["pyramid", "flat"] = later(
        "pyramid",
        description="resnet: channels double as sides halve; flat: as many on every map, D half",
    )
    initialisation: Literal["torch", "glorot"] = later(
        "torch", description="law of the weights at the start; glorot: uniform, zero biases"
    )
    options: Annotated[Options, options_of(FAMILIES, "architecture")] = Options()


class TrainingConfig(Growing):
    """The recipe.  Defaults are the SAGAN paper's (section 4)."""

    young = ("options", "fixed", "cuda_graph", "init_sha256")

    loss: Annotated[str, AfterValidator(LOSSES.check)] = Field(
        "hinge", description="adversarial loss"
    )
    gp_weight: float = Field(10.0, ge=0, description="lambda of a loss with a gradient penalty")
    batch_size: int = Field(64, ge=2, description="images a step")
    lr_g: float = Field(1e-4, gt=0, description="Adam's learning rate of G")
    lr_d: float = Field(4e-4, gt=0, description="of D: four times G's is the two-time-scale rule")
    beta1: float = Field(0.0, ge=0, lt=1, description="Adam's beta 1")
    beta2: float = Field(0.9, ge=0, lt=1, description="Adam's beta 2")
    n_critic: int = Field(1, ge=1, description="updates of D for each update of G")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="decay of G's weight average, a step")
    precision: Precision = Field("auto", description="of the networks' products")
    compile: bool = Field(False, description="torch.compile both networks")
    micro_batch: int | None = later(
        None, ge=2, description="images at a time, gradients summed; BatchNorm sees no more at once"
    )
    lr_scale: float = later(1.0, gt=0, description="times both learning rates")
    lr_d_over_g: float | None = later(
        None, gt=0, description="D's learning rate over G's; none leaves lr_d as it is"
    )
    fixed: Annotated[
        tuple[Stream, ...], AfterValidator(lambda streams: tuple(sorted(set(streams))))
    ] = later((), description="of weights, data, noise: drawn as of seed 0, whatever the seed")
    cuda_graph: bool = later(
        False, description="a card replays the step as one CUDA graph; unmeasured: no card ran it"
    )
    init_sha256: str | None = later(
        None,
        pattern="^[0-9a-f]{64}$",
        description="of the weights that it begins with; follows from run.init_from",
    )
    options: Annotated[Options, options_of(LOSSES, "loss")] = Options()

    @property
    def learning_rates(self) -> tuple[float, float]:
        """Adam's learning rates of G and D, after ``lr_scale`` and ``lr_d_over_g``."""
        lr_d = self.lr_d if self.lr_d_over_g is None else self.lr_g * self.lr_d_over_g
        return self.lr_scale * self.lr_g, self.lr_scale * lr_d

    @property
    def needs_double_backward(self) -> bool:
        """Whether D's gradient is differentiated again, for the penalty of the loss."""
        needed: bool = LOSSES[self.loss].needs_double_backward
        return needed


def _of_choice(metrics: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of metrics that are not in every score, each once and in one order."""
    for name in metrics:
        switch = METRICS[name].switch()
        if not switch.startswith("evaluation.metrics="):
            raise ValueError(f"{name} is measured with --set {switch} only")
    return tuple(sorted({name for name in metrics if not METRICS[name].default}))


class EvaluationConfig(Growing):
    """How the finished generator is scored."""

    young = ("metrics", "options")

    extractor: ExtractorName = Field("auto", description="feature extractor")
    n_real: int | None = Field(
        None, ge=4, description="real images at most; none is the whole split"
    )
    n_fake: int = Field(10_000, ge=4, description="generated images")
    n_floor: int = Field(10_000, ge=2, description="held-out real images, for the floor")
    split: Literal["train", "test"] = Field("train", description="split of the real images")
    sampling_seeds: Annotated[tuple[int, ...], BeforeValidator(seeds.several)] = Field(
        (0,), min_length=1, description="one score each, e.g. 0-4"
    )
    bn_batches: int = Field(
        64, ge=1, description="batches over which G's BatchNorm statistics are recomputed"
    )
    isc_splits: int = Field(10, ge=1, description="splits of the inception score")
    kid_subsets: int = Field(100, ge=1, description="subsets of the kernel inception distance")
    kid_subset_size: int = Field(1_000, ge=2, description="images in each subset")
    truncation: float | None = later(None, gt=0, description="noise from |z| < this only")
    intra_class: bool = later(False, description="FID within each class too, their mean")
    metrics: Annotated[
        tuple[Annotated[str, AfterValidator(METRICS.check)], ...], AfterValidator(_of_choice)
    ] = later((), description="metrics beyond those of every score")
    options: Annotated[Options, AfterValidator(of_measuring)] = Options()
    """Settings of a metric's or an extractor's own: name -> key -> value."""


def _in_order(weights: tuple[Weights, ...]) -> tuple[Weights, ...]:
    """Return kinds of weights, each once and in one order."""
    return tuple(kind for kind in WEIGHTS if kind in weights)


FOLLOWS = ("run.track", "run.tensorboard")
"""Settings that an experiment may take up, change or leave out while it goes on."""


def _listed(given: Any) -> Any:
    """Return a list of names that were given as ``one,another``."""
    return [name.strip() for name in given.split(",")] if isinstance(given, str) else given


class RunSection(Growing):
    """How far, where and with what is written: nothing here changes the result of a step."""

    young = ("score_weights", "probe", "track", "init_from")

    steps: int = Field(100_000, ge=1, description="generator updates to reach")
    device: Annotated[str, AfterValidator(device_called)] = Field(
        "auto", description="auto, cpu, cuda, cuda:N"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; none is one a core")
    cells_on_device: int = Field(1, ge=1, description="runs that share the device, set by ablate")
    sample_every: int = Field(
        100, ge=1, description="steps between sample grids; the first are after 1, 4, 16, ..."
    )
    score_weights: Annotated[tuple[Weights, ...], AfterValidator(_in_order)] = Field(
        ("ema",), description="of G, ema or raw, that are scored at the end; [] leaves that out"
    )
    eval_every: int | None = Field(None, ge=1, description="steps between scores on the way")
    eval_images: int = Field(512, ge=4, description="generated images for those")
    eval_metrics: Literal["all", "rule"] = Field(
        "all", description="of those; rule: only what twins are scored by, without an extractor"
    )
    probe: bool = Field(
        False, description="at the end change each block of attention, and measure (docs/probe.md)"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    log_every: int = Field(10, ge=1, description="steps between rows of metrics.jsonl")
    keep_training_state: bool | Literal["auto"] = Field(
        "auto", description="of a finished run, to train it further; auto: if under 1 GiB"
    )
    skip_bad: bool = Field(False, description="leave unreadable pictures out, and say so")
    inception_weights: str | None = Field(None, description="file, used if its hash is right")
    tensorboard: bool = Field(False, description='short for track = ["tensorboard"]')
    track: Annotated[
        tuple[Annotated[str, AfterValidator(TRACKERS.check)], ...], BeforeValidator(_listed)
    ] = Field((), description=f"what the run is followed with: {', '.join(TRACKERS)}, ...")
    init_from: str | None = Field(
        None, description="run, or file of a training state, whose weights it begins with"
    )

    @property
    def trackers(self) -> tuple[str, ...]:
        """What the run is followed with, each once."""
        return tuple(dict.fromkeys((*["tensorboard"] * self.tensorboard, *self.track)))


class RunConfig(Growing):
    """Everything that a run is.  Immutable; `digest` names what it computes."""

    young = ("own", "meant")

    preset: str = Field("quick", description="where the values began (a label)")
    variant: str = Field("sagan", description="what was changed (a label)")
    name: str = Field("sagan", pattern=NAME, description="the run's name (a label)")
    seed: Annotated[int, BeforeValidator(lambda given: seeds.single(given))] = Field(
        0, ge=0, description="of the weights, the noise and the data's order"
    )
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunSection = RunSection()
    own: Options = Options()
    """Files of components of one's own that it names: stem -> `Extension.described`."""
    meant: Annotated[Options, AfterValidator(by_dotted_key)] = Options()
    """What its labels mean, of names of one's own (`sagan_bench.config.meanings.of_labels`)."""

    @property
    def components(self) -> list[tuple[str, str]]:
        """What it names of each kind: (name of the registry, name of the component)."""
        named = [
            ("ATTENTION", self.model.attention.kind),
            ("FAMILIES", self.model.architecture),
            ("LOSSES", self.training.loss),
            ("EXTRACTORS", self.evaluation.extractor),
            ("SOURCES", kind_of(self.data.source)),
        ]
        # A control names the block that it is like.
        texts = [v for v in self.model.attention.options.values() if isinstance(v, str)]
        named += [("ATTENTION", text) for text in texts if text in ATTENTION]
        for metric in self.evaluation.metrics:
            named += [("METRICS", metric), ("EXTRACTORS", METRICS[metric].extractor)]
        return named + [("TRACKERS", name) for name in self.run.trackers]

    @property
    def needed(self) -> dict[str, Any]:
        """Files of its own on which its results depend: those that it names more than trackers of.

        Stem -> `Extension.described`.
        """
        named = {f"{kind}/{name}" for kind, name in self.components if kind != "TRACKERS"}
        return {stem: of for stem, of in self.own.items() if named & of["components"].keys()}

    @model_validator(mode="after")
    def _loss_goes_with_the_rest(self) -> "RunConfig":
        LOSSES[self.training.loss].check(self)
        return self

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> "RunConfig":
        size, micro = self.training.batch_size, self.training.micro_batch
        if micro and size % micro:
            raise ValueError(
                f"training.micro_batch = {micro} does not divide training.batch_size = {size}"
            )
        return self

    @model_validator(mode="after")
    def _compiled_or_captured(self) -> "RunConfig":
        if self.training.compile and self.training.cuda_graph:
            raise ValueError(
                "training.cuda_graph captures the step of networks that are not compiled; leave "
                "out training.compile, or training.cuda_graph"
            )
        return self

    @model_validator(mode="after")
    def _attention_has_effect(self) -> "RunConfig":
        attention, neutral = self.model.attention, neutral_values(AttentionConfig)
        changed = [key for key, value in neutral.items() if getattr(attention, key) != value]
        changed += ["options"] if attention.options else []
        if changed and not (attention.generator or attention.discriminator):
            raise ValueError(
                f"model.attention.{changed[0]} changes nothing, because no side has a block; "
                "set model.attention.generator or model.attention.discriminator, e.g. to [16]"
            )
        ATTENTION[attention.kind].check(self)
        return self

    def seed_of(self, stream: Stream) -> int:
        """Return the seed of a stream of training: the run's, or 0 where the stream is fixed."""
        return 0 if stream in self.training.fixed else self.seed

    @property
    def steps_matter(self) -> bool:
        """Whether a step depends on how many there will be: the kind of attention is told."""
        return "step" in getattr(ATTENTION[self.model.attention.kind], "knows", ())

    def digest(self, data_fingerprint: str) -> str:
        """Return 12 hex digits of SHA-256 over all that changes results.

        The images enter by the fingerprint of their content, so that moving a folder changes
        nothing and changing an image does.  A field declared `later` enters unless neutral.
        ``run.steps`` enters where `steps_matter`.

        Raises:
            ValueError: a value is still ``auto``.
        """
        values = dict(flatten({**self.model_dump(), "own": self.needed}))
        also = {"run.steps": self.run.steps} if self.steps_matter else {}
        return digest(values, neutral_values(type(self)), data_fingerprint, also)


@dataclass(frozen=True)
class Host:
    """What the machine decides where a configuration says ``auto``."""

    bf16: bool
    """The device multiplies bf16 in hardware."""
    extractor: str
    """The best extractor whose weights are at hand."""
    tf32: bool = False
    """The device has TF32 products."""


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _leaves(kind, f"{prefix}{name}.")
        elif kind is not Options:
            yield prefix + name, field


@cache
def field_types() -> dict[str, Any]:
    """Return the annotated type of every leaf by dotted key, but for components' own settings."""
    return {key: field.annotation for key, field in _leaves(RunConfig)}


@cache
def neutral_values(model: type[BaseModel]) -> dict[str, Any]:
    """Return the neutral value of every field declared `later` by dotted key."""
    return {key: field.default for key, field in _leaves(model) if field.json_schema_extra == LATER}
