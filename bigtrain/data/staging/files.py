"""A data set's files through a cache: copied when they are asked for, unless the prefetcher was there before."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from bigtrain.data.index import FolderIndex, Rows, ShardEntry, map_rows
from bigtrain.data.location import SHARD_SUFFIX
from bigtrain.data.staging.beside import beside
from bigtrain.data.staging.cache import GIB, Cache
from bigtrain.data.staging.fetch import Wanted
from bigtrain.data.staging.patience import Patience
from bigtrain.data.staging.sources import Source
from bigtrain.recipe.errors import DataError

ROWS_SUFFIX = ".npy"
MOST_ROW_BYTES = 4200  # of a sample in the rows: a path of 4,096 bytes and four numbers; their size is nowhere stated
FETCHERS = 8  # rows files at once
OPENINGS = 10  # of a file that others evict again and again


class StagedFiles:
    """The files of the shards of an index, by the shard's number in it."""

    def __init__(self, where: str, index: FolderIndex, sources: Sequence[Source], cache: Cache) -> None:
        """Copy the rows of all shards; the shards themselves come when they are needed.

        Args:
            where: the place they come from, for messages.
            index: of the shards.
            sources: one for each shard.
            cache: where copies go.

        Raises:
            DataError: rows cannot be copied.
        """
        self.where, self.index, self.cache = where, index, cache
        self._shards = [_shard(entry, source) for entry, source in zip(index.shards, sources, strict=True)]
        self._rows = [_rows(entry, source) for entry, source in zip(index.shards, sources, strict=True)]
        missing = [wanted for wanted in self._rows if not cache.has(wanted)]
        if missing:
            beside(lambda: _obtain_all(cache, missing), cache.patience)

    @property
    def patience(self) -> Patience:
        """What waits tell."""
        return self.cache.patience

    def wanted(self, shards: Iterable[int]) -> list[Wanted]:
        """Return what stands for shards in the cache."""
        return [self._shards[shard] for shard in shards]

    def open(self, shard: int) -> int:
        """Return a descriptor of the shard's tar; a deleted file stays readable through it."""
        for _ in range(OPENINGS):
            path = self.cache.obtain(self._shards[shard])
            try:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:  # evicted in between
                continue
            except OSError as error:
                raise DataError(f"{path} cannot be opened ({error.strerror}); mend its disk") from error
        raise DataError(
            f"{self.cache.folder} is so short of room that shards vanish before they are read; raise data.cache_gib"
        )

    def rows(self, shard: int) -> Rows:
        """Return the shard's index rows, verified."""
        wanted, entry = self._rows[shard], self.index.shards[shard]
        try:
            return map_rows(self.cache.obtain(wanted), entry, self.index.pairing)
        except DataError:
            self.cache.renew(wanted)
            return map_rows(self.cache.path(wanted), entry, self.index.pairing)

    def renew(self, shard: int) -> bool:
        """Copy a damaged shard again."""
        self.cache.renew(self._shards[shard])
        return True


def check_room(indexes: Sequence[FolderIndex], window_shards: int, limit_gib: float) -> None:
    """Refuse a cache that could not hold all shards between which samples are shuffled.

    Args:
        indexes: of the data set, or of two that are read side by side; each has a shuffle window then, and since their
            readers do not know of each other, both must fit with the window that follows.
        window_shards: shards of a window.
        limit_gib: room of the cache.

    Raises:
        DataError: says how much a window and two of them need.
    """
    sizes = [sorted((entry.bytes for entry in index.shards), reverse=True) for index in indexes]
    one, two = (sum(sum(each[: times * window_shards]) for each in sizes) / GIB for times in (1, 2))
    if (one if len(indexes) == 1 else two) > limit_gib:
        held = sum(min(window_shards, len(each)) for each in sizes)
        needed = (
            f"window, which take up to {one:.3g}; give {two:.3g}, so that the next window can come meanwhile"
            if len(indexes) == 1
            else f"window of both sets with those of the next one, which together take up to {two:.3g}; give that"
        )
        raise DataError(
            f"data.cache_gib: {limit_gib:g} GiB cannot hold the {held} shards of a shuffle {needed}, or lower "
            "data.shuffle_window_shards"
        )


def _obtain_all(cache: Cache, files: Sequence[Wanted]) -> bytes:
    with ThreadPoolExecutor(FETCHERS) as pool:
        for _ in pool.map(cache.obtain, files):
            pass
    return b""


def _shard(entry: ShardEntry, source: Source) -> Wanted:
    return Wanted(entry.name, entry.sha256, SHARD_SUFFIX, entry.bytes, entry.bytes, source)


def _rows(entry: ShardEntry, source: Source) -> Wanted:
    most = 4096 + entry.samples * MOST_ROW_BYTES
    return Wanted(entry.index_name, entry.index_sha256, ROWS_SUFFIX, None, most, source)
