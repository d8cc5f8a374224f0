"""Data sets in the files that torchvision reads, already on disk: nothing is downloaded.

CIFAR's files are pickles; torchvision opens them only where their md5 is the published one.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from bigtrain.data.sources.found import Found, Source
from bigtrain.recipe.errors import DataError, UsageError

SPLITS = ("train", "test")


def _by_flag(name: str) -> Callable[[str, str], Any]:
    def make(root: str, split: str) -> Any:
        from torchvision import datasets  # heavy, and needed for these data sets alone

        return getattr(datasets, name)(root, train=split == "train", download=False)

    return make


def _by_split(name: str) -> Callable[[str, str], Any]:
    def make(root: str, split: str) -> Any:
        from torchvision import datasets

        return getattr(datasets, name)(root, split=split, download=False)

    return make


PACKAGED: dict[str, Callable[[str, str], Any]] = {
    **{name: _by_flag(name) for name in ("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST")},
    **{name: _by_split(name) for name in ("SVHN", "STL10")},
}
"""How each data set is opened from (root, split)."""


def find_packaged(name: str, root: Path, split: str = "train") -> Found:
    """Return the images of one of torchvision's data sets in its own order.

    Args:
        name: a key of PACKAGED.
        root: the folder that torchvision calls `root`.
        split: "train" or "test".

    Raises:
        UsageError: no such data set.
        DataError: its files are not in `root`, or not the published ones.
    """
    if name not in PACKAGED:
        raise UsageError(
            f"{name!r} is none of {', '.join(PACKAGED)}; folders of images are read by `bigtrain shards folder`"
        )
    try:
        data = _opened(name, str(root), split)
    except (RuntimeError, OSError, ValueError) as error:
        raise DataError(
            f"{root} does not hold {name} as torchvision reads it ({' '.join(str(error).split())}); put its files there"
        ) from error
    labels = [int(label) for label in (data.targets if hasattr(data, "targets") else data.labels)]
    classes = getattr(data, "classes", None) or [str(label) for label in range(max(labels) + 1)]
    sources = [
        Source(root / f"{name}-{split}" / str(number), label, (str(root), name, split, number))
        for number, label in enumerate(labels)
    ]
    return Found(tuple(map(str, classes)), sources, {}, read_packaged, f"{name} ({split}), as torchvision reads it")


def read_packaged(source: Source) -> Image.Image:
    """Return the pixels of an image."""
    root, name, split, number = source.place
    image = _opened(str(name), str(root), str(split))[int(number)][0]
    assert isinstance(image, Image.Image), type(image)
    return image


@lru_cache(maxsize=2)
def _opened(name: str, root: str, split: str) -> Any:
    """Open a data set once; forked processes read the same memory."""
    return PACKAGED[name](root, split)
