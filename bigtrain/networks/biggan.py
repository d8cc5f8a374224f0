"""BigGAN (Brock et al. 2019, arXiv:1809.11096) for 32 to 512 px, with the layouts of the released PyTorch code.

Departs from the paper: layouts for 32 and 64 px, which it lacks. Departs from the released code: the power iteration of
spectral normalisation runs once per optimizer turn, biases start at 0, and resampling is fused into the convolutions
(exact). Without labels the projection head and the class part of the conditions are left out.
"""

# Axes: N images, C channels, H height, W width, Z latent, K classes, S shared embedding, D condition, F features

from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bigtrain.networks.layers.attention import attentions_after, twice_differentiable
from bigtrain.networks.layers.batchnorm import BATCHNORM_EPS, BATCHNORM_MOMENTUM, AffineBatchNorm
from bigtrain.networks.layers.conditioning import ClassConditionalGenerator, Condition, projected_logits
from bigtrain.networks.layers.initialisation import Initialisation, initialise_weights
from bigtrain.networks.layers.layouts import (
    BASE_SIDE,
    DISCRIMINATOR_HALVINGS,
    DISCRIMINATOR_WIDTHS,
    GENERATOR_WIDTHS,
    AttentionSide,
    side_problems,
)
from bigtrain.networks.layers.precision import at_least_float32
from bigtrain.networks.layers.spectral import SPECTRAL_EPS, SpectralConv2d, SpectralEmbedding, SpectralLinear
from bigtrain.networks.registry import DISCRIMINATORS, GENERATORS
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.settings import PositiveCount, Settings


@GENERATORS.add("biggan")
class BigGANGeneratorSettings(Settings):
    """BigGAN's generator."""

    kind: Literal["biggan"] = "biggan"
    width: PositiveCount = 96
    """Channel multiplier (the papers' ch)."""
    latent_dim: PositiveCount = 120
    """Numbers in a latent; with `hierarchical` a multiple of the number of blocks plus one."""
    shared_dim: PositiveCount | None = 128
    """Numbers in the class embedding that all blocks share; None gives each conditional normalisation its own table."""
    hierarchical: bool = True
    """Cut the latent in chunks: the first makes the 4x4 image, each block is conditioned on one of the others."""
    attention_sides: tuple[AttentionSide, ...] = (64,)
    """Self-attention follows the blocks whose output has one of these sides, in pixels; others are passed over."""
    batchnorm_eps: Annotated[float, Field(gt=0)] = BATCHNORM_EPS
    """Added to the variances of batch normalisation."""
    batchnorm_momentum: Annotated[float, Field(gt=0, le=1)] = BATCHNORM_MOMENTUM
    """Weight of the newest statistics in the running ones."""
    spectral_eps: Annotated[float, Field(gt=0)] = SPECTRAL_EPS
    """Smallest norm that the vectors of spectral normalisation are divided by."""
    init: Initialisation = "orthogonal"
    """Law of the first weights."""

    def build(self, image: ImageSpec) -> "BigGANGenerator":
        """Return a generator with weights drawn from torch's generator, for such images.

        Raises:
            RecipeError: BigGAN has no layout for the side, or the latent and embedding do not fit the layout.
        """
        problems = side_problems("biggan", image, GENERATOR_WIDTHS)
        if not problems and self.hierarchical:
            chunks = len(GENERATOR_WIDTHS[image.side])
            if self.latent_dim % chunks:
                close = max(1, round(self.latent_dim / chunks)) * chunks
                problems.append(
                    f"latent_dim {self.latent_dim} is not a multiple of {chunks}, the number of chunks that biggan "
                    f"of {image.side} px cuts it into; nearest is {close}, or set hierarchical: false"
                )
            if self.shared_dim is None and image.num_classes:
                problems.append("shared_dim is off, but hierarchical is true; set a shared_dim, or hierarchical: false")
        if problems:
            raise RecipeError(problems)
        return BigGANGenerator(self, image)


