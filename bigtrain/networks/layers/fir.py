"""Low-pass filtering and resampling by 2 with [1, 3, 3, 1], as in StyleGAN2 (Karras et al. 2020, arXiv:1912.04958).

The textbook form stuffs zeros between pixels and runs a depthwise 4x4 convolution. These are the same numbers without
zeros and without grouped convolutions, whose double backward loops over groups: [1, 3, 3, 1] / 8 is [1, 1] / 2 three
times over, so filtering is three 2x2 average poolings, and upsampling is bilinear interpolation with zeros outside.
"""

# Axes: N images, C channels, H height, W width

import torch.nn.functional as F
from torch import Tensor


def blur(x_NCHW: Tensor, padding: int) -> Tensor:
    """Return the image with `padding` (0 to 3) rows and columns of zeros around it, filtered: [N, C, H+2p-3, W+2p-3].

    The filter's sum is 1.
    """
    for index in range(3):
        x_NCHW = F.avg_pool2d(x_NCHW, 2, stride=1, padding=int(index < padding))
    return x_NCHW


def down(x_NCHW: Tensor) -> Tensor:
    """Return the filtered image at half the side, [N, C, H/2, W/2]; H and W are even."""
    x_NCHW = F.avg_pool2d(x_NCHW, 2, stride=1, padding=1)
    return F.avg_pool2d(F.avg_pool2d(x_NCHW, 2, stride=1), 2)


def up(x_NCHW: Tensor) -> Tensor:
    """Return the image at twice the side, [N, C, 2H, 2W]: pixels are (1/4, 3/4) of neighbours, zeros outside."""
    padded_NCHW = F.pad(x_NCHW, (1, 1, 1, 1))
    return F.interpolate(padded_NCHW, scale_factor=2, mode="bilinear", align_corners=False)[..., 2:-2, 2:-2]
