"""Mean and covariance of features, accumulated in float64 in constant memory.

Axes: N images, D features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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

    @staticmethod
    def reduce_all(some: Sequence["Moments"], sum_over_ranks: Callable[[Tensor], Tensor]) -> "list[Moments]":
        """Return the moments of all ranks' features for several sets of equal dims, with one call."""
        dims = some[0].sum_D.numel()
        packed = torch.cat([part for m in some for part in (m.num[None], m.sum_D, m.outer_DD.flatten())])
        sizes = [1, dims, dims * dims]
        rows = (torch.split(row, sizes) for row in torch.split(sum_over_ranks(packed), sum(sizes)))
        return [Moments(num[0], sum_D, outer.view(dims, dims)) for num, sum_D, outer in rows]

    def reduce(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> "Moments":
        """Return the moments of all ranks' features: one call with one float64 tensor."""
        return self.reduce_all([self], sum_over_ranks)[0]

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
