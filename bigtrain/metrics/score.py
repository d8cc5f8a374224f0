"""Inception score (Salimans et al. 2016, arXiv:1606.03498), summed up while logits come in.

exp(mean over images of KL(p(class | image) || p(class))), on `splits` parts of the images, which are dealt at random as
torch-fidelity deals them. The sums of p and of p log p of each part are all that is kept: with q the mean of p, the
mean of KL is (sum of p log p) / n - sum of q log q. Addends are rounded to multiples of 2^-32, so that float64 sums
them without further rounding, in any order: the same bits for any number of ranks.

Axes: N images, K classes, S splits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bigtrain.recipe.settings import PositiveCount, Settings

STEP = 2.0**-32  # p is at most 1 and -sum of p log p at most log K: over a hundred thousand images a split are exact


class ScoreSettings(Settings):
    """How the inception score divides the images."""

    splits: PositiveCount = 10
    """Parts over which the score is averaged; at most one an image."""
    seed: int = 2020
    """Seed of the division; the default is torch-fidelity's."""


@dataclass(frozen=True)
class Score:
    """Mean and standard deviation over the splits, as torch-fidelity has them."""

    mean: float
    std: float


class ScoreSums:
    """The sums that a score is made of, on one rank."""

    def __init__(
        self, settings: ScoreSettings, num_images: int, num_logits: int, device: torch.device | str = "cpu"
    ) -> None:
        self.num_splits = min(settings.splits, num_images)
        self._split_of = _splits(settings.seed, num_images, self.num_splits)
        # A row a split: how many images, sum of p log p, and the sum of p.
        self._sums = torch.zeros(self.num_splits, 2 + num_logits, dtype=torch.float64, device=device)

    def update(self, place_N: Tensor, logit_NK: Tensor) -> None:
        """Add the logits of the images that stand at `place_N` in their set."""
        log_p_NK = logit_NK.to(self._sums).log_softmax(1)
        p_NK = log_p_NK.exp()
        row = torch.cat([torch.ones_like(p_NK[:, :1]), torch.xlogy(p_NK, p_NK).sum(1, keepdim=True), p_NK], dim=1)
        row = (row / STEP).round() * STEP
        self._sums.index_add_(0, self._split_of[place_N].to(row.device), row)

    def score(self, sum_over_ranks: Callable[[Tensor], Tensor]) -> Score:
        """Return the score of all ranks' images, with one reduction."""
        num_S, p_log_p_S, p_SK = torch.split(sum_over_ranks(self._sums).cpu(), [1, 1, self._sums.shape[1] - 2], dim=1)
        q_SK = p_SK / num_S
        score_S = (p_log_p_S[:, 0] / num_S[:, 0] - torch.xlogy(q_SK, q_SK).sum(1)).exp()
        return Score(float(score_S.mean()), float(score_S.std(correction=0)))


def _splits(seed: int, num_images: int, num_splits: int) -> Tensor:
    """Return the split of every image, int64: torch-fidelity shuffles the images and cuts them in equal parts."""
    # Its generator is numpy's old one; the object has a seed of its own and touches no global state.
    order = torch.from_numpy(np.random.RandomState(seed).permutation(num_images))
    cuts = torch.tensor([split * num_images // num_splits for split in range(1, num_splits)], dtype=torch.int64)
    split_of = torch.empty(num_images, dtype=torch.int64)
    split_of[order] = torch.bucketize(torch.arange(num_images), cuts, right=True)
    return split_of
