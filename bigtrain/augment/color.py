"""ADA's color transformations (Karras et al. 2020, arXiv:2006.06676, appendix B) as one affine map of (r, g, b).

The axis of luma is (1, 1, 1) / sqrt(3), as in the paper. An image of one channel is one of three equal channels:
brightness, contrast and luma flip act on all three alike, hue and saturation leave them alone.
"""

# Axes: N images, C channels, H height, W width; matrices are homogeneous [N, 4, 4] of (r, g, b, 1)

import math

import torch
from torch import Tensor

from bigtrain.augment.slots import Slots

BRIGHTNESS_STD = 0.2  # of what is added
CONTRAST_STD = 0.5  # of the base-2 logarithm of what multiplies
SATURATION_STD = 1.0  # of the base-2 logarithm of what multiplies the distance from gray
_KINDS = ("brightness", "contrast", "luma", "hue", "saturation")


def color_map(slots: Slots) -> tuple[Tensor, Tensor]:
    """Return the map [N, 4, 4] of all color transformations in the paper's order, and for which images [N] (bool) any
    was chosen; it is the identity for the others."""
    on = {name: slots.chosen(name) for name in _KINDS}
    added_N = torch.where(on["brightness"], BRIGHTNESS_STD * slots.normal("brightness"), 0.0)
    factor_N = torch.where(on["contrast"], torch.exp2(CONTRAST_STD * slots.normal("contrast")), 1.0)
    luma_N = torch.where(on["luma"] & (slots.unit("luma") < 0.5), -1.0, 1.0)
    angle_N = torch.where(on["hue"], slots.between("hue", -math.pi, math.pi), 0.0)
    vivid_N = torch.where(on["saturation"], torch.exp2(SATURATION_STD * slots.normal("saturation")), 1.0)
    zero_N, one_N = torch.zeros_like(added_N), torch.ones_like(added_N)
    brightness = _about_gray(one_N, one_N, zero_N, added_N)
    contrast = _about_gray(factor_N, factor_N, zero_N, zero_N)
    luma = _about_gray(luma_N, one_N, zero_N, zero_N)
    hue = _about_gray(one_N, angle_N.cos(), angle_N.sin(), zero_N)
    saturation = _about_gray(one_N, vivid_N, zero_N, zero_N)
    return saturation @ hue @ luma @ contrast @ brightness, torch.stack(list(on.values())).any(0)


def recolor(image_NCHW: Tensor, map_N44: Tensor) -> Tensor:
    """Return images of 3 channels, or of 1 taken as three equal ones, with their colors mapped."""
    map_N44 = map_N44.to(image_NCHW.dtype)
    factor_N33, added_N3 = map_N44[:, :3, :3], map_N44[:, :3, 3]
    if image_NCHW.shape[1] == 1:
        # The three results are equal; their mean is that number.
        factor_N1, added_N1 = factor_N33.sum(2).mean(1, keepdim=True), added_N3.mean(1, keepdim=True)
        return image_NCHW * factor_N1[..., None, None] + added_N1[..., None, None]
    return torch.baddbmm(added_N3[..., None], factor_N33, image_NCHW.flatten(2)).view(image_NCHW.shape)


def _about_gray(gray_N: Tensor, color_N: Tensor, turn_N: Tensor, added_N: Tensor) -> Tensor:
    """Return the map that scales by `gray_N` along the gray axis, in the plane across it by `color_N` and a quarter
    turn times `turn_N`, and adds `added_N` to every channel."""
    unit_33 = torch.eye(3, dtype=gray_N.dtype, device=gray_N.device)
    along_33 = torch.full_like(unit_33, 1 / 3)
    cycle_33 = unit_33.roll(1, 0)  # cross product with the axis: (cycle - its transpose) / sqrt(3)
    factor_N33 = _of_each(gray_N) * along_33 + _of_each(color_N) * (unit_33 - along_33)
    factor_N33 = factor_N33 + _of_each(turn_N) * (cycle_33 - cycle_33.mT) / math.sqrt(3)
    rgb_N34 = torch.cat([factor_N33, _of_each(added_N).expand(-1, 3, 1)], dim=2)
    last_14 = torch.eye(4, dtype=gray_N.dtype, device=gray_N.device)[3:]
    return torch.cat([rgb_N34, last_14.expand(len(gray_N), 1, 4)], dim=1)


def _of_each(number_N: Tensor) -> Tensor:
    return number_N[:, None, None]
