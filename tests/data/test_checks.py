import pytest
from test_store import manifest

from sagan_bench.core.errors import UserError
from sagan_bench.data.checks import check
from sagan_bench.data.store import SplitFacts


def test_good_data_pass() -> None:
    check(manifest(64), batch_size=64)
    two = {
        "classes": ("a", "b"),
        "train": SplitFacts(images=9, content_sha256="", images_per_class=(4, 5)),
    }
    check(manifest(9).model_copy(update=two), batch_size=8, conditional=True)


def test_fewer_images_than_a_batch() -> None:
    with pytest.raises(UserError, match="takes 64 images, the training split has 63"):
        check(manifest(63), batch_size=64)


@pytest.mark.parametrize("pixel_range", [(0, 0), (255, 255), (0, 1)])
def test_pixels_that_show_nothing(pixel_range: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=f"between {pixel_range[0]} and {pixel_range[1]} of 255"):
        check(manifest(9).model_copy(update={"pixel_range": pixel_range}), batch_size=4)


def test_conditional_on_one_class() -> None:
    check(manifest(9), batch_size=4)
    with pytest.raises(UserError, match=r"the data have one \(a\); is the path one folder level"):
        check(manifest(9), batch_size=4, conditional=True)


def test_class_without_images() -> None:
    facts = SplitFacts(images=9, content_sha256="", images_per_class=(9, 0, 0))
    holed = manifest(9).model_copy(update={"classes": ("a", "b", "c"), "train": facts})
    check(holed, batch_size=4)
    with pytest.raises(UserError, match=r"2 of 3 classes have no training image \(b, c\)"):
        check(holed, batch_size=4, conditional=True)
