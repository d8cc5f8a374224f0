"""Class leakage: which class a classifier sees in images of the class that was asked for.

Axes: N images, K classes (twice: asked, seen).
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bigtrain.metrics.audit.significance import SIGNIFICANCE

Counts = npt.NDArray[np.int64]


def confusion(asked_N: Tensor, seen_N: Tensor, num_classes: int) -> Counts:
    """Return how many images of each class asked for (rows) were seen as each class (columns), int64 [K, K]."""
    cell_N = asked_N.cpu() * num_classes + seen_N.cpu()
    counts: Counts = torch.bincount(cell_N, minlength=num_classes**2).view(num_classes, num_classes).numpy()
    return counts


def accuracy(count_KK: Counts) -> float:
    """Return the share of images that are seen as the class asked for."""
    return float(np.trace(count_KK) / count_KK.sum())


def class_accuracies(count_KK: Counts) -> list[float | None]:
    """Return the same for each class asked for; None for one without images."""
    totals = count_KK.sum(1)
    return [float(count_KK[k, k] / total) if total else None for k, total in enumerate(totals)]


def leaking_classes(count_KK: Counts, num_real: int, num_real_right: int) -> list[int]:
    """Return the classes whose images are misread more often than real images are, worst first.

    By Fisher's exact test of a row against the real images of all classes, times K, for so many rows are looked at.

    Args:
        count_KK: of generated images.
        num_real: real images that the classifier was not trained on.
        num_real_right: how many of them it reads as their label.
    """
    from scipy.stats import hypergeom  # imported late: it takes a second

    total_K, right_K = count_KK.sum(1), np.diagonal(count_KK)
    # Given so many right ones among row and real images together: the row has at most so many of them.
    chance_K = hypergeom.cdf(right_K, total_K + num_real, right_K + num_real_right, total_K)
    share_K = right_K / np.maximum(total_K, 1)
    order = np.argsort(share_K, kind="stable")
    return [int(k) for k in order if total_K[k] and chance_K[k] * len(total_K) < SIGNIFICANCE]


def largest_leaks(count_KK: Counts, most: int) -> list[tuple[int, int, float]]:
    """Return (asked, seen, share of the row) of the largest shares beside the diagonal, largest first."""
    share_KK = count_KK / np.maximum(count_KK.sum(1, keepdims=True), 1)
    np.fill_diagonal(share_KK, 0.0)
    order = np.argsort(-share_KK, axis=None, kind="stable")[:most]
    cells = [(int(cell // len(share_KK)), int(cell % len(share_KK))) for cell in order]
    return [(asked, seen, float(share_KK[asked, seen])) for asked, seen in cells if share_KK[asked, seen] > 0]
