"""The textbook forms that the package's layers are measured against and must equal.

Resampling and convolution one after the other, spectral normalisation with a power iteration in every train-mode
forward, and a moving average that walks the tensors one by one. StyleGAN2's are in `reference_stylegan2.py`.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigtrain.networks.layers.spectral import SpectralConv2d, SpectralWeight


class TextbookConv2d(nn.Module):
    """A SpectralConv2d of ours, sharing its weights, with its resampling as a step of its own."""

    def __init__(self, fused: SpectralConv2d) -> None:
        super().__init__()
        self.fused = fused

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return nearest-up then convolution, or convolution then 2x2 average pooling."""
        fused = self.fused
        if fused.resample == "up":
            x_NCHW = F.interpolate(x_NCHW, scale_factor=2, mode="nearest")
        weight_DCKK = fused.normalised_weight()
        x_NCHW = F.conv2d(x_NCHW, weight_DCKK, fused.bias, padding=weight_DCKK.shape[-1] // 2)
        return F.avg_pool2d(x_NCHW, 2) if fused.resample == "down" else x_NCHW


def unfuse_resampling(network: nn.Module) -> nn.Module:
    """Return a copy of the network that resamples and convolves one after the other."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SpectralConv2d) and child.resample != "none":
                setattr(parent, name, TextbookConv2d(child))
    return network


def iterate_per_forward(network: nn.Module) -> nn.Module:
    """Return a copy of the network that makes a power iteration in each layer's every train-mode forward."""

    def advance(layer: nn.Module, _inputs: object) -> None:
        if layer.training and isinstance(layer, SpectralWeight):
            layer.advance()

    def advance_inside(layer: nn.Module, _inputs: object) -> None:
        if isinstance(layer, TextbookConv2d):
            advance(layer.fused, None)

    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, SpectralWeight):
            module.register_forward_pre_hook(advance)
        elif isinstance(module, TextbookConv2d):
            module.register_forward_pre_hook(advance_inside)
    return network


@torch.no_grad()
def average_per_tensor(averaged: nn.Module, followed: nn.Module, decay: float) -> None:
    """Move `averaged` towards `followed`, parameter by parameter, with a new tensor for each; copy the buffers."""
    for kept, live in zip(averaged.parameters(), followed.parameters(), strict=True):
        kept.copy_(live.lerp(kept, decay))
    for kept, live in zip(averaged.buffers(), followed.buffers(), strict=True):
        kept.copy_(live)


def flat_all_reduce(gradients: list[Tensor], world: int) -> None:
    """Average gradients over ranks the plain way: all of them in one tensor, after backward, waited for."""
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= world
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
