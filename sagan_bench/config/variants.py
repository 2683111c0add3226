"""Presets and variants, which are data: where they are shipped, and what a name means."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sagan_bench.core.errors import UserError
from sagan_bench.core.names import closest
from sagan_bench.core.registry import ATTENTION, FAMILIES, unread
from sagan_bench.core.stored import load_toml, table_of
from sagan_bench.core.trees import flatten

Meant = Mapping[str, Mapping[str, dict[str, Any]]]
"""Presets and variants of one's own: `PRESETS` or `VARIANTS` -> name -> what it sets."""
PRESETS, VARIANTS = "presets", "variants"
DEFAULT_PRESET = "twins32"
"""What `train` and `tune` begin with where no preset is named."""
NOTHING: Meant = MappingProxyType({})


def shipped(folder: str) -> Path:
    """Return a shipped folder of data files: inside the installed package, else in the checkout."""
    package = Path(__file__).parent.parent
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


def presets(meant: Meant = NOTHING) -> dict[str, dict[str, Any]]:
    """Return the presets by name: those that are shipped, and of one's own."""
    return _shipped_presets() | dict(meant.get(PRESETS, {}))


@cache
def _shipped_presets() -> dict[str, dict[str, Any]]:
    table = load_toml(Path(__file__).parent / "presets.toml")
    return whole_presets({name: dict(flatten(own)) for name, own in table.items()})


