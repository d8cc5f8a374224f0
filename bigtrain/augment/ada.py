"""Adaptive discriminator augmentation (ADA: Karras et al. 2020, arXiv:2006.06676, appendix B).

Every transformation of the groups in `pipe` happens to an image with probability p, all drawn independently, in the
paper's order: blits (mirroring, quarter turns, whole-pixel translation), geometry (scaling, rotation, stretching,
translation, resampled without aliasing), color, filtering, noise, cutout. An image for which nothing is chosen passes
untouched, to the last bit. p is a number of the game, moved by `adapted_probability`.

Departs from the paper:

* an image that gets blits but no geometry keeps its pixels exactly; there all geometry runs through one resampling;
* mirroring at the borders, and where places are measured from: see `resampling.py`;
* p stays in 0..1.
"""

# Axes: N images, C channels, H height, W width

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from bigtrain.augment.color import color_map, recolor
from bigtrain.augment.geometry import blit_source, warp_source
from bigtrain.augment.lookup import blit, cut_out
from bigtrain.augment.registry import AUGMENTATIONS, Adaptation, Augmentation, AugmentationSettings, Uniform
from bigtrain.augment.resampling import SYM6, warp
from bigtrain.augment.slots import Slots
from bigtrain.augment.spectrum import amplify, octave_filters, octave_gains
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.settings import PositiveCount, Share

NOISE_STD = 0.1  # of the half-normal standard deviation of additive noise
HOLE = 0.5  # side of the cutout, as a part of the image's

PIPES: dict[str, frozenset[str]] = {
    "blit": frozenset({"blit"}),
    "geom": frozenset({"geom"}),
    "color": frozenset({"color"}),
    "filter": frozenset({"filter"}),
    "noise": frozenset({"noise"}),
    "cutout": frozenset({"cutout"}),
    "bg": frozenset({"blit", "geom"}),
    "bgc": frozenset({"blit", "geom", "color"}),
    "bgcf": frozenset({"blit", "geom", "color", "filter"}),
    "bgcfn": frozenset({"blit", "geom", "color", "filter", "noise"}),
    "bgcfnc": frozenset({"blit", "geom", "color", "filter", "noise", "cutout"}),
}


def adapted_probability(p: Tensor, sign_mean: Tensor | float, target: float, images: int, speed_images: int) -> Tensor:
    """Return p moved by images / speed_images, up where the discriminator overfits and down where it does not.

    Args:
        p: the probability so far (0-d).
        sign_mean: mean sign of the logits of real images since the last move, over all ranks.
        target: the mean sign that is aimed at; at exactly this p stays.
        images: real images shown since the last move.
        speed_images: images that move p from 0 to 1.
    Returns:
        In 0..1, like `p`. The released code has no upper end.
    """
    above = torch.as_tensor(sign_mean, dtype=p.dtype, device=p.device) - target
    return (p + above.sign() * (images / speed_images)).clamp(0, 1)


@AUGMENTATIONS.add("ada")
class AdaSettings(AugmentationSettings):
    """Adaptive discriminator augmentation."""

    kind: Literal["ada"] = "ada"
    """Which augmentation."""
    pipe: Literal[tuple(PIPES)] = "bgc"  # type: ignore[valid-type]
    """Groups of transformations: blit, geom, color, filter, noise, cutout, or several by their first letters."""
    probability: Share = 0.0
    """Probability of each transformation when training starts; for all of it where `target` is null."""
    target: float | None = Field(0.6, gt=-1, lt=1)
    """Mean sign of the discriminator's logits for real images that the probability is adapted to; null: no
    adaptation."""
    every: PositiveCount = 4
    """Turns of the discriminator between two moves of the probability."""
    speed_images: PositiveCount = 500_000
    """Real images that move the probability from 0 to 1."""

    @property
    def strength(self) -> float:
        """The probability of each transformation when training starts."""
        return float(self.probability)

    @property
    def adaptation(self) -> Adaptation | None:
        """The rule of the paper, unless there is no target."""
        return None if self.target is None else Adaptation(self.target, self.every, self.speed_images)

    def build(self, channels: int = 3) -> "Ada":
        """Return the augmentation of images of so many channels; it has no parameters and no state.

        Raises:
            RecipeError: the pipe turns colors, and there are neither 1 nor 3 channels.
        """
        if "color" in PIPES[self.pipe] and channels not in (1, 3):
            raise RecipeError(
                f"game.augment.pipe: {self.pipe} turns colors of gray or RGB images, but image.channels is {channels}; "
                "choose a pipe without c, such as bg"
            )
        return Ada(PIPES[self.pipe])


