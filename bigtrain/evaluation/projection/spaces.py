"""Where codes are looked for: styles with noise maps, or latents with a class.

Axes: N codes, L layers (styles), W style (after L), Z latent, C channels, H height, W width (after H), T targets,
S starts, F features.
"""

import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bigtrain.draws import Draws, seed_of
from bigtrain.evaluation.projection.settings import ProjectionSettings
from bigtrain.networks.layers.modulated import StyledConv2d
from bigtrain.recipe.errors import UsageError
from bigtrain.training.codes import LATENT, STYLE, Codes, decode, encode
from bigtrain.training.loaded import LoadedModel

SMALLEST_MAP = 8  # px: the side at which the pyramid of a noise map ends
MAPPED_AT_ONCE = 1000  # latents


class Space(Protocol):
    """What a search moves: parameters, the codes they are, and images of them."""

    parameters: list[Tensor]

    def codes(self) -> Codes:
        """Return where the search stands."""
        ...

    def images(self, wander: float, draws: Draws) -> Tensor:
        """Return images [N, C, H, W] of codes with noise of `wander` standard deviations."""
        ...

    def penalty(self) -> Tensor:
        """Return what is added to the loss, summed over codes."""
        ...

    def after_step(self) -> None:
        """Bring parameters back to where they have to be."""
        ...

    def extra(self) -> dict[str, Tensor]:
        """Return what belongs to the codes besides themselves, by name."""
        ...


class StyleSpace:
    """W or W+, and a noise map for each layer and image (Karras et al. 2020, arXiv:1912.04958, appendix D).

    Args:
        model: a generator with styles; a copy is used, so its noise stays.
        center: mean style [W] and standard deviation (a number) of styles.
        draws: of the codes looked for.
        settings: of the projection.
    """

    def __init__(
        self, model: LoadedModel, center: tuple[Tensor, float], draws: Draws, settings: ProjectionSettings
    ) -> None:
        self.generator: Any = copy.deepcopy(model.generator)
        self.settings, (mean_W, self.deviation) = settings, center
        layers = 1 if settings.space != "w+" else self.generator.num_styles
        self.style_NLW = mean_W.repeat(draws.num_images, layers, 1).requires_grad_()
        self.parameters, self.maps = [self.style_NLW], self._place_maps(draws) if settings.noise_maps else {}
        self.parameters += list(self.maps.values())

    def _place_maps(self, draws: Draws) -> dict[str, Tensor]:
        """Give each convolution a noise map an image, drawn anew: its own would favour images made with it."""
        maps: dict[str, Tensor] = {}
        for name, layer in self.generator.named_modules():
            if isinstance(layer, StyledConv2d):
                height, width = layer.noise_const.shape
                del layer.noise_const
                drawn_N1HW = draws.normal(f"noise/{name}", 1, height, width)
                layer.noise_const = nn.Parameter(drawn_N1HW)
                maps[f"noise/{name}"] = layer.noise_const
        return maps

    def codes(self) -> Codes:
        """Return styles, the same in all layers for W."""
        return Codes({STYLE: self.style_NLW.detach().expand(-1, self.generator.num_styles, -1).clone()})

    def images(self, wander: float, draws: Draws) -> Tensor:
        """Return images of styles to which noise of `wander` standard deviations was added."""
        style_NLW = self.style_NLW
        if wander:
            style_NLW = style_NLW + wander * self.deviation * draws.normal("wander", *style_NLW.shape[1:])
        image_NCHW: Tensor = self.generator.synthesis(style_NLW.expand(-1, self.generator.num_styles, -1), "const")
        return image_NCHW.float()

    def penalty(self) -> Tensor:
        """Return the noise maps' autocorrelation."""
        return self.settings.noise_weight * sum(
            (autocorrelation(map_N1HW).sum() for map_N1HW in self.maps.values()), self.style_NLW.new_zeros(())
        )

    @torch.no_grad()
    def after_step(self) -> None:
        """Give each noise map mean 0 and variance 1 again."""
        for map_N1HW in self.maps.values():
            map_N1HW -= map_N1HW.mean((2, 3), keepdim=True)
            map_N1HW *= map_N1HW.square().mean((2, 3), keepdim=True).clamp(min=1e-20).rsqrt()

    def extra(self) -> dict[str, Tensor]:
        """Return the noise maps, [N, 1, H, W] by layer."""
        return {name: map_N1HW.detach().clone() for name, map_N1HW in self.maps.items()}


