"""The first GAN (Goodfellow et al. 2014, arXiv:1406.2661): two multilayer perceptrons, for images of any size.

The generator has rectified units, the discriminator maxout units with dropout (Goodfellow et al. 2013,
arXiv:1302.4389).

Departs from the paper: tanh at the end of the generator, since images are -1..1 here; Gaussian first weights whose
variance keeps that of their input, where the paper says nothing. The paper has no classes; where there are any they
enter as in Mirza and Osindero 2014 (arXiv:1411.1784): both networks read a one-hot label beside their input.
"""

# Axes: N images, C channels, H height, W width, Z latent, K classes, F features, P pieces of a maxout unit

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from bigtrain.networks.layers.conditioning import ClassConditionalGenerator, OneHot
from bigtrain.networks.layers.precision import at_least_float32, full_precision
from bigtrain.networks.registry import DISCRIMINATORS, GENERATORS
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.settings import PositiveCount, Settings

RELU_GAIN = math.sqrt(2)  # He et al. 2015, arXiv:1502.01852: rectifying halves the second moment


@GENERATORS.add("mlp")
class MLPGeneratorSettings(Settings):
    """A generator of rectified linear layers."""

    kind: Literal["mlp"] = "mlp"
    latent_dim: PositiveCount = 100
    """Numbers in a latent."""
    hidden: Annotated[tuple[PositiveCount, ...], Field(min_length=1)] = (1200, 1200)
    """Units of each hidden layer, from the latent on."""

    def build(self, image: ImageSpec) -> "MLPGenerator":
        """Return a generator with weights drawn from torch's generator; any images fit."""
        return MLPGenerator(self, image)


@DISCRIMINATORS.add("mlp")
class MLPDiscriminatorSettings(Settings):
    """A discriminator of maxout layers with dropout."""

    kind: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[PositiveCount, ...], Field(min_length=1)] = (240, 240)
    """Units of each hidden layer, from the image on."""
    pieces: PositiveCount = 5
    """Linear functions of which a maxout unit is the largest."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Chance that a hidden unit is left out in training; the others grow to make up for it. 0: none is."""

    def build(self, image: ImageSpec) -> "MLPDiscriminator":
        """Return a discriminator with weights drawn from torch's generator; any images fit."""
        return MLPDiscriminator(self, image)


def linear(in_features: int, out_features: int, gain: float = 1.0) -> nn.Linear:
    """Return a linear map with weights from N(0, gain^2 / in_features) and no offset at first."""
    layer = nn.Linear(in_features, out_features)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(in_features))
    nn.init.zeros_(layer.bias)
    return layer


class Maxout(nn.Module):
    """Units that are the largest of `pieces` linear functions of their input."""

    def __init__(self, in_features: int, out_features: int, pieces: int) -> None:
        super().__init__()
        self.linear = linear(in_features, out_features * pieces)
        self.pieces = pieces

    def forward(self, x_NF: Tensor) -> Tensor:
        """Return [N, out]."""
        h_NF: Tensor = self.linear(x_NF)
        return h_NF.view(len(x_NF), -1, self.pieces).amax(2)


class MLPGenerator(ClassConditionalGenerator):
    """generator(latent_NZ, label_N) -> image_NCHW in [-1, 1]; made by MLPGeneratorSettings.build."""

    def __init__(self, settings: MLPGeneratorSettings, image: ImageSpec) -> None:
        super().__init__(image, OneHot(image.num_classes) if image.num_classes else None)
        self.settings = settings
        self.latent_dim = settings.latent_dim
        sizes = [self.latent_dim + image.num_classes, *settings.hidden]
        layers = [module for pair in pairwise(sizes) for module in (linear(*pair, RELU_GAIN), nn.ReLU())]
        self.layers = nn.Sequential(*layers, linear(sizes[-1], image.channels * math.prod(image.size)))

    def synthesise(self, latent_NZ: Tensor, class_N: Tensor | None) -> Tensor:
        """Return images, as `forward`, for a mixture of classes [N, K]; None without classes."""
        assert latent_NZ.shape[1] == self.latent_dim, f"{latent_NZ.shape[1]} numbers, not {self.latent_dim}"
        h_NF = latent_NZ if class_N is None else torch.cat((latent_NZ, class_N), 1)
        image_NF = torch.tanh(at_least_float32(self.layers(h_NF)))
        return image_NF.view(-1, self.image.channels, *self.image.size)


class MLPDiscriminator(nn.Module):
    """discriminator(image_NCHW, label_N) -> logit_N; made by MLPDiscriminatorSettings.build."""

    def __init__(self, settings: MLPDiscriminatorSettings, image: ImageSpec) -> None:
        super().__init__()
        self.settings = settings
        self.image = image
        self.classes = OneHot(image.num_classes)
        sizes = [image.channels * math.prod(image.size) + image.num_classes, *settings.hidden]
        self.layers = nn.Sequential(
            *(
                module
                for pair in pairwise(sizes)
                for module in (Maxout(*pair, settings.pieces), nn.Dropout(settings.dropout))
            )
        )
        self.head = linear(sizes[-1], 1)

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
        h_NF = image_NCHW.flatten(1)
        if self.image.num_classes:
            assert label_N is not None, f"no labels for {self.image.num_classes} classes"
            h_NF = torch.cat((h_NF, self.classes(label_N)), 1)
        h_NF = self.layers(h_NF)
        with full_precision(h_NF):
            feature_NF = at_least_float32(h_NF)
            logit_N = F.linear(feature_NF, self.head.weight, self.head.bias).squeeze(1)
        return (logit_N, feature_NF) if features else logit_N
