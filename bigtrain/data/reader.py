"""One sample is one `pread`, checked by the crc32 of its index row.

Departs from WebDataset's reading, which walks the tar and checks nothing: there a cut shard mixes the image of one
sample with the label of the next, and a flipped bit becomes a wrong pixel.
"""

import os
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigtrain.data.index import FolderIndex, Rows, read_rows
from bigtrain.data.shuffle import Integers
from bigtrain.recipe.errors import DataError

OPEN_SHARDS = 64  # file descriptors stay far under the usual limit of 1,024 (two a shard)


@dataclass(frozen=True)
class Sample:
    """The bytes of one image as stored, its label, and where they lie."""

    data: bytes
    label: int
    shard: str
    key: str
    offset: int

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"shard {self.shard}, sample {self.key!r} (offset {self.offset})"


class ShardReader:
    """Reads samples by number; keeps few files open, and none across pickling."""

    def __init__(self, folder: Path, index: FolderIndex) -> None:
        self.folder = folder
        self.index = index
        self.starts = np.concatenate([[0], np.cumsum([entry.samples for entry in index.shards])]).astype(np.int64)
        self._open: OrderedDict[int, tuple[int, Rows]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def locate(self, number: int) -> tuple[int, int]:
        """Return (shard, row) of a sample.

        Raises:
            DataError: there is no such sample.
        """
        if not 0 <= number < self.starts[-1]:
            raise DataError(f"no sample {number} in {self.folder}, which holds samples 0 to {self.starts[-1] - 1}")
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        return shard, int(number - self.starts[shard])

    def rows(self, shard: int) -> Rows:
        """Return the index rows of a shard."""
        return self._opened(shard)[1]

    def labels(self, number_N: Integers) -> Integers:
        """Return the labels of samples, int64 [N], from the rows alone."""
        shard_N = np.searchsorted(self.starts, number_N, side="right") - 1
        label_N = np.empty_like(number_N)
        for shard in np.unique(shard_N).tolist():
            inside = shard_N == shard
            label_N[inside] = self.rows(shard)["label"][number_N[inside] - self.starts[shard]]
        return label_N

    def read(self, number: int) -> Sample:
        """Read one sample and check its crc32.

        Raises:
            DataError: no such sample, shard missing or cut short, or bytes that are not the ones written.
        """
        shard, row = self.locate(number)
        descriptor, rows = self._opened(shard)
        offset, size, crc32, label, key = rows[row].item()
        name = self.index.shards[shard].name
        try:
            data = os.pread(descriptor, size, offset)
        except OSError as error:
            place = Sample(b"", label, name, key.decode(), offset).place
            raise DataError(
                f"{place} in {self.folder} cannot be read ({error.strerror}); mend the disk or copy the shard again"
            ) from error
        sample = Sample(data, label, name, key.decode(), offset)
        if len(data) != size:
            raise DataError(
                f"{sample.place} in {self.folder} is cut short: {len(data)} of {size} bytes; copy the shard again "
                "from its source"
            )
        found = zlib.crc32(data)
        if found != crc32:
            raise DataError(
                f"{sample.place} in {self.folder} is damaged: crc32 {found:08x} where the index says {crc32:08x}; "
                "copy the shard again from its source"
            )
        return sample

    def _opened(self, shard: int) -> tuple[int, Rows]:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        entry = self.index.shards[shard]
        rows = read_rows(self.folder, entry)
        try:
            descriptor = os.open(self.folder / entry.name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(
                f"shard {entry.name} in {self.folder} cannot be opened ({error.strerror}); restore it or write the "
                "shards again"
            ) from error
        if len(self._open) >= OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1][0])
        self._open[shard] = descriptor, rows
        return self._open[shard]

    def close(self) -> None:
        """Close every file; a later read opens what it needs again."""
        while self._open:
            os.close(self._open.popitem()[1][0])
