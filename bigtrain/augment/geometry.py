"""Where pixels come from in ADA's blits and general geometric transformations (Karras et al. 2020, arXiv:2006.06676,
appendix B).

A matrix here maps a place of the result to the place it is taken from, in pixels from the centre of the image, x to the
right and y down: the inverse of the paper's G, built from inverses in reverse order.
"""

# Axes: N images; matrices are homogeneous [N, 3, 3]

import math

import torch
from torch import Tensor

from bigtrain.augment.slots import Slots

SHIFT = 0.125  # largest whole-pixel translation, as a part of the side
SCALE_STD = 0.2  # of the base-2 logarithm of isotropic and anisotropic scaling
DRIFT_STD = 0.125  # of fractional translation, as a part of the side


def blit_source(slots: Slots, height: int, width: int) -> Tensor:
    """Return the matrix of mirroring, quarter turns and whole-pixel translation; its entries are whole numbers."""
    flipped_N = slots.chosen("flip") & (slots.unit("flip") < 0.5)
    flip_N = torch.where(flipped_N, -torch.ones_like(slots.unit("flip")), 1.0)
    turn_N = torch.where(slots.chosen("turn"), (4 * slots.unit("turn")).floor(), 0.0)
    shift_x_N = (slots.between("shift_x", -SHIFT, SHIFT) * width).round()
    shift_y_N = (slots.between("shift_y", -SHIFT, SHIFT) * height).round()
    shifted_N = slots.chosen("shift")
    return (
        _scale(flip_N, torch.ones_like(flip_N))
        @ _rotate(turn_N * (math.pi / 2)).round()
        @ _translate(torch.where(shifted_N, -shift_x_N, 0.0), torch.where(shifted_N, -shift_y_N, 0.0))
    )


def warp_source(slots: Slots, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the matrix of scaling, rotation, stretching and fractional translation, and for which images [N] (bool)
    any of them was chosen; it is the identity for the others."""
    # Each of the two rotations has the chance that makes the chance of either that of everything else.
    rotation = 1 - (1 - slots.strength).sqrt()
    on = {name: slots.chosen(name) for name in ("scale", "stretch", "drift")}
    on |= {name: slots.chosen(name, rotation) for name in ("rotate_before", "rotate_after")}
    shrink_N = torch.where(on["scale"], torch.exp2(-SCALE_STD * slots.normal("scale")), 1.0)
    narrow_N = torch.where(on["stretch"], torch.exp2(-SCALE_STD * slots.normal("stretch")), 1.0)
    before_N, after_N = (
        torch.where(on[name], slots.between(name, -math.pi, math.pi), 0.0) for name in ("rotate_before", "rotate_after")
    )
    drift_x_N = torch.where(on["drift"], DRIFT_STD * width * slots.normal("drift_x"), 0.0)
    drift_y_N = torch.where(on["drift"], DRIFT_STD * height * slots.normal("drift_y"), 0.0)
    source = (
        _scale(shrink_N, shrink_N)
        @ _rotate(before_N)
        @ _scale(narrow_N, 1 / narrow_N)
        @ _rotate(after_N)
        @ _translate(-drift_x_N, -drift_y_N)
    )
    return source, torch.stack(list(on.values())).any(0)


def _homogeneous(row_x: tuple[Tensor, Tensor, Tensor], row_y: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    zero_N, one_N = torch.zeros_like(row_x[0]), torch.ones_like(row_x[0])
    return torch.stack([*row_x, *row_y, zero_N, zero_N, one_N], dim=1).view(-1, 3, 3)


def _scale(x_N: Tensor, y_N: Tensor) -> Tensor:
    zero_N = torch.zeros_like(x_N)
    return _homogeneous((x_N, zero_N, zero_N), (zero_N, y_N, zero_N))


def _rotate(angle_N: Tensor) -> Tensor:
    zero_N, cos_N, sin_N = torch.zeros_like(angle_N), angle_N.cos(), angle_N.sin()
    return _homogeneous((cos_N, -sin_N, zero_N), (sin_N, cos_N, zero_N))


def _translate(x_N: Tensor, y_N: Tensor) -> Tensor:
    zero_N, one_N = torch.zeros_like(x_N), torch.ones_like(x_N)
    return _homogeneous((one_N, zero_N, x_N), (zero_N, one_N, y_N))
