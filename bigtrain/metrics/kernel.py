"""Kernel distance between two sets of features (Binkowski et al. 2018, arXiv:1801.01401), by torch-fidelity's formula.

The squared maximum mean discrepancy under the kernel (x . y / D + 1)^3, unbiased, averaged over seeded random subsets.
Departs from torch-fidelity's own run: features enter in float64, not float32.

Axes: N images, D features.
"""

from dataclasses import dataclass

from pydantic import Field
from torch import Tensor

from bigtrain.recipe.settings import PositiveCount, Settings

SMALLEST_SUBSET = 2  # the unbiased estimate divides by m (m - 1)


class KernelSettings(Settings):
    """Which random subsets the kernel distance is averaged over."""

    subsets: PositiveCount = 100
    """Number of subsets."""
    subset_size: PositiveCount = Field(default=1000, ge=SMALLEST_SUBSET)
    """Images in a subset, of each set; at most as many as the smaller set has (unbiased at any size)."""
    max_images: PositiveCount = Field(default=10_000, ge=SMALLEST_SUBSET)
    """Images of each set whose features are kept for the subsets."""
    seed: int = 0
    """Seed of the subsets."""


@dataclass(frozen=True)
class KernelDistance:
    """Mean and standard deviation over the subsets, and how large these were."""

    mean: float
    std: float
    subset_size: int


def kernel_distance(feature_a_ND: Tensor, feature_b_ND: Tensor, settings: KernelSettings) -> KernelDistance:
    """Return the kernel distance of two sets of features; around 0, of either sign, when both follow one law.

    Args:
        feature_a_ND: any float dtype and device.
        feature_b_ND: likewise; the two sets may differ in size.
        settings: the subsets; their size is cut to the smaller set.
    """
    # Imported late: it draws in torchvision, and a recipe is checked without either.
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    smaller = min(len(feature_a_ND), len(feature_b_ND))
    assert smaller >= SMALLEST_SUBSET, f"a kernel distance needs {SMALLEST_SUBSET} features a set, got {smaller}"
    subset_size = min(settings.subset_size, smaller)
    figures = kid_features_to_metric(
        feature_a_ND.double(),
        feature_b_ND.double(),
        kid_subsets=settings.subsets,
        kid_subset_size=subset_size,
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,  # 1 / D
        kid_kernel_poly_coef0=1,
        rng_seed=settings.seed,
        verbose=False,
    )
    return KernelDistance(float(figures[KEY_METRIC_KID_MEAN]), float(figures[KEY_METRIC_KID_STD]), subset_size)
