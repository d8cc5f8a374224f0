"""StyleGAN2's discriminator (Karras et al. 2020, arXiv:1912.04958), with the conditions of arXiv:2006.06676.

Departs from the papers: the groups of the minibatch standard deviation are contiguous (see `layers/minibatch_std.py`).
"""

# Axes: N images, C channels, H height, W width, F features, W style

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bigtrain.networks.layers.equalised import EqualisedConv2d, EqualisedLinear
from bigtrain.networks.layers.mapping import Mapping
from bigtrain.networks.layers.minibatch_std import MinibatchStd
from bigtrain.networks.layers.precision import at_least_float32, full_precision
from bigtrain.networks.layers.reduced import reduced_dtype
from bigtrain.networks.registry import DISCRIMINATORS
from bigtrain.networks.stylegan2 import block_channels, block_sizes
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.settings import Count, PositiveCount, Settings

HALF = math.sqrt(0.5)  # gain of both branches of a residual block: the sum keeps their second moment


@DISCRIMINATORS.add("stylegan2")
class StyleGAN2DiscriminatorSettings(Settings):
    """StyleGAN2's discriminator."""

    kind: Literal["stylegan2"] = "stylegan2"
    channel_base: PositiveCount = 16384
    """Channels of an image times its shorter side, where `channel_max` allows."""
    channel_max: PositiveCount = 512
    """Largest number of channels."""
    architecture: Literal["resnet", "orig"] = "resnet"
    """Blocks with a shortcut around two convolutions, or plain ones."""
    mapping_layers: PositiveCount = 8
    """Linear maps from a label's embedding to what the features are projected on."""
    mapping_lr_multiplier: Annotated[float, Field(gt=0)] = 0.01
    """They learn this many times slower."""
    minibatch_std_channels: Count = 1
    """Channels that tell how much images of a group differ; 0: off."""
    base: tuple[PositiveCount, PositiveCount] = (4, 4)
    """Height and width of the smallest features, in pixels; images are it times a power of two."""
    conv_clamp: Annotated[float, Field(gt=0)] | None = None
    """Limit of what convolutions give out, for fp16 (256 there); None: none."""
    reduced_blocks: Count = 4
    """Blocks, from the largest image down, that run in the reduced precision of `precision`; the others in float32."""
    checkpoint_side: PositiveCount | None = 512
    """Blocks of at least this side, in pixels, recompute activations in the backward pass; None: none does."""

    def build(self, image: ImageSpec) -> "StyleGAN2Discriminator":
        """Return a discriminator with weights drawn from torch's generator, for such images.

        Raises:
            RecipeError: the images are not the base times a power of two.
        """
        return StyleGAN2Discriminator(self, image, block_sizes(image, self.base)[::-1])


class DiscriminatorBlock(nn.Module):
    """Halves the side with two activated convolutions, plus a 1x1 shortcut in the residual architecture."""

    def __init__(self, in_channels: int, out_channels: int, *, residual: bool, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.conv0 = EqualisedConv2d(in_channels, in_channels, 3)
        self.conv1 = EqualisedConv2d(in_channels, out_channels, 3, downsample=True)
        self.shortcut = None
        if residual:
            self.shortcut = EqualisedConv2d(in_channels, out_channels, 1, bias=False, downsample=True, activate=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return [N, out, H/2, W/2]."""
        h_NCHW = self.conv0(x_NCHW, clamp=self.clamp)
        gain = 1.0 if self.shortcut is None else HALF
        output_NCHW: Tensor = self.conv1(h_NCHW, gain, self.clamp)
        return output_NCHW if self.shortcut is None else self.shortcut(x_NCHW, gain).add_(output_NCHW)


class Epilogue(nn.Module):
    """Features of the base size to one vector and one logit per image, at least in float32."""

    def __init__(self, channels: int, image: ImageSpec, settings: StyleGAN2DiscriminatorSettings) -> None:
        super().__init__()
        height, width = settings.base
        self.clamp = settings.conv_clamp
        self.minibatch_std = None
        if settings.minibatch_std_channels:
            self.minibatch_std = MinibatchStd(settings.minibatch_std_channels)
        self.conv = EqualisedConv2d(channels + settings.minibatch_std_channels, channels, 3)
        self.linear = EqualisedLinear(channels * height * width, channels, activate=True)
        self.output = EqualisedLinear(channels, channels if image.num_classes else 1)

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last layer's output, [N, 1], or [N, C] when there are classes; and what it reads, [N, C]."""
        if self.minibatch_std is not None:
            x_NCHW = self.minibatch_std(x_NCHW)
        feature_NF = self.linear(self.conv(x_NCHW, clamp=self.clamp).flatten(1))
        return self.output(feature_NF), feature_NF


class StyleGAN2Discriminator(nn.Module):
    """discriminator(image_NCHW, label_N) -> logit_N; made by StyleGAN2DiscriminatorSettings.build.

    With classes the logit is a projection (Miyato and Koyama 2018, arXiv:1802.05637) on a mapping of the label.
    """

    def __init__(
        self, settings: StyleGAN2DiscriminatorSettings, image: ImageSpec, sizes: list[tuple[int, int]]
    ) -> None:
        super().__init__()
        self.settings = settings
        self.image = image
        self.sizes = sizes
        channels = block_channels(sizes, settings.channel_base, settings.channel_max)
        residual = settings.architecture == "resnet"
        self.from_image = EqualisedConv2d(image.channels, channels[0], 1)
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(channels[index], channels[index + 1], residual=residual, clamp=settings.conv_clamp)
            for index in range(len(sizes) - 1)
        )
        self.epilogue = Epilogue(channels[-1], image, settings)
        self.mapping = None
        if image.num_classes:
            self.mapping = Mapping(
                0, image.num_classes, channels[-1], settings.mapping_layers, settings.mapping_lr_multiplier
            )

    def forward(
        self, image_NCHW: Tensor, label_N: Tensor | None = None, *, features: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return how real the images look as images of their labels.

        Args:
            image_NCHW: float, -1..1.
            label_N: int64, 0..K-1; None when the images have no classes.
            features: also return what the logit is made of.
        Returns:
            logit_N, at least float32, or (logit_N, feature_NF).
        """
        full = at_least_float32(image_NCHW).dtype
        reduced = reduced_dtype(image_NCHW.to(full))
        with full_precision(image_NCHW):
            dtype = reduced if self.settings.reduced_blocks and self.blocks else full
            x_NCHW = image_NCHW.to(dtype, memory_format=torch.channels_last)
            x_NCHW = self.from_image(x_NCHW, clamp=self.settings.conv_clamp)
            for index, block in enumerate(self.blocks):
                x_NCHW = x_NCHW.to(reduced if index < self.settings.reduced_blocks else full)
                x_NCHW = checkpoint(block, x_NCHW, use_reentrant=False) if self._recomputes(index) else block(x_NCHW)
            logit_NF, feature_NF = self.epilogue(x_NCHW.to(full))
            if self.mapping is not None:
                projection_NF = self.mapping(None, label_N)
                logit_NF = (logit_NF * projection_NF).sum(1, keepdim=True) / math.sqrt(projection_NF.shape[1])
        logit_N = logit_NF.squeeze(1)
        return (logit_N, feature_NF) if features else logit_N

    def _recomputes(self, index: int) -> bool:
        side = self.settings.checkpoint_side
        return side is not None and max(self.sizes[index]) >= side and torch.is_grad_enabled()