@DISCRIMINATORS.add("biggan")
class BigGANDiscriminatorSettings(Settings):
    """BigGAN's projection discriminator."""

    kind: Literal["biggan"] = "biggan"
    width: PositiveCount = 96
    """Channel multiplier (the papers' ch)."""
    attention_sides: tuple[AttentionSide, ...] = (64,)
    """Self-attention follows the blocks whose output has one of these sides, in pixels; others are passed over."""
    spectral_eps: Annotated[float, Field(gt=0)] = SPECTRAL_EPS
    """Smallest norm that the vectors of spectral normalisation are divided by."""
    wide: bool = True
    """Widen in a block's first convolution, not its second."""
    init: Initialisation = "orthogonal"
    """Law of the first weights."""

    def build(self, image: ImageSpec) -> "BigGANDiscriminator":
        """Return a discriminator with weights drawn from torch's generator, for such images.

        Raises:
            RecipeError: BigGAN has no layout for the side.
        """
        if problems := side_problems("biggan", image, DISCRIMINATOR_WIDTHS):
            raise RecipeError(problems)
        return BigGANDiscriminator(self, image)


class GeneratorBlock(nn.Module):
    """Doubles the side: BN-ReLU-up-conv3x3-BN-ReLU-conv3x3, plus up-conv1x1 of the input (paper, figure 15b)."""

    def __init__(self, in_channels: int, out_channels: int, condition: Condition) -> None:
        super().__init__()
        eps = condition.spectral_eps
        self.bn1 = condition.batchnorm(in_channels)
        self.conv1 = SpectralConv2d(in_channels, out_channels, resample="up", eps=eps)
        self.bn2 = condition.batchnorm(out_channels)
        self.conv2 = SpectralConv2d(out_channels, out_channels, eps=eps)
        self.shortcut = SpectralConv2d(in_channels, out_channels, 1, resample="up", eps=eps)

    def forward(self, x_NCHW: Tensor, condition_ND: Tensor) -> Tensor:
        """Return [N, out, 2H, 2W]."""
        h_NCHW = self.conv1(F.relu(self.bn1(x_NCHW, condition_ND)))
        h_NCHW = self.conv2(F.relu(self.bn2(h_NCHW, condition_ND)))
        output_NCHW: Tensor = h_NCHW + self.shortcut(x_NCHW)
        return output_NCHW


class BigGANGenerator(ClassConditionalGenerator):
    """generator(latent_NZ, label_N) -> image_NCHW in [-1, 1]; made by BigGANGeneratorSettings.build."""

    def __init__(self, settings: BigGANGeneratorSettings, image: ImageSpec) -> None:
        shared_dim = (settings.shared_dim or 0) if image.num_classes else 0
        super().__init__(image, nn.Embedding(image.num_classes, shared_dim) if shared_dim else None)
        self.settings = settings
        self.latent_dim = settings.latent_dim
        channels = [multiple * settings.width for multiple in GENERATOR_WIDTHS[image.side]]
        self.chunk_dim = self.latent_dim // len(channels) if settings.hierarchical else self.latent_dim
        condition = Condition(
            dim=shared_dim + (self.chunk_dim if settings.hierarchical else 0),
            num_classes=0 if shared_dim else image.num_classes,
            batchnorm_eps=settings.batchnorm_eps,
            batchnorm_momentum=settings.batchnorm_momentum,
            spectral_eps=settings.spectral_eps,
        )
        eps = settings.spectral_eps
        self.base_channels = channels[0]
        self.linear = SpectralLinear(self.chunk_dim, channels[0] * BASE_SIDE**2, eps=eps)
        self.blocks = nn.ModuleList(GeneratorBlock(*pair, condition) for pair in pairwise(channels))
        sides = [BASE_SIDE * 2 ** (index + 1) for index in range(len(self.blocks))]
        self.attentions = attentions_after(sides, channels[1:], settings.attention_sides, eps)
        self.output_bn = AffineBatchNorm(channels[-1], settings.batchnorm_eps, settings.batchnorm_momentum)
        self.output_conv = SpectralConv2d(channels[-1], image.channels, eps=eps)
        initialise_weights(self, settings.init)

    def synthesise(self, latent_NZ: Tensor, class_N: Tensor | None) -> Tensor:
        """Return images, as `forward`, for a class given as shared embedding [N, S], or label [N] if there is none."""
        assert latent_NZ.shape[1] == self.latent_dim, f"{latent_NZ.shape[1]} numbers, not {self.latent_dim}"
        chunks = torch.split(latent_NZ, self.chunk_dim, dim=1)
        h_NCHW = self.linear(chunks[0]).unflatten(1, (self.base_channels, BASE_SIDE, BASE_SIDE))
        for index, block in enumerate(self.blocks):
            chunk_ND = chunks[index + 1] if self.settings.hierarchical else None
            parts = [part for part in (class_N, chunk_ND) if part is not None]
            condition_ND = torch.cat(parts, 1) if len(parts) == 2 else parts[0] if parts else None
            h_NCHW = self.attentions[index](block(h_NCHW, condition_ND))
        h_NCHW = self.output_conv(F.relu(self.output_bn(h_NCHW)))
        return torch.tanh(at_least_float32(h_NCHW))


