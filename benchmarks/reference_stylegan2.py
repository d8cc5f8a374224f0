"""StyleGAN2 as the papers write it down, which is what released code runs where its compiled extensions do not.

Resampling stuffs zeros between pixels and runs a depthwise 4x4 convolution; demodulation takes the norm of the weight
of every image, N x D x C x K x K numbers; bias, activation and gain are passes of their own.
"""

# Axes: N images, C channels in, D channels out, H height, W width, K kernel side, Z style

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigtrain.networks.layers.equalised import EqualisedConv2d, EqualisedLinear
from bigtrain.networks.layers.modulated import StyledConv2d, StyledOutput
from bigtrain.networks.stylegan2 import SynthesisBlock
from bigtrain.networks.stylegan2_discriminator import DiscriminatorBlock


def upfirdn(x_NCHW: Tensor, up: int, down: int, padding: tuple[int, int], gain: float = 1.0) -> Tensor:
    """Return the image with zeros stuffed in, padded, filtered by [1, 3, 3, 1] x [1, 3, 3, 1] / 64 and thinned out.

    Args:
        x_NCHW: image.
        up: every pixel becomes the first of up x up, the others 0.
        down: every down-th pixel of each axis is kept.
        padding: zeros before and after, on both axes.
        gain: factor of the filter.
    """
    images, channels, height, width = x_NCHW.shape
    x_NCHW = F.pad(x_NCHW.reshape(images, channels, height, 1, width, 1), (0, up - 1, 0, 0, 0, up - 1))
    x_NCHW = F.pad(x_NCHW.reshape(images, channels, height * up, width * up), (*padding, *padding))
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x_NCHW.dtype, device=x_NCHW.device)
    filter_C1KK = (torch.outer(taps, taps) * (gain / 64)).expand(channels, 1, -1, -1)
    return F.conv2d(x_NCHW, filter_C1KK, groups=channels)[:, :, ::down, ::down]


def activated(x_NCHW: Tensor, bias_D: Tensor, gain: float = 1.0) -> Tensor:
    """Return leaky ReLU of x + bias, times sqrt(2) * gain."""
    bias = bias_D.view(-1, *[1] * (x_NCHW.ndim - 2)).to(x_NCHW.dtype)
    return F.leaky_relu(x_NCHW + bias, 0.2) * (math.sqrt(2) * gain)


class TextbookLinear(nn.Module):
    """An EqualisedLinear of ours, sharing its weights."""

    def __init__(self, ours: EqualisedLinear) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, x_NC: Tensor) -> Tensor:
        """Return [N, D]."""
        ours = self.ours
        gain = math.sqrt(2) if ours.activate else 1.0
        weight_DC, bias_D = ours.weight * (ours.weight_gain / gain), ours.bias * (ours.bias_gain / gain)
        if not ours.activate:
            return F.linear(x_NC, weight_DC, bias_D)
        return activated(F.linear(x_NC, weight_DC), bias_D)


