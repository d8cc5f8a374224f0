"""How many different images a generator can make, by the birthday paradox (Arora and Zhang 2017, arXiv:1706.08224).

Where a generator makes N images equally often, two drawn ones are equal with probability 1 / N, and a batch of s holds
an equal pair with a probability near 1 - exp(-s^2 / 2N): one half at s = 1.18 sqrt(N). Departs from the paper: a person
looked for duplicates there; here a pair counts when its images are nearer than a threshold that comes from real images,
and the same is done with real images, for held against them the number means something. The estimate uses all pairs.

Axes: N images, B images of a block, D features.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bigtrain.metrics.audit.neighbours import squared_distances

BLOCK_IMAGES = 1024
FEWEST_BATCHES = 8  # of a size for which a share of batches is worth a number
NEVER = 63  # level of an image without a near one: above every number of bits
NONE_SEEN_95 = 3.0  # -log(0.05): pairs to expect at most, with 95% confidence, where none was seen


@dataclass(frozen=True)
class Pairs:
    """The near pairs in a set of images."""

    near_N: Tensor
    """int64: how many other images are near each one."""
    level_N: Tensor
    """int64: each image has a near one in its aligned batch of 2^level images, and in none of a smaller power of 2."""
    closest: tuple[tuple[int, int, float], ...]
    """Numbers and distance of the most similar pairs, nearest first."""

    @property
    def num_pairs(self) -> int:
        """All pairs."""
        return len(self.near_N) * (len(self.near_N) - 1) // 2

    @property
    def num_near(self) -> int:
        """Pairs that are near."""
        return int(self.near_N.sum()) // 2


@dataclass(frozen=True)
class Support:
    """What near pairs say of the number of different images."""

    rate: float
    """Share of near pairs."""
    rate_std: float
    """Its standard error."""
    num_images: float | None
    """Different images, were all equally frequent: 1 / rate; None where no pair was near."""
    at_least: float | None
    """Where no pair was near: there are so many at least, with 95% confidence."""


def near_pairs(feature_ND: Tensor, distance: float, num_closest: int) -> Pairs:
    """Return the pairs at most `distance` apart, and the closest ones; holds blocks of BLOCK_IMAGES^2 distances.

    Args:
        feature_ND: at least two.
        distance: up to which a pair is near.
        num_closest: how many of the closest pairs to name.
    """
    num_images = len(feature_ND)
    assert num_images > 1, "a pair needs two images"
    near_N = torch.zeros(num_images, dtype=torch.int64)
    level_N = torch.full((num_images,), NEVER, dtype=torch.int64)
    closest: list[tuple[float, int, int]] = []
    blocks = list(
        zip(torch.split(torch.arange(num_images), BLOCK_IMAGES), torch.split(feature_ND, BLOCK_IMAGES), strict=True)
    )
    for place, (index_A, feature_AD) in enumerate(blocks):
        for index_B, feature_BD in blocks[place:]:
            square_AB = squared_distances(feature_AD.double(), feature_BD.double()).cpu()
            square_AB.masked_fill_(index_A[:, None] >= index_B, torch.inf)  # each pair once
            _note_near(index_A, index_B, square_AB <= distance**2, near_N, level_N)
            closest = sorted(closest + _smallest(index_A, index_B, square_AB, num_closest))[:num_closest]
    return Pairs(near_N, level_N, tuple((a, b, math.sqrt(square)) for square, a, b in closest))


def _note_near(index_A: Tensor, index_B: Tensor, near_AB: Tensor, near_N: Tensor, level_N: Tensor) -> None:
    """Add a block's near pairs to the counts and levels of both their images."""
    level_AB = torch.where(near_AB, _bits(index_A[:, None] ^ index_B), NEVER)
    for index, dim in ((index_A, 1), (index_B, 0)):
        near_N[index] += near_AB.sum(dim)
        level_N[index] = torch.minimum(level_N[index], level_AB.amin(dim))


def _bits(value: Tensor) -> Tensor:
    """Return the number of binary digits of int64 values >= 0 (exact: frexp of a double)."""
    return torch.frexp(value.double()).exponent.long()


def _smallest(index_A: Tensor, index_B: Tensor, square_AB: Tensor, count: int) -> list[tuple[float, int, int]]:
    flat, width = square_AB.flatten(), square_AB.shape[1]
    square, place = flat.topk(min(count, len(flat)), largest=False)
    rows, columns = index_A[place // width].tolist(), index_B[place % width].tolist()
    return [each for each in zip(square.tolist(), rows, columns, strict=True) if each[0] < math.inf]


def support_size(pairs: Pairs) -> Support:
    """Return how many different images the near pairs speak for.

    The share of near pairs is unbiased for their probability; its standard error is that of a mean over pairs that
    share images (Hoeffding 1948, doi:10.1214/aoms/1177730196): twice the spread of the images' own shares, over
    sqrt(N).
    """
    num_images = len(pairs.near_N)
    own_N = pairs.near_N.double() / (num_images - 1)
    rate = pairs.num_near / pairs.num_pairs
    # Not under that of as many independent pairs, which is left where all images have equally many near ones.
    rate_std = max(2 * float(own_N.std()) / math.sqrt(num_images), math.sqrt(rate * (1 - rate) / pairs.num_pairs))
    if not pairs.num_near:
        return Support(0.0, 0.0, None, pairs.num_pairs / NONE_SEEN_95)
    return Support(rate, rate_std, 1 / rate, None)


def excess(generated: Support, real: Support) -> float:
    """Return by how many standard errors near pairs are more frequent among generated images than among real ones."""
    error = math.hypot(generated.rate_std, real.rate_std)
    return (generated.rate - real.rate) / error if error else 0.0


def batches_with_a_pair(pairs: Pairs) -> dict[int, float]:
    """Return, for batches of 2, 4, 8 ... images, the share of them that hold a near pair."""
    shares: dict[int, float] = {}
    num_images = len(pairs.level_N)
    level = 1
    while num_images >> level >= FEWEST_BATCHES:
        whole = num_images >> level << level
        has_pair_N = pairs.level_N[:whole] <= level
        shares[1 << level] = float(has_pair_N.view(-1, 1 << level).any(1).double().mean())
        level += 1
    return shares
