"""Which sample comes when: a pure function of (seed, shard sizes, window, balance of classes), never a history.

In every epoch the shards are permuted, cut into windows of `window_shards`, and the samples of a window are permuted,
so that reading stays local to a few shards. Epochs follow one another without a gap: position p is place p mod n of
epoch p div n. Finding any position costs one permutation of its window, wherever it lies; ranks, workers and
micro-batches do not enter.

Every sample comes once an epoch; or, where classes are balanced, as often as `bigtrain.data.occurrences` says.
Axes: N positions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bigtrain.data.holdout import Holdout, Part
from bigtrain.data.occurrences import Occurrences
from bigtrain.data.shuffle import Integers, permutation
from bigtrain.recipe.errors import DataError

CACHED_EPOCHS = 4
CACHED_WINDOWS = 4  # the one being read, its successor at a joint, and two for a second reader


class Order(Protocol):
    """The order of training: any position to the number of its sample."""

    num_samples: int

    def sample(self, position: int) -> int:
        """Return the sample at one position."""
        ...

    def samples(self, position_N: npt.ArrayLike) -> Integers:
        """Return the samples at many positions, int64 [N]."""
        ...


class Deal(Protocol):
    """What of each shard an epoch holds."""

    def shard_places(self, epoch: int) -> Integers:
        """Return how many positions of an epoch each shard fills; the sum is the same in all."""
        ...

    def rows(self, epoch: int, shard: int) -> Integers:
        """Return the sorted rows of a shard that an epoch holds, each as often as it comes."""
        ...


@dataclass(frozen=True)
class Once:
    """Every sample of a part once an epoch."""

    holdout: Holdout
    part: Part

    def shard_places(self, epoch: int) -> Integers:
        """Return the sizes of shards."""
        return self.holdout.part_sizes(self.part)

    def rows(self, epoch: int, shard: int) -> Integers:
        """Return the rows of a shard that belong to the part."""
        return self.holdout.rows(shard, self.part)


@dataclass(frozen=True)
class Balanced:
    """Samples of a part so often that classes are balanced."""

    holdout: Holdout
    part: Part
    occurrences: Occurrences
    labels: Callable[[int], Integers]
    """Shard -> the labels of all its samples, in stored order; asked for the shards of a window alone."""

    def shard_places(self, epoch: int) -> Integers:
        """Return how many positions the samples of each shard fill; opens no shard."""
        return self.occurrences.shard_places(epoch)

    def rows(self, epoch: int, shard: int) -> Integers:
        """Return the rows of a shard, each as often as its sample occurs.

        Raises:
            DataError: its labels are not those of its class histogram.
        """
        row_N = self.holdout.rows(shard, self.part)
        try:
            return np.repeat(row_N, self.occurrences.times(epoch, shard, self.labels(shard)[row_N]))
        except ValueError as error:
            raise DataError(f"the rows of shard {shard} {error} in index.json; write the shards again") from error


@dataclass(frozen=True)
class _Epoch:
    """The permuted shards of one epoch and the place where each of its windows starts (and the last one ends)."""

    shards: Integers
    window_starts: Integers


class WindowedOrder:
    """The order described above, over one part of a data set."""

    def __init__(self, holdout: Holdout, part: Part, seed: int, window_shards: int, deal: Deal | None = None) -> None:
        """Prepare an order.

        Args:
            holdout: parts of the data set.
            part: the one that the order runs over.
            seed: decides every permutation.
            window_shards: shards among which samples are permuted.
            deal: how often each sample comes; None: once an epoch.
        """
        assert window_shards >= 1, f"a window holds at least one shard, got {window_shards}"
        self.seed = seed
        self.window_shards = window_shards
        self._deal: Deal = deal or Once(holdout, part)
        self._firsts = np.cumsum(holdout.shard_sizes) - np.asarray(holdout.shard_sizes)
        self.num_samples = int(holdout.part_sizes(part).sum())
        assert self.num_samples > 0, f"an order needs samples, part {part!r} has none"
        self._epoch = lru_cache(CACHED_EPOCHS)(self._make_epoch)
        self._window = lru_cache(CACHED_WINDOWS)(self._make_window)

    def sample(self, position: int) -> int:
        """Return the sample at one position."""
        return int(self.samples([position])[0])

    def samples(self, position_N: npt.ArrayLike) -> Integers:
        """Return the sample at each position.

        Args:
            position_N: int64, >= 0, in any order.

        Returns:
            int64 [N], numbers of samples in the data set.
        """
        positions = np.asarray(position_N, dtype=np.int64)
        assert positions.size == 0 or positions.min() >= 0, f"positions start at 0, got {positions.min()}"
        epoch_N, place_N = np.divmod(positions, self.num_samples)
        found = np.empty_like(positions)
        for epoch in np.unique(epoch_N).tolist():
            in_epoch = epoch_N == epoch
            found[in_epoch] = self._in_epoch(epoch, place_N[in_epoch])
        return found

    def windows_from(self, position: int) -> Iterator[Integers]:
        """Yield the shards of the window at a position, then those of each window after it, over all epochs."""
        epoch, place = divmod(position, self.num_samples)
        window = int(np.searchsorted(self._epoch(epoch).window_starts, place, side="right")) - 1
        while True:
            shards = self._epoch(epoch).shards
            for first in range(window * self.window_shards, len(shards), self.window_shards):
                yield shards[first : first + self.window_shards]
            epoch, window = epoch + 1, 0

    def _in_epoch(self, epoch: int, place_N: Integers) -> Integers:
        starts = self._epoch(epoch).window_starts
        window_N = np.searchsorted(starts, place_N, side="right") - 1
        found = np.empty_like(place_N)
        for window in np.unique(window_N).tolist():
            in_window = window_N == window
            found[in_window] = self._window(epoch, window)[place_N[in_window] - starts[window]]
        return found

    def _make_epoch(self, epoch: int) -> _Epoch:
        places = self._deal.shard_places(epoch)
        shards = permutation(len(places), "shards", self.seed, epoch)
        ends = np.cumsum(places[shards])
        window_ends = np.append(ends[self.window_shards - 1 : -1 : self.window_shards], ends[-1])
        return _Epoch(shards, np.concatenate([[0], window_ends]))

    def _make_window(self, epoch: int, window: int) -> Integers:
        shards = self._epoch(epoch).shards[window * self.window_shards : (window + 1) * self.window_shards]
        numbers = np.concatenate([self._firsts[shard] + self._deal.rows(epoch, shard) for shard in shards.tolist()])
        found: Integers = numbers[permutation(len(numbers), "samples", self.seed, epoch, window)]
        return found
