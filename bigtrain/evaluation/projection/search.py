"""The search for codes: from a start, by Adam, with noise on the codes that dies out (Karras et al. 2020,
arXiv:1912.04958, appendix D).

Departs from the paper: a pixel difference stands beside the distance of features, and latents of generators without
styles are looked for from several starts, whose classes are those of the most alike among freshly drawn images.

Axes: N codes, T targets, S starts, P images of the pool, K classes, C channels, H height, W width, F features.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bigtrain.draws import Draws, seed_of
from bigtrain.evaluation.projection.distance import Distance
from bigtrain.evaluation.projection.settings import ProjectionSettings
from bigtrain.evaluation.projection.spaces import (
    LatentSpace,
    Space,
    StyleSpace,
    check_space,
    encode_latents,
    style_center,
)
from bigtrain.evaluation.projection.targets import Targets
from bigtrain.recipe.errors import DivergenceError
from bigtrain.sampling.grids import to_pixels
from bigtrain.sampling.truncation import Truncation, sample_draws
from bigtrain.training.codes import Codes, decode, joined
from bigtrain.training.loaded import LoadedModel

FEWEST_STARTS = 4  # images of each class in the pool
LEVELS = 127.5  # of 8-bit pixels in 1


@dataclass(frozen=True)
class Projection:
    """What was found for some targets."""

    targets: Targets
    codes: Codes
    extra: Mapping[str, Tensor]
    """Noise maps, or latents and labels, one an image."""
    image_NCHW: Tensor
    """uint8."""
    distance_N: Tensor
    """From the target, in the distance that was searched by."""
    start_distance_N: Tensor
    """Of the images that the search started from, the best one where there were several."""
    pixel_rms_N: Tensor
    """Root mean squared difference of pixels, in levels of 0..255."""

    def __getitem__(self, part: slice) -> "Projection":
        extra = {name: tensor[part] for name, tensor in self.extra.items()}
        figures = (self.distance_N[part], self.start_distance_N[part], self.pixel_rms_N[part])
        return Projection(self.targets[part], self.codes[part], extra, self.image_NCHW[part], *figures)


@dataclass(frozen=True)
class _Found:
    """Where one search ended; all of it one a code."""

    codes: Codes
    extra: Mapping[str, Tensor]
    image_NCHW: Tensor
    distance_N: Tensor
    start_distance_N: Tensor
    objective_N: Tensor

    def chosen(self, index_T: Tensor, num_starts: int) -> "_Found":
        """Return the codes of these numbers, with the least of the distances at the starts of each target."""
        return _Found(
            self.codes[index_T],
            {name: tensor[index_T] for name, tensor in self.extra.items()},
            self.image_NCHW[index_T],
            self.distance_N[index_T],
            self.start_distance_N.view(-1, num_starts).amin(1),
            self.objective_N[index_T],
        )


class Projector:
    """Looks for codes of one model by one distance.

    Args:
        model: with BatchNorm's statistics as they should stand.
        distance: on the model's device.
        settings: of the search.
        label: class of all targets; None: of styles, the law of training; of latents, the classes are searched.

    Raises:
        UsageError: the generator does not have the space that the settings ask for.
    """

    def __init__(
        self, model: LoadedModel, distance: Distance, settings: ProjectionSettings, label: int | None = None
    ) -> None:
        self.model, self.distance, self.label = model, distance, label
        self.settings = settings.model_copy(update={"space": check_space(model, settings)})
        self.center = style_center(model, label, settings) if self.settings.space != "z" else None

    def __call__(self, targets: Targets) -> Projection:
        """Return what was found for each target.

        Raises:
            DivergenceError: a search ended in values that are not finite.
        """
        size = self.settings.batch_images
        if self.center is None:
            size = max(1, size // self.settings.starts)
        parts = [self._part(targets[first : first + size], first) for first in range(0, len(targets), size)]
        image_NCHW = torch.cat([part.image_NCHW for part in parts])
        target_NCHW = targets.image_NCHW.float()
        rms_N = (to_pixels(image_NCHW).float() - target_NCHW).square().mean((1, 2, 3)).sqrt()
        return Projection(
            targets,
            joined([part.codes for part in parts]),
            {name: torch.cat([part.extra[name] for part in parts]).cpu() for name in parts[0].extra},
            to_pixels(image_NCHW),
            torch.cat([part.distance_N for part in parts]).cpu(),
            torch.cat([part.start_distance_N for part in parts]).cpu(),
            rms_N,
        )

    def _part(self, targets: Targets, first: int) -> _Found:
        target_NCHW = targets.image_NCHW.to(self.model.device).float() / LEVELS - 1
        number_N = torch.arange(first, first + len(targets), device=self.model.device)
        if self.center is not None:
            draws = self._draws(-1, number_N)
            return self._search(StyleSpace(self.model, self.center, draws, self.settings), target_NCHW, number_N)
        latent_NZ, label_N, num_starts = self._starts(target_NCHW)
        space = LatentSpace(self.model, latent_NZ, label_N, self.settings)
        found = self._search(
            space, target_NCHW.repeat_interleave(num_starts, 0), number_N.repeat_interleave(num_starts)
        )
        best_T = found.objective_N.view(-1, num_starts).argmin(1)
        return found.chosen(best_T + torch.arange(len(targets), device=best_T.device) * num_starts, num_starts)

    def _draws(self, step: int, number_N: Tensor) -> Draws:
        return Draws(seed_of(self.settings.seed, "projection"), 0, step, 0, number_N)

    @torch.no_grad()
    def _starts(self, target_TCHW: Tensor) -> tuple[Tensor, Tensor | None, int]:
        """Return latents [T * S, Z] to start from, target by target, their labels, and S."""
        num_classes = self.model.image.num_classes
        classes = [self.label] if self.label is not None else list(range(num_classes))
        each = max(FEWEST_STARTS, self.settings.start_images // max(1, len(classes)))
        count = each * max(1, len(classes))
        index_P = torch.arange(count, device=self.model.device)
        draws = sample_draws(seed_of(self.settings.seed, "projection starts"), index_P)
        latent_PZ = Truncation().apply(draws, int(self.model.generator.latent_dim))
        label_P = torch.tensor(classes, device=self.model.device).repeat_interleave(each) if classes else None
        target_TF, squares = self.distance.embed(target_TCHW), []
        for first in range(0, count, self.settings.batch_images):
            part = slice(first, first + self.settings.batch_images)
            codes = encode_latents(self.model.generator, latent_PZ[part], None if label_P is None else label_P[part])
            embedded_PF = self.distance.embed(decode(self.model.generator, codes))
            squares.append(torch.cdist(target_TF, embedded_PF, compute_mode="donot_use_mm_for_euclid_dist").square())
        square_TP = torch.cat(squares, 1)
        if len(classes) > 1:  # the best image of each of the best classes
            best_TK = square_TP.unflatten(1, (len(classes), each)).min(2)
            chosen_TS = best_TK.values.topk(min(self.settings.starts, len(classes)), largest=False).indices
            index_TS = best_TK.indices.gather(1, chosen_TS) + chosen_TS * each
        else:
            index_TS = square_TP.topk(min(self.settings.starts, count), largest=False).indices
        index_N = index_TS.flatten()
        return latent_PZ[index_N], None if label_P is None else label_P[index_N], index_TS.shape[1]

    def _search(self, space: Space, target_NCHW: Tensor, number_N: Tensor) -> _Found:
        settings = self.settings
        with torch.no_grad():
            target_NF = self.distance.embed(target_NCHW)
            start_N = self._distances(space.images(0.0, self._draws(-1, number_N)), target_NF)
        optimizer = torch.optim.Adam(space.parameters, lr=settings.learning_rate)
        for step in range(settings.steps):
            share = step / settings.steps
            optimizer.param_groups[0]["lr"] = learning_rate(settings, share)
            image_NCHW = space.images(wandering(settings, share), self._draws(step, number_N))
            loss = self._objective(image_NCHW, target_NCHW, target_NF).sum() + space.penalty()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            space.after_step()
        with torch.no_grad():
            image_NCHW = space.images(0.0, self._draws(-1, number_N))
            objective_N = self._objective(image_NCHW, target_NCHW, target_NF)
            distance_N = self._distances(image_NCHW, target_NF)
        if not bool(torch.isfinite(objective_N).all()):
            raise DivergenceError(
                f"the search for codes ended in values that are not finite with learning_rate "
                f"{settings.learning_rate:g}; lower it (--learning-rate), or name an earlier checkpoint"
            )
        return _Found(space.codes(), space.extra(), image_NCHW.cpu(), distance_N, start_N, objective_N)

    def _distances(self, image_NCHW: Tensor, target_NF: Tensor) -> Tensor:
        return (self.distance.embed(image_NCHW) - target_NF).square().sum(1)

    def _objective(self, image_NCHW: Tensor, target_NCHW: Tensor, target_NF: Tensor) -> Tensor:
        pixels_N = (image_NCHW - target_NCHW).square().mean((1, 2, 3))
        return self._distances(image_NCHW, target_NF) + self.settings.pixel_weight * pixels_N


def learning_rate(settings: ProjectionSettings, share: float) -> float:
    """Return Adam's learning rate when this share of the steps is done: a straight rise, and a cosine at the end."""
    rising = min(1.0, share / settings.rise) if settings.rise else 1.0
    falling = min(1.0, (1 - share) / settings.fall) if settings.fall else 1.0
    return settings.learning_rate * rising * (0.5 - 0.5 * math.cos(math.pi * falling))


def wandering(settings: ProjectionSettings, share: float) -> float:
    """Return the standard deviations of noise on codes when this share of the steps is done."""
    left = 1 - share / settings.wander_share if settings.wander_share else 0.0
    return settings.wander * max(0.0, left) ** 2
