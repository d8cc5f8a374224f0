"""Modulated convolutions of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958, section 2.2).

The paper scales weights per image, w' = s w, and divides by their norm. Here the image is scaled instead: by s before
the convolution and by 1 / norm after it, which is the same, needs no grouped convolution and shares one weight among
images; the norms of all images are one small matrix product: norm^2 = s^2 @ sum_K W^2.
"""

# Axes: N images, C channels in, D channels out, H height, W width, K kernel side, M = C*K*K, Z style

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigtrain.networks.layers.equalised import ACTIVATION_GAIN, LEAK, EqualisedLinear, clamped, outweighed
from bigtrain.networks.layers.fir import blur

DEMODULATION_EPS = 1e-8  # added to squared norms
Noise = Literal["random", "const", "none"]


class StyledConv2d(nn.Module):
    """Modulated and demodulated 3x3 convolution, noise, bias and leaky ReLU with gain sqrt(2).

    Args:
        in_channels: C.
        out_channels: D.
        style_dim: Z.
        size: height and width of the output, for the constant noise.
        upsample: the image is taken to twice its side: transposed convolution, then low-pass [1, 3, 3, 1].
        clamp: limit of the output; None: none.
    """

    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style_dim: int,
        size: tuple[int, int],
        *,
        upsample: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.clamp = clamp
        self.affine = EqualisedLinear(style_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size))

    def forward(self, x_NCHW: Tensor, style_NZ: Tensor, noise: Noise) -> Tensor:
        """Return [N, D, H, W], or [N, D, 2H, 2W], in x's dtype; styles are at least float32."""
        dtype = x_NCHW.dtype
        scale_NC: Tensor = self.affine(style_NZ)
        weight_DCKK: Tensor = self.weight
        if dtype == torch.float16:
            # Demodulation undoes both factors; without them products overflow.
            largest_D111 = weight_DCKK.abs().amax((1, 2, 3), keepdim=True)
            weight_DCKK = weight_DCKK / (largest_D111 * math.sqrt(weight_DCKK[0].numel()))
            scale_NC = scale_NC / scale_NC.abs().amax(1, keepdim=True)
        # Scales are repeated, not squared weights summed: sums over 3x3 are slow, and so are their gradients.
        scale_NM = scale_NC.square().repeat_interleave(weight_DCKK[0, 0].numel(), 1)
        norm_ND = scale_NM @ weight_DCKK.square().flatten(1).mT
        gain_ND = ACTIVATION_GAIN * (norm_ND + DEMODULATION_EPS).rsqrt()
        x_NCHW = x_NCHW * scale_NC.to(dtype)[:, :, None, None]
        x_NCHW = x_NCHW.contiguous() if outweighed(x_NCHW, weight_DCKK) else x_NCHW
        y_NDHW = self._convolve(x_NCHW, weight_DCKK.to(dtype))
        if self.upsample:
            gain_ND = gain_ND * 4  # the transposed convolution fills a quarter of what the low-pass averages
        bias_D11 = (self.bias * ACTIVATION_GAIN).to(dtype)[:, None, None]
        y_NDHW = torch.addcmul(bias_D11, y_NDHW, gain_ND.to(dtype)[:, :, None, None])
        if noise != "none":
            y_NDHW = y_NDHW.add_(self._noise(y_NDHW, noise))
        return clamped(F.leaky_relu(y_NDHW, LEAK, inplace=True), self.clamp)

    def _convolve(self, x_NCHW: Tensor, weight_DCKK: Tensor) -> Tensor:
        if not self.upsample:
            return F.conv2d(x_NCHW, weight_DCKK, padding=1)
        weight_CDKK = weight_DCKK.transpose(0, 1).contiguous()  # oneDNN would copy it in every pass
        return blur(F.conv_transpose2d(x_NCHW, weight_CDKK, stride=2), 1)

    def _noise(self, y_NDHW: Tensor, noise: Noise) -> Tensor:
        """Return the noise times its strength, as what the activation reads."""
        if noise == "const":
            # A projection puts a map for each image, [N, 1, H, W], where the one for all of them stands.
            noise_N1HW = self.noise_const if self.noise_const.ndim == 4 else self.noise_const[None, None]
        else:
            shape = (y_NDHW.shape[0], 1, *y_NDHW.shape[2:])
            noise_N1HW = torch.randn(shape, dtype=self.noise_const.dtype, device=y_NDHW.device)
        return (noise_N1HW * (self.noise_strength * ACTIVATION_GAIN)).to(y_NDHW.dtype)


class StyledOutput(nn.Module):
    """Modulated 1x1 convolution without demodulation, to image channels."""

    def __init__(self, in_channels: int, out_channels: int, style_dim: int, *, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = EqualisedLinear(style_dim, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x_NCHW: Tensor, style_NZ: Tensor) -> Tensor:
        """Return [N, D, H, W] in the styles' dtype, at least float32."""
        # The weights of each image: a few numbers, where scaling the image would be a pass over all of it.
        weight_NCD = (self.affine(style_NZ) * self.weight_gain).unsqueeze(2) * self.weight.mT
        x_NHWC = x_NCHW.permute(0, 2, 3, 1).to(weight_NCD.dtype)
        y_NMD = torch.baddbmm(self.bias, x_NHWC.flatten(1, 2), weight_NCD)
        y_NDHW = y_NMD.view(*x_NHWC.shape[:3], -1).permute(0, 3, 1, 2)
        return clamped(y_NDHW, self.clamp)
