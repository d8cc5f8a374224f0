"""Small shards for tests: every image tells its sample's number, so that a mix-up shows in the pixels."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from bigtrain.data.index import NO_LABEL, FolderIndex
from bigtrain.data.pixels import encode
from bigtrain.data.shards import ShardSet
from bigtrain.data.writer import Encoded, commit, write_shard, writing


def numbered_image(number: int, side: int = 4, channels: int = 1, width: int | None = None) -> np.ndarray:
    """An image whose first two pixels hold `number` and whose others depend on it; uint8 [H, W] or [H, W, C]."""
    shape = side, side if width is None else width, channels
    pixels = (np.arange(np.prod(shape), dtype=np.int64) * 7 + number * 31) % 251
    pixels = pixels.reshape(shape).astype(np.uint8)
    pixels[0, 0], pixels[0, 1] = number % 256, number // 256
    return pixels[..., 0] if channels == 1 else pixels


def number_in(image_CHW: Tensor) -> int:
    """The sample's number that a losslessly stored image tells."""
    return int(image_CHW[0, 0, 0]) + 256 * int(image_CHW[0, 0, 1])


def label_of(number: int, num_classes: int) -> int:
    """The label that `make_shards` gives to a sample."""
    return (number * 5 + number // 3) % num_classes if num_classes else NO_LABEL


def make_shards(
    folder: Path,
    sizes: Sequence[int],
    num_classes: int = 3,
    channels: int = 1,
    labels: Sequence[int] | None = None,
    image_format: str = "png",
    image_bytes: Callable[[int], bytes] | None = None,
    size: tuple[int, int] = (4, 4),
) -> FolderIndex:
    """Write numbered images as shards of the given sizes; labels are mixed unless they are given, and `image_bytes`
    gives other files than those of the numbered images."""
    index = FolderIndex(
        resolution=size,
        channels=channels,
        image_format=image_format,
        classes=tuple(f"class {label}" for label in range(num_classes)),
        resize={},
        seed=0,
        source="test",
        shards=(),
    )
    given = labels if labels is not None else [label_of(number, num_classes) for number in range(sum(sizes))]
    files = image_bytes or (lambda number: encode(numbered_image(number, size[0], channels, size[1]), image_format))
    with writing(folder):
        written, first = [], 0
        for shard, count in enumerate(sizes):
            samples = [Encoded(files(number), given[number]) for number in range(first, first + count)]
            written.append(write_shard(folder, shard, first, image_format, samples))
            first += count
        return commit(folder, index, written)


def damage_sample(folder: Path, number: int) -> None:
    """Flip one bit in a stored image of shards that lie in a folder."""
    shards = ShardSet.open(folder)
    shard, row = shards.reader.locate(number)
    offset, size = (int(shards.reader.rows(shard)[row][name]) for name in ("offset", "size"))
    with (folder / shards.index.shards[shard].name).open("r+b") as stream:
        stream.seek(offset + size // 2)
        flipped = bytes([stream.read(1)[0] ^ 4])
        stream.seek(offset + size // 2)
        stream.write(flipped)