def whole_presets(
    tables: Mapping[str, Mapping[str, Any]], shipped: Mapping[str, Mapping[str, Any]] = NOTHING
) -> dict[str, dict[str, Any]]:
    """Return presets by name; one that ``extends`` another has its settings too.

    Raises:
        UserError: some extend each other.
    """
    known = {**shipped, **tables}

    def whole(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
        if name in above:
            raise UserError(f"{name}: extends itself, by {' and '.join(above)}")
        own = dict(known[name])
        base = own.pop("extends", None)
        return (whole(base, (*above, name)) if base else {}) | own

    return {name: whole(name) for name in tables}


def variants(meant: Meant = NOTHING) -> dict[str, dict[str, Any]]:
    """Return the variants by name; ``says`` is each one's description in words.

    They are those that are shipped, those of one's own, and three of each block of one's own: with
    it, and controls of as many parameters and of as many FLOPs.  Of a block instead of a layer both
    are networks of another width.
    """
    own: dict[str, dict[str, Any]] = {}
    for name in ATTENTION.not_shipped:
        own |= _of_block(name)
    for name in FAMILIES.not_shipped:
        own |= _of_family(name)
    return own | _shipped() | dict(meant.get(VARIANTS, {}))


def refuse_taken(components: Iterable[tuple[str, str]], file: Path) -> None:
    """Refuse components whose names as variants are taken, or mean something else.

    Args:
        components: (name of the registry, name), of which blocks and families are variants.
        file: that registers them.

    Raises:
        UserError: which, and why.
    """
    for name in (name for kind, name in components if kind in ("ATTENTION", "FAMILIES")):
        taken = name in _shipped() or name in ("none", "own") or "-like-" in name
        if taken:
            raise UserError(
                f"{file}: {name!r} is the name of a variant that ships, or has a meaning of its "
                "own; choose another"
            )


def controls(name: str) -> tuple[str, str]:
    """Return the variants that have as many parameters, and as many FLOPs, as a block's."""
    return f"{'sized' if _replaces(name) else 'residual'}-like-{name}", f"wider-like-{name}"


def _replaces(name: str) -> bool:
    return getattr(ATTENTION[name], "place", "after") == "instead"


def _of_block(name: str) -> dict[str, dict[str, Any]]:
    kind, options = "model.attention.kind", "model.attention.options"
    sized, wider = controls(name)
    says = f"The block {name} of one's own in attention's place"
    alike = f"As many parameters as {name} without context: a bottleneck in its place"
    cost = f"As much computation as {name}: no block, wider layers of the same FLOPs"
    as_sized = {kind: "residual", f"{options}.like": name}
    as_wider = {kind: "wider", f"{options}.like": name}
    if _replaces(name):
        says = f"The block {name} of one's own instead of a layer"
        alike = f"As many parameters as {name}: no block, layers of another width"
        cost = f"As much computation as {name}: no block, layers of another width"
        as_sized = {**as_wider, f"{options}.by": "parameters"}
    return {
        name: {"says": says, kind: name},
        sized: {"says": alike, **as_sized},
        wider: {"says": cost, **as_wider},
    }


def _of_family(name: str) -> dict[str, dict[str, Any]]:
    """Return what a family of one's own that is attention itself means: as it is, and otherwise."""
    contrast = contrast_of(name)
    itself = {ARCHITECTURE: name, **{key: [] for key in SIDES}}
    known = {name: {"says": f"The networks {name} as they are", **itself}} if contrast else {}
    for other, settings in contrast.items():
        said = ", ".join(f"{key} = {value}" for key, value in settings.items())
        own = {f"model.options.{key}": value for key, value in settings.items()}
        known[f"{name}-{other}"] = {"says": f"The networks {name} with {said}", **itself, **own}
    return known


def contrast_of(family: str) -> dict[str, dict[str, Any]]:
    """Return what a family of one's own is held against: name -> settings of its own."""
    declared = getattr(FAMILIES[family], "contrast", None)
    named = declared.items() if isinstance(declared, dict) else ()
    return {name: settings for name, settings in named if isinstance(settings, dict)}


@cache
def _shipped() -> dict[str, dict[str, Any]]:
    file = shipped("ablations") / "variants.toml"
    table = load_toml(file)
    for name, settings in table.items():
        if not isinstance(table_of(settings, f"{file}: {name}").get("says"), str):
            raise UserError(f"{file}: {name}: says is missing: what the variant is, in words")
    return table


WORDS = ("says",)
"""What describes a variant: a sentence."""
ARCHITECTURE = "model.architecture"
_NETWORKS = ("generator", "discriminator")
SIDES = tuple(f"model.attention.{network}" for network in _NETWORKS)
_OF_A_KIND = (
    SIDES,
    ("model.attention.gamma_init", "model.attention.gamma_learned"),
    tuple(f"model.spectral_norm.{network}" for network in _NETWORKS),
)
"""Settings of which a variant's sentence tells the whole when it sets any of them."""


def pick(kind: str, name: str, table: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return ``table[name]`` without its description.  Raises `UserError` with the closest."""
    if name not in table:
        otherwise = "name its file by --preset-file" if kind == "preset" else ""
        hint = closest(str(name), list(table), otherwise) + unread()
        raise UserError(f"no {kind} is called '{name}'; {hint}")
    return {key: value for key, value in table[name].items() if key not in WORDS}


def parts(name: str, meant: Meant = NOTHING) -> list[str]:
    """Return the names that ``a+b`` is made of, known or not."""
    return [name] if name in variants(meant) else name.split("+")


def variant_settings(name: str, meant: Meant = NOTHING) -> dict[str, Any]:
    """Return dotted key -> value of a variant; ``a+b`` is what ``a`` and ``b`` change, together.

    Raises:
        UserError: an unknown name, or two parts that set one key to different values.
    """
    merged: dict[str, Any] = {}
    for part in parts(name, meant):
        for key, value in flatten(pick("variant", part, variants(meant))):
            if merged.setdefault(key, value) != value:
                raise UserError(
                    f"variant {name}: its parts set {key} to {merged[key]!r} and to {value!r}; "
                    "combine variants that change different things"
                )
    return merged


def clash(name: str, meant: Meant = NOTHING) -> str | None:
    """Return why no sentence says what ``a+b`` is; null where the sentences of its parts do."""
    of = parts(name, meant)
    if "sagan" in of[1:] or (of[0] == "sagan" and len(of) > 1):
        rest = "+".join(part for part in of if part != "sagan") or "sagan"
        return f"sagan is the preset as it is, and adds nothing; use {rest}"
    for keys in _OF_A_KIND:
        sets = {part: variant_settings(part, meant).keys() for part in of}
        speak = [part for part in of if not sets[part].isdisjoint(keys)]
        if len(speak) > 1:
            return f"{' and '.join(speak)} both say what {' and '.join(keys)} are; choose one"
    return None


def refuse_clash(name: str, meant: Meant = NOTHING) -> None:
    """Refuse ``a+b`` whose parts contradict each other in what they say.  Raises `UserError`."""
    if why := clash(name, meant):
        raise UserError(f"variant {name}: {why}")
