"""What makes two figures comparable: extractor, images, sampling and settings of the metrics."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from sagan_bench.config.options import Options
from sagan_bench.config.schema import Weights
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import EXTRACTORS
from sagan_bench.evaluation.metrics import extractor_of, of_key
from sagan_bench.runs.program import PROGRAM, ProgramProtocol

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
PICTURES = "pictures of a folder"
"""In place of a law of z."""
Count = Annotated[int, Field(ge=1)]


class Protocol(BaseModel):
    """How a figure was made.  Two figures may be compared if their protocols are equal.

    Left out is what they are compared for: the networks, their weights and how they were trained.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    extractor: str = Field(description="name of the extractor")
    layer: str = Field(description="its layer for FID, KID, precision and recall")
    isc_layer: str = Field(description="its layer for the inception score")
    dimensions: Count = Field(description="width of `layer`")
    resize: str = Field(description="how the extractor brings images to its own size")
    weights_sha256: Sha256 = Field(description="of the file that holds the extractor's weights")
    precision: Literal["fp32"] = Field("fp32", description="of scoring, not of training")

    data: str = Field(description="fingerprint of the real images after crop and resize")
    split: str = Field(description="split of the real images")
    n_real: int = Field(description="real images")
    real_choice: Literal["seeded permutation"] = Field(
        "seeded permutation",
        description="which images of the split; the same for every run",
    )

    n_fake: int = Field(description="generated images")
    sampling_seed: int = Field(description="of z and labels")
    z_law: str = Field(
        "normal by (seed, index)",
        pattern=rf"^({PICTURES}|normal by \(seed, index\)(, \|z\| < \d+(\.\d+)?)?)$",
        description="image i depends on seed and i alone; where noise is truncated; or that the "
        "images are pictures of a folder",
    )
    label_law: Literal["none", "uniform", "balanced"] = Field(
        description="how labels are drawn; balanced: image i has class i mod their number"
    )
    rounding: Literal["half-even"] = Field("half-even", description="from [-1, 1] to uint8")
    weights: Weights = Field(description="which weights of G drew the images")
    ema_decay: float | None = Field(description="per generator update; null for raw weights")
    batchnorm: str = Field(description="origin of BatchNorm's statistics: standing-<n>x<batch>")

    isc_splits: Count = Field(10, description="parts of the set, each with its own IS")
    kid_subsets: Count = Field(100, description="random subsets of KID")
    kid_subset_size: int = Field(1_000, ge=2, description="images in each")
    prc_neighborhood: Count = Field(3, description="k of the k-nearest-neighbour balls")
    intra_class: bool = Field(False, description="FID within each class too, and their mean")
    options: Options = Field(
        Options(), description="settings of the extractor's and the metrics' own; absent if none"
    )
    torch_fidelity: str = Field(
        default_factory=lambda: version("torch-fidelity"),
        description="its version; settings not named here are its defaults",
    )

    @classmethod
    def fitted(cls, **fields: Any) -> Self:
        """Return the protocol with KID's subsets and IS's splits cut down to what small sets allow.

        A KID subset takes at most half of the smaller set: a subset that is the whole set shows no
        spread.  Each split of IS keeps at least two images: IS of one image is 1 by definition.
        """
        n_real, n_fake = fields["n_real"], fields["n_fake"]
        default = {key: cls.model_fields[key].default for key in ("kid_subset_size", "isc_splits")}
        fields = default | fields
        fields["kid_subset_size"] = min(fields["kid_subset_size"], n_real // 2, n_fake // 2)
        fields["isc_splits"] = min(fields["isc_splits"], n_fake // 2)
        _refuse_too_few(n_real, n_fake, fields.get("prc_neighborhood", 3))
        return cls(**fields)

    @property
    def least_images(self) -> int:
        """The smallest set for which every metric exists."""
        return least_images_of(self.prc_neighborhood)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        _refuse_too_few(self.n_real, self.n_fake, self.prc_neighborhood)
        smaller = min(self.n_real, self.n_fake)
        if self.kid_subset_size > smaller:
            raise UserError(
                f"a KID subset takes {self.kid_subset_size} images and the smaller set has "
                f"{smaller}; lower kid_subset_size or raise the number of images"
            )
        if self.isc_splits > self.n_fake // 2:
            raise UserError(
                f"{self.isc_splits} splits of {self.n_fake} generated images leave fewer than two "
                "in each; lower isc_splits or raise n_fake"
            )
        if (self.weights == "ema") != (self.ema_decay is not None):
            raise ValueError("EMA weights have a decay, raw weights have none")
        return self

    @model_serializer(mode="wrap")
    def _stored(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """``options`` are younger than protocols, and left out where there are none."""
        fields: dict[str, Any] = handler(self)
        return {key: value for key, value in fields.items() if key != "options" or value}

    def require(self, **given: object) -> None:
        """Raise ValueError where what is given is not the protocol's."""
        for field, value in given.items():
            if value != getattr(self, field):
                raise ValueError(
                    f"the protocol's {field} is {getattr(self, field)}, given were {value}"
                )

    def fingerprint(self) -> str:
        """Return 12 hex digits of SHA-256 over all fields as canonical JSON.

        ``intra_class`` is younger than fingerprints and left out while false.
        """
        fields = self.model_dump(mode="json", exclude=None if self.intra_class else {"intra_class"})
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def label(self, metric: str) -> str:
        """Return a metric's name for readers: ``FID`` from Inception, else ``FID[effnet-lite0]``.

        A metric that needs no extractor keeps its key.
        """
        return label(metric, self.extractor)


AnyProtocol = Protocol | ProgramProtocol


def stored(protocol: Mapping[str, Any]) -> AnyProtocol:
    """Return a protocol of a record: one of ours, or of another program."""
    is_ours = protocol.get("by") != PROGRAM
    return (Protocol if is_ours else ProgramProtocol).model_validate(protocol)


def least_images_of(neighbours: int = 3) -> int:
    """Return how many images a set has at least, so that every metric exists."""
    return max(4, neighbours + 1)


def _refuse_too_few(n_real: int, n_fake: int, neighbours: int) -> None:
    """Raise `UserError` if a set is too small for its metrics to exist."""
    least = least_images_of(neighbours)
    if min(n_real, n_fake) < least:
        raise UserError(
            f"{n_fake} generated and {n_real} real images are too few to score; "
            f"raise evaluation.n_fake and evaluation.n_real to at least {least}"
        )


def label_in(key: str, protocol: Mapping[str, Any]) -> str:
    """Return a metric's name for readers by a stored protocol, of ours or of another program."""
    return key if protocol.get("by") == PROGRAM else label(key, protocol.get("extractor"))


def label(key: str, extractor: str | None) -> str:
    """Return what `Protocol.label` returns, of an extractor; None is one that is not known."""
    metric = of_key(key)
    if metric is None:
        return key
    name = f"{metric.title} std" if key == metric.spread else metric.title or key
    by = extractor_of(metric, extractor)
    return name + suffix(by) if by else name


def suffix(extractor: str) -> str:
    """Return what figures by an extractor end in: nothing where they are the published metrics."""
    own = EXTRACTORS[extractor].suffix if extractor in EXTRACTORS else None
    return f"[{extractor}]" if own is None else own
