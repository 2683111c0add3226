"""What is known of a data set before it is prepared; nothing is decoded or written."""

from pathlib import Path
from typing import NamedTuple

from sagan_bench.core.files import obstacle
from sagan_bench.data.checks import no_cache, refuse_little_space, refuse_unreadable, warn
from sagan_bench.data.listing import DataSpec, Listing, digest16
from sagan_bench.data.sources import open_source
from sagan_bench.data.sources._base import Source
from sagan_bench.data.store import BUILDING, Manifest, SplitFacts, open_store, place_of

UNREAD = (
    "what the pictures hold: damaged ones, those smaller than the crop, and classes without any, "
    "show once they are prepared"
)


class Foreseen(NamedTuple):
    """What a data set will be: its manifest, where it is not prepared with the best to hope for.

    ``fingerprint`` is None where it depends on pictures that are not decoded; ``unchecked`` says
    what else does.
    """

    manifest: Manifest
    fingerprint: str | None
    unchecked: tuple[str, ...] = ()


def foresee(spec: DataSpec, cache: Path | None = None, *, skip_bad: bool = False) -> Foreseen:
    """Return what `building.prepare` would make of a data set.

    Raises:
        UserError: as `building.prepare`, where that is known without decoding.
    """
    source = open_source(spec)
    place = place_of(source, cache)
    if store := open_store(place, skip_bad=True):
        manifest = store.manifest.model_copy(update={"remarks": source.remarks})
        refused = [*manifest.refused_first]
        images = sum(split.images for split in manifest.splits.values())
        if not skip_bad:
            refuse_unreadable(refused, manifest.refused, images)
        foreseen = Foreseen(manifest, manifest.fingerprint())
    else:
        listing = source.listing()
        if error := obstacle(place.parent):
            raise no_cache(place, error)
        images = sum(part.images for part in listing.parts.values())
        begun = place.with_name(place.name + BUILDING).glob("*.images.*")
        there = sum(file.stat().st_size for file in begun) // (3 * spec.image_size**2)
        refuse_little_space(place.parent, max(0, images - there), spec.image_size)
        known = source.definition and digest16(source.definition)
        foreseen = Foreseen(_hoped(source, listing), known or None, () if known else (UNREAD,))
    warn(foreseen.manifest)
    return foreseen


def _hoped(source: Source, listing: Listing) -> Manifest:
    """Return the manifest if every picture can be read and every class has some."""
    classes = (1,) * len(listing.classes)
    splits = {
        name: SplitFacts(images=part.images, content_sha256="", images_per_class=classes)
        for name, part in listing.parts.items()
    }
    return Manifest(
        kind=source.name,
        selection=source.selection,
        image_size=source.spec.image_size,
        crop=None,
        fit=None,
        resize=None,
        split_rule=listing.split_rule,
        classes=listing.classes,
        train=splits["train"],
        test=splits.get("test"),
        definition=source.definition,
        pixel_range=(0, 255),
        enlarged=0,
        refused=0,
        refused_first=(),
        remarks=source.remarks,
    )
