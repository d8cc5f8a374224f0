"""Self-attention over image positions (Zhang et al. 2019, SAGAN, arXiv:1805.08318), as the released BigGAN has it.

Departs from the paper: phi and g are max-pooled 2x2, which quarters the keys, and g has half the channels.
"""

# Axes: N images, C channels, H height, W width, A channels of theta and phi, B channels of g, Q = H*W, K = H*W/4

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bigtrain.networks.layers.spectral import SPECTRAL_EPS, SpectralConv2d


class SelfAttention(nn.Module):
    """x + gamma * o(softmax(theta(x)^T phi(x)) g(x)); gamma starts at 0, so the layer starts as the identity."""

    def __init__(self, channels: int, eps: float = SPECTRAL_EPS) -> None:
        super().__init__()
        narrow, middle = max(1, channels // 8), max(1, channels // 2)
        self.theta = SpectralConv2d(channels, narrow, 1, bias=False, eps=eps)
        self.phi = SpectralConv2d(channels, narrow, 1, bias=False, eps=eps)
        self.g = SpectralConv2d(channels, middle, 1, bias=False, eps=eps)
        self.o = SpectralConv2d(middle, channels, 1, bias=False, eps=eps)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the attended image in the same shape; H and W must be even."""
        query_NAQ = self.theta(x_NCHW).flatten(2)
        key_NAK = F.max_pool2d(self.phi(x_NCHW), 2).flatten(2)
        value_NBK = F.max_pool2d(self.g(x_NCHW), 2).flatten(2)
        # The fused kernels want one length for queries, keys and values; zeros change no product.
        missing = value_NBK.shape[1] - query_NAQ.shape[1]
        query_N1QB = F.pad(query_NAQ.mT, (0, missing)).unsqueeze(1)
        key_N1KB = F.pad(key_NAK.mT, (0, missing)).unsqueeze(1)
        value_N1KB = value_NBK.mT.contiguous().unsqueeze(1)
        mixed_N1QB = F.scaled_dot_product_attention(query_N1QB, key_N1KB, value_N1KB, scale=1.0)
        mixed_NBHW = mixed_N1QB.squeeze(1).mT.reshape(x_NCHW.shape[0], -1, *x_NCHW.shape[2:])
        # gamma enters through the weight, which is smaller than the image.
        return x_NCHW + F.conv2d(mixed_NBHW, self.gamma * self.o.normalised_weight())


def twice_differentiable(wanted: bool) -> AbstractContextManager[object]:
    """Return a context whose attention has a double backward, which fused kernels lack; nothing if not wanted."""
    return sdpa_kernel(SDPBackend.MATH) if wanted else nullcontext()


def attentions_after(sides: list[int], channels: list[int], wanted: tuple[int, ...], eps: float) -> nn.ModuleList:
    """Return for each block's output, of such side and channels, its self-attention, or the identity if not wanted."""
    pairs = zip(sides, channels, strict=True)
    return nn.ModuleList(SelfAttention(width, eps) if side in wanted else nn.Identity() for side, width in pairs)
