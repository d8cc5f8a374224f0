"""Differentiable augmentation (DiffAugment: Zhao et al. 2020, arXiv:2006.10738, section 3.2 and appendix).

Each image gets its own color, translation and cutout every time, without a probability:

* color: brightness + U(-0.5, 0.5), then distance from the pixel's gray times U(0, 2), then distance from the image's
  mean times U(0.5, 1.5);
* translation by up to 1/8 of the side in whole pixels, zeros where nothing is known;
* cutout: a square of half the side set to zero, its middle anywhere in the image.
"""

# Axes: N images, C channels, H height, W width; a number counts draws of an image

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import field_validator
from torch import Tensor

from bigtrain.augment.lookup import cut_out, pixels_at
from bigtrain.augment.registry import AUGMENTATIONS, Augmentation, AugmentationSettings, Uniform

SHIFT = 1 / 8  # largest translation, as a part of the side
HOLE = 1 / 2  # side of the cutout, as a part of the image's

Kind = Literal["color", "translation", "cutout"]


@AUGMENTATIONS.add("diffaugment")
class DiffAugmentSettings(AugmentationSettings):
    """Differentiable augmentation."""

    kind: Literal["diffaugment"] = "diffaugment"
    """Which augmentation."""
    policy: tuple[Kind, ...] = ("color", "translation", "cutout")
    """What is done to every image, in this order."""

    @field_validator("policy")
    @classmethod
    def _once_each(cls, policy: tuple[Kind, ...]) -> tuple[Kind, ...]:
        if not policy or len(set(policy)) < len(policy):
            raise ValueError("name at least one of color, translation, cutout, each at most once")
        return policy

    def build(self, channels: int = 3) -> "DiffAugment":
        """Return the augmentation, which takes images of any number of channels; it has no parameters and no state."""
        return DiffAugment(self.policy)


class DiffAugment(Augmentation):
    """The changes of a policy, in its order."""

    def __init__(self, policy: tuple[Kind, ...]) -> None:
        super().__init__()
        self.policy = policy

    def draw(self, uniform: Uniform, image_shape: Sequence[int], strength: Tensor) -> dict[str, Tensor]:
        """Return the numbers of all three changes, whatever the policy; `strength` is not read."""
        height, width = image_shape[-2:]
        unit_N7 = uniform("diffaugment", 7)
        unit_N3, shift_N2, hole_N2 = unit_N7[:, :3], unit_N7[:, 3:5], unit_N7[:, 5:]
        drawn = {
            "brightness": unit_N3[:, 0] - 0.5,
            "saturation": 2 * unit_N3[:, 1],
            "contrast": unit_N3[:, 2] + 0.5,
            "shift_x": _whole_shift(shift_N2[:, 0], width),
            "shift_y": _whole_shift(shift_N2[:, 1], height),
        }
        middle = [_hole_middle(hole_N2[:, axis], side) for axis, side in enumerate((width, height))]
        half = [torch.full_like(hole_N2[:, 0], _rounded(side * HOLE) / 2) for side in (width, height)]
        drawn |= {"hole_center": torch.stack(middle, dim=1), "hole_half": torch.stack(half, dim=1)}
        return {name: value.float() for name, value in drawn.items()}

    def forward(self, image_NCHW: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
        """Return the images changed as drawn; computed in at least float32."""
        dtype = image_NCHW.dtype
        image_NCHW = image_NCHW if dtype == torch.float64 else image_NCHW.float()
        for kind in self.policy:
            image_NCHW = _CHANGES[kind](image_NCHW, drawn)
        return image_NCHW.to(dtype)


def _rounded(number: float) -> int:
    return int(number + 0.5)


def _whole_shift(unit_N: Tensor, side: int) -> Tensor:
    """Return whole numbers, uniform in -s..s with s = side / 8."""
    most = _rounded(side * SHIFT)
    return (unit_N * (2 * most + 1)).floor() - most


def _hole_middle(unit_N: Tensor, side: int) -> Tensor:
    """Return the middle of a cutout along a side, in pixels: an even hole lies between two pixels, and has one place
    more."""
    hole = _rounded(side * HOLE)
    places = side + 1 - hole % 2
    return (unit_N * places).floor() - hole // 2 + (hole - 1) / 2


def _color(image_NCHW: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
    brightness, saturation, contrast = (
        drawn[name].to(image_NCHW.dtype)[:, None, None, None] for name in ("brightness", "saturation", "contrast")
    )
    image_NCHW = image_NCHW + brightness
    gray_N1HW = image_NCHW.mean(1, keepdim=True)
    image_NCHW = gray_N1HW + saturation * (image_NCHW - gray_N1HW)
    mean_N111 = image_NCHW.mean((1, 2, 3), keepdim=True)
    return mean_N111 + contrast * (image_NCHW - mean_N111)


def _translation(image_NCHW: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
    height, width = image_NCHW.shape[2:]
    x_N1W = torch.arange(width, device=image_NCHW.device) - drawn["shift_x"].long()[:, None, None]
    y_NH1 = torch.arange(height, device=image_NCHW.device)[:, None] - drawn["shift_y"].long()[:, None, None]
    known_NHW = (x_N1W >= 0) & (x_N1W < width) & (y_NH1 >= 0) & (y_NH1 < height)
    moved_NCHW = pixels_at(image_NCHW, y_NH1.clamp(0, height - 1), x_N1W.clamp(0, width - 1))
    return moved_NCHW.masked_fill(~known_NHW[:, None], 0.0)


def _cutout(image_NCHW: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
    return cut_out(image_NCHW, drawn["hole_center"], drawn["hole_half"])


_CHANGES = {"color": _color, "translation": _translation, "cutout": _cutout}
