"""Which sample stands in for a damaged one: a function of its number alone, so that every rank, worker and resume gives
the same one.

It is drawn from the same shard, which is at hand, the same part and, where that has a whole one, the same class, so
that the counts of classes stay what they were and nothing held out is trained on.
"""

from collections.abc import Iterator

import numpy as np

from bigtrain.data.batch import BadSample
from bigtrain.data.holdout import Holdout, Part
from bigtrain.data.reader import BadSampleError, ShardReader
from bigtrain.data.shuffle import Integers, stream_key

TRIES = 64  # draws among those of the class, then among all: with half of a shard damaged, some are whole
CACHED_SHARDS = 64


class StandIns:
    """Draws stand-ins among the samples of one part."""

    def __init__(self, reader: ShardReader, parts: Holdout, part: Part) -> None:
        self._reader, self._parts, self._part = reader, parts, part
        self._rows: dict[int, tuple[Integers, Integers]] = {}

    def of(self, number: int) -> Iterator[int]:
        """Yield candidates for a sample, each once and always in the same order; none where its shard has no other."""
        shard, row = self._reader.locate(number)
        row_N, label_N = self._shard(shard)
        others = row_N != row
        alike = others & (label_N == self._reader.rows(shard)["label"][row])
        drawn: set[int] = set()
        for row_M in (row_N[alike], row_N[others]):
            for attempt in range(TRIES if len(row_M) else 0):
                candidate = int(row_M[stream_key("stand-in", self._parts.seed, number, attempt) % len(row_M)])
                if candidate not in drawn:
                    drawn.add(candidate)
                    yield int(self._reader.starts[shard]) + candidate

    def _shard(self, shard: int) -> tuple[Integers, Integers]:
        """Return the rows of a shard that belong to the part, and their labels."""
        if shard not in self._rows:
            if len(self._rows) >= CACHED_SHARDS:
                self._rows.clear()
            row_N = self._parts.rows(shard, self._part)
            self._rows[shard] = row_N, np.asarray(self._reader.rows(shard)["label"][row_N], dtype=np.int64)
        return self._rows[shard]


def bad_sample(number: int, stand_in: int, error: BadSampleError) -> BadSample:
    """Return what is to be told of a damaged sample."""
    sample = error.sample
    return BadSample(number, sample.shard, sample.key, sample.offset, error.reason.strip(" :"), stand_in)