class TextbookConv2d(nn.Module):
    """An EqualisedConv2d of ours, sharing its weights."""

    def __init__(self, ours: EqualisedConv2d) -> None:
        super().__init__()
        self.ours = ours

    def forward(self, x_NCHW: Tensor, gain: float = 1.0, clamp: float | None = None) -> Tensor:
        """Return what ours does."""
        ours, x_NCHW = self.ours, x_NCHW.contiguous()
        assert clamp is None, "no clamp here"
        weight_DCKK = (ours.weight * ours.weight_gain).to(x_NCHW.dtype)
        side = weight_DCKK.shape[-1]
        if ours.low_pass is None:
            y_NDHW = F.conv2d(x_NCHW, weight_DCKK, padding=side // 2)
        elif side == 1:
            y_NDHW = F.conv2d(upfirdn(x_NCHW, 1, 2, (1, 1)), weight_DCKK)
        else:
            y_NDHW = F.conv2d(upfirdn(x_NCHW, 1, 1, (2, 2)), weight_DCKK, stride=2)
        if ours.bias is None:
            return y_NDHW * gain
        return activated(y_NDHW, ours.bias, gain)


class TextbookStyledConv2d(nn.Module):
    """A StyledConv2d of ours, sharing its weights."""

    def __init__(self, ours: StyledConv2d) -> None:
        super().__init__()
        self.ours = ours
        self.affine = TextbookLinear(ours.affine)

    def forward(self, x_NCHW: Tensor, style_NZ: Tensor, noise: str) -> Tensor:
        """Return what ours does."""
        ours, dtype, x_NCHW = self.ours, x_NCHW.dtype, x_NCHW.contiguous()
        scale_NC = self.affine(style_NZ)
        weight_NDCKK = ours.weight * scale_NC[:, None, :, None, None]
        gain_ND = (weight_NDCKK.square().sum((2, 3, 4)) + 1e-8).rsqrt().to(dtype)
        x_NCHW = x_NCHW * scale_NC.to(dtype)[:, :, None, None]
        weight_DCKK = ours.weight.to(dtype)
        if ours.upsample:
            y_NDHW = F.conv_transpose2d(x_NCHW, weight_DCKK.transpose(0, 1), stride=2)
            y_NDHW = upfirdn(y_NDHW, 1, 1, (1, 1), gain=4)
        else:
            y_NDHW = F.conv2d(x_NCHW, weight_DCKK, padding=1)
        y_NDHW = y_NDHW * gain_ND[:, :, None, None]
        if noise != "none":
            noise_N1HW = ours.noise_const[None, None]
            if noise == "random":
                noise_N1HW = torch.randn(x_NCHW.shape[0], 1, *y_NDHW.shape[2:], device=x_NCHW.device)
            y_NDHW = y_NDHW + (noise_N1HW * ours.noise_strength).to(dtype)
        return activated(y_NDHW, ours.bias)


class TextbookOutput(nn.Module):
    """A StyledOutput of ours, sharing its weights."""

    def __init__(self, ours: StyledOutput) -> None:
        super().__init__()
        self.ours = ours
        self.affine = TextbookLinear(ours.affine)

    def forward(self, x_NCHW: Tensor, style_NZ: Tensor) -> Tensor:
        """Return what ours does."""
        scale_NC = (self.affine(style_NZ) * self.ours.weight_gain).to(x_NCHW.dtype)
        weight_DC11 = self.ours.weight[:, :, None, None].to(x_NCHW.dtype)
        y_NDHW = F.conv2d(x_NCHW * scale_NC[:, :, None, None], weight_DC11).to(style_NZ.dtype)
        return y_NDHW + self.ours.bias[:, None, None]


class TextbookSynthesisBlock(nn.Module):
    """A SynthesisBlock of ours, sharing its weights."""

    def __init__(self, ours: SynthesisBlock) -> None:
        super().__init__()
        self.conv0 = None if ours.conv0 is None else TextbookStyledConv2d(ours.conv0)
        self.conv1 = TextbookStyledConv2d(ours.conv1)
        self.output = TextbookOutput(ours.output)

    def forward(
        self, x_NCHW: Tensor, image_NCHW: Tensor | None, styles: tuple[Tensor, ...], noise: str
    ) -> tuple[Tensor, Tensor]:
        """Return what ours does."""
        if self.conv0 is not None:
            x_NCHW = self.conv0(x_NCHW, styles[0], noise)
        x_NCHW = self.conv1(x_NCHW, styles[-2], noise)
        shown_NCHW = self.output(x_NCHW, styles[-1])
        if image_NCHW is not None:
            shown_NCHW = upfirdn(image_NCHW, 2, 1, (2, 1), gain=4) + shown_NCHW
        return x_NCHW, shown_NCHW


class TextbookDiscriminatorBlock(nn.Module):
    """A DiscriminatorBlock of ours, sharing its weights."""

    def __init__(self, ours: DiscriminatorBlock) -> None:
        super().__init__()
        self.conv0, self.conv1 = TextbookConv2d(ours.conv0), TextbookConv2d(ours.conv1)
        self.shortcut = None if ours.shortcut is None else TextbookConv2d(ours.shortcut)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return what ours does."""
        h_NCHW = self.conv0(x_NCHW)
        if self.shortcut is None:
            return self.conv1(h_NCHW)
        return self.conv1(h_NCHW, math.sqrt(0.5)) + self.shortcut(x_NCHW, math.sqrt(0.5))


TEXTBOOK: dict[type[nn.Module], Callable[..., nn.Module]] = {
    EqualisedLinear: TextbookLinear,
    EqualisedConv2d: TextbookConv2d,
    SynthesisBlock: TextbookSynthesisBlock,
    DiscriminatorBlock: TextbookDiscriminatorBlock,
}


def textbook_stylegan2(network: nn.Module) -> nn.Module:
    """Return a copy of a StyleGAN2 generator or discriminator of ours, with the same numbers, in textbook layers.

    Images are in NCHW memory, as released code has them in float32.
    """
    network = copy.deepcopy(network)
    _replace(network)
    return network


def _replace(parent: nn.Module) -> None:
    for name, child in list(parent.named_children()):
        if type(child) in TEXTBOOK:
            setattr(parent, name, TEXTBOOK[type(child)](child))
        else:
            _replace(child)
