"""BigGAN-deep (Brock et al. 2019, arXiv:1809.11096, appendix B) for 32 to 512 px.

Blocks are bottlenecks. Skips have no weights, but for the channels by which the discriminator's blocks widen; where the
generator's narrow, the last channels are dropped. Latent and class embedding together condition every block.

Departs from the paper: layouts for 32 and 64 px, which it lacks, are those of the released PyTorch code. Departs from
that code: the power iteration of spectral normalisation runs once per optimizer turn, biases start at 0, and resampling
is fused into convolutions (exact). Without labels the projection head and the class part of the condition are left out.
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
from bigtrain.networks.layers.resampling import up
from bigtrain.networks.layers.spectral import SPECTRAL_EPS, SpectralConv2d, SpectralEmbedding, SpectralLinear
from bigtrain.networks.registry import DISCRIMINATORS, GENERATORS
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.settings import PositiveCount, Settings


@GENERATORS.add("biggan_deep")
class BigGANDeepGeneratorSettings(Settings):
    """BigGAN-deep's generator."""

    kind: Literal["biggan_deep"] = "biggan_deep"
    width: PositiveCount = 128
    """Channel multiplier (the paper's ch)."""
    latent_dim: PositiveCount = 128
    """Numbers in a latent."""
    shared_dim: PositiveCount = 128
    """Numbers in the class embedding; it is joined to the latent."""
    depth: PositiveCount = 2
    """Blocks of each resolution; the last one doubles the side and narrows."""
    bottleneck_ratio: PositiveCount = 4
    """How much narrower a block is inside than its input; at least one channel stays."""
    attention_sides: tuple[AttentionSide, ...] = (64,)
    """Self-attention follows the last block of a resolution that makes one of these sides, in pixels; others are passed
    over."""
    batchnorm_eps: Annotated[float, Field(gt=0)] = BATCHNORM_EPS
    """Added to the variances of batch normalisation."""
    batchnorm_momentum: Annotated[float, Field(gt=0, le=1)] = BATCHNORM_MOMENTUM
    """Weight of the newest statistics in the running ones."""
    spectral_eps: Annotated[float, Field(gt=0)] = SPECTRAL_EPS
    """Smallest norm that the vectors of spectral normalisation are divided by."""
    init: Initialisation = "orthogonal"
    """Law of the first weights."""

    def build(self, image: ImageSpec) -> "BigGANDeepGenerator":
        """Return a generator with weights drawn from torch's generator, for such images.

        Raises:
            RecipeError: images are not square, or BigGAN-deep has no layout for the side.
        """
        if problems := side_problems("biggan_deep", image, GENERATOR_WIDTHS):
            raise RecipeError(problems)
        return BigGANDeepGenerator(self, image)


@DISCRIMINATORS.add("biggan_deep")
class BigGANDeepDiscriminatorSettings(Settings):
    """BigGAN-deep's projection discriminator."""

    kind: Literal["biggan_deep"] = "biggan_deep"
    width: PositiveCount = 128
    """Channel multiplier (the paper's ch)."""
    depth: PositiveCount = 2
    """Blocks of each resolution; the first one halves the side and widens."""
    bottleneck_ratio: PositiveCount = 4
    """How much narrower a block is inside than its output; at least one channel stays."""
    attention_sides: tuple[AttentionSide, ...] = (64,)
    """Self-attention follows the last block of a resolution that makes one of these sides, in pixels; others are passed
    over."""
    spectral_eps: Annotated[float, Field(gt=0)] = SPECTRAL_EPS
    """Smallest norm that the vectors of spectral normalisation are divided by."""
    init: Initialisation = "orthogonal"
    """Law of the first weights."""

    def build(self, image: ImageSpec) -> "BigGANDeepDiscriminator":
        """Return a discriminator with weights drawn from torch's generator, for such images.

        Raises:
            RecipeError: images are not square, or BigGAN-deep has no layout for the side.
        """
        if problems := side_problems("biggan_deep", image, DISCRIMINATOR_WIDTHS):
            raise RecipeError(problems)
        return BigGANDeepDiscriminator(self, image)


