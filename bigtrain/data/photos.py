"""Crops of the two photographs that scikit-learn ships, as shards without labels.

The photographs are 640x427 and under CC BY 2.0: a temple roof ("china.jpg", danielbuechele) and a flower ("flower.jpg",
vultilion), as `sklearn.datasets.load_sample_images` gives them. They are enough to train an unconditional model on
natural colours and textures without a download, and no more than that: crops overlap, so held-out ones are not new to
a network that saw the others.

Crop i depends on the seed and on i alone. Even ones come from the first photograph, odd ones from the second; their
width is log-uniform over 1..4 times the side that is stored, so nothing is ever enlarged, and their place is uniform.

Axes: N crops, U uniform numbers of a crop.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image

from bigtrain.data.index import NO_LABEL, FolderIndex
from bigtrain.data.pixels import DEFAULT_QUALITY, FILTERS, encode
from bigtrain.data.writer import Encoded, commit, write_shard, writing
from bigtrain.draws import Draws
from bigtrain.recipe.errors import UsageError

DEFAULT_COUNT = 4096
LARGEST_SCALE = 4  # source pixels a stored pixel; wider crops of a 427 px photograph would be nearly all alike
SHARD_CROPS = 1024
FILTER = "lanczos"
SOURCE = (
    "random crops of china.jpg (danielbuechele, flickr.com/photos/danielbuechele/6061409035) and flower.jpg "
    "(vultilion, flickr.com/photos/vultilion/6056698931), CC BY 2.0, through sklearn.datasets.load_sample_images"
)


@dataclass(frozen=True)
class PhotoOptions:
    """How many crops there are and how they are stored."""

    side: int
    """Of the stored images, in pixels."""
    count: int = DEFAULT_COUNT
    image_format: Literal["jpg", "png", "webp"] = "png"
    quality: int = DEFAULT_QUALITY
    """1..100, of jpg and webp."""
    seed: int = 0


@dataclass(frozen=True)
class Crop:
    """A square of one photograph, in its pixels."""

    photo: int
    left: int
    top: int
    side: int


def write_photos(
    folder: Path, options: PhotoOptions, progress: Callable[[int, int], None] | None = None
) -> FolderIndex:
    """Write crops of the photographs as shards into `folder`, replacing the shards there.

    Args:
        folder: where the shards go.
        options: side, count, format, seed.
        progress: called with (crops done, crops in all).

    Raises:
        UsageError: the photographs are smaller than the side.
        DataError: another process writes there.
    """
    photos = load_photos()
    crops = plan_crops(options, [photo.size for photo in photos])
    with writing(folder):
        written = []
        for number, first in enumerate(range(0, options.count, SHARD_CROPS)):
            part = crops[first : first + SHARD_CROPS]
            written.append(write_shard(folder, number, first, options.image_format, _samples(photos, part, options)))
            if progress:
                progress(first + len(part), options.count)
        return commit(folder, _index(options), written)


def load_photos() -> list[Image.Image]:
    """Return the photographs in RGB."""
    from sklearn.datasets import load_sample_images  # heavy, and needed for this data set alone

    return [Image.fromarray(pixels) for pixels in load_sample_images().images]


def plan_crops(options: PhotoOptions, sizes: list[tuple[int, int]]) -> list[Crop]:
    """Return the crops in their order; the first ones do not depend on how many there are.

    Args:
        options: side, count, seed.
        sizes: width and height of each photograph.

    Raises:
        UsageError: a photograph is smaller than the side.
    """
    smallest = min(min(size) for size in sizes)
    if options.side > smallest:
        raise UsageError(
            f"--side is {options.side}, but the photographs have {smallest} pixels at their shorter side and are never "
            f"enlarged; choose at most {smallest}"
        )
    scale = min(LARGEST_SCALE, smallest / options.side)
    draws = Draws(seed=options.seed, salt=0, step=0, turn=0, index_N=torch.arange(options.count))
    uniform_NU = draws.uniform("photo crop", 3).tolist()
    crops = []
    for number, (size_share, left_share, top_share) in enumerate(uniform_NU):
        photo = number % len(sizes)
        side = min(smallest, math.floor(options.side * scale**size_share))
        free_width, free_height = (length - side + 1 for length in sizes[photo])
        crops.append(Crop(photo, int(left_share * free_width), int(top_share * free_height), side))
    return crops


def _samples(photos: list[Image.Image], crops: list[Crop], options: PhotoOptions) -> Iterator[Encoded]:
    for crop in crops:
        box = (crop.left, crop.top, crop.left + crop.side, crop.top + crop.side)
        image = photos[crop.photo].crop(box).resize((options.side, options.side), FILTERS[FILTER])
        yield Encoded(encode(image, options.image_format, options.quality), NO_LABEL)


def _index(options: PhotoOptions) -> FolderIndex:
    how: dict[str, str | int] = {"fit": "random crop", "filter": FILTER, "largest_scale": LARGEST_SCALE}
    if options.image_format != "png":
        how["quality"] = options.quality
    return FolderIndex(
        resolution=(options.side, options.side),
        channels=3,
        image_format=options.image_format,
        classes=(),
        resize=how,
        seed=options.seed,
        source=SOURCE,
        shards=(),
    )
