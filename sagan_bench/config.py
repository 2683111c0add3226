"""What a run is: `RunConfig`, its presets and variants as data, typed overrides and the digest.

Every field outside the section ``run`` changes results and enters the digest; no field inside it
does.  One section, one meaning: see docs/adr/0001-digest-and-steps.md.
"""

import difflib
import hashlib
import json
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from sagan_bench.errors import UserError
from sagan_bench.stored import load_toml, parsed_toml, shortened, table_of

DIGEST_SCHEMA = 1
CELEBA_CROP = 160
"""Side of the centre crop of CelebA's 178 x 218 pictures (heykeetae/Self-Attention-GAN)."""

MOST_WHOLE = 2**63 - 1
"""The largest whole number that can be asked for, a seed among them: what tables can hold.

Records of before may have larger ones, and are read.
"""
MOST_NAMED = 30
"""Known names in a hint on an unknown one."""

Sides = Annotated[tuple[int, ...], AfterValidator(lambda sides: tuple(sorted(set(sides))))]
Precision = Literal["auto", "fp32", "tf32", "bf16", "fp64"]
ExtractorName = Literal["auto", "efficientnet-lite0", "inception"]
Crop = Literal["auto"] | Annotated[int, Field(ge=1)] | None
SpectralNormed = Literal["all", "hidden", "none"]
AttentionKind = Literal["full", "icml", "pooled", "uniform", "residual", "wider"]


def device_called(name: str) -> str:
    """Return the name of a device.  Raises ValueError if it is none that we use."""
    if name.partition(":")[0] == "mps":
        raise ValueError(
            "a Mac's GPU is not used, because torch computes wrong gradients there without an "
            "error (docs/gpu.md); use cpu"
        )
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError("expected auto, cpu, cuda or cuda:N")
    return name


def later(neutral: Any, **rest: Any) -> Any:
    """Declare a field that is younger than digests: left out of them while it is ``neutral``.

    So a new field leaves the digests of existing runs as they are.  Its neutral value must mean
    what was computed before there was the field, and can never change.
    """
    return Field(neutral, json_schema_extra={"later": True}, **rest)


