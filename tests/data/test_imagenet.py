from pathlib import Path

import layouts
import numpy as np
import pytest
from PIL import Image

from sagan_bench.core.errors import UserError
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec, Listing
from sagan_bench.data.sources import open_source


def listing(root: Path, **wishes: object) -> Listing:
    return open_source(DataSpec(f"imagenet:{root}", 16, **wishes)).listing()  # type: ignore[arg-type]


def names(source: Listing, split: str) -> list[str]:
    return [name for task in source.parts[split].tasks for name in task.args[1]]  # type: ignore[attr-defined]


def test_train_and_sorted_val(tmp_path: Path) -> None:
    source = listing(layouts.imagenet(tmp_path))
    assert source.classes == layouts.WNIDS
    assert (source.train.images, source.test and source.test.images) == (18, 6)
    assert all(name.startswith("train/n") for name in names(source, "train"))
    assert all(name.startswith("val/n") for name in names(source, "test"))


def test_pixels_and_labels(tmp_path: Path) -> None:
    root = layouts.imagenet(tmp_path / "data")
    data = prepare(DataSpec(f"imagenet:{root}", 16), tmp_path / "cache")
    for row, name in enumerate(names(listing(root), "train")):
        image = (
            Image.open(root / name).crop((5, 0, 45, 40)).resize((16, 16), Image.Resampling.BICUBIC)
        )
        assert np.array_equal(data.train.images[row], np.asarray(image).transpose(2, 0, 1))
        assert layouts.WNIDS[data.train.labels[row]] in name


def test_flat_val_is_not_used_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = listing(layouts.imagenet(tmp_path, val="flat"))
    assert source.test is None
    assert source.train.images == 18
    assert "unused: val/, whose 6 images lie in no class folders" in source.split_rule
    assert "sort its images into class folders" in caplog.text


def test_without_val_all_is_for_training(tmp_path: Path) -> None:
    source = listing(layouts.imagenet(tmp_path, val="none"))
    assert (source.train.images, source.test) == (18, None)


def test_class_folders_alone_hold_a_tenth_out(tmp_path: Path) -> None:
    source = listing(layouts.imagenet(tmp_path, train="", val="none"))
    assert source.classes == layouts.WNIDS
    assert source.test is not None
    assert source.train.images + source.test.images == 18


def test_kaggles_folders_are_suggested(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path / "ILSVRC/Data/CLS-LOC")
    with pytest.raises(UserError, match=r"did you mean imagenet:.*ILSVRC/Data/CLS-LOC\?"):
        listing(tmp_path)
    assert listing(tmp_path / "ILSVRC/Data/CLS-LOC").train.images == 18


@pytest.mark.parametrize("layout", ["names", "loose"])
def test_other_folders_are_refused_with_what_was_found(tmp_path: Path, layout: str) -> None:
    if layout == "names":
        layouts.folder(tmp_path)
    else:
        layouts.picture(0, (9, 9)).save(tmp_path / "a.jpg")
    with pytest.raises(UserError) as caught:
        listing(tmp_path)
    assert ("holds cat, dog" if layout == "names" else "in no class folder") in str(caught.value)
    assert "expected train/<wnid>/*.JPEG" in str(caught.value)
    assert "use folder:PATH" in str(caught.value)


def test_limits(tmp_path: Path) -> None:
    root = layouts.imagenet(tmp_path)
    assert names(listing(root, train_images=5), "train") == names(listing(root), "train")[:5]
    assert listing(root, test_images=0).test is None
