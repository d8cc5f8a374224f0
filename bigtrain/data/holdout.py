"""A seeded part of the data set kept out of training, shard by shard, so that no list of the whole set is needed.

Every shard gives up its share: of shards 0..s together exactly floor(share * samples) are held out, and which samples
of a shard is a permutation of (seed, shard). The writer permutes samples globally, so this is a random part of the
data set.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from bigtrain.data.shuffle import Integers, permutation

Part = Literal["all", "training", "held_out"]

ROUNDING = 1e-9  # keeps floor(0.05 * 20) at 1 where the product is a hair under it


@dataclass(frozen=True)
class Holdout:
    """Which samples of a shard belong to a part of the data set."""

    shard_sizes: tuple[int, ...]
    share: float
    seed: int

    @cached_property
    def counts(self) -> Integers:
        """Held-out samples of each shard; they sum to floor(share * samples)."""
        ends = np.floor(np.cumsum(np.asarray(self.shard_sizes, dtype=np.float64)) * self.share + ROUNDING).astype(
            np.int64
        )
        return np.diff(ends, prepend=0)

    def part_sizes(self, part: Part) -> Integers:
        """Return how many samples of each shard belong to a part."""
        sizes = np.asarray(self.shard_sizes, dtype=np.int64)
        return {"all": sizes, "training": sizes - self.counts, "held_out": self.counts}[part]

    def rows(self, shard: int, part: Part) -> Integers:
        """Return the sorted rows of a shard that belong to a part."""
        size, count = self.shard_sizes[shard], int(self.counts[shard])
        if part == "all" or (part == "training" and count == 0):
            return np.arange(size, dtype=np.int64)
        order = permutation(size, "holdout", self.seed, shard)
        return np.sort(order[:count] if part == "held_out" else order[count:])
