"""Where studies come from: files that ship, those of users, and files of components."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sagan_bench.config import preset_files
from sagan_bench.config.meanings import chosen_preset, only_preset
from sagan_bench.config.used import used
from sagan_bench.config.variants import NOTHING, Meant, contrast_of, controls
from sagan_bench.config.variants import shipped as folder
from sagan_bench.core.errors import UserError
from sagan_bench.core.stored import load_toml
from sagan_bench.experiments.study import Study
from sagan_bench.experiments.written import file_of, flattened, validated

DEFAULT_STUDY = "twins32"
"""What `ablate` runs where none is named; that of a file of one's own is like it."""


def shipped() -> dict[str, Path]:
    """Return the files of the shipped studies by name."""
    files = sorted(folder("ablations").glob("*.toml"))
    return {file.stem: file for file in files if file.stem != "variants"}


def of_presets(names: Meant, preset: str | None) -> dict[str, Any]:
    """Return the fields of a study with presets of one's own, one of which is named maybe."""
    chosen = chosen_preset(names, preset)
    return {"preset": chosen, "presets": only_preset(names, chosen)}


def load(study: str, **changed: Any) -> Study:
    """Return a shipped study by name, or one from a file.

    Args:
        study: its name, or the path of a TOML file.
        changed: fields that replace the file's; ``set`` is merged into it, and ``names`` are those
            of presets of one's own.  What files of ``own`` have is used where neither says
            otherwise.

    Raises:
        UserError: there is no such study, or it cannot be: which field, and why.
    """
    file = file_of("study", study, shipped())
    written = flattened(load_toml(file), file, "set")
    written.pop("with", None)  # who loads these files gives them as ``own``
    names = changed.pop("names", NOTHING)
    if presets_file := written.pop("preset-file", None):
        if not isinstance(presets_file, str):
            raise UserError(f"{file}: preset-file: expected a file, such as 'my_presets.toml'")
        names = names or preset_files.load(file.parent / presets_file)
    if names:
        changed |= of_presets(names, changed.get("preset") or written.get("preset"))
    typed = changed.pop("set", {})
    settings = used(changed.get("own", {})) | written["set"] | typed
    known = validated(Study, file, {"name": file.stem, **written, **changed, "set": settings})
    known._typed = frozenset(typed)
    return known


def files_of(study: str) -> list[Path]:
    """Return the files of components that a study names: ``with``, from where it is itself.

    Raises:
        UserError: there is no such study, or that is no list of files.
    """
    file = file_of("study", study, shipped())
    named = load_toml(file).get("with", [])
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise UserError(f"{file}: with: expected a list of files, such as ['my_block.py']")
    return [file.parent / name for name in named]


def of_files(own: Mapping[str, Any], **changed: Any) -> Study:
    """Return the study that a file is by itself.

    Of a block: beside none, SAGAN's, and controls like it.  Of a family that is attention itself:
    as it is, beside what it declares as its contrast.

    Args:
        own: the file -> its hash, and what it has.
        changed: fields that replace the study's; ``set`` is merged into it.

    Raises:
        UserError: there is neither, or not just one of either.
    """
    stem, usual = " and ".join(own), load(DEFAULT_STUDY)
    blocks = components_in(own, "ATTENTION")
    families = [name for name in components_in(own, "FAMILIES") if contrast_of(name)]
    if len(blocks) + len(families) != 1:
        named = " and ".join([*blocks, *families]) or "no block, and no family with a contrast"
        raise UserError(
            f"{stem}.py has {named}: name a study for it to join, e.g. ablate {DEFAULT_STUDY}"
        )
    (baseline,) = (*blocks, *families)
    if blocks:
        question = f"Does {baseline} help on twins at 32 px, beside SAGAN's block and its own cost?"
        variants = ["no-attention", "sagan", *controls(baseline)]
    else:
        question = f"Do the networks {baseline} on twins at 32 px need what they are made of?"
        variants = [f"{baseline}-{name}" for name in contrast_of(baseline)]
    fields = usual.model_dump() | {
        "name": f"with-{'-'.join(own)}",
        "question": question,
        "baseline": baseline,
        "variants": tuple(variants),
        "own": dict(own),
    }
    if names := changed.pop("names", None):
        changed |= of_presets(names, changed.get("preset"))
    settings = used(own) | usual.set | changed.pop("set", {})
    return validated(Study, Path(f"{stem}.py"), {**fields, **changed, "set": settings})


def components_in(own: Mapping[str, Any], kind: str) -> list[str]:
    """Return the components of a kind, the name of its registry, in files."""
    named = (key.partition("/") for described in own.values() for key in described["components"])
    return [name for of, _, name in named if of == kind]
