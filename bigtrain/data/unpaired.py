"""Two sets of images that are trained on together without being paired: an order for each, read side by side.

The set b has an order of its own, over its own epochs and from a seed of its own: position p is the sample at p of the
one order and the sample at p of the other. So each set comes exactly once in each of its epochs, whatever the length of
the other, and a resume is a seek in both.
Axes: N positions, 2 sets.
"""

import numpy as np
import numpy.typing as npt

from bigtrain.data.order import Order
from bigtrain.data.shuffle import Integers, stream_key


def second_seed(seed: int) -> int:
    """Return the seed of set b: neither its order nor what it holds out follows that of set a."""
    return stream_key("shards_b", seed)


class SideBySide:
    """The orders of two sets as one; `num_samples` are those of set a."""

    def __init__(self, first: Order, second: Order) -> None:
        self.first, self.second = first, second
        self.num_samples = first.num_samples

    def sample(self, position: int) -> int:
        """Return the sample of set a at one position."""
        return self.first.sample(position)

    def samples(self, position_N: npt.ArrayLike) -> Integers:
        """Return the samples of both sets at many positions, int64 [N, 2]."""
        return np.stack([self.first.samples(position_N), self.second.samples(position_N)], axis=-1)