class DiscriminatorBlock(nn.Module):
    """conv3x3-ReLU-conv3x3(-average pooling), with a ReLU before in all blocks but the first, plus the shortcut."""

    def __init__(
        self, in_channels: int, out_channels: int, *, first: bool, down: bool, settings: BigGANDiscriminatorSettings
    ) -> None:
        super().__init__()
        hidden, eps = out_channels if settings.wide else in_channels, settings.spectral_eps
        resample: Literal["none", "down"] = "down" if down else "none"
        self.first = first
        self.conv1 = SpectralConv2d(in_channels, hidden, eps=eps)
        self.conv2 = SpectralConv2d(hidden, out_channels, resample=resample, eps=eps)
        self.shortcut: nn.Module = nn.Identity()
        if down or in_channels != out_channels:
            self.shortcut = SpectralConv2d(in_channels, out_channels, 1, resample=resample, eps=eps)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return [N, out, H, W], or [N, out, H/2, W/2] when the block downsamples."""
        h_NCHW = self.conv1(x_NCHW if self.first else F.relu(x_NCHW))
        h_NCHW = self.conv2(F.relu(h_NCHW))
        output_NCHW: Tensor = h_NCHW + self.shortcut(x_NCHW)
        return output_NCHW


class BigGANDiscriminator(nn.Module):
    """discriminator(image_NCHW, label_N) -> logit_N; made by BigGANDiscriminatorSettings.build.

    The label enters by projection (Miyato and Koyama 2018, arXiv:1802.05637): logit = w.h + b + embed(label).h
    """

    def __init__(self, settings: BigGANDiscriminatorSettings, image: ImageSpec) -> None:
        super().__init__()
        self.settings = settings
        self.image = image
        channels = [image.channels, *(multiple * settings.width for multiple in DISCRIMINATOR_WIDTHS[image.side])]
        num_down = DISCRIMINATOR_HALVINGS[image.side]
        sides = [image.side // 2 ** min(index + 1, num_down) for index in range(len(channels) - 1)]
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(*pair, first=index == 0, down=index < num_down, settings=settings)
            for index, pair in enumerate(pairwise(channels))
        )
        self.attentions = attentions_after(sides, channels[1:], settings.attention_sides, settings.spectral_eps)
        self.linear = SpectralLinear(channels[-1], 1, eps=settings.spectral_eps)
        self.embed: SpectralEmbedding | None = None
        if image.num_classes:
            self.embed = SpectralEmbedding(image.num_classes, channels[-1], eps=settings.spectral_eps)
        initialise_weights(self, settings.init)

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
        h_NCHW = image_NCHW
        # Gradients into images and weights at once are what a gradient penalty asks for.
        with twice_differentiable(image_NCHW.requires_grad and self.linear.weight.requires_grad):
            for block, attention in zip(self.blocks, self.attentions, strict=True):
                h_NCHW = attention(block(h_NCHW))
        logit_N, feature_NF = projected_logits(h_NCHW, label_N, self.linear, self.embed)
        return (logit_N, feature_NF) if features else logit_N
