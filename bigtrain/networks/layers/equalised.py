"""Equalised learning rate (Karras et al. 2018, arXiv:1710.10196): weights are N(0, 1) and scaled to He's std when used.

Adam's steps are then the same share of every weight. Layers compute in the dtype of their input, whatever autocast
says: a network decides which of its blocks get a reduced one. Images are in channels_last memory, but for small ones
under float32 weights: channels_last convolutions reorder the weight in every pass.
"""

# Axes: N images, C features in, D features out, H height, W width, K classes

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigtrain.networks.layers.fir import blur, down

LEAK = 0.2  # slope of leaky ReLU below zero (StyleGAN2, appendix B)
ACTIVATION_GAIN = math.sqrt(2)  # keeps the second moment of N(0, 1) through a ReLU (He et al. 2015, arXiv:1502.01852)


def clamped(x: Tensor, limit: float | None) -> Tensor:
    """Return x with values cut to [-limit, limit]; None leaves it alone."""
    return x if limit is None else x.clamp(-limit, limit)


def outweighed(x: Tensor, weight: Tensor) -> bool:
    """Tell whether a weight has more numbers than what it is applied to, and needs no copy in another dtype."""
    return x.dtype == weight.dtype and x.numel() < weight.numel()


def scaled(x: Tensor, weight: Tensor, gain: float) -> tuple[Tensor, Tensor]:
    """Return an input and a weight of its dtype whose product has `gain` in it, in whichever of the two is smaller."""
    if outweighed(x, weight):
        return (x * gain).contiguous(), weight
    return x, (weight * gain).to(x.dtype)


def activated_gain(gain: float, *, activate: bool) -> float:
    """Return the factor that weights and biases get before a leaky ReLU so that its output has gain sqrt(2) * gain.

    Leaky ReLU commutes with positive factors, so the gain costs no pass over the image.
    """
    return gain * ACTIVATION_GAIN if activate else gain


class EqualisedLinear(nn.Module):
    """Affine map, optionally followed by leaky ReLU with gain sqrt(2).

    Args:
        in_features: C.
        out_features: D.
        bias: what the learned offsets start at.
        lr_multiplier: the parameters move this many times slower; their effective first values do not change.
        activate: apply the activation.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: float = 0.0,
        lr_multiplier: float = 1.0,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.activate = activate
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias / lr_multiplier))
        self.bias_gain = activated_gain(lr_multiplier, activate=activate)
        self.weight_gain = self.bias_gain / math.sqrt(in_features)

    def forward(self, x_NC: Tensor) -> Tensor:
        """Return [N, D] in x's dtype."""
        x_NC, weight_DC = scaled(x_NC, self.weight, self.weight_gain)
        y_ND = F.linear(x_NC, weight_DC, (self.bias * self.bias_gain).to(x_NC.dtype))
        return F.leaky_relu(y_ND, LEAK, inplace=True) if self.activate else y_ND


class EqualisedEmbedding(nn.Module):
    """Table of one row per class: an equalised affine map of a one-hot vector, as a lookup."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.weight_gain = 1 / math.sqrt(num_classes)

    def forward(self, label_N: Tensor) -> Tensor:
        """Return the rows of int64 labels, [N, D]."""
        return torch.add(self.bias, F.embedding(label_N, self.weight), alpha=self.weight_gain)


class EqualisedConv2d(nn.Module):
    """Convolution with "same" padding, optionally low-passed and taken to half the side, optionally activated.

    Args:
        in_channels: C.
        out_channels: D.
        kernel_size: 1 or 3.
        bias: adds a learned offset per channel, initially 0.
        downsample: low-pass with [1, 3, 3, 1] and keep every second pixel of each axis.
        activate: leaky ReLU with gain sqrt(2).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        downsample: bool = False,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.low_pass: Callable[[Tensor], Tensor] | None = None
        self.stride, self.padding = 1, kernel_size // 2
        if downsample and kernel_size == 1:  # commutes with the low-pass, and is cheaper at a quarter of the pixels
            self.low_pass = down
        elif downsample:
            self.low_pass, self.stride, self.padding = partial(blur, padding=2), 2, 0
        self.activate = activate
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x_NCHW: Tensor, gain: float = 1.0, clamp: float | None = None) -> Tensor:
        """Return gain times the layer's output, in x's dtype: [N, D, H, W], or [N, D, H/2, W/2].

        Args:
            x_NCHW: input.
            gain: positive factor, free of cost.
            clamp: limit of the output before `gain`; None: none.
        """
        gain = activated_gain(gain, activate=self.activate)
        x_NCHW = x_NCHW if self.low_pass is None else self.low_pass(x_NCHW)
        x_NCHW, weight_DCKK = scaled(x_NCHW, self.weight, self.weight_gain * gain)
        bias_D = None if self.bias is None else (self.bias * gain).to(x_NCHW.dtype)
        y_NDHW = F.conv2d(x_NCHW, weight_DCKK, bias_D, self.stride, self.padding)
        y_NDHW = F.leaky_relu(y_NDHW, LEAK, inplace=True) if self.activate else y_NDHW
        return clamped(y_NDHW, None if clamp is None else clamp * gain / activated_gain(1, activate=self.activate))
