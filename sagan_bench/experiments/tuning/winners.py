"""The winner of a search as a file for ``train --config``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sagan_bench.config.belonging import has
from sagan_bench.config.variants import variant_settings
from sagan_bench.core.files import atomic_write
from sagan_bench.experiments.tuning.definition import Tuning, TuningManifest
from sagan_bench.experiments.tuning.findings import Findings, looked

SCORED_SIZES = (
    "evaluation.n_real", "evaluation.n_fake", "evaluation.n_floor", "evaluation.sampling_seeds",
    "evaluation.bn_batches", "evaluation.isc_splits", "evaluation.kid_subsets",
    "evaluation.kid_subset_size", "run.eval_images",
)  # fmt: skip
"""How much is scored: small in a search, and never that of the training which follows."""


def write_best(manifest: TuningManifest, folder: Path, findings: Findings) -> None:
    """Write ``best-<variant>.toml``, where it is not there, for each variant with a winner."""
    for variant in manifest.tuning.variants:
        file, text = folder / best_name(variant), best(manifest, findings, variant)
        if text and not file.exists():
            atomic_write(file, text.encode())


def best_name(variant: str) -> str:
    """Return the name of the file with a variant's winner."""
    return f"best-{variant}.toml"


def best(manifest: TuningManifest, findings: Findings, variant: str) -> str | None:
    """Return a variant's winner as a file for ``train --config``; None if none is confirmed."""
    search = findings.first(variant)
    if search.winner is None or search.missing:
        return None
    name, seeds = findings.labels[0], ", ".join(map(str, search.winner.on_b))
    reported, before = (
        "none: a run was lost" if figure is None else f"{figure:.4g}"
        for figure in (search.reported, search.untuned)
    )
    said = search.winner.searched
    its_search = "" if said is None else f"; its search said {said:.4g}"
    remarks = [
        f"{findings.name}: trial {search.chosen} of search {search.id}, "
        f"{findings.steps} steps each; a training has the preset's.",
        f"{name} on seeds on which nothing was chosen ({seeds}): {reported}{its_search}.",
        f"The preset's own values there: {before}.",
    ]
    if manifest.looks:
        remarks.append(looked(manifest.looks))
    return exported(manifest.tuning, variant, search.winner.params, remarks)


def exported(
    tuning: Tuning, variant: str, params: Mapping[str, Any], remarks: Sequence[str] = ()
) -> str:
    """Return a TOML file for ``train --config``: the trial's values over the preset.

    The budget of a trial, and how much of it was scored, are left out: a training has the preset's.
    What the variant decides is left to it, as in the trials.
    """
    lasting = {
        key: value
        for key, value in tuning.fixed.items()
        if key in tuning.settings or not key.startswith(("run.", "evaluation."))
    }
    sizes = [key for key in tuning.settings if key in SCORED_SIZES]
    own = {"run.steps", *sizes, *variant_settings(variant)}
    config = tuning.requested(variant, 0).config
    settings = {
        key: value
        for key, value in {**lasting, **params}.items()
        if key not in own and has(config, key)
    }
    if sizes:
        names = ", ".join(key.rpartition(".")[2] for key in sizes)
        remarks = [*remarks, f"Scored as the preset says: the search's {names} are left out."]
    lines = [f"# {remark}" for remark in remarks]
    lines += [f"preset = {json.dumps(tuning.preset)}", f"variant = {json.dumps(variant)}"]
    lines += [
        f"{key} = {json.dumps('none' if value is None else value)}"
        for key, value in settings.items()
    ]
    return "\n".join(lines) + "\n"
