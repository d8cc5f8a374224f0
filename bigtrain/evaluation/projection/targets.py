"""Images that a code is looked for: files of any size, or images that are there already.

Axes: N images, C channels, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bigtrain.data.pixels import FILTERS, open_image
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.image import ImageSpec

MOST_PIXELS = 64_000_000  # of a file, before anything is decompressed
WAY_OUT = "name a JPEG, PNG, WebP, BMP, TIFF or GIF"


@dataclass(frozen=True)
class Targets:
    """Images, and what they are called."""

    image_NCHW: Tensor
    """uint8, of the model's size and channels."""
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, part: slice) -> "Targets":
        return Targets(self.image_NCHW[part], self.names[part])


def read_targets(paths: Sequence[Path], image: ImageSpec, resize_filter: str) -> Targets:
    """Read image files: the largest centred part of the model's proportions, resized to its size.

    Args:
        paths: JPEG, PNG, WebP, BMP, TIFF or GIF files.
        image: what the model makes.
        resize_filter: "lanczos", "bicubic" or "box"; used where the size differs.

    Raises:
        DataError: a file is missing or cannot be read as an image; nothing is returned then.
    """
    images = [_read(path, image, resize_filter) for path in paths]
    return Targets(torch.stack(images), _distinct([path.stem for path in paths]))


def _read(path: Path, image: ImageSpec, resize_filter: str) -> Tensor:
    try:
        opened = open_image(path, image.channels, MOST_PIXELS)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {WAY_OUT}") from error
    except ValueError as error:
        raise DataError(f"{path}: the image {error}; {WAY_OUT}") from error
    fitted = np.array(_fitted(opened, image.size, FILTERS[resize_filter]))
    return torch.from_numpy(fitted.reshape(*image.size, image.channels)).permute(2, 0, 1)


def _fitted(opened: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    height, width = size
    if (opened.height, opened.width) == size:
        return opened
    scale = min(opened.width / width, opened.height / height)
    inner_width, inner_height = max(1, round(scale * width)), max(1, round(scale * height))
    left, top = (opened.width - inner_width) // 2, (opened.height - inner_height) // 2
    # Cut first: with `box` Pillow's filters would read what lies beside it.
    inner = opened.crop((left, top, left + inner_width, top + inner_height))
    return inner.resize((width, height), resample)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names that differ, since files are named after them: the second `cat` becomes `cat-2`."""
    given: list[str] = []
    for name in names:
        number, candidate = 1, name
        while candidate in given:
            number += 1
            candidate = f"{name}-{number}"
        given.append(candidate)
    return tuple(given)
