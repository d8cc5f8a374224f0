"""How often each sample occurs in an epoch whose classes are balanced: exact counts, without a history.

Class k has n_k samples of the part and c_k places in an epoch, see `bigtrain.data.balance`. Its sample of rank r, in
stored order, occurs in epoch e

    floor(((e + 1) c_k + j(r)) / n_k) - floor((e c_k + j(r)) / n_k)

times, where j is a bijection of 0..n_k-1. So, for every epoch and class: the occurrences sum to exactly c_k (Hermite's
identity: the sum of floor((x + j) / n) over j = 0..n-1 is x), every sample occurs floor(c_k / n_k) times or once more,
and over n_k / gcd(n_k, c_k) epochs all samples of the class occur equally often.

j(r) = (g r + phase) mod n_k, with a seeded phase and a g coprime to n_k near n_k over the golden ratio: whichever
samples an epoch takes or leaves out lie evenly among the shards.

How many places the shards fill follows from class histograms alone, in a pass over the ranks once an epoch (0.04 s for
a million samples); labels are asked for of the shards of a window only.
Axes: S shards, K labels, P pairs of a label and a shard that has samples of it, N samples.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bigtrain.data.balance import Balance
from bigtrain.data.shuffle import Integers, stream_key

RANKS_AT_ONCE = 1 << 20
MOST_SAMPLES = 3 * 10**9  # of a class, so that g r + phase fits 63 bits
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio


class Occurrences:
    """The counts described above, for one part of a data set."""

    def __init__(self, histograms: Sequence[Mapping[int, int]], balance: Balance, seed: int) -> None:
        """Rank the samples of each class.

        Args:
            histograms: of each shard, how many samples of the part have each label.
            balance: how many places a class has.
            seed: decides the phases.

        Raises:
            DataError: see `Balance.places`.
        """
        label_P, self._shard_P, self._count_P = _pairs(histograms)
        self._label_K, first_K, self._class_P = np.unique(label_P, return_index=True, return_inverse=True)
        self._size_K = np.add.reduceat(self._count_P, first_K)
        assert self._size_K.max() <= MOST_SAMPLES, f"a class has {self._size_K.max()} samples"
        starts_P = np.cumsum(self._count_P) - self._count_P
        self._rank_P = starts_P - starts_P[first_K][self._class_P]
        self._num_shards = len(histograms)
        self._by_shard = np.argsort(self._shard_P, kind="stable")
        self.places_K = balance.places(self._label_K, self._size_K)
        sizes = self._size_K.tolist()
        self._step_K = np.array([golden_step(size) for size in sizes], dtype=np.int64)
        phases = [
            stream_key("balance", seed, int(label)) % size for label, size in zip(self._label_K, sizes, strict=True)
        ]
        self._phase_K = np.array(phases, dtype=np.int64)

    def shard_places(self, epoch: int) -> Integers:
        """Return how many places of an epoch the samples of each shard fill, int64 [S]."""
        places_S = np.zeros(self._num_shards, dtype=np.int64)
        for pairs in self._parcels():
            count_P = self._count_P[pairs]
            times_N = self._times(epoch, *self._ranks(pairs))
            np.add.at(places_S, self._shard_P[pairs], np.add.reduceat(times_N, np.cumsum(count_P) - count_P))
        return places_S

    def times(self, epoch: int, shard: int, label_N: Integers) -> Integers:
        """Return how often each sample of a shard occurs in an epoch, int64 [N].

        Args:
            epoch: from 0.
            shard: its number.
            label_N: of all its samples of the part, in stored order.

        Raises:
            ValueError: these are not as many of each label as the histogram says.
        """
        pairs = self._by_shard[slice(*np.searchsorted(self._shard_P[self._by_shard], [shard, shard + 1]))]
        class_N, rank_N = self._ranks(pairs)
        order = np.argsort(label_N, kind="stable")
        if not np.array_equal(self._label_K[class_N], label_N[order]):
            raise ValueError("hold other labels than its class histogram")
        times_N = np.empty_like(rank_N)
        times_N[order] = self._times(epoch, class_N, rank_N)
        return times_N

    def _parcels(self) -> Iterator[Integers]:
        """Yield pairs so that not many more than RANKS_AT_ONCE samples belong to them."""
        ends_P = np.cumsum(self._count_P)
        cuts = np.searchsorted(ends_P, np.arange(RANKS_AT_ONCE, ends_P[-1], RANKS_AT_ONCE), side="right")
        yield from np.split(np.arange(len(ends_P)), np.unique(cuts[cuts > 0]))

    def _ranks(self, pairs: Integers) -> tuple[Integers, Integers]:
        """Return class and rank of each sample of some pairs, pair after pair."""
        count_P = self._count_P[pairs]
        before_P = np.cumsum(count_P) - count_P
        rank_N = np.arange(count_P.sum()) + np.repeat(self._rank_P[pairs] - before_P, count_P)
        return np.repeat(self._class_P[pairs], count_P), rank_N

    def _times(self, epoch: int, class_N: Integers, rank_N: Integers) -> Integers:
        size_K, places_K = self._size_K, self.places_K
        before_K = epoch * places_K % size_K
        whole_K, after_K = np.divmod(before_K + places_K, size_K)
        size_N = size_K[class_N]
        place_N = (self._step_K[class_N] * rank_N + self._phase_K[class_N]) % size_N
        ended_N, begun_N = place_N >= size_N - after_K[class_N], place_N >= size_N - before_K[class_N]
        times_N: Integers = whole_K[class_N] + ended_N - begun_N
        return times_N


def _pairs(histograms: Sequence[Mapping[int, int]]) -> tuple[Integers, Integers, Integers]:
    """Return label, shard and number of samples of each pair that has any, in the order of labels, then shards."""
    sizes = [len(counts) for counts in histograms]
    label_P = np.fromiter((label for counts in histograms for label in counts), np.int64, sum(sizes))
    count_P = np.fromiter((count for counts in histograms for count in counts.values()), np.int64, sum(sizes))
    shard_P = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((shard_P, label_P))
    order = order[count_P[order] > 0]
    return label_P[order], shard_P[order], count_P[order]


def golden_step(size: int) -> int:
    """Return the number coprime to `size` that is nearest to `size` over the golden ratio."""
    middle = max(size * _GOLDEN >> 64, 1)
    near = (middle + sign * distance for distance in range(size + 1) for sign in (1, -1))
    return next(step for step in near if step > 0 and math.gcd(step, size) == 1)
