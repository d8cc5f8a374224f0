"""Frechet distance between two sets of features (Heusel et al. 2017, arXiv:1706.08500), by torch-fidelity's formula.

|mean_a - mean_b|^2 + trace(C_a + C_b - 2 (C_a C_b)^(1/2)), on float64 moments.
"""

from bigtrain.metrics.moments import Moments


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return the squared Frechet distance between the normal laws with the moments of `a` and `b`.

    Symmetric; 0 for equal moments, up to rounding of either sign.
    """
    # Imported late: it draws in torchvision, and a recipe is checked without either.
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    statistics = [{"mu": m.mean_D.cpu().numpy(), "sigma": m.covariance_DD.cpu().numpy()} for m in (a, b)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])
