"""How sure a finding has to be before an audit calls it suspicious, and the tests that several of its parts share.

Axes: N values of one set, M of another.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SIGNIFICANCE = 1e-3  # probability at which chance would do the same; small, for an audit asks several questions


@dataclass(frozen=True)
class RankTest:
    """Whether the values of one set are larger than those of another (Mann and Whitney 1947,
    doi:10.1214/aoms/1177730491)."""

    share_above: float
    """Share of the pairs whose first value is larger, equal ones counted half: 0.5 where both sets follow one law."""
    z: float
    """The same in standard deviations from 0.5, corrected for ties; above 3.09 the probability is under 0.001."""

    @property
    def probability_above(self) -> float:
        """Probability of so large a share where both sets follow one law (normal approximation)."""
        return 0.5 * math.erfc(self.z / math.sqrt(2))

    @property
    def probability_below(self) -> float:
        """Probability of so small a share where both sets follow one law (normal approximation)."""
        return 0.5 * math.erfc(-self.z / math.sqrt(2))


def rank_test(value_N: Tensor, value_M: Tensor) -> RankTest:
    """Return how often a value of the first set is larger than one of the second.

    Args:
        value_N: any float dtype, at least one.
        value_M: likewise.
    """
    num_a, num_b = len(value_N), len(value_M)
    assert num_a, "the first set is empty"
    assert num_b, "the second set is empty"
    joined = torch.cat([value_N.double().cpu(), value_M.double().cpu()])
    _, group, count = torch.unique(joined, return_inverse=True, return_counts=True)
    last_rank = count.cumsum(0).double()
    mean_rank = last_rank - (count - 1) / 2  # of equal values
    above = float(mean_rank[group[:num_a]].sum()) - num_a * (num_a + 1) / 2
    total = num_a + num_b
    ties = float((count.double() ** 3 - count).sum()) / (total * (total - 1))
    variance = num_a * num_b / 12 * (total + 1 - ties)
    z = (above - num_a * num_b / 2) / math.sqrt(variance) if variance > 0 else 0.0
    return RankTest(above / (num_a * num_b), z)
