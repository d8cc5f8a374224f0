"""Frechet distance between two sets of features (Heusel et al. 2017, arXiv:1706.08500).

|mean_a - mean_b|^2 + trace(C_a + C_b - 2 (C_a C_b)^(1/2)), in float64. The trace of the root is the sum of the square
roots of the eigenvalues of C_a C_b. These are also those of F^T C_b F for any F with F F^T = C_a, which is symmetric
and therefore cheaper and better conditioned than the product: F is the Cholesky factor of a covariance that has one,
else made of its eigenvectors (fewer features than dimensions).

Departs from torch-fidelity, which takes the eigenvalues of the product itself: the figures agree to 1e-6 and better.

Axes: N images, D features.
"""

from typing import Protocol

import torch
from torch import Tensor

# Eigenvalues under this many roundings of the largest one are rounding themselves, and count as 0.
NOISE = 8 * torch.finfo(torch.float64).eps


class Law(Protocol):
    """Mean and covariance of features."""

    @property
    def mean_D(self) -> Tensor:  # noqa: N802 (axis)
        """float64 [D]."""
        ...

    @property
    def covariance_DD(self) -> Tensor:  # noqa: N802 (axis)
        """float64 [D, D], symmetric."""
        ...


def frechet_distance(a: Law, b: Law) -> float:
    """Return the squared Frechet distance between the normal laws with the moments of `a` and `b`.

    Symmetric; 0 for equal moments, up to rounding of either sign.
    """
    cov_a_DD, cov_b_DD = a.covariance_DD, b.covariance_DD
    means = (a.mean_D - b.mean_D).square().sum()
    return float(means + cov_a_DD.trace() + cov_b_DD.trace()) - 2 * root_trace(cov_a_DD, cov_b_DD)


def frechet_of_features(feature_a_ND: Tensor, feature_b_ND: Tensor, divisor: str = "n-1") -> float:
    """Return the distance of two sets of features, covariances with divisor N - 1 or N (`n`); quick for few features of
    many dimensions.

    The trace of the root is the nuclear norm of the product of the centred features, a matrix of one row and one
    column an image.
    """
    a_ND, b_ND = (_centred(feature_ND.double(), divisor) for feature_ND in (feature_a_ND, feature_b_ND))
    means = (feature_a_ND.double().mean(0) - feature_b_ND.double().mean(0)).square().sum()
    if max(len(a_ND), len(b_ND)) > a_ND.shape[1]:
        trace = root_trace(a_ND.T @ a_ND, b_ND.T @ b_ND)
    else:
        trace = float(torch.linalg.svdvals(a_ND @ b_ND.T).sum())
    return float(means + a_ND.square().sum() + b_ND.square().sum()) - 2 * trace


def _centred(feature_ND: Tensor, divisor: str) -> Tensor:
    """Return features whose outer products sum up to the covariance."""
    assert len(feature_ND) >= 2, f"a covariance needs 2 features, got {len(feature_ND)}"
    number = len(feature_ND) if divisor == "n" else len(feature_ND) - 1
    centred_ND: Tensor = (feature_ND - feature_ND.mean(0)) / number**0.5
    return centred_ND


def root_trace(a_DD: Tensor, b_DD: Tensor) -> float:
    """Return trace((a b)^(1/2)) of two covariances, float64 and symmetric, of any rank."""
    for one_DD, other_DD in ((a_DD, b_DD), (b_DD, a_DD)):
        factor_DD, info = torch.linalg.cholesky_ex(one_DD)
        if int(info) == 0:
            return _sum_of_roots(factor_DD, other_DD)
    # Both lack rank. The one of lower rank leaves no zeros among the eigenvalues, whose roots would be rounding.
    factor_a_DR, factor_b_DR = _factor(a_DD), _factor(b_DD)
    if factor_a_DR.shape[1] <= factor_b_DR.shape[1]:
        return _sum_of_roots(factor_a_DR, b_DD)
    return _sum_of_roots(factor_b_DR, a_DD)


def _factor(covariance_DD: Tensor) -> Tensor:
    """Return F with F F^T = covariance, [D, R], R its rank."""
    value_D, vector_DD = torch.linalg.eigh(covariance_DD)
    above_D = value_D > NOISE * value_D[-1]
    factor_DR: Tensor = vector_DD[:, above_D] * value_D[above_D].sqrt()
    return factor_DR


def _sum_of_roots(factor_DR: Tensor, covariance_DD: Tensor) -> float:
    """Return the sum of the square roots of the eigenvalues of F^T C F."""
    if factor_DR.shape[1] == 0:
        return 0.0
    inner_RR = factor_DR.T @ covariance_DD @ factor_DR
    value_R = torch.linalg.eigvalsh((inner_RR + inner_RR.T) / 2)
    return float(value_R.clamp(min=0).sqrt().sum())
