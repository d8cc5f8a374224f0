"""Spectral normalisation (Miyato et al. 2018, arXiv:1802.05957): every weight W is used as W / sigma(W).

sigma = u^T W v is differentiable in W, with u and v kept as buffers. Departs from the paper and from the released
BigGAN: a forward never iterates. `advance_power_iterations` makes one power iteration per optimizer turn instead of one
per forward, so that micro-batches of one turn, ranks and repeated forwards all see the same weight.

Convolutions that are followed or preceded by resampling run as one 4x4 convolution of stride 2 (see `resampling.py`);
sigma always comes from the 3x3 weight, so the numbers are those of the textbook form.
"""

# Axes: N images, C channels in, D channels out, H height, W width, M = everything of a weight but its first axis

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigtrain.networks.layers.precision import full_precision
from bigtrain.networks.layers.resampling import box_matrix, conv_down, conv_up

SPECTRAL_EPS = 1e-6  # floor of the norms that u and v are divided by; the released launch scripts' --SN_eps
Resample = Literal["none", "up", "down"]


class SpectralWeight(nn.Module):
    """Owns `weight` (first axis D) and the buffers `u` [D] and `v` [M], estimates of its leading singular vectors."""

    u: Tensor
    v: Tensor

    def __init__(self, shape: tuple[int, ...], eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.normal_(self.weight, std=0.02)  # networks overwrite it: see initialise_weights
        self.register_buffer("u", F.normalize(torch.randn(shape[0]), dim=0, eps=eps))
        self.register_buffer("v", torch.zeros(self.weight[0].numel()))
        self.advance()

    @torch.no_grad()
    def advance(self) -> None:
        """Make one power iteration in place: v = W^T u / |W^T u|, then u = W v / |W v|."""
        with full_precision(self.weight):
            weight_DM = self.weight.flatten(1)
            self.v.copy_(F.normalize(weight_DM.mT @ self.u, dim=0, eps=self.eps))
            self.u.copy_(F.normalize(weight_DM @ self.v, dim=0, eps=self.eps))

    def sigma(self) -> Tensor:
        """Return u^T W v, a scalar with gradient into the weight; at most the largest singular value."""
        with full_precision(self.weight):
            return torch.dot(self.u, self.weight.flatten(1) @ self.v)

    def normalised_weight(self) -> Tensor:
        """Return W / sigma, in the weight's own shape and precision."""
        return self.weight * self.sigma().reciprocal()


class SpectralConv2d(SpectralWeight):
    """Convolution with "same" padding and a spectrally normalised weight, optionally fused with resampling by 2.

    Args:
        in_channels: C.
        out_channels: D.
        kernel_size: 1 or 3.
        bias: adds a learned offset per output channel, initially 0.
        resample: "up" is nearest-up by 2 and then this convolution, "down" is this convolution and then 2x2 average
            pooling. A 1x1 kernel commutes with both and runs at the small size.
        eps: see SPECTRAL_EPS.
    """

    box: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Literal[1, 3] = 3,
        *,
        bias: bool = True,
        resample: Resample = "none",
        eps: float = SPECTRAL_EPS,
    ) -> None:
        super().__init__((out_channels, in_channels, kernel_size, kernel_size), eps)
        self.resample = resample
        if resample != "none":
            # A constant, as a buffer: it follows the weight's device and dtype, and no state dict holds it.
            self.register_buffer("box", box_matrix(resample), persistent=False)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the convolved image, [N, D, H, W], [N, D, 2H, 2W] or [N, D, H/2, W/2]."""
        weight_DCKK = self.normalised_weight()
        if self.resample == "up":
            return conv_up(x_NCHW, weight_DCKK, self.bias, self.box)
        if self.resample == "down":
            return conv_down(x_NCHW, weight_DCKK, self.bias, self.box)
        return F.conv2d(x_NCHW, weight_DCKK, self.bias, padding=weight_DCKK.shape[-1] // 2)


class SpectralLinear(SpectralWeight):
    """Affine map with a spectrally normalised weight [D, C]; bias initially 0."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, eps: float = SPECTRAL_EPS) -> None:
        super().__init__((out_features, in_features), eps)
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x_NC: Tensor) -> Tensor:
        """Return [N, D]."""
        return F.linear(x_NC, self.normalised_weight(), self.bias)


class SpectralEmbedding(SpectralWeight):
    """Table of one row per class, [K, D], divided by the table's sigma."""

    def __init__(self, num_embeddings: int, dim: int, *, eps: float = SPECTRAL_EPS) -> None:
        super().__init__((num_embeddings, dim), eps)

    def forward(self, label_N: Tensor) -> Tensor:
        """Return the rows of int64 labels, [N, D]."""
        return F.embedding(label_N, self.weight) / self.sigma()


def advance_power_iterations(network: nn.Module) -> None:
    """Make one power iteration in every spectrally normalised layer; call once before each turn of the owner."""
    for module in network.modules():
        if isinstance(module, SpectralWeight):
            module.advance()


@torch.no_grad()
def spectral_norms(network: nn.Module) -> dict[str, Tensor]:
    """Return sigma of every spectrally normalised layer by its name: detached scalars on the network's device."""
    return {name: module.sigma() for name, module in network.named_modules() if isinstance(module, SpectralWeight)}
