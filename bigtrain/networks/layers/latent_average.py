"""Running average of w, toward which styles are truncated (Karras et al. 2019, arXiv:1812.04948, appendix B)."""

# Axes: N images, W style

import torch
from torch import Tensor

from bigtrain.networks.layers.running import RunningStatistics


class LatentAverage(RunningStatistics):
    """Buffer `mean` [W], initially 0: the average of the batches' means.

    Args:
        dim: W.
        decay: weight of the old average when a new batch comes in.
    """

    mean: Tensor

    def __init__(self, dim: int, decay: float) -> None:
        super().__init__((dim,), 1 - decay)
        self.register_buffer("mean", torch.zeros(dim))

    def forward(self, w_NW: Tensor) -> Tensor:
        """Return w as it is; in train mode, its mean goes into the average as the policy says."""
        if self.training:
            self.keep(w_NW.detach().mean(0))
        return w_NW

    def running(self) -> Tensor:
        """Return the average, [W]."""
        return self.mean

    def fold(self, statistics: Tensor, weight: float | Tensor) -> None:
        """Move the average towards a new mean [W] by `weight`."""
        self.mean.lerp_(statistics, weight)
