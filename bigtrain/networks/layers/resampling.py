"""Convolutions fused with resampling by 2, exact and with 16/36 of the multiply-adds.

Nearest-up then conv3x3 is one 4x4 transposed convolution of stride 2; conv3x3 then 2x2 average pooling is one 4x4
convolution of stride 2. Both kernels are box sums of the 3x3 kernel: per axis w0, w1, w2 -> w0, w0 + w1, w1 + w2, w2.
The trick is Progressive GAN's (Karras et al. 2018, arXiv:1710.10196); a 1x1 convolution commutes with both resamplings.
"""

# Axes: N images, C channels in, D channels out, H height, W width, K kernel side, P = K*K, E = 4*4

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bigtrain.networks.layers.precision import full_precision


def box_matrix(direction: Literal["up", "down"]) -> Tensor:
    """Return the float32 matrix [P, E] that turns flattened 3x3 kernels into those of `conv_up` or `conv_down`."""
    axis_K4 = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    # A transposed convolution reads its kernel mirrored; pooling averages four sums.
    return torch.kron(axis_K4.flip(0), axis_K4.flip(0)) if direction == "up" else torch.kron(axis_K4, axis_K4) / 4


def box_sum(weight_DCKK: Tensor, box_PE: Tensor) -> Tensor:
    """Return the sums over all 2x2 windows of the zero-padded 3x3 kernels, as `box_matrix` says: [D, C, 4, 4]."""
    # A matrix product: 3 to 10 times faster than pooling or adding slices of 3x3 planes on a CPU.
    with full_precision(weight_DCKK):
        return torch.matmul(weight_DCKK.flatten(2), box_PE).view(*weight_DCKK.shape[:2], 4, 4)


def up(x_NCHW: Tensor) -> Tensor:
    """Return the image with every pixel repeated 2x2."""
    return F.interpolate(x_NCHW, scale_factor=2, mode="nearest")


def conv_up(x_NCHW: Tensor, weight_DCKK: Tensor, bias_D: Tensor | None, box_PE: Tensor) -> Tensor:
    """Return conv(up(x)) with "same" padding, for kernels of side 1 or 3: [N, D, 2H, 2W]."""
    if weight_DCKK.shape[-1] == 1:
        return up(F.conv2d(x_NCHW, weight_DCKK, bias_D))
    weight_CDKK = box_sum(weight_DCKK, box_PE).transpose(0, 1)
    return F.conv_transpose2d(x_NCHW, weight_CDKK, bias_D, stride=2, padding=1)


def conv_down(x_NCHW: Tensor, weight_DCKK: Tensor, bias_D: Tensor | None, box_PE: Tensor) -> Tensor:
    """Return avg_pool2x2(conv(x)) with "same" padding, for kernels of side 1 or 3: [N, D, H/2, W/2]."""
    if weight_DCKK.shape[-1] == 1:
        return F.conv2d(F.avg_pool2d(x_NCHW, 2), weight_DCKK, bias_D)
    return F.conv2d(x_NCHW, box_sum(weight_DCKK, box_PE), bias_D, stride=2, padding=1)
