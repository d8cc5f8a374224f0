"""Images in an `.npz`: `arr_0`, uint8 [N, H, W, C], and labels in `arr_1`, as `bigtrain sample --npz` and the evaluator
of ADM (Dhariwal and Nichol 2021, arXiv:2105.05233) have them.

Axes: N images, C channels, H height, W width.
"""

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bigtrain.recipe.errors import DataError
from bigtrain.recipe.image import ImageSpec

PIXELS, LABELS = "arr_0", "arr_1"
CHANNELS = (1, 3, 4)
HASHED_BYTES = 1 << 24  # at a time


class Arrays:
    """A set of images; mapped, not read, where numpy has not compressed it."""

    def __init__(self, place: str) -> None:
        self.place = place
        arrays = npz_arrays(Path(place))
        if PIXELS not in arrays:
            raise DataError(
                f"{place} holds {', '.join(sorted(arrays)) or 'nothing'} and no {PIXELS}; images are {PIXELS}, uint8 "
                "[N, H, W, C]"
            )
        self.pixels_NHWC = _member(Path(place), PIXELS)
        shape, dtype = self.pixels_NHWC.shape, self.pixels_NHWC.dtype
        if dtype != np.uint8 or len(shape) != 4 or shape[3] not in CHANNELS or 0 in shape:
            raise DataError(
                f"{PIXELS} of {place} is {dtype} {list(shape)}; images are uint8 [N, H, W, C] with 1, 3 or 4 channels"
            )
        self.label_N = self._stored_labels(arrays)

    def _stored_labels(self, arrays: set[str]) -> npt.NDArray[np.int64]:
        """Return labels, and none where `arr_1` is something else than one whole number for each image."""
        label_N = np.asarray(_member(Path(self.place), LABELS)) if LABELS in arrays else np.empty(0)
        is_usable = label_N.shape == (len(self.pixels_NHWC),) and np.issubdtype(label_N.dtype, np.integer)
        if not is_usable or label_N.min() < 0:
            return np.full(len(self.pixels_NHWC), -1, dtype=np.int64)
        return label_N.astype(np.int64)

    @property
    def image(self) -> ImageSpec:
        """What every image is."""
        _, height, width, channels = self.pixels_NHWC.shape
        return ImageSpec.of_size((height, width), channels, int(self.label_N.max()) + 1)

    @property
    def num_images(self) -> int:
        """How many there are."""
        return len(self.pixels_NHWC)

    def content_hash(self) -> str:
        """Return a sha256 of shape, pixels and labels."""
        digest = hashlib.sha256(repr(self.pixels_NHWC.shape).encode())
        images_at_a_time = max(1, HASHED_BYTES // self.pixels_NHWC[0].nbytes)
        for first in range(0, self.num_images, images_at_a_time):
            digest.update(np.ascontiguousarray(self.pixels_NHWC[first : first + images_at_a_time]).data)
        digest.update(self.label_N.data)
        return digest.hexdigest()

    def load(self, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return images and labels."""
        chosen = list(numbers)
        pixels_NHWC = np.ascontiguousarray(self.pixels_NHWC[chosen])
        return torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2), self.labels(numbers)

    def labels(self, numbers: Sequence[int]) -> Tensor:
        """Return labels."""
        return torch.from_numpy(self.label_N[list(numbers)])


@dataclass(frozen=True)
class _Stored:
    """Where an array lies in an .npz, if it is not compressed."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def npz_arrays(path: Path) -> set[str]:
    """Return the names of the arrays in an `.npz`.

    Raises:
        DataError: it is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} cannot be read as an .npz ({error}); write it again") from error


def _member(path: Path, name: str) -> npt.NDArray[Any]:
    """Return an array of an `.npz`, mapped where it is stored as it is; objects are refused."""
    try:
        stored = _stored(path, f"{name}.npy")
        if stored is not None:
            return np.memmap(path, stored.dtype, "r", stored.offset, stored.shape)
        with np.load(path, allow_pickle=False) as arrays:
            array: npt.NDArray[Any] = arrays[name]
            return array
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{name} of {path} cannot be read ({error}); write it again") from error


def _stored(path: Path, member: str) -> _Stored | None:
    """Return where numpy's array lies in the archive; None: it is compressed, empty, or not in C order."""
    readers: dict[tuple[int, int], Callable[..., Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        with archive.open(info) as stream:
            read_shape = readers.get(np.lib.format.read_magic(stream))
            if read_shape is None:
                return None
            shape, is_fortran, dtype = read_shape(stream)
            header_bytes = stream.tell()
    if is_fortran or dtype.hasobject or 0 in shape:
        return None
    with path.open("rb") as stream:
        stream.seek(info.header_offset + 26)  # lengths of name and extra field in a local header, APPNOTE.TXT 4.3.7
        lengths = stream.read(4)
    name_bytes, extra_bytes = (int.from_bytes(lengths[place : place + 2], "little") for place in (0, 2))
    return _Stored(info.header_offset + 30 + name_bytes + extra_bytes + header_bytes, dtype, shape)