class Ada(Augmentation):
    """The transformations of some groups."""

    taps_T: Tensor
    filter_BT: Tensor

    def __init__(self, groups: frozenset[str]) -> None:
        super().__init__()
        self.groups = groups
        self.register_buffer("taps_T", torch.tensor(SYM6, dtype=torch.float64), persistent=False)
        self.register_buffer("filter_BT", octave_filters(), persistent=False)

    def draw(self, uniform: Uniform, image_shape: Sequence[int], strength: Tensor) -> dict[str, Tensor]:
        """Return what the chosen groups do to each image, each transformation with probability `strength`."""
        channels, height, width = image_shape[-3:]
        assert "color" not in self.groups or channels in (1, 3), f"color groups need 1 or 3 channels, got {channels}"
        slots = Slots(uniform, strength)
        drawn = self._draw_geometry(slots, height, width)
        if "color" in self.groups:
            map_N44, recolored_N = color_map(slots)
            drawn |= {"color": map_N44[:, :3], "recolored": recolored_N}
        if "filter" in self.groups:
            drawn["gain"], drawn["filtered"] = octave_gains(slots)
        if "noise" in self.groups:
            sigma_N = NOISE_STD * torch.where(slots.chosen("noise"), slots.normal("noise").abs(), 0.0)
            drawn["noise"] = torch.special.ndtri(uniform("ada_noise", *image_shape[-3:])) * sigma_N[:, None, None, None]
        if "cutout" in self.groups:
            middle = [slots.unit("hole_x") * width - 0.5, slots.unit("hole_y") * height - 0.5]
            half = [torch.where(slots.chosen("hole"), HOLE / 2 * side, -1.0) for side in (width, height)]
            drawn |= {"hole_center": torch.stack(middle, dim=1), "hole_half": torch.stack(half, dim=1)}
        return {name: value.float() if value.is_floating_point() else value for name, value in drawn.items()}

    def _draw_geometry(self, slots: Slots, height: int, width: int) -> dict[str, Tensor]:
        drawn: dict[str, Tensor] = {}
        if "blit" in self.groups:
            blit_N33 = blit_source(slots, height, width)
            drawn["blit"] = blit_N33[:, :2]
        if "geom" in self.groups:
            warp_N33, drawn["warped"] = warp_source(slots, height, width)
            drawn["warp"] = (blit_N33 @ warp_N33 if "blit" in self.groups else warp_N33)[:, :2]
        return drawn

    def forward(self, image_NCHW: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """Return the images transformed as drawn; computed in at least float32, whatever autocast says."""
        dtype = image_NCHW.dtype
        with _full_precision(image_NCHW.device.type):
            image_NCHW = image_NCHW if dtype == torch.float64 else image_NCHW.float()
            image_NCHW = self._move(image_NCHW, drawn)
            if "color" in drawn:
                recolored_NCHW = recolor(image_NCHW, drawn["color"])
                image_NCHW = _where(drawn["recolored"], recolored_NCHW, image_NCHW)
            if "gain" in drawn:
                filtered_NCHW = amplify(image_NCHW, drawn["gain"], self.filter_BT)
                image_NCHW = _where(drawn["filtered"], filtered_NCHW, image_NCHW)
            if "noise" in drawn:
                image_NCHW = image_NCHW + drawn["noise"].to(image_NCHW.dtype)
            if "hole_half" in drawn:
                image_NCHW = cut_out(image_NCHW, drawn["hole_center"], drawn["hole_half"])
            return image_NCHW.to(dtype)

    def _move(self, image_NCHW: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        moved_NCHW = blit(image_NCHW, drawn["blit"]) if "blit" in drawn else image_NCHW
        if "warp" not in drawn:
            return moved_NCHW
        warped_NCHW = warp(image_NCHW, drawn["warp"], self.taps_T.to(image_NCHW.dtype))
        return _where(drawn["warped"], warped_NCHW, moved_NCHW)


def _where(chosen_N: Tensor, changed_NCHW: Tensor, image_NCHW: Tensor) -> Tensor:
    return torch.where(chosen_N[:, None, None, None], changed_NCHW, image_NCHW)


def _full_precision(device_type: str) -> AbstractContextManager[object]:
    return nullcontext() if device_type == "meta" else torch.autocast(device_type, enabled=False)
