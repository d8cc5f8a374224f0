"""Mean and covariance of features, summed in float64 in constant memory, and exactly.

Sums do not depend on the order of images, so they are the same bits for any number of ranks and any batch. Features are
rounded to multiples of 2^-23, half of float32's own step at 1, and split in a coarse part (a multiple of 2^-6) and a
fine one. Then every product of parts, and every sum of up to two million of them, is a float64 without rounding as long
as no feature reaches 1,024; beyond that sums are what float64 makes of them.

Axes: N images, D features.
"""

from collections.abc import Callable, Sequence
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
        return sums.total()

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
    """Exact sums over features, on one rank."""

    def __init__(self, dims: int, device: torch.device | str = "cpu") -> None:
        """Sum over nothing yet."""
        self.num, self.sum_D = _zeros((), device), _zeros((dims,), device)
        self.coarse_DD, self.mixed_DD, self.fine_DD = (_zeros((dims, dims), device) for _ in range(3))

    def update(self, feature_ND: Tensor) -> None:
        """Add features of any float dtype."""
        feature_ND = _rounded(feature_ND.to(self.sum_D), STEP)
        coarse_ND = _rounded(feature_ND, COARSE_STEP)
        fine_ND = feature_ND - coarse_ND
        self.num.add_(len(feature_ND))
        self.sum_D.add_(feature_ND.sum(0))
        self.coarse_DD.addmm_(coarse_ND.T, coarse_ND)
        self.mixed_DD.addmm_(coarse_ND.T, fine_ND)
        self.fine_DD.addmm_(fine_ND.T, fine_ND)

    def total(self) -> Moments:
        """Return the moments of what was summed."""
        return Moments(self.num, self.sum_D, self.coarse_DD + (self.mixed_DD + self.mixed_DD.T) + self.fine_DD)

    @staticmethod
    def total_over_ranks(some: "Sequence[MomentSums]", sum_over_ranks: Callable[[Tensor], Tensor]) -> list[Moments]:
        """Return the moments of all ranks' features for several sets of equal dims, with one call."""
        packed = sum_over_ranks(torch.cat([part.flatten() for sums in some for part in sums._parts()]))
        dims, device = some[0].sum_D.numel(), packed.device
        totals = []
        for row in torch.split(packed, 1 + dims + 3 * dims**2):
            total = MomentSums(dims, device)
            start = 0
            for part in total._parts():
                part.copy_(row[start : start + part.numel()].view_as(part))
                start += part.numel()
            totals.append(total.total())
        return totals

    def _parts(self) -> tuple[Tensor, ...]:
        return self.num, self.sum_D, self.coarse_DD, self.mixed_DD, self.fine_DD


def _zeros(shape: tuple[int, ...], device: torch.device | str) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, device=device)


def _rounded(value: Tensor, step: float) -> Tensor:
    return (value / step).round() * step
