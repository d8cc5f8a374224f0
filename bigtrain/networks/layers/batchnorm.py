"""Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167), plain and conditional, over a set number of images.

What a layer's statistics run over is a policy handed in from outside (`BatchStatistics`): groups of images within the
local batch, or one group spread over ranks, whose sums are reduced by a function that the caller brings.

Departs from torch.nn.BatchNorm2d: the running statistics can be updated once per turn instead of once per forward, and
there is no counter of forwards. As there, running variances are unbiased and normalisation uses the biased variance.
"""

# Axes: N images, C channels, H height, W width, D condition, S = 2 statistics (mean, variance)

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigtrain.networks.layers.precision import at_least_float32, full_precision
from bigtrain.networks.layers.running import RunningStatistics

BATCHNORM_EPS = 1e-5  # added to variances; the released BigGAN's default
BATCHNORM_MOMENTUM = 0.1  # weight of the newest statistics in the running ones; the released BigGAN's default


class BatchNorm(RunningStatistics):
    """Running statistics and normalisation without an affine part; see AffineBatchNorm and ConditionalBatchNorm.

    Buffers: `running_mean` and `running_var` [C].
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = BATCHNORM_EPS, momentum: float = BATCHNORM_MOMENTUM) -> None:
        super().__init__((2, channels), momentum)
        self.eps = eps
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def running(self) -> Tensor:
        """Return the running mean and variance, [2, C]."""
        return torch.stack((self.running_mean, self.running_var))

    def fold(self, statistics: Tensor, weight: float | Tensor) -> None:
        """Move the running mean and variance towards new ones [2, C] by `weight`."""
        mean_C, var_C = statistics.unbind()
        self.running_mean.lerp_(mean_C, weight)
        self.running_var.lerp_(var_C, weight)

    def normalise(self, x_NCHW: Tensor) -> Tensor:
        """Return (x - mean) / sqrt(var + eps): the policy's statistics in train mode, the running ones in eval mode."""
        if not self.training:
            return F.batch_norm(x_NCHW, self.running_mean, self.running_var, eps=self.eps)
        if self.policy.ranks > 1:
            return self._normalise_over_ranks(x_NCHW)
        groups = self.policy.groups(x_NCHW.shape[0])
        if groups == 1:
            normal_NCHW, statistics_SC = self._normalise_group(x_NCHW)
        else:
            parts = [self._normalise_group(part_NCHW) for part_NCHW in x_NCHW.chunk(groups)]
            normal_NCHW = torch.cat([part_NCHW for part_NCHW, _ in parts])
            statistics_SC = torch.stack([part_SC for _, part_SC in parts]).mean(0)
        self.keep(statistics_SC)
        return normal_NCHW

    def _normalise_group(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the group normalised by its own statistics, and its mean and unbiased variance, [2, C]."""
        # With momentum 1 the fused kernel writes exactly this group's statistics where running ones would be.
        mean_C, var_C = torch.zeros_like(self.pending).unbind()
        normal_NCHW = F.batch_norm(x_NCHW, mean_C, var_C, training=True, momentum=1.0, eps=self.eps)
        return normal_NCHW, torch.stack((mean_C, var_C))

    def _normalise_over_ranks(self, x_NCHW: Tensor) -> Tensor:
        """Normalise by the statistics of one group of images spread over ranks, with one reduction.

        Each rank gives its mean m and variance s about a common centre c (the running mean, equal on all ranks, so that
        little cancels): mean = c + <m - c>, var = <s + (m - c)^2> - <m - c>^2, where <> averages over ranks.
        """
        policy, wide_NCHW = self.policy, at_least_float32(x_NCHW)
        assert policy.reduce is not None
        assert policy.groups(x_NCHW.shape[0]) == 1
        var_C, mean_C = torch.var_mean(wide_NCHW, (0, 2, 3), correction=0)
        centre_C = self.running_mean.detach().clone()
        offset_C = mean_C - centre_C
        local_SC = torch.stack((offset_C, var_C + offset_C.square()))
        offset_C, second_C = (policy.reduce(local_SC) / policy.ranks).unbind()
        mean_C, var_C = centre_C + offset_C, (second_C - offset_C.square()).clamp_min(0)
        values = x_NCHW.numel() // x_NCHW.shape[1] * policy.ranks
        self.keep(torch.stack((mean_C, var_C * (values / (values - 1)))))
        scale_C11 = torch.rsqrt(var_C + self.eps)[:, None, None]
        return ((wide_NCHW - mean_C[:, None, None]) * scale_C11).to(x_NCHW.dtype)


class AffineBatchNorm(BatchNorm):
    """Batch normalisation with one learned gain (initially 1) and bias (initially 0) per channel."""

    def __init__(self, channels: int, eps: float = BATCHNORM_EPS, momentum: float = BATCHNORM_MOMENTUM) -> None:
        super().__init__(channels, eps, momentum)
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x_NCHW: Tensor, condition_N: Tensor | None = None) -> Tensor:
        """Return the normalised image times gain plus bias; the condition is not read."""
        normal_NCHW = self.normalise(x_NCHW)
        gain_C11, bias_C11 = self.gain[:, None, None], self.bias[:, None, None]
        return torch.addcmul(bias_C11.to(normal_NCHW.dtype), normal_NCHW, gain_C11.to(normal_NCHW.dtype))


class ConditionalBatchNorm(BatchNorm):
    """Batch normalisation with gain and bias per image from a condition (de Vries et al. 2017, arXiv:1707.00683).

    Args:
        channels: C.
        gain: maps the condition to [N, C]; 1 is added.
        bias: maps the condition to [N, C].
        eps: see BATCHNORM_EPS.
        momentum: see BATCHNORM_MOMENTUM.
    """

    def __init__(
        self,
        channels: int,
        gain: nn.Module,
        bias: nn.Module,
        eps: float = BATCHNORM_EPS,
        momentum: float = BATCHNORM_MOMENTUM,
    ) -> None:
        super().__init__(channels, eps, momentum)
        self.gain = gain
        self.bias = bias

    def forward(self, x_NCHW: Tensor, condition_N: Tensor) -> Tensor:
        """Return the normalised image times gain plus bias; the condition is a vector [N, D] or a label [N]."""
        normal_NCHW = self.normalise(x_NCHW)
        with full_precision(x_NCHW):
            gain_NC11 = (1 + self.gain(condition_N))[:, :, None, None].to(normal_NCHW.dtype)
            bias_NC11 = self.bias(condition_N)[:, :, None, None].to(normal_NCHW.dtype)
        return torch.addcmul(bias_NC11, normal_NCHW, gain_NC11)
