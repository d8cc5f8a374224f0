"""How classes enter networks: embedding, conditional normalisation, projection, and one-hot vectors and planes.

The first two as in BigGAN (Brock et al. 2019, arXiv:1809.11096), projection as in Miyato and Koyama 2018
(arXiv:1802.05637), one-hot vectors and planes as in Mirza and Osindero 2014 (arXiv:1411.1784).
"""

# Axes: N images, C channels, H height, W width, Z latent, K classes, S shared embedding, F features

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigtrain.networks.layers.batchnorm import AffineBatchNorm, ConditionalBatchNorm
from bigtrain.networks.layers.precision import at_least_float32, full_precision
from bigtrain.networks.layers.spectral import SpectralEmbedding, SpectralLinear
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.image import ImageSpec


@dataclass(frozen=True)
class Condition:
    """What the normalisations of a generator's blocks read: a vector of `dim`, or a label when `num_classes` is set."""

    dim: int
    num_classes: int
    batchnorm_eps: float
    batchnorm_momentum: float
    spectral_eps: float

    def batchnorm(self, channels: int) -> AffineBatchNorm | ConditionalBatchNorm:
        """Return a normalisation of `channels` under this condition, a plain one when there is nothing to read."""
        eps, momentum = self.batchnorm_eps, self.batchnorm_momentum
        if not self.dim and not self.num_classes:
            return AffineBatchNorm(channels, eps, momentum)
        return ConditionalBatchNorm(channels, self._map(channels), self._map(channels), eps, momentum)

    def _map(self, channels: int) -> nn.Module:
        if self.num_classes:
            return nn.Embedding(self.num_classes, channels)
        return SpectralLinear(self.dim, channels, bias=False, eps=self.spectral_eps)


class ClassConditionalGenerator(nn.Module):
    """generator(latent_NZ, label_N) -> image_NCHW by way of a class embedding that all of it shares, if it has one.

    Args:
        image: what the images are.
        shared: maps labels [N] to the embedding [N, S]; None: labels themselves go on.
    """

    def __init__(self, image: ImageSpec, shared: nn.Module | None) -> None:
        super().__init__()
        self.image = image
        self.shared = shared

    def embed(self, label_N: Tensor) -> Tensor:
        """Return the shared class embedding [N, S]; pass it to `synthesise` to interpolate between classes.

        Raises:
            RecipeError: the generator has no shared embedding.
        """
        if self.shared is None:
            raise RecipeError(
                "this generator has no shared class embedding (shared_dim is off, or there are no classes), so classes "
                "cannot be mixed"
            )
        embedding_NS: Tensor = self.shared(label_N)
        return embedding_NS

    def forward(self, latent_NZ: Tensor, label_N: Tensor | None = None) -> Tensor:
        """Return images of the labels.

        Args:
            latent_NZ: float, usually N(0, 1).
            label_N: int64, 0..K-1; None when the images have no classes.
        Returns:
            At least float32, [N, channels, height, width], -1..1.
        """
        if not self.image.num_classes:
            return self.synthesise(latent_NZ, None)
        assert label_N is not None, f"no labels for {self.image.num_classes} classes"
        return self.synthesise(latent_NZ, label_N if self.shared is None else self.shared(label_N))

    def synthesise(self, latent_NZ: Tensor, class_N: Tensor | None) -> Tensor:
        """Return images, as `forward`, for a class given as shared embedding [N, S], or label [N] if there is none."""
        raise NotImplementedError


class OneHot(nn.Module):
    """The embedding that learns nothing: class k of K is the k-th unit vector."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, label_N: Tensor) -> Tensor:
        """Return float32 [N, K]."""
        class_K = torch.arange(self.num_classes, device=label_N.device)
        return (label_N[:, None] == class_K).float()


def with_label_planes(image_NCHW: Tensor, label_N: Tensor | None, num_classes: int) -> Tensor:
    """Return the image with one further channel a class, 1 for the image's class and 0 for others: [N, C + K, H, W]."""
    if not num_classes:
        return image_NCHW
    assert label_N is not None, f"no labels for {num_classes} classes"
    class_NK11 = OneHot(num_classes)(label_N)[:, :, None, None].to(image_NCHW.dtype)
    return torch.cat((image_NCHW, class_NK11.expand(-1, -1, *image_NCHW.shape[2:])), 1)


def projected_logits(
    h_NCHW: Tensor, label_N: Tensor | None, linear: SpectralLinear, embed: SpectralEmbedding | None
) -> tuple[Tensor, Tensor]:
    """Return logit_N = w.f + b + embed(label).f, and the features f [N, F], sums of relu(h) over positions.

    Both are at least float32, whatever autocast says. Without `embed` the label is not read.
    """
    with full_precision(h_NCHW):
        feature_NF = F.relu(at_least_float32(h_NCHW)).sum((2, 3))
        logit_N: Tensor = linear(feature_NF).squeeze(1)
        if embed is not None:
            assert label_N is not None, f"no labels for {len(embed.weight)} classes"
            logit_N = logit_N + (embed(label_N) * feature_NF).sum(1)
    return logit_N, feature_NF
