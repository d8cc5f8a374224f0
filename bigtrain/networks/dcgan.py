"""DCGAN (Radford et al. 2016, arXiv:1511.06434) for 32 and 64 px: strided 4x4 convolutions, BatchNorm, no pooling.

Departs from the paper: a layout for 32 px, one level less; convolutions before BatchNorm have no bias, which would be
taken off again. The paper has no classes; where there are any they enter as in Mirza and Osindero 2014
(arXiv:1411.1784): the generator reads a one-hot label beside the latent, the discriminator one plane a class beside the
image.
"""

# Axes: N images, C channels, H height, W width, Z latent, K classes, F features

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigtrain.networks.layers.batchnorm import AffineBatchNorm
from bigtrain.networks.layers.conditioning import ClassConditionalGenerator, OneHot, with_label_planes
from bigtrain.networks.layers.initialisation import NORMAL_STD
from bigtrain.networks.layers.layouts import BASE_SIDE, side_problems
from bigtrain.networks.layers.precision import at_least_float32, full_precision
from bigtrain.networks.registry import DISCRIMINATORS, GENERATORS
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.settings import PositiveCount, Settings

# Channels in multiples of `width`, from the 4x4 image up: each doubling of the side halves them.
WIDTHS = {32: (4, 2, 1), 64: (8, 4, 2, 1)}
KERNEL = 4
LEAK = 0.2  # slope of LeakyReLU below zero


@GENERATORS.add("dcgan")
class DCGANGeneratorSettings(Settings):
    """DCGAN's generator."""

    kind: Literal["dcgan"] = "dcgan"
    width: PositiveCount = 64
    """Channels before the last convolution; they double towards the latent (the paper's figure 1: 128)."""
    latent_dim: PositiveCount = 100
    """Numbers in a latent."""

    def build(self, image: ImageSpec) -> "DCGANGenerator":
        """Return a generator with weights drawn from torch's generator, for such images.

        Raises:
            RecipeError: images are not square, or DCGAN has no layout for the side.
        """
        if problems := side_problems("dcgan", image, WIDTHS):
            raise RecipeError(problems)
        return DCGANGenerator(self, image)


@DISCRIMINATORS.add("dcgan")
class DCGANDiscriminatorSettings(Settings):
    """DCGAN's discriminator."""

    kind: Literal["dcgan"] = "dcgan"
    width: PositiveCount = 64
    """Channels after the first convolution; they double towards the logit."""

    def build(self, image: ImageSpec) -> "DCGANDiscriminator":
        """Return a discriminator with weights drawn from torch's generator, for such images.

        Raises:
            RecipeError: images are not square, or DCGAN has no layout for the side.
        """
        if problems := side_problems("dcgan", image, WIDTHS):
            raise RecipeError(problems)
        return DCGANDiscriminator(self, image)


@torch.no_grad()
def draw_weights(network: nn.Module) -> None:
    """Draw convolutions from N(0, 0.02^2) and BatchNorm's gains from N(1, 0.02^2); biases become 0 (section 4)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.normal_(0, NORMAL_STD)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, AffineBatchNorm):
            module.gain.normal_(1, NORMAL_STD)


class DCGANGenerator(ClassConditionalGenerator):
    """generator(latent_NZ, label_N) -> image_NCHW in [-1, 1]; made by DCGANGeneratorSettings.build."""

    def __init__(self, settings: DCGANGeneratorSettings, image: ImageSpec) -> None:
        super().__init__(image, OneHot(image.num_classes) if image.num_classes else None)
        self.settings = settings
        self.latent_dim = settings.latent_dim
        channels = [multiple * settings.width for multiple in WIDTHS[image.side]]
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(self.latent_dim + image.num_classes, channels[0], BASE_SIDE, bias=False)
        ]
        for before, after in zip(channels, [*channels[1:], image.channels], strict=True):
            layers += [AffineBatchNorm(before), nn.ReLU()]
            to_image = before == channels[-1]
            layers.append(nn.ConvTranspose2d(before, after, KERNEL, stride=2, padding=1, bias=to_image))
        self.layers = nn.Sequential(*layers)
        draw_weights(self)

    def synthesise(self, latent_NZ: Tensor, class_N: Tensor | None) -> Tensor:
        """Return images, as `forward`, for a mixture of classes [N, K]; None without classes."""
        assert latent_NZ.shape[1] == self.latent_dim, f"{latent_NZ.shape[1]} numbers, not {self.latent_dim}"
        h_NC = latent_NZ if class_N is None else torch.cat((latent_NZ, class_N), 1)
        return torch.tanh(at_least_float32(self.layers(h_NC[:, :, None, None])))


class DCGANDiscriminator(nn.Module):
    """discriminator(image_NCHW, label_N) -> logit_N; made by DCGANDiscriminatorSettings.build."""

    def __init__(self, settings: DCGANDiscriminatorSettings, image: ImageSpec) -> None:
        super().__init__()
        self.settings = settings
        self.image = image
        channels = [multiple * settings.width for multiple in reversed(WIDTHS[image.side])]
        layers: list[nn.Module] = [
            nn.Conv2d(image.channels + image.num_classes, channels[0], KERNEL, stride=2, padding=1),
            nn.LeakyReLU(LEAK),
        ]
        for before, after in zip(channels[:-1], channels[1:], strict=True):
            layers += [
                nn.Conv2d(before, after, KERNEL, stride=2, padding=1, bias=False),
                AffineBatchNorm(after),
                nn.LeakyReLU(LEAK),
            ]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(channels[-1], 1, BASE_SIDE)
        draw_weights(self)

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
        h_NCHW = self.layers(with_label_planes(image_NCHW, label_N, self.image.num_classes))
        with full_precision(h_NCHW):
            feature_NF = at_least_float32(h_NCHW).flatten(1)
            logit_N = F.linear(feature_NF, self.head.weight.flatten(1), self.head.bias).squeeze(1)
        return (logit_N, feature_NF) if features else logit_N