class LatentSpace:
    """Z, with a class for each code that stays.

    Args:
        model: any generator that maps latents.
        latent_NZ: where to start.
        label_N: classes; None for a model without.
        settings: of the projection.
    """

    def __init__(
        self, model: LoadedModel, latent_NZ: Tensor, label_N: Tensor | None, settings: ProjectionSettings
    ) -> None:
        self.generator, self.label_N, self.settings = model.generator, label_N, settings
        self.latent_NZ = latent_NZ.clone().requires_grad_()
        self.parameters = [self.latent_NZ]

    def codes(self) -> Codes:
        """Return latents and what stands for the classes."""
        with torch.no_grad():
            encoded = encode_latents(self.generator, self.latent_NZ.detach(), self.label_N)
        return Codes({name: part.clone() for name, part in encoded.parts.items()})

    def images(self, wander: float, draws: Draws) -> Tensor:
        """Return images of latents to which noise of `wander` standard deviations was added."""
        latent_NZ = self.latent_NZ
        if wander:
            latent_NZ = latent_NZ + wander * draws.normal("wander", latent_NZ.shape[1])
        return decode(self.generator, encode_latents(self.generator, latent_NZ, self.label_N))

    def penalty(self) -> Tensor:
        """Return how far the latents' mean squares are from 1."""
        return self.settings.length_weight * (self.latent_NZ.square().mean(1) - 1).square().sum()

    def after_step(self) -> None:
        """Leave latents as they are."""

    def extra(self) -> dict[str, Tensor]:
        """Return the latents and their classes where the codes are styles or embeddings."""
        labels = {} if self.label_N is None else {"label": self.label_N}
        return {LATENT: self.latent_NZ.detach().clone(), **labels}


def encode_latents(generator: Any, latent_NZ: Tensor, label_N: Tensor | None) -> Codes:
    """Return the codes of latents without truncation."""
    from bigtrain.sampling.truncation import Truncation

    return encode(generator, latent_NZ, label_N, Truncation())


def autocorrelation(map_N1HW: Tensor) -> Tensor:
    """Return the noise regulariser [N] of appendix D, unweighted: squared products of neighbours' means, in both
    directions, over a pyramid of averages down to 8 pixels that keep unit variance."""
    total_N = map_N1HW.new_zeros(len(map_N1HW))
    while True:
        for dim in (2, 3):
            total_N = total_N + (map_N1HW * map_N1HW.roll(1, dim)).mean((1, 2, 3)).square()
        if min(map_N1HW.shape[2:]) <= SMALLEST_MAP:
            return total_N
        map_N1HW = nn.functional.avg_pool2d(map_N1HW, 2) * 2


@torch.no_grad()
def style_center(model: LoadedModel, label: int | None, settings: ProjectionSettings) -> tuple[Tensor, float]:
    """Return mean [W] of the styles of random latents, and the root mean square distance from it.

    Args:
        model: a generator with styles.
        label: of all latents; None: classes by the law of training.
        settings: how many, and the seed.
    """
    styles = []
    for first in range(0, settings.average_samples, MAPPED_AT_ONCE):
        count = min(MAPPED_AT_ONCE, settings.average_samples - first)
        labels = None if label is None else [label] * count
        codes = model.codes(range(first, first + count), labels=labels, seed=seed_of(settings.seed, "style center"))
        styles.append(codes.parts[STYLE][:, 0].double())
    style_NW = torch.cat(styles)
    mean_W = style_NW.mean(0)
    deviation = float((style_NW - mean_W).square().sum(1).mean().sqrt())
    return mean_W.float(), deviation


def check_space(model: LoadedModel, settings: ProjectionSettings) -> str:
    """Return the space to search.

    Raises:
        UsageError: the generator does not have it.
    """
    has_styles = hasattr(model.generator, "synthesis")
    space = settings.space or ("w" if has_styles else "z")
    if (space != "z") and not has_styles:
        raise UsageError(f"{model.path}: this generator has no styles; leave --space out, or write --space z")
    return space
