"""CIFAR-100."""

from sagan_bench.core.registry import SOURCES
from sagan_bench.data.sources._cifar import Cifar


@SOURCES.register("cifar100")
class Cifar100(Cifar):
    """``cifar-100-python`` in a folder: the 100 fine classes."""

    usage = "cifar100:PATH"
    folder_name = "cifar-100-python"
    md5 = "eb9058c3a382ffc7106e4002c42a8d85"
    train_batches = ("train",)
    test_batch = "test"
    meta = "meta"
    names_key = b"fine_label_names"
    labels_key = b"fine_labels"
