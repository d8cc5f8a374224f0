"""Mean and covariance of features, accumulated in float64 in constant memory.

Axes: N images, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


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
    def zeros(cls, dims: int, device: torch.device | str = "cpu") -> "Moments":
        """Return the moments of no features."""
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in ((), (dims,), (dims, dims))))

    def update(self, feature_ND: Tensor) -> None:
        """Add features of any float dtype to these moments, in place."""
        feature_ND = feature_ND.to(self.sum_D)
        self.num.add_(len(feature_ND))
        self.sum_D.add_(feature_ND.sum(0))
        self.outer_DD.addmm_(feature_ND.T, feature_ND)

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of features together."""
        return Moments(self.num + other.num, self.sum_D + other.sum_D, self.outer_DD + other.outer_DD)

    def reduce(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> "Moments":
        """Return the moments of all ranks' features: one call with one float64 tensor [1 + D + D * D]."""
        packed = sum_over_ranks(torch.cat([self.num[None], self.sum_D, self.outer_DD.flatten()]))
        num, sum_D, outer = torch.split(packed, [1, self.sum_D.numel(), self.outer_DD.numel()])
        return Moments(num[0], sum_D, outer.view_as(self.outer_DD))

    def to(self, device: torch.device | str) -> "Moments":
        """Return the same moments on another device."""
        return Moments(self.num.to(device), self.sum_D.to(device), self.outer_DD.to(device))

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
