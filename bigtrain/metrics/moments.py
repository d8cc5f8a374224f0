"""Mean and covariance of features, summed in float64 in constant memory, and exactly.

Sums do not depend on the order of images, so they are the same bits for any number of ranks and any batch. Features are
rounded to multiples of 2^-23, half of float32's own step at 1, and split in a coarse part (a multiple of 2^-6) and a
fine one. Then every product of parts, and every sum of up to two million of them, is a float64 without rounding as long
as no feature reaches 1,024; beyond that sums are what float64 makes of them.

Axes: N images, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

STEP = 2.0**-23
COARSE_STEP = 2.0**-6


@dataclass(frozen=True)
class GaussianLaw:
    """A mean and a covariance."""

    mean_D: Tensor
    """float64 [D]."""
    covariance_DD: Tensor
    """float64 [D, D]."""


@dataclass(frozen=True)
class Moments:
    """How many features there were, their sum and the sum of their outer products."""

    num: Tensor
    """float64 scalar, a count."""
    sum_D: Tensor
    """float64 [D]."""
    outer_DD: Tensor
    """float64 [D, D]."""

    @classmethod
    def of(cls, feature_ND: Tensor) -> "Moments":
        """Return the moments of features of any float dtype."""
        sums = MomentSums(feature_ND.shape[1], feature_ND.device)
        sums.update(feature_ND)
        return sums.totals()[0]

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of features together."""
        return Moments(self.num + other.num, self.sum_D + other.sum_D, self.outer_DD + other.outer_DD)

    def to(self, device: torch.device | str) -> "Moments":
        """Return the same moments on another device."""
        return Moments(self.num.to(device), self.sum_D.to(device), self.outer_DD.to(device))

    def law(self, divisor: str = "n-1") -> "GaussianLaw":
        """Return mean and covariance, divided by the number of features, `n`, or by one less."""
        share = (self.num - 1) / self.num if divisor == "n" else 1.0
        return GaussianLaw(self.mean_D, self.covariance_DD * share)

    @property
    def count(self) -> int:
        """How many features there were."""
        return int(self.num.item())

    @property
    def mean_D(self) -> Tensor:
        """The mean, float64 [D]."""
        return self.sum_D / self.num

    @property
    def covariance_DD(self) -> Tensor:
        """The unbiased covariance (divisor N - 1, as numpy.cov has it), float64 [D, D], exactly symmetric."""
        assert self.count >= 2, f"a covariance needs 2 features, got {self.count}"
        covariance_DD = (self.outer_DD - torch.outer(self.sum_D, self.mean_D)) / (self.num - 1)
        return (covariance_DD + covariance_DD.T) / 2


class MomentSums:
    """Exact sums over the features of one set or more, on one rank; all of them in one tensor."""

    def __init__(self, dims: int, device: torch.device | str = "cpu", sets: int = 1) -> None:
        """Sum over nothing yet."""
        self._sizes = [1, dims, 3 * dims**2]
        # One piece of memory, which is reduced as it is: at 2,048 dims a set takes 0.1 GB, not to be copied.
        self.packed = torch.zeros(sets, sum(self._sizes), dtype=torch.float64, device=device)

    def update(self, feature_ND: Tensor, number: int = 0) -> None:
        """Add features of any float dtype to a set."""
        num, sum_D, outer_3DD = self._parts(self.packed[number])
        feature_ND = _rounded(feature_ND.to(sum_D), STEP)
        coarse_ND = _rounded(feature_ND, COARSE_STEP)
        fine_ND = feature_ND - coarse_ND
        num.add_(len(feature_ND))
        sum_D.add_(feature_ND.sum(0))
        for outer_DD, left_ND, right_ND in zip(
            outer_3DD, (coarse_ND, coarse_ND, fine_ND), (coarse_ND, fine_ND, fine_ND), strict=True
        ):
            outer_DD.addmm_(left_ND.T, right_ND)

    def totals(self, sum_over_ranks: Callable[[Tensor], Tensor] = lambda packed: packed) -> list[Moments]:
        """Return the moments of every set over all ranks, with one call with one float64 tensor."""
        totals = []
        for num, sum_D, (coarse_DD, mixed_DD, fine_DD) in map(self._parts, sum_over_ranks(self.packed)):
            totals.append(Moments(num, sum_D, coarse_DD + (mixed_DD + mixed_DD.T) + fine_DD))
        return totals

    def _parts(self, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        num, sum_D, outer = torch.split(row, self._sizes)
        return num[0], sum_D, outer.view(3, len(sum_D), len(sum_D))


def _rounded(value: Tensor, step: float) -> Tensor:
    return (value / step).round() * step
