"""Images in WebDataset shards, ours or not, to be written in another size: one `pread` an image, checked by crc32."""

import os
import zlib
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from bigtrain.data.foreign import label_all, one_pairing, shard_paths
from bigtrain.data.index import INDEX_NAME, NO_LABEL, FolderIndex, read_rows
from bigtrain.data.labels import numbers_of
from bigtrain.data.pairs import SIDES
from bigtrain.data.process import run_jobs
from bigtrain.data.sources.found import Found, Source
from bigtrain.data.sources.named import without_labels
from bigtrain.data.walk import IndexOptions, walk
from bigtrain.recipe.errors import DataError, UsageError

KIND = "shards in another form"


def find_shards(folder: Path, options: IndexOptions, jobs: int = 1) -> Found:
    """Return the images of a folder of shards in their stored order, whatever their sizes.

    Args:
        folder: with `index.json`, which then says labels and classes; or tars alone, which are walked.
        options: where labels of tars without an index are, and whether labels are ignored.
        jobs: processes that walk.

    Raises:
        DataError: no shards, a damaged index or tar, a sample that is refused, or one without its label.
        UsageError: a key of labels, which the index says already, or another pairing than it says.
    """
    if (folder / INDEX_NAME).exists():
        if options.label_key is not None:
            raise UsageError(
                f"--label-key {options.label_key} is for shards without an index, and the {INDEX_NAME} of {folder} "
                "says where labels are; leave it out"
            )
        index = FolderIndex.read(folder)
        if options.pairing not in (None, index.pairing):
            raise UsageError(
                f"--pairs {options.pairing} is for shards without an index, and the {INDEX_NAME} of {folder} says "
                f"--pairs {index.pairing}; leave it out"
            )
        found = _indexed(folder, index)
        return without_labels(found) if options.without_labels else found
    walked = list(run_jobs(partial(walk, options), shard_paths(folder), jobs))
    left_out: dict[str, int] = {}
    for shard in walked:
        for extension, number in shard.left_out.items():
            left_out[f".{extension}"] = left_out.get(f".{extension}", 0) + number
    filled = [shard for shard in walked if shard.samples]
    if not filled:
        raise DataError(f"{folder}: no shard of {len(walked)} holds an image; name the folder of the shards")
    classes = label_all(folder, filled, options, left_out)
    numbers = numbers_of(classes)
    sources = [
        _source(
            folder / shard.name,
            sample.key,
            NO_LABEL if sample.label is None or not classes else numbers[str(sample.label)],
            [(image.offset, image.size, image.crc32) for image in sample.images],
        )
        for shard in filled
        for sample in shard.samples
    ]
    return Found(classes, sources, left_out, read_place, KIND, pairing=one_pairing(folder, filled, options))


def _indexed(folder: Path, index: FolderIndex) -> Found:
    sources = []
    for entry in index.shards:
        for row in read_rows(folder, entry, index.pairing):
            offset, size, crc32, label, key, *second = row.item()
            places = [(offset, size, crc32)] + ([tuple(second)] if second else [])
            sources.append(_source(folder / entry.name, key.decode(), label, places))
    return Found(index.classes, sources, {}, read_place, KIND, pairing=index.pairing)


def _source(shard: Path, key: str, label: int, places: list[tuple[int, int, int]]) -> Source:
    """Return an image, or two of a pair, at (offset, size, crc32) in a shard."""
    first, *second = (Source(shard / key, label, (str(shard), *place)) for place in places)
    if not second:
        return first
    named = [replace(one, path=shard / f"{key}.{side}") for one, side in zip((first, *second), SIDES, strict=True)]
    return replace(named[0], second=named[1])


def read_place(source: Source) -> bytes:
    """Return the bytes at (file, offset, size, crc32).

    Raises:
        ValueError: they are not the ones that were found.
    """
    path, offset, size, crc32 = source.place
    data = os.pread(_opened(str(path), os.getpid()), int(size), int(offset))
    if zlib.crc32(data) != crc32:
        raise ValueError("is damaged: its crc32 is not the one of the index")
    return data


@lru_cache(maxsize=64)
def _opened(path: str, process: int) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
