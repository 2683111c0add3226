"""CIFAR-10."""

from sagan_bench.core.registry import SOURCES
from sagan_bench.data.sources._cifar import Cifar


@SOURCES.register("cifar10")
class Cifar10(Cifar):
    """``cifar-10-batches-py`` in a folder: 10 classes."""

    usage = "cifar10:PATH"
    folder_name = "cifar-10-batches-py"
    md5 = "c58f30108f718f92721af3b95e74349a"
    train_batches = tuple(f"data_batch_{number}" for number in range(1, 6))
    test_batch = "test_batch"
    meta = "batches.meta"
    names_key = b"label_names"
    labels_key = b"labels"
