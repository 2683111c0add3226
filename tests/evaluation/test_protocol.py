import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import EXTRACTORS, METRICS
from sagan_bench.evaluation.protocol import Protocol


def protocol(of: str = "efficientnet-lite0", **changes: Any) -> Protocol:
    fields: dict[str, Any] = {
        "data": "0123456789abcdef",
        "split": "train",
        "n_real": 5_000,
        "n_fake": 2_048,
        "sampling_seed": 0,
        "label_law": "none",
        "weights": "ema",
        "ema_decay": 0.999,
        "batchnorm": "standing-64x64",
    }
    return Protocol(**EXTRACTORS[of].facts() | fields | changes)


def test_equal_protocols_have_equal_fingerprints() -> None:
    assert protocol().fingerprint() == protocol().fingerprint()
    assert len(protocol().fingerprint()) == 12
    int(protocol().fingerprint(), 16)


def test_fingerprint_survives_json() -> None:
    stored = json.dumps(protocol().model_dump(mode="json"))
    assert Protocol.model_validate(json.loads(stored)).fingerprint() == protocol().fingerprint()


def test_fingerprint_is_the_same_on_every_machine() -> None:
    fixed = protocol(torch_fidelity="0.4.0")
    assert fixed.fingerprint() == "1689c60975c3"


CHANGES: dict[str, Any] = {
    "extractor": "other",
    "layer": "other",
    "isc_layer": "other",
    "dimensions": 7,
    "resize": "other",
    "weights_sha256": "0" * 64,
    "data": "other",
    "split": "test",
    "n_real": 4_000,
    "n_fake": 4_000,
    "sampling_seed": 1,
    "label_law": "uniform",
    "z_law": "normal by (seed, index), |z| < 2",
    "intra_class": True,
    "options": {"kid_mean": {"degree": 2}},
    "ema_decay": 0.99,
    "batchnorm": "running",
    "isc_splits": 1,
    "kid_subsets": 10,
    "kid_subset_size": 500,
    "prc_neighborhood": 5,
    "torch_fidelity": "0.5.0",
}


@pytest.mark.parametrize("field", CHANGES)
def test_every_fact_moves_the_fingerprint(field: str) -> None:
    assert protocol(**{field: CHANGES[field]}).fingerprint() != protocol().fingerprint()


def test_every_field_is_covered_above() -> None:
    constants = {"precision", "real_choice", "z_law", "rounding"}
    assert set(Protocol.model_fields) == set(CHANGES) | constants | {"weights"}
    for constant in constants:
        with pytest.raises(ValidationError):
            protocol(**{constant: "other"})


def test_options_are_absent_where_there_are_none() -> None:
    assert "options" not in protocol().model_dump(mode="json")
    given = protocol(options={"kid_mean": {"degree": 2}})
    assert Protocol.model_validate(given.model_dump(mode="json")) == given


def test_ema_and_raw_weights_of_one_run_have_two_fingerprints() -> None:
    raw = protocol(weights="raw", ema_decay=None)
    assert raw.fingerprint() != protocol().fingerprint()


@pytest.mark.parametrize("given", [{"ema_decay": None}, {"weights": "raw"}])
def test_a_decay_belongs_to_ema_weights_only(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="EMA weights have a decay"):
        protocol(**given)


def test_unknown_fields_and_changes_are_refused() -> None:
    with pytest.raises(ValidationError):
        protocol(training_precision="bf16")
    with pytest.raises(ValidationError):
        protocol().n_fake = 3  # type: ignore[misc]


NAMES = {
    "fid": "FID",
    "intra_fid": "intra-class FID",
    "isc_mean": "IS",
    "isc_std": "IS std",
    "kid_mean": "KID",
    "kid_std": "KID std",
    "precision": "precision",
    "recall": "recall",
}


@pytest.mark.parametrize("key", NAMES)
def test_only_inception_figures_have_plain_names(key: str) -> None:
    assert protocol("inception").label(key) == NAMES[key]
    assert protocol().label(key) == f"{NAMES[key]}[effnet-lite0]"
    assert protocol(extractor="mine").label(key) == f"{NAMES[key]}[mine]"


def test_a_metric_without_an_extractor_keeps_its_key() -> None:
    assert protocol().label("twin_rate") == "twin_rate"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_fake": 3}, "3 generated and 5000 real images are too few"),
        ({"n_real": 3}, "2048 generated and 3 real images are too few"),
        ({"prc_neighborhood": 3_000}, "at least 3001"),
        ({"n_fake": 999}, "subset takes 1000 images and the smaller set has 999"),
        ({"isc_splits": 1_025}, "1025 splits of 2048"),
    ],
)
def test_impossible_sizes_are_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        protocol(**given)


@given(
    n_real=st.integers(4, 5_000),
    n_fake=st.integers(4, 5_000),
    wanted=st.integers(2, 2_000),
    splits=st.integers(1, 20),
)
def test_fitted_is_always_possible(n_real: int, n_fake: int, wanted: int, splits: int) -> None:
    fields = protocol().model_dump() | {"n_real": n_real, "n_fake": n_fake}
    fields |= {"kid_subset_size": wanted, "isc_splits": splits}
    fitted = Protocol.fitted(**fields)
    assert fitted.kid_subset_size == min(wanted, n_real // 2, n_fake // 2)
    assert fitted.isc_splits == min(splits, n_fake // 2)
    assert fitted.n_fake == n_fake


def test_fitted_fills_in_the_usual_settings() -> None:
    fields = protocol().model_dump(exclude={"kid_subset_size", "isc_splits"})
    assert Protocol.fitted(**fields) == protocol()
    with pytest.raises(UserError, match="too few"):
        Protocol.fitted(**fields | {"n_fake": 1})


def doubts(under: Protocol) -> list[str]:
    return [text for metric in METRICS.values() for text in metric.doubts(under)]


def test_doubtful_sizes_are_named() -> None:
    assert doubts(protocol()) == []
    small = doubts(protocol(n_fake=1_000))
    assert [text.partition(":")[0] for text in small] == ["n<d", "every subset is a whole set"]
    assert "FID[effnet-lite0] from 1000 generated images" in small[0]
    both = doubts(protocol("inception", n_real=2_000, n_fake=2_000))
    assert len(both) == 2
    assert all("2048 dimensions" in text for text in both)