class GeneratorBlock(nn.Module):
    """BN-ReLU-conv1x1, BN-ReLU(-up)-conv3x3, BN-ReLU-conv3x3, BN-ReLU-conv1x1, plus the first channels of the input."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        condition: Condition,
        *,
        up: bool,
        settings: BigGANDeepGeneratorSettings,
    ) -> None:
        super().__init__()
        hidden, eps = max(1, in_channels // settings.bottleneck_ratio), settings.spectral_eps
        self.out_channels, self.up = out_channels, up
        self.bn1 = condition.batchnorm(in_channels)
        self.conv1 = SpectralConv2d(in_channels, hidden, 1, eps=eps)
        self.bn2 = condition.batchnorm(hidden)
        self.conv2 = SpectralConv2d(hidden, hidden, resample="up" if up else "none", eps=eps)
        self.bn3 = condition.batchnorm(hidden)
        self.conv3 = SpectralConv2d(hidden, hidden, eps=eps)
        self.bn4 = condition.batchnorm(hidden)
        self.conv4 = SpectralConv2d(hidden, out_channels, 1, eps=eps)

    def forward(self, x_NCHW: Tensor, condition_ND: Tensor) -> Tensor:
        """Return [N, out, H, W], or [N, out, 2H, 2W] when the block upsamples."""
        h_NCHW = self.conv1(F.relu(self.bn1(x_NCHW, condition_ND)))
        h_NCHW = self.conv2(F.relu(self.bn2(h_NCHW, condition_ND)))
        h_NCHW = self.conv3(F.relu(self.bn3(h_NCHW, condition_ND)))
        h_NCHW = self.conv4(F.relu(self.bn4(h_NCHW, condition_ND)))
        skip_NCHW = x_NCHW[:, : self.out_channels]
        output_NCHW: Tensor = h_NCHW + (up(skip_NCHW) if self.up else skip_NCHW)
        return output_NCHW


class GeneratorResolution(nn.ModuleList):
    """The blocks of one resolution: all keep side and channels but the last, which doubles the side."""

    def __init__(
        self, in_channels: int, out_channels: int, condition: Condition, settings: BigGANDeepGeneratorSettings
    ) -> None:
        keep = (
            GeneratorBlock(in_channels, in_channels, condition, up=False, settings=settings)
            for _ in range(settings.depth - 1)
        )
        super().__init__([*keep, GeneratorBlock(in_channels, out_channels, condition, up=True, settings=settings)])

    def forward(self, x_NCHW: Tensor, condition_ND: Tensor) -> Tensor:
        """Return [N, out, 2H, 2W]."""
        for block in self:
            x_NCHW = block(x_NCHW, condition_ND)
        return x_NCHW


class BigGANDeepGenerator(ClassConditionalGenerator):
    """generator(latent_NZ, label_N) -> image_NCHW in [-1, 1]; made by BigGANDeepGeneratorSettings.build."""

    def __init__(self, settings: BigGANDeepGeneratorSettings, image: ImageSpec) -> None:
        super().__init__(image, nn.Embedding(image.num_classes, settings.shared_dim) if image.num_classes else None)
        self.settings = settings
        self.latent_dim = settings.latent_dim
        channels = [multiple * settings.width for multiple in GENERATOR_WIDTHS[image.side]]
        condition = Condition(
            dim=settings.latent_dim + (settings.shared_dim if image.num_classes else 0),
            num_classes=0,
            batchnorm_eps=settings.batchnorm_eps,
            batchnorm_momentum=settings.batchnorm_momentum,
            spectral_eps=settings.spectral_eps,
        )
        eps = settings.spectral_eps
        self.base_channels = channels[0]
        self.linear = SpectralLinear(condition.dim, channels[0] * BASE_SIDE**2, eps=eps)
        self.blocks = nn.ModuleList(GeneratorResolution(*pair, condition, settings) for pair in pairwise(channels))
        sides = [BASE_SIDE * 2 ** (index + 1) for index in range(len(self.blocks))]
        self.attentions = attentions_after(sides, channels[1:], settings.attention_sides, eps)
        self.output_bn = AffineBatchNorm(channels[-1], settings.batchnorm_eps, settings.batchnorm_momentum)
        self.output_conv = SpectralConv2d(channels[-1], image.channels, eps=eps)
        initialise_weights(self, settings.init)

    def synthesise(self, latent_NZ: Tensor, class_N: Tensor | None) -> Tensor:
        """Return images, as `forward`, for a class given as shared embedding [N, S]; None without classes."""
        assert latent_NZ.shape[1] == self.latent_dim, f"{latent_NZ.shape[1]} numbers, not {self.latent_dim}"
        condition_ND = latent_NZ if class_N is None else torch.cat((class_N, latent_NZ), 1)
        h_NCHW = self.linear(condition_ND).unflatten(1, (self.base_channels, BASE_SIDE, BASE_SIDE))
        for resolution, attention in zip(self.blocks, self.attentions, strict=True):
            h_NCHW = attention(resolution(h_NCHW, condition_ND))
        h_NCHW = self.output_conv(F.relu(self.output_bn(h_NCHW)))
        return torch.tanh(at_least_float32(h_NCHW))


class DiscriminatorBlock(nn.Module):
    """ReLU-conv1x1-ReLU-conv3x3-ReLU-conv3x3-ReLU(-average pooling)-conv1x1, plus the input (pooled likewise).

    Where the block widens, a 1x1 convolution of the input gives the skip its further channels.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, down: bool, settings: BigGANDeepDiscriminatorSettings
    ) -> None:
        super().__init__()
        hidden, eps = max(1, out_channels // settings.bottleneck_ratio), settings.spectral_eps
        self.down = down
        self.conv1 = SpectralConv2d(in_channels, hidden, 1, eps=eps)
        self.conv2 = SpectralConv2d(hidden, hidden, eps=eps)
        self.conv3 = SpectralConv2d(hidden, hidden, eps=eps)
        self.conv4 = SpectralConv2d(hidden, out_channels, 1, resample="down" if down else "none", eps=eps)
        self.shortcut: SpectralConv2d | None = None
        if out_channels > in_channels:
            self.shortcut = SpectralConv2d(in_channels, out_channels - in_channels, 1, eps=eps)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return [N, out, H, W], or [N, out, H/2, W/2] when the block downsamples."""
        h_NCHW = self.conv1(F.relu(x_NCHW))
        h_NCHW = self.conv2(F.relu(h_NCHW))
        h_NCHW = self.conv3(F.relu(h_NCHW))
        h_NCHW = self.conv4(F.relu(h_NCHW))
        skip_NCHW = F.avg_pool2d(x_NCHW, 2) if self.down else x_NCHW
        if self.shortcut is not None:
            skip_NCHW = torch.cat((skip_NCHW, self.shortcut(skip_NCHW)), 1)
        output_NCHW: Tensor = h_NCHW + skip_NCHW
        return output_NCHW


class BigGANDeepDiscriminator(nn.Module):
    """discriminator(image_NCHW, label_N) -> logit_N; made by BigGANDeepDiscriminatorSettings.build.

    The label enters by projection (Miyato and Koyama 2018, arXiv:1802.05637): logit = w.h + b + embed(label).h
    """

    def __init__(self, settings: BigGANDeepDiscriminatorSettings, image: ImageSpec) -> None:
        super().__init__()
        self.settings = settings
        self.image = image
        eps = settings.spectral_eps
        channels = [multiple * settings.width for multiple in DISCRIMINATOR_WIDTHS[image.side]]
        num_down = DISCRIMINATOR_HALVINGS[image.side]
        self.input_conv = SpectralConv2d(image.channels, channels[0], eps=eps)
        self.blocks = nn.ModuleList(
            self._resolution(*pair, down=index < num_down) for index, pair in enumerate(pairwise(channels))
        )
        sides = [image.side // 2 ** min(index + 1, num_down) for index in range(len(self.blocks))]
        self.attentions = attentions_after(sides, channels[1:], settings.attention_sides, eps)
        self.linear = SpectralLinear(channels[-1], 1, eps=eps)
        self.embed: SpectralEmbedding | None = None
        if image.num_classes:
            self.embed = SpectralEmbedding(image.num_classes, channels[-1], eps=eps)
        initialise_weights(self, settings.init)

    def _resolution(self, in_channels: int, out_channels: int, *, down: bool) -> nn.Sequential:
        first = DiscriminatorBlock(in_channels, out_channels, down=down, settings=self.settings)
        keep = (
            DiscriminatorBlock(out_channels, out_channels, down=False, settings=self.settings)
            for _ in range(self.settings.depth - 1)
        )
        return nn.Sequential(first, *keep)

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
        # Gradients into images and weights at once are what a gradient penalty asks for.
        with twice_differentiable(image_NCHW.requires_grad and self.linear.weight.requires_grad):
            h_NCHW = self.input_conv(image_NCHW)
            for resolution, attention in zip(self.blocks, self.attentions, strict=True):
                h_NCHW = attention(resolution(h_NCHW))
        logit_N, feature_NF = projected_logits(h_NCHW, label_N, self.linear, self.embed)
        return (logit_N, feature_NF) if features else logit_N
