"""Low-pass filtering and resampling by 2 with [1, 3, 3, 1], as in StyleGAN2 (Karras et al. 2020, arXiv:1912.04958).

The textbook form stuffs zeros between pixels and runs a depthwise 4x4 convolution, whose double backward loops over
channels. These are the same numbers without zeros and without grouped convolutions: [1, 3, 3, 1] / 8 is [1, 1] / 2
three times over, so filtering is three 2x2 average poolings, and upsampling is bilinear interpolation with zeros
outside. The backward of each of them is another of them. All work in channels_last memory: on a CPU, poolings of the
other layout are ten times slower.
"""

# Axes: N images, C channels, H height, W width

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _rows_of_channels(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.contiguous(memory_format=torch.channels_last)


class _Blur(torch.autograd.Function):
    @staticmethod
    def forward(x_NCHW: Tensor, padding: int) -> Tensor:
        x_NCHW = _rows_of_channels(x_NCHW)
        for index in range(3):
            x_NCHW = F.avg_pool2d(x_NCHW, 2, stride=1, padding=int(index < padding))
        return x_NCHW

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.padding = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        # The filter is symmetric: what reached each pixel comes back, with the other border.
        return _Blur.apply(gradients[0], 3 - ctx.padding), None


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(x_NCHW: Tensor) -> Tensor:
        x_NCHW = F.avg_pool2d(_rows_of_channels(x_NCHW), 2, stride=1, padding=1)
        return F.avg_pool2d(F.avg_pool2d(x_NCHW, 2, stride=1), 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Up.apply(gradients[0] * 0.25)


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(x_NCHW: Tensor) -> Tensor:
        padded_NCHW = F.pad(_rows_of_channels(x_NCHW), (1, 1, 1, 1))
        return F.interpolate(padded_NCHW, scale_factor=2, mode="bilinear", align_corners=False)[..., 2:-2, 2:-2]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Down.apply(gradients[0]) * 4


def blur(x_NCHW: Tensor, padding: int) -> Tensor:
    """Return the image with `padding` (0 to 3) rows and columns of zeros around it, filtered: [N, C, H+2p-3, W+2p-3].

    The filter's sum is 1.
    """
    blurred_NCHW: Tensor = _Blur.apply(x_NCHW, padding)
    return blurred_NCHW


def down(x_NCHW: Tensor) -> Tensor:
    """Return the filtered image at half the side, [N, C, H/2, W/2]; H and W are even."""
    small_NCHW: Tensor = _Down.apply(x_NCHW)
    return small_NCHW


def up(x_NCHW: Tensor) -> Tensor:
    """Return the image at twice the side, [N, C, 2H, 2W]: each axis 1/4 and 3/4 of two neighbours, zeros outside."""
    large_NCHW: Tensor = _Up.apply(x_NCHW)
    return large_NCHW
