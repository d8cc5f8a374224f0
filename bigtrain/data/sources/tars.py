"""Images in WebDataset shards, ours or not, to be written in another size: one `pread` an image, checked by crc32."""

import os
import zlib
from functools import lru_cache, partial
from pathlib import Path

from bigtrain.data.foreign import label_all, shard_paths
from bigtrain.data.index import INDEX_NAME, NO_LABEL, FolderIndex, read_rows
from bigtrain.data.labels import numbers_of
from bigtrain.data.process import run_jobs
from bigtrain.data.sources.found import Found, Source
from bigtrain.data.walk import IndexOptions, walk
from bigtrain.recipe.errors import DataError

KIND = "shards in another form"


def find_shards(folder: Path, options: IndexOptions, jobs: int = 1) -> Found:
    """Return the images of a folder of shards in their stored order, whatever their sizes.

    Args:
        folder: with `index.json`, which then says labels and classes; or tars alone, which are walked.
        options: where labels of tars without an index are.
        jobs: processes that walk.

    Raises:
        DataError: no shards, a damaged index or tar, a sample that is refused, or one without its label.
    """
    if (folder / INDEX_NAME).exists():
        return _indexed(folder, FolderIndex.read(folder))
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
        Source(
            folder / shard.name / sample.key,
            NO_LABEL if sample.label is None or not classes else numbers[str(sample.label)],
            (str(folder / shard.name), sample.offset, sample.size, sample.crc32),
        )
        for shard in filled
        for sample in shard.samples
    ]
    return Found(classes, sources, left_out, read_place, KIND)


def _indexed(folder: Path, index: FolderIndex) -> Found:
    sources = []
    for entry in index.shards:
        for row in read_rows(folder, entry):
            offset, size, crc32, label, key = row.item()
            place = (str(folder / entry.name), offset, size, crc32)
            sources.append(Source(folder / entry.name / key.decode(), label, place))
    return Found(index.classes, sources, {}, read_place, KIND)


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
