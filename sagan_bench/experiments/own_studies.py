"""Studies with components of one's own: what a file of blocks is by itself, what a study names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sagan_bench.core.errors import UserError
from sagan_bench.core.stored import load_toml
from sagan_bench.experiments.study import Study, load, of_presets, studies
from sagan_bench.experiments.written import file_of, validated


def files_of(study: str) -> list[Path]:
    """Return the files of components that a study names: ``with``, from where it is itself.

    Raises:
        UserError: there is no such study, or that is no list of files.
    """
    file = file_of("study", study, studies())
    named = load_toml(file).get("with", [])
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise UserError(f"{file}: with: expected a list of files, such as ['my_block.py']")
    return [file.parent / name for name in named]


def of_blocks(own: Mapping[str, Any], **changed: Any) -> Study:
    """Return the study of a file's blocks: each beside none, SAGAN's, and controls like it.

    Args:
        own: the file -> its hash, and what it has.
        changed: fields that replace the study's; ``set`` is merged into it.

    Raises:
        UserError: there is no block, or not just one.
    """
    (stem,) = own
    blocks = blocks_in(own)
    if len(blocks) != 1:
        named = f"blocks {', '.join(blocks)}" if blocks else "no block"
        raise UserError(f"{stem}.py has {named}: name a study for it to join, e.g. ablate quick")
    (block,) = blocks
    quick = load("quick")
    fields = quick.model_dump() | {
        "name": f"with-{stem}",
        "question": f"Does {block} help on twins at 32 px, beside SAGAN's block and its own cost?",
        "baseline": block,
        "variants": ("no-attention", "sagan", f"residual-like-{block}", f"wider-like-{block}"),
        "own": dict(own),
    }
    if names := changed.pop("names", None):
        changed |= of_presets(names, changed.get("preset"))
    settings = quick.set | changed.pop("set", {})
    return validated(Study, Path(f"{stem}.py"), {**fields, **changed, "set": settings})


def blocks_in(own: Mapping[str, Any]) -> list[str]:
    """Return the blocks among the components of files."""
    named = (key.partition("/") for described in own.values() for key in described["components"])
    return [name for kind, _, name in named if kind == "ATTENTION"]