class Section(BaseModel):
    """A part of the configuration: immutable, and it refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """Which images, and how they become squares."""

    source: str = Field(
        "twins",
        description="twins, folder:PATH, celeba:PATH, lsun:PATH#CATEGORY, cifar10:PATH, ...",
    )
    image_size: Literal[32, 64, 128, 256] = Field(32, description="side of an image in pixels")
    crop: Crop = Field("auto", description="centre crop in source pixels; auto: CelebA's, or none")
    fit: Literal["centre-crop", "squash"] = Field(
        "centre-crop", description="how an oblong image becomes a square"
    )
    flip: bool = Field(False, description="mirror each training image with probability 1/2")
    train_images: int | None = Field(None, ge=1, description="use this many only; none is all")
    test_images: int | None = Field(None, ge=0, description="likewise, held-out images")

    @property
    def crop_px(self) -> int | None:
        """The side of the centre crop in source pixels, with ``auto`` resolved; None is no crop."""
        if self.crop == "auto":
            return CELEBA_CROP if self.source.startswith("celeba:") else None
        return self.crop


class AttentionConfig(Section):
    """Feature-map sides in pixels that carry a self-attention block; an empty list is none.

    ``kind`` is what stands there.  Attention (`sagan_bench.models.attention`): ``full`` (arXiv v1
    and the seed project), ``icml`` (the paper of 2019), ``pooled`` (its authors' code).  Controls:
    ``uniform`` (every position sees the mean of all), ``residual`` (as many parameters as ``full``,
    no context), ``wider`` (no block; each network has the width of as many FLOPs as with ``full``).
    """

    generator: Sides = Field((16,), description="sides in G")
    discriminator: Sides = Field((16,), description="sides in D")
    kind: AttentionKind = later("full", description="attention or control at these sides")
    gamma_init: float = later(0.0, description="gamma at the start, in y = x + gamma * o")
    gamma_learned: bool = later(True, description="whether gamma is trained")


class SpectralNormConfig(Section):
    """Which convolutions are divided by their spectral norm.

    ``all``: every one; ``hidden``: all but the output's and attention's (the seed project's
    choice); ``none``.
    """

    generator: SpectralNormed = Field("all", description="in G")
    discriminator: SpectralNormed = Field("all", description="in D")


class ModelConfig(Section):
    """The two networks."""

    architecture: Literal["dcgan", "resnet"] = Field("dcgan", description="family of networks")
    width: int = Field(64, ge=8, description="channels of the widest feature map's neighbour")
    z_dim: int = Field(128, ge=1, description="components of the noise vector")
    attention: AttentionConfig = AttentionConfig()
    spectral_norm: SpectralNormConfig = SpectralNormConfig()
    width_factor: int = later(1, ge=1, description="times the width: a known difference, to detect")
    discriminator_sees: Literal["whole", "halves"] = later(
        "whole", description="halves: left and right are scored apart, and the logits averaged"
    )
    classes: int = later(
        0, ge=0, description="classes that G and D are told of (resnet); 0 is unconditional"
    )
    layout: Literal["pyramid", "flat"] = later(
        "pyramid",
        description="resnet: channels double as sides halve; flat: as many on every map, D half",
    )
    initialisation: Literal["torch", "glorot"] = later(
        "torch", description="law of the weights at the start; glorot: uniform, zero biases"
    )


class TrainingConfig(Section):
    """The recipe.  Defaults are the SAGAN paper's (section 4)."""

    loss: Literal["hinge", "wgan-gp"] = Field("hinge", description="adversarial loss")
    gp_weight: float = Field(10.0, ge=0, description="lambda of the gradient penalty (wgan-gp)")
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

    @property
    def learning_rates(self) -> tuple[float, float]:
        """Adam's learning rates of G and D, after ``lr_scale`` and ``lr_d_over_g``."""
        lr_d = self.lr_d if self.lr_d_over_g is None else self.lr_g * self.lr_d_over_g
        return self.lr_scale * self.lr_g, self.lr_scale * lr_d


class EvaluationConfig(Section):
    """How the finished generator is scored."""

    extractor: ExtractorName = Field("auto", description="feature extractor")
    n_real: int | None = Field(
        None, ge=4, description="real images at most; none is the whole split"
    )
    n_fake: int = Field(10_000, ge=4, description="generated images")
    n_floor: int = Field(10_000, ge=2, description="held-out real images, for the floor")
    split: Literal["train", "test"] = Field("train", description="split of the real images")
    sampling_seeds: tuple[int, ...] = Field((0,), min_length=1, description="one score each")
    bn_batches: int = Field(
        64, ge=1, description="batches over which G's BatchNorm statistics are recomputed"
    )
    isc_splits: int = Field(10, ge=1, description="splits of the inception score")
    kid_subsets: int = Field(100, ge=1, description="subsets of the kernel inception distance")
    kid_subset_size: int = Field(1_000, ge=2, description="images in each subset")
    truncation: float | None = later(None, gt=0, description="noise from |z| < this only")
    intra_class: bool = later(False, description="FID within each class too, their mean")


class RunSection(Section):
    """How far, where and with what is written: nothing here changes the result of a step."""

    steps: int = Field(100_000, ge=1, description="generator updates to reach")
    device: Annotated[str, AfterValidator(device_called)] = Field(
        "auto", description="auto, cpu, cuda, cuda:N"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; none is one a core")
    cells_on_device: int = Field(1, ge=1, description="runs that share the device, set by ablate")
    sample_every: int = Field(100, ge=1, description="steps between sample grids")
    eval_every: int | None = Field(None, ge=1, description="steps between scores on the way")
    eval_images: int = Field(512, ge=4, description="generated images for those")
    eval_metrics: Literal["all", "rule"] = Field(
        "all", description="of those; rule: only what twins are scored by, without an extractor"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    log_every: int = Field(10, ge=1, description="steps between rows of metrics.jsonl")
    keep_training_state: bool = Field(False, description="keep optimizers when finished")
    skip_bad: bool = Field(False, description="leave unreadable pictures out, and say so")
    inception_weights: str | None = Field(None, description="file, used if its hash is right")
    tensorboard: bool = Field(False, description="write TensorBoard logs too")


class RunConfig(Section):
    """Everything that a run is.  Immutable; `digest` names what it computes."""

    preset: str = Field("quick", description="where the values began (a label)")
    variant: str = Field("sagan", description="what was changed (a label)")
    name: str = Field("sagan", pattern=r"^[\w][\w.+-]*$", description="the run's name (a label)")
    seed: int = Field(0, ge=0, description="of the weights, the noise and the data's order")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunSection = RunSection()

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        if self.training.loss != "wgan-gp":
            return self
        normed = self.model.spectral_norm
        if (normed.generator, normed.discriminator) != ("none", "none"):
            raise ValueError(
                "loss wgan-gp does not go with spectral normalisation; add --set "
                "model.spectral_norm.generator=none --set model.spectral_norm.discriminator=none"
            )
        if self.training.compile:
            raise ValueError(
                "loss wgan-gp needs second derivatives, which a compiled network lacks; "
                "leave out training.compile"
            )
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
    def _attention_has_effect(self) -> "RunConfig":
        attention, neutral = self.model.attention, neutral_values(AttentionConfig)
        changed = [key for key, value in neutral.items() if getattr(attention, key) != value]
        if changed and not (attention.generator or attention.discriminator):
            raise ValueError(
                f"model.attention.{changed[0]} changes nothing, because no side has a block; "
                "set model.attention.generator or model.attention.discriminator, e.g. to [16]"
            )
        if attention.kind == "wider" and changed != ["kind"]:
            raise ValueError(
                f"model.attention.{changed[-1]} changes nothing, because with kind wider there is "
                "no block; leave it out"
            )
        return self

    def digest(self, data_fingerprint: str) -> str:
        """Return 12 hex digits of SHA-256 over all that changes results.

        The images enter by the fingerprint of their content, so that moving a folder changes
        nothing and changing an image does.  A field declared `later` enters unless neutral.

        Raises:
            ValueError: a value is still ``auto``.
        """
        fields = {k: v for k, v in flatten(self.model_dump()) if _changes_results(k)}
        for key, value in neutral_values(type(self)).items():
            if fields[key] == value:
                del fields[key]
        unresolved = [key for key, value in fields.items() if value == "auto"]
        if unresolved:
            raise ValueError(f"resolve before taking the digest: {', '.join(unresolved)}")
        fields |= {"data.fingerprint": data_fingerprint, "schema": DIGEST_SCHEMA}
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


LABELS = ("preset", "variant", "name")


def _changes_results(key: str) -> bool:
    return key not in LABELS and key != "data.source" and not key.startswith("run.")


@dataclass(frozen=True)
class Host:
    """What the machine decides where a configuration says ``auto``."""

    bf16: bool
    """The device multiplies bf16 in hardware."""
    extractor: Literal["efficientnet-lite0", "inception"]
    """The best extractor whose weights are at hand."""
    tf32: bool = False
    """The device has TF32 products."""


@dataclass(frozen=True)
class Resolved:
    """A configuration, and the origin of each of its values by dotted key."""

    config: RunConfig
    origins: dict[str, str]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for every leaf of a nested mapping."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def field_types(model: type[BaseModel] = RunConfig, prefix: str = "") -> dict[str, Any]:
    """Return the annotated type of every leaf of the configuration by dotted key."""
    types_: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            types_ |= field_types(kind, f"{prefix}{name}.")
        else:
            types_[prefix + name] = kind
    return types_


def neutral_values(model: type[BaseModel] = RunConfig, prefix: str = "") -> dict[str, Any]:
    """Return the neutral value of every field declared `later` by dotted key."""
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind, extra = field.annotation, field.json_schema_extra
        if isinstance(kind, type) and issubclass(kind, Section):
            values |= neutral_values(kind, f"{prefix}{name}.")
        elif isinstance(extra, dict) and extra.get("later"):
            values[prefix + name] = field.default
    return values


def shipped(folder: str) -> Path:
    """Return a shipped folder of data files: inside the installed package, else in the checkout."""
    package = Path(__file__).parent
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


@cache
def presets() -> dict[str, dict[str, Any]]:
    """Return the shipped presets by name; one that ``extends`` another has its settings too."""
    table = load_toml(Path(__file__).parent / "presets.toml")

    def whole(name: str) -> dict[str, Any]:
        own = dict(flatten(table[name]))
        base = own.pop("extends", None)
        return (whole(base) if base else {}) | own

    return {name: whole(name) for name in table}


@cache
def variants() -> dict[str, dict[str, Any]]:
    """Return the shipped variants by name; ``says`` is each one's description in words."""
    file = shipped("ablations") / "variants.toml"
    table = load_toml(file)
    for name, settings in table.items():
        if not isinstance(table_of(settings, f"{file}: {name}").get("says"), str):
            raise UserError(f"{file}: {name}: says is missing: what the variant is, in words")
    return table


def closest(word: str, known: Sequence[str]) -> str:
    """Return a hint such as ``did you mean 'seed'?``, else the known words."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean '{near[0]}'?"
    more = f" and {len(known) - MOST_NAMED:,} more" if len(known) > MOST_NAMED else ""
    return f"known are: {', '.join(known[:MOST_NAMED])}{more}"


def pick(kind: str, name: str, table: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return ``table[name]`` without its description.  Raises `UserError` with the closest name."""
    if name not in table:
        raise UserError(f"no {kind} is called '{name}'; {closest(str(name), list(table))}")
    return {key: value for key, value in table[name].items() if key != "says"}


def variant_settings(name: str) -> dict[str, Any]:
    """Return dotted key -> value of a variant; ``a+b`` is what ``a`` and ``b`` change, together.

    Raises:
        UserError: an unknown name, or two parts that set one key to different values.
    """
    table = variants()
    merged: dict[str, Any] = {}
    for part in (name,) if name in table else name.split("+"):
        for key, value in flatten(pick("variant", part, table)):
            if merged.setdefault(key, value) != value:
                raise UserError(
                    f"variant {name}: its parts set {key} to {merged[key]!r} and to {value!r}; "
                    "combine variants that change different things"
                )
    return merged


def parse_set(text: str) -> tuple[str, Any]:
    """Split ``section.key=value``; the value is read as TOML, or else as a plain word."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: expected section.key=value, e.g. --set training.lr_g=2e-4")
    try:
        return key.strip(), parsed_toml(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()
    except ValueError as error:
        raise UserError(f"--set {key.strip()}: {error}") from error


def read(
    *,
    preset: str | None = None,
    variant: str | None = None,
    file: Path | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, tuple[str, Any]] | None = None,
) -> Resolved:
    """Return the whole configuration as it was asked for, and who set each value.

    Later wins: defaults, preset, variant, file, first-class options, ``--set``.

    Args:
        preset: name of a shipped preset; else the file's, else ``quick``.
        variant: name of a shipped variant; else the file's, else ``sagan``.
        file: a TOML file with the sections of `RunConfig`.
        sets: texts ``section.key=value``.
        flags: dotted key -> (option as typed, value).

    Raises:
        UserError: an unknown key or name, or a value out of range: what, who set it, the closest.
    """
    written = load_toml(file) if file else {}
    for key in LABELS[:2]:
        if not isinstance(written.get(key, ""), str):
            raise UserError(f"{file}: {key} = {shortened(written[key])}: expected a name")
    preset = preset or written.get("preset") or "quick"
    variant = variant or written.get("variant") or "sagan"
    written = {key: value for key, value in written.items() if key not in LABELS[:2]}
    return assemble(
        preset,
        variant,
        (f"variant {variant}", variant_settings(variant)),
        (str(file), written),
        *((option, {key: value}) for key, (option, value) in (flags or {}).items()),
        *(("--set", dict([parse_set(text)])) for text in sets),
    )


def assemble(preset: str, variant: str, *layers: tuple[str, Mapping[str, Any]]) -> Resolved:
    """Return the configuration of layers (who sets it, settings) over a preset; later wins.

    ``variant`` is only the label: its settings are a layer too, because a study lets them win over
    the command line, and a single run the other way round.

    Raises:
        UserError: as `read`.
    """
    types_ = field_types()
    values: dict[str, Any] = {"preset": preset, "variant": variant, "name": variant}
    origins = dict.fromkeys(types_, "default") | dict.fromkeys(LABELS, "chosen")
    for origin, layer in ((f"preset {preset}", pick("preset", preset, presets())), *layers):
        for key, value in flatten(layer):
            _refuse_unknown(key, origin, types_)
            if key in LABELS[:2]:  # by now they only name what was chosen
                raise UserError(f"{origin}: choose it with --{key} {value}")
            values[key] = None if value == "none" and _optional(types_[key]) else value
            origins[key] = origin
    return Resolved(_validate(values, origins), origins)


def decide(asked: Resolved, host: Host) -> Resolved:
    """Replace every ``auto`` by what the host has.

    Gradient penalties are taken in fp32, because they are differentiated twice.

    Raises:
        UserError: TF32 was asked for where there is none.
    """
    config, decided = asked.config, dict[str, Any]()
    if config.data.crop == "auto":
        decided["data.crop"] = config.data.crop_px
    if config.training.precision == "auto":
        usable = host.bf16 and config.training.loss != "wgan-gp"
        decided["training.precision"] = "bf16" if usable else "fp32"
    if config.training.precision == "tf32" and not host.tf32:
        raise UserError("training.precision = tf32: this device has none; use fp32, bf16 or auto")
    if config.evaluation.extractor == "auto":
        decided["evaluation.extractor"] = host.extractor
    values = dict(flatten(config.model_dump())) | decided
    origins = asked.origins | dict.fromkeys(decided, "this machine")
    if "data.crop" in decided:
        origins["data.crop"] = "auto, by data.source"
    return Resolved(RunConfig.model_validate(_nested(values)), origins)


def resolve(host: Host, **asked: Any) -> Resolved:
    """Return what `read` returns, without ``auto``.  Raises `UserError` as `read` and `decide`."""
    return decide(read(**asked), host)


def override(config: RunConfig, given: Mapping[str, tuple[str, Any]]) -> RunConfig:
    """Return ``config`` with the values of dotted key -> (who set it, value).

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    values = dict(flatten(config.model_dump()))
    for key, (origin, value) in given.items():
        _refuse_unknown(key, origin, values)
        values[key] = None if value == "none" and _optional(field_types()[key]) else value
    return _validate(values, {key: origin for key, (origin, _) in given.items()})


def _refuse_unknown(key: str, origin: str, types_: Mapping[str, Any]) -> None:
    if key not in types_:
        raise UserError(f"{origin}: no setting is called '{key}'; {closest(key, list(types_))}")


def _optional(kind: Any) -> bool:
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return is_union and type(None) in typing.get_args(kind)


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, leaf = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree


def _validate(values: Mapping[str, Any], origins: Mapping[str, str]) -> RunConfig:
    for key, value in values.items():
        if any(not -MOST_WHOLE <= number <= MOST_WHOLE for number in _whole_numbers(value)):
            raise UserError(
                f"{key} = {shortened(value)} ({origins.get(key, 'default')}): whole numbers go up "
                f"to {MOST_WHOLE} (63 bits)"
            )
    try:
        return RunConfig.model_validate(_nested(values))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = _setting(problem["loc"])
            given = f"{key} = {shortened(problem['input'])}"
            where = f"{given} ({origins.get(key, 'default')}): " if key else ""
            lines.append(where + problem["msg"].removeprefix("Value error, "))
        raise UserError("\n".join(lines)) from error


def _whole_numbers(value: Any) -> Iterator[int]:
    for one in value if isinstance(value, list | tuple) else (value,):
        if isinstance(one, list | tuple):
            yield from _whole_numbers(one)
        elif isinstance(one, int):
            yield one


def _setting(loc: tuple[int | str, ...]) -> str:
    """Return the dotted key of an error, without list positions and the branches of a union."""
    key = ".".join(str(part) for part in loc if not isinstance(part, int))
    known = field_types()
    while key and key not in known and key.rpartition(".")[0] in known:
        key = key.rpartition(".")[0]
    return key
