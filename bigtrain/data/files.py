"""Where a data set's files lie as its reader sees them: a descriptor of a shard, the rows of a shard."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bigtrain.data.index import FolderIndex, Rows, read_rows
from bigtrain.recipe.errors import DataError


class ShardFiles(Protocol):
    """The files of the shards of an index, by the shard's number in it."""

    @property
    def where(self) -> str:
        """The place, for messages."""
        ...

    def open(self, shard: int) -> int:
        """Return a descriptor of the shard's tar, which the caller closes.

        Raises:
            DataError: it cannot be had.
        """
        ...

    def rows(self, shard: int) -> Rows:
        """Return the shard's index rows, verified.

        Raises:
            DataError: they cannot be had, or are damaged.
        """
        ...

    def renew(self, shard: int) -> bool:
        """Replace a shard that turned out damaged; False where there is nothing to replace it with.

        Raises:
            DataError: it cannot be had again.
        """
        ...


@dataclass(frozen=True)
class LocalFiles:
    """Shards read where they lie."""

    where: str
    index: FolderIndex
    folders: tuple[Path, ...]
    """One for each shard."""

    def open(self, shard: int) -> int:
        """Return a descriptor of the shard's tar."""
        name = self.index.shards[shard].name
        try:
            return os.open(self.folders[shard] / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(
                f"shard {name} in {self.folders[shard]} cannot be opened ({error.strerror}); restore it or write the "
                "shards again"
            ) from error

    def rows(self, shard: int) -> Rows:
        """Return the shard's index rows, verified."""
        return read_rows(self.folders[shard], self.index.shards[shard], self.index.pairing)

    def renew(self, shard: int) -> bool:
        """Return False: a damaged original has no other."""
        return False
