"""One sample is one `pread`, checked by the crc32 of its index row.

Departs from WebDataset's reading, which walks the tar and checks nothing: there a cut shard mixes the image of one
sample with the label of the next, and a flipped bit becomes a wrong pixel.
"""

import os
import zlib
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigtrain.data.files import ShardFiles
from bigtrain.data.index import FolderIndex, Rows
from bigtrain.data.shuffle import Integers
from bigtrain.recipe.errors import DataError

OPEN_SHARDS = 64  # file descriptors stay far under the usual limit of 1,024 (two a shard)
COPY_AGAIN = "copy the shard again from its source"


class DamagedError(DataError):
    """A sample's bytes are not the ones that were written."""


@dataclass(frozen=True)
class Sample:
    """The bytes of one image, or of two, as stored, the label, and where the first lies."""

    data: bytes
    label: int
    shard: str
    key: str
    offset: int
    data_b: bytes | None = None
    """Of the second image of a pair by members."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"shard {self.shard}, sample {self.key!r} (offset {self.offset})"


class BadSampleError(DamagedError):
    """One sample is damaged, and those beside it may be whole; `sample` says where it lies, `reason` what it is."""

    def __init__(self, sample: Sample, where: str, reason: str, way_out: str) -> None:
        self.sample = sample
        self.reason = reason
        super().__init__(f"{sample.place} in {where}{reason}; {way_out}")


@dataclass
class _OpenShard:
    """The rows of a shard, and a descriptor of its tar once a sample was read."""

    rows: Rows
    descriptor: int | None = None

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.descriptor = None


def _stored(descriptor: int, offset: int, size: int, crc32: int) -> tuple[bytes, str]:
    """Return what lies at a place, and what is wrong with it; empty: it is what was written."""
    data = os.pread(descriptor, size, offset)
    if len(data) != size:
        return data, f" is cut short: {len(data)} of {size} bytes"
    found = zlib.crc32(data)
    return data, "" if found == crc32 else f" is damaged: crc32 {found:08x} where the index says {crc32:08x}"


class ShardReader:
    """Reads samples by number; keeps few files open, and none across pickling."""

    def __init__(self, files: ShardFiles, index: FolderIndex) -> None:
        self.files = files
        self.index = index
        self.most_open = OPEN_SHARDS
        """Shards held open at once; a deleted file takes up its disk for as long as it is."""
        self.starts = np.concatenate([[0], np.cumsum([entry.samples for entry in index.shards])]).astype(np.int64)
        self._starts: list[int] = self.starts.tolist()  # looked up in a tenth of the time
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def locate(self, number: int) -> tuple[int, int]:
        """Return (shard, row) of a sample.

        Raises:
            DataError: there is no such sample.
        """
        if not 0 <= number < self._starts[-1]:
            most = self._starts[-1] - 1
            raise DataError(f"no sample {number} in {self.files.where}, which holds samples 0 to {most}")
        shard = bisect_right(self._starts, number) - 1
        return shard, number - self._starts[shard]

    def rows(self, shard: int) -> Rows:
        """Return the index rows of a shard."""
        return self._opened(shard).rows

    def labels(self, number_N: Integers) -> Integers:
        """Return the labels of samples, int64 [N], from the rows alone."""
        shard_N = np.searchsorted(self.starts, number_N, side="right") - 1
        label_N = np.empty_like(number_N)
        for shard in np.unique(shard_N).tolist():
            inside = shard_N == shard
            label_N[inside] = self.rows(shard)["label"][number_N[inside] - self.starts[shard]]
        return label_N

    def read(self, number: int) -> Sample:
        """Read one sample and check its crc32; a copy of a shard that fails is copied again, once.

        Raises:
            DataError: no such sample, shard missing or cut short, or bytes that are not the ones written.
        """
        shard, row = self.locate(number)
        try:
            return self._checked(shard, row)
        except DamagedError:
            if not self.files.renew(shard):
                raise
            self._open.pop(shard).close()
            return self._checked(shard, row)

    def _checked(self, shard: int, row: int) -> Sample:
        opened, where = self._opened(shard), self.files.where
        if opened.descriptor is None:
            opened.descriptor = self.files.open(shard)
        offset, size, crc32, label, key, *second = opened.rows[row].item()
        shown = key.decode(errors="backslashreplace")
        name = self.index.shards[shard].name
        try:
            data, fault = _stored(opened.descriptor, offset, size, crc32)
            data_b, fault_b = _stored(opened.descriptor, *second) if second else (None, "")
        except OSError as error:
            place = Sample(b"", label, name, shown, offset).place
            raise DamagedError(
                f"{place} in {where} cannot be read ({error.strerror}); mend the disk or copy the shard again"
            ) from error
        sample = Sample(data, label, name, shown, offset, data_b)
        if fault or fault_b:
            raise BadSampleError(sample, where, fault or f" has a second image that{fault_b}", COPY_AGAIN)
        return sample

    def _opened(self, shard: int) -> _OpenShard:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        opened = _OpenShard(self.files.rows(shard))
        if len(self._open) >= self.most_open:
            self._open.popitem(last=False)[1].close()
        self._open[shard] = opened
        return opened

    def close(self) -> None:
        """Close every file; a later read opens what it needs again."""
        while self._open:
            self._open.popitem()[1].close()
