"""Sets of images to be judged or to judge by: shards, a folder or zip of image files, an `.npz` of pixels.

Every set is read by number, so that ranks share the work without telling each other; nothing is unpickled, and no
image is decompressed before its header was read. All images of a set have one size and one number of channels.

Axes: N images, C channels, H height, W width.
"""

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bigtrain.data.decode import DEFAULT_MAX_PIXELS, decode_into
from bigtrain.data.header import Header, read_header
from bigtrain.data.index import INDEX_NAME
from bigtrain.data.shards import ShardSet
from bigtrain.evaluation.arrays import CHANNELS, Arrays
from bigtrain.evaluation.run_folders import is_run, names_of_runs
from bigtrain.metrics.exchange import Ranks, from_main
from bigtrain.metrics.features import RealImages
from bigtrain.recipe.errors import DataError, UsageError
from bigtrain.recipe.image import ImageSpec

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


class ImageSet(Protocol):
    """A set of images, by number."""

    place: str
    """Where it lies, as the user wrote it."""

    @property
    def image(self) -> ImageSpec:
        """What every image is."""
        ...

    @property
    def num_images(self) -> int:
        """How many there are."""
        ...

    def content_hash(self) -> str:
        """Return a sha256 of all images and labels in their order; it may read everything."""
        ...

    def load(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return uint8 images [N, C, H, W] and labels, int64 [N], -1 where there are none; may raise DataError."""
        ...

    def labels(self, numbers: Sequence[int]) -> Tensor:
        """Return the labels alone, without reading images."""
        ...


def open_images(place: str) -> ImageSet:
    """Return the set of images at a path.

    Raises:
        DataError: there is none, or it is not one of images of one size.
        UsageError: the folder is or holds runs, whose pictures are grids and plots.
    """
    path = Path(place)
    if (path / INDEX_NAME).is_file():
        return Shards(place)
    if path.is_dir():
        _refuse_runs(path)
        return Files(place, _FolderFiles(path))
    if not path.is_file():
        raise DataError(f"{place} is not there; name shards, a folder or zip of images, or an .npz")
    if path.suffix == ".npz":
        return Arrays(place)
    if path.suffix == ".zip":
        return Files(place, _ZipFiles(path))
    raise DataError(f"{place} is no .zip and no .npz; name shards, a folder or zip of images, or an .npz")


def _refuse_runs(path: Path) -> None:
    names = names_of_runs(path)
    if not (names or is_run(path)):
        return
    what = f"holds runs ({names})" if names else "is a run"
    raise UsageError(
        f"{path} {what}, whose pictures are no set of images; name one run to be judged, or shards, a folder or zip of "
        "images, or an .npz to judge or to judge by"
    )


def as_real(images: ImageSet, ranks: Ranks) -> RealImages:
    """Return a set as metrics take it; rank 0 alone reads it for its hash."""
    return RealImages(images.image, images.num_images, from_main(ranks, images.content_hash), images.load)


class Shards:
    """All samples of a folder of indexed shards, or a part of them."""

    def __init__(self, place: str, shards: ShardSet | None = None) -> None:
        self.place = place
        self.shards = ShardSet.open(place) if shards is None else shards
        if self.shards.sample_kind != "image":
            raise DataError(
                f"{place} holds pairs of images, and figures are those of single ones; write one of both as shards of "
                "its own with `bigtrain shards folder`"
            )
        self._numbers = self.shards.numbers()

    @property
    def image(self) -> ImageSpec:
        """What every image is."""
        return self.shards.spec

    @property
    def num_images(self) -> int:
        """How many there are."""
        return self.shards.num_samples

    def content_hash(self) -> str:
        """Return the hash that training caches by as well; no image is read."""
        return self.shards.content_hash

    def load(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return images and labels."""
        batch = self.shards.load(self._numbers[list(numbers)])
        return batch.image_NCHW, batch.label_N

    def labels(self, numbers: Sequence[int]) -> Tensor:
        """Return labels."""
        return torch.from_numpy(np.asarray(self.shards.reader.labels(self._numbers[list(numbers)]), dtype=np.int64))


class _Encoded(Protocol):
    names: list[str]
    """Of the image files, sorted, with their folders."""

    def read(self, name: str) -> bytes: ...


class _FolderFiles:
    def __init__(self, path: Path) -> None:
        self.path = path
        found = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
        self.names = _images(file.as_posix() for file in found)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


class _ZipFiles:
    def __init__(self, path: Path) -> None:
        try:
            self.archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{path} cannot be read as a zip ({error}); pack it again") from error
        self.names = _images(info.filename for info in self.archive.infolist() if not info.is_dir())

    def read(self, name: str) -> bytes:
        size = self.archive.getinfo(name).file_size
        if size > DEFAULT_MAX_PIXELS * max(CHANNELS):  # no image under the limit of pixels needs as much
            raise ValueError(f"claims {size} bytes")
        try:
            return self.archive.read(name)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            raise ValueError(f"cannot be unpacked: {error}") from error


def _images(names: Iterator[str]) -> list[str]:
    paths = (PurePosixPath(name) for name in names)
    kept = [path for path in paths if not any(part.startswith((".", "__MACOSX")) for part in path.parts)]
    return sorted(path.as_posix() for path in kept if path.suffix.lower() in SUFFIXES)


class Files:
    """Image files of a folder or zip, in the order of their names; sub-folders are classes where all lie in some."""

    def __init__(self, place: str, files: _Encoded) -> None:
        if not files.names:
            raise DataError(
                f"{place} holds no image ({', '.join(sorted(SUFFIXES))}); name shards, a folder or zip of images, an "
                ".npz, or a run"
            )
        self.place, self.files = place, files
        folders = [name.rpartition("/")[0].partition("/")[0] for name in files.names]
        self.classes = sorted(set(folders)) if all(folders) and len(set(folders)) > 1 else []
        label_of = {name: label for label, name in enumerate(self.classes)}
        self._labels = [label_of.get(folder, -1) for folder in folders]

    @cached_property
    def image(self) -> ImageSpec:
        """What the first image is, and with it every one."""
        header = self._header(self._read(0), 0)
        if header.channels not in CHANNELS:
            raise DataError(
                f"{self.files.names[0]} in {self.place} is {_facts(header)}; images of 1, 3 or 4 channels can be "
                "judged: `bigtrain shards folder` makes them so"
            )
        return ImageSpec.of_size((header.height, header.width), header.channels, len(self.classes))

    @property
    def num_images(self) -> int:
        """How many there are."""
        return len(self.files.names)

    def content_hash(self) -> str:
        """Return a sha256 of the files and labels."""
        digest = hashlib.sha256()
        for number, label in enumerate(self._labels):
            digest.update(hashlib.sha256(self._read(number)).digest() + label.to_bytes(8, "little", signed=True))
        return digest.hexdigest()

    def load(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return images and labels."""
        image = self.image
        pixels_NHWC = np.empty((len(numbers), *image.size, image.channels), dtype=np.uint8)
        for place, number in enumerate(numbers):
            self._decode(number, pixels_NHWC[place])
        return torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2), self.labels(numbers)

    def labels(self, numbers: Sequence[int]) -> Tensor:
        """Return labels."""
        return torch.tensor([self._labels[number] for number in numbers], dtype=torch.int64)

    def _decode(self, number: int, out_HWC: npt.NDArray[np.uint8]) -> None:
        data, image = self._read(number), self.image
        header = self._header(data, number)
        if (header.height, header.width) != image.size or header.channels != image.channels:
            first = f"{image.size[1]}x{image.size[0]} with {image.channels} channels"
            raise DataError(
                f"{self.files.names[number]} in {self.place} is {_facts(header)}, and {self.files.names[0]} is "
                f"{first}; all images of a set are alike: `bigtrain shards folder` makes them so"
            )
        try:
            decode_into(data, image, out_HWC)
        except ValueError as error:
            raise self._broken(number, error) from error

    def _header(self, data: bytes, number: int) -> Header:
        try:
            return read_header(data)
        except Exception as error:  # parsers of headers raise several kinds on damaged files
            raise self._broken(number, error) from error

    def _read(self, number: int) -> bytes:
        try:
            return self.files.read(self.files.names[number])
        except (OSError, ValueError) as error:
            raise self._broken(number, error) from error

    def _broken(self, number: int, error: Exception) -> DataError:
        words = " ".join(str(error).split())
        return DataError(
            f"{self.files.names[number]} in {self.place} cannot be used: the image {words}; mend it or take it out"
        )


def _facts(header: Header) -> str:
    return f"{header.width}x{header.height} with {header.channels} channels"
