"""StyleGAN2's mapping network (Karras et al. 2020, arXiv:1912.04958; conditions as in arXiv:2006.06676)."""

# Axes: N images, Z latent, W style, K classes

import torch
from torch import Tensor, nn

from bigtrain.networks.layers.equalised import EqualisedEmbedding, EqualisedLinear
from bigtrain.networks.layers.precision import at_least_float32, full_precision

MOMENT_EPS = 1e-8  # added to second moments


def normalised_moment(x_NZ: Tensor) -> Tensor:
    """Return each row divided by the root of its mean square."""
    return x_NZ * (x_NZ.square().mean(1, keepdim=True) + MOMENT_EPS).rsqrt()


class Mapping(nn.Module):
    """Normalised latent, normalised class embedding, or both side by side -> `num_layers` activated linear maps.

    Args:
        latent_dim: Z; 0 when there is only a label.
        num_classes: K; 0 when there is only a latent.
        style_dim: W, and the length of the class embedding.
        num_layers: linear maps.
        lr_multiplier: of the linear maps, not of the embedding.
    """

    def __init__(
        self, latent_dim: int, num_classes: int, style_dim: int, num_layers: int, lr_multiplier: float
    ) -> None:
        super().__init__()
        assert latent_dim or num_classes, "a mapping of nothing"
        self.latent_dim = latent_dim
        self.embed = EqualisedEmbedding(num_classes, style_dim) if num_classes else None
        first = latent_dim + (style_dim if num_classes else 0)
        self.layers = nn.ModuleList(
            EqualisedLinear(style_dim if index else first, style_dim, lr_multiplier=lr_multiplier, activate=True)
            for index in range(num_layers)
        )

    def forward(self, latent_NZ: Tensor | None, label_N: Tensor | None) -> Tensor:
        """Return w_NW, at least float32 whatever autocast says."""
        parts = []
        if latent_NZ is not None:
            assert latent_NZ.shape[1] == self.latent_dim, f"{latent_NZ.shape[1]} numbers, not {self.latent_dim}"
            parts.append(normalised_moment(at_least_float32(latent_NZ)))
        with full_precision(next(self.parameters())):
            if self.embed is not None:
                assert label_N is not None, "no labels for a network with classes"
                parts.append(normalised_moment(self.embed(label_N)))
            x_NW = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
            for layer in self.layers:
                x_NW = layer(x_NW)
        return x_NW
