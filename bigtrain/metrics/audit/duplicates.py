"""Whether generated images are copies of training images, judged by distances to the nearest training image.

The measure is what real images do that were not trained on. A generated image is a near-duplicate when it is at least
as near to its nearest training image as the nearest 1% of such real images are to theirs. Where generated images are as
good as real ones, all these distances can be exchanged for one another. So the share of near-duplicates to expect and
the probability of more follow from ranks alone: of n real distances, a further one is at most the k-th smallest with
probability k / (n + 1), and the number of those among m further ones has a beta-binomial law.

Beside it stands the test of Meehan, Chaudhuri and Dasgupta (2020, arXiv:2004.05675): whether generated images are
nearer to the training images than other real images are, by ranks. Departs from the paper: over all images at once, not
cell by cell.

Axes: N generated images, R real ones.
"""

from dataclasses import dataclass

from torch import Tensor

from bigtrain.metrics.audit.significance import RankTest, rank_test

NEAREST_SHARE = 0.01  # of the real images, whose distances count as near


@dataclass(frozen=True)
class NearThreshold:
    """The distance up to which an image counts as a near-duplicate of a training image."""

    distance: float
    rank: int
    """How many of the real distances are at most this one."""
    num_real: int

    @property
    def expected_share(self) -> float:
        """Share of images of a perfect generator that are that near."""
        return self.rank / (self.num_real + 1)


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates among generated images."""

    num_near: int
    share: float
    probability: float
    """Of at least so many, from a perfect generator."""


def near_threshold(distance_R: Tensor) -> NearThreshold:
    """Return the distance that the nearest 1% of real images keep from their nearest training image.

    Args:
        distance_R: of real images that are not trained on (or of training images, from the other ones); at least one.
    """
    sorted_R = distance_R.double().sort().values
    rank = max(1, int(NEAREST_SHARE * (len(sorted_R) + 1)))
    distance = float(sorted_R[rank - 1])
    return NearThreshold(distance, int((sorted_R <= distance).sum()), len(sorted_R))


def near_duplicates(distance_N: Tensor, threshold: NearThreshold) -> Duplicates:
    """Return how many generated images are near-duplicates, and how surprising that is."""
    from scipy.stats import betabinom  # imported late: it takes a second

    num_images = len(distance_N)
    num_near = int((distance_N.double() <= threshold.distance).sum())
    law = betabinom(num_images, threshold.rank, threshold.num_real - threshold.rank + 1)
    return Duplicates(num_near, num_near / num_images, float(law.sf(num_near - 1)))


def copying_test(distance_N: Tensor, distance_R: Tensor) -> RankTest:
    """Return how often a generated image is farther from its nearest training image than a real one: 0.5 for images
    that cannot be told from real ones, less where they are copied or less varied, more where they are far from all."""
    return rank_test(distance_N, distance_R)
