"""Which classes and clusters generated images cover, and how often, against the real images.

Clusters are the bins of Richardson and Weiss (2018, arXiv:1805.12462): k-means of real features, and for each bin a
test whether its shares of generated and of real images differ; the number of different bins is NDB. Departs from the
paper: bins are fitted on one half of the real images and counted on the other, because images that bins were fitted on
are not spread over them like others.

Axes: N images, D features, K classes or bins.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bigtrain.metrics.audit.neighbours import squared_distances
from bigtrain.metrics.audit.significance import SIGNIFICANCE

Counts = npt.NDArray[np.int64]

MOST_BINS = 100  # as in the paper
IMAGES_A_BIN = 20  # real ones at least, on average: with fewer the normal approximation of the test is poor
BIN_LEVEL = 0.05  # of the paper's test of one bin: this share of bins differs between real and real
BLOCK_IMAGES = 4096
MISSING_BELOW = 0.1  # of the share among real images


def counted(label_N: Tensor, num_bins: int) -> Counts:
    """Return how many images have each label, int64 [K]."""
    counts: Counts = torch.bincount(label_N.cpu(), minlength=num_bins).numpy()
    return counts


def entropy(count_K: Counts) -> float:
    """Return the entropy of the shares in nats: log K where all are equal, 0 where one has all."""
    share_K = count_K[count_K > 0] / count_K.sum()
    return float(-(share_K * np.log(share_K)).sum())


def divergence(count_K: Counts, law_K: Counts) -> float | None:
    """Return the Kullback-Leibler divergence in nats of the shares of generated images from those of `law_K`.

    Returns:
        0 where both are equal; None where an image lies in a bin that the law does not know (it would be infinite).
    """
    share_K, law = count_K / count_K.sum(), law_K / law_K.sum()
    there = share_K > 0
    if bool((law[there] == 0).any()):
        return None
    return float((share_K[there] * np.log(share_K[there] / law[there])).sum())


def sampling_divergence(num_bins: int, num_images: int) -> float:
    """Return the divergence that so many images of the law itself have on average, (K - 1) / 2N, for large N (Wilks
    1938, doi:10.1214/aoms/1177732360)."""
    return (num_bins - 1) / (2 * num_images)


def missing_bins(count_K: Counts, law_K: Counts) -> list[int]:
    """Return the bins that are less than a tenth as frequent as among real images, beyond chance.

    By Fisher's exact test: of the images in a bin, the probability that no more are generated ones where they are drawn
    from all real and generated images; times K, for so many bins are looked at. (Not only empty bins: a classifier
    sends a few images of other classes everywhere.)
    """
    from scipy.stats import hypergeom  # imported late: it takes a second

    num_generated, num_real = int(count_K.sum()), int(law_K.sum())
    chance_K = hypergeom.cdf(count_K, num_generated + num_real, count_K + law_K, num_generated)
    is_rare_K = count_K / num_generated < MISSING_BELOW * law_K / num_real
    found = is_rare_K & (chance_K * len(law_K) < SIGNIFICANCE)
    return [int(bin_) for bin_ in np.flatnonzero(found)]


def bin_scores(count_K: Counts, law_K: Counts) -> npt.NDArray[np.float64]:
    """Return for each bin how many standard deviations its share of generated images lies above that of real ones.

    The two-proportion test of the paper, with a pooled share; 0 for bins that are empty in both.
    """
    num_a, num_b = count_K.sum(), law_K.sum()
    pooled_K = (count_K + law_K) / (num_a + num_b)
    error_K = np.sqrt(pooled_K * (1 - pooled_K) * (1 / num_a + 1 / num_b))
    difference_K = count_K / num_a - law_K / num_b
    scores: npt.NDArray[np.float64] = np.divide(difference_K, error_K, out=np.zeros(len(error_K)), where=error_K > 0)
    return scores


def different_bins(count_K: Counts, law_K: Counts) -> list[int]:
    """Return the statistically different bins, the most different first; their number is NDB."""
    scores = np.abs(bin_scores(count_K, law_K))
    limit = -normal_quantile(BIN_LEVEL / 2)
    return [int(bin_) for bin_ in np.argsort(-scores, kind="stable") if scores[bin_] > limit]


def surprising_bins(num_bins: int) -> int:
    """Return the smallest number of different bins that two sets of one law reach with a probability under
    SIGNIFICANCE, bins taken as independent."""
    from scipy.stats import binom  # imported late: it takes a second

    return int(binom.isf(SIGNIFICANCE, num_bins, BIN_LEVEL)) + 1


def normal_quantile(probability: float) -> float:
    """Return the value that a standard normal number is below with this probability."""
    return float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))


class Bins:
    """Clusters of real features.

    Args:
        feature_ND: of the real images to fit on.
        num_bins: K.
        seed: of k-means.
    """

    def __init__(self, feature_ND: Tensor, num_bins: int, seed: int) -> None:
        from sklearn.cluster import KMeans  # imported late: it takes seconds

        fitted: Any = KMeans(num_bins, n_init=1, random_state=seed).fit(feature_ND.double().cpu().numpy())
        self.centre_KD = torch.from_numpy(fitted.cluster_centers_).double()

    def of(self, feature_ND: Tensor) -> Tensor:
        """Return the bin of each image, int64 [N] on the CPU: that of the nearest centre."""
        parts = torch.split(feature_ND.double().cpu(), BLOCK_IMAGES)
        return torch.cat([squared_distances(part, self.centre_KD).argmin(1) for part in parts])


def number_of_bins(num_real: int) -> int:
    """Return K for so many real images, half of which are counted; 0 where they are too few for two bins."""
    num_bins = min(MOST_BINS, num_real // 2 // IMAGES_A_BIN)
    return num_bins if num_bins > 1 else 0


def log_cardinality(num_bins: int) -> float:
    """Return the largest entropy that so many bins can have, in nats."""
    return math.log(num_bins)
