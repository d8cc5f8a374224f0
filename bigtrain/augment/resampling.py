"""Affine resampling without aliasing, as in ADA (Karras et al. 2020, arXiv:2006.06676, appendix B): upsample by 2,
look up bilinearly, downsample by 2, with Daubechies' least asymmetric orthogonal wavelet of 12 taps (sym6) both times.

Upsampling filters with h, downsampling with h backwards; h is orthogonal to its even shifts, so that the two undo each
other. Departs from the paper in two points.

The image is mirrored at its borders without end. The paper pads by as much as the batch at hand needs; to read that
from the data would wait for the device. Here `MARGIN` pixels are added on each side, and places further out are folded
back. There the filter is seen backwards, as it is all over an image that is resampled mirrored.

Places are measured from the filter's centre of mass rather than from its middle, 0.2 pixels beside it: linear ramps are
then resampled exactly.

Filters run as products with banded matrices that hold the mirroring too: on a CPU faster, with gradient, than
convolutions, strided slices or block-banded products at 64 and 256 px.
"""

# Axes: N images, C channels, H height, W width, S side of an image, E mirrored places, T taps,
# U = 2S + 4 MARGIN upsampled places, V = 2S + 10 places looked up, J and I = V of height and width

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bigtrain.augment.lookup import affine, mirror

SYM6 = (  # Daubechies 1992, Ten Lectures on Wavelets, table 6.3 (N = 6), with the sum sqrt(2)
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
_CENTER = sum(place * tap for place, tap in enumerate(SYM6)) / sum(SYM6)  # 5.098
MARGIN = 4  # pixels beyond the border that filters reach where nothing moves (3), and one more
_FIRST = math.floor(_CENTER) - 2 * MARGIN  # the upsampled place of the pixel MARGIN before the first


def warp(image_NCHW: Tensor, source_N23: Tensor, taps_T: Tensor) -> Tensor:
    """Return images resampled at the places that `source_N23` takes each pixel from.

    Args:
        image_NCHW: float32 or float64, at least 2 pixels a side.
        source_N23: (x, y) of the source = matrix times (x, y, 1) of the result, in pixels from the centre of the image.
        taps_T: `SYM6` in the images' dtype.
    """
    height, width = image_NCHW.shape[2:]
    assert min(height, width) >= 2, f"images of {height}x{width} pixels cannot be mirrored"
    fine_NCUU = _up(height, taps_T) @ (image_NCHW @ _up(width, taps_T).mT)
    x_I, y_J = _places(width, taps_T), _places(height, taps_T)
    row_x, row_y = source_N23.to(image_NCHW.dtype).unbind(1)
    source_x_NJI = affine(row_x, x_I, y_J) + (width - 1) / 2
    source_y_NJI = affine(row_y, x_I, y_J) + (height - 1) / 2
    seen_NCJI = bilinear(fine_NCUU, _upsampled(source_x_NJI, width), _upsampled(source_y_NJI, height))
    return _down(height, taps_T) @ (seen_NCJI @ _down(width, taps_T).mT)


def bilinear(image_NCHW: Tensor, x_NJI: Tensor, y_NJI: Tensor) -> Tensor:
    """Return the images between pixels, at x in 0..W-1 and y in 0..H-1; twice differentiable in the images only."""
    height, width = image_NCHW.shape[2:]
    if image_NCHW.is_cuda and torch.are_deterministic_algorithms_enabled():
        return bilinear_by_gather(image_NCHW, x_NJI, y_NJI)
    grid_NJI2 = torch.stack([x_NJI * (2 / (width - 1)) - 1, y_NJI * (2 / (height - 1)) - 1], dim=-1)
    sampled: Tensor = _Sample.apply(image_NCHW, grid_NJI2)
    return sampled


def bilinear_by_gather(image_NCHW: Tensor, x_NJI: Tensor, y_NJI: Tensor) -> Tensor:
    """Return what `bilinear` returns, by plain operators: up to four times slower on a CPU, but its gradient is
    deterministic on a GPU under `torch.use_deterministic_algorithms`."""
    height, width = image_NCHW.shape[2:]
    left_NJI, top_NJI = x_NJI.floor().clamp(max=width - 2), y_NJI.floor().clamp(max=height - 2)
    index_NCM = (top_NJI * width + left_NJI).long().flatten(1)[:, None].expand(-1, image_NCHW.shape[1], -1)
    shape = (*image_NCHW.shape[:2], *x_NJI.shape[1:])

    def corner(step: int) -> Tensor:
        return image_NCHW.flatten(2).gather(2, index_NCM + step).view(shape)

    x_N1JI, y_N1JI = (x_NJI - left_NJI)[:, None], (y_NJI - top_NJI)[:, None]
    upper_NCJI = torch.lerp(corner(0), corner(1), x_N1JI)
    return torch.lerp(upper_NCJI, torch.lerp(corner(width), corner(width + 1), x_N1JI), y_N1JI)


class _Sample(torch.autograd.Function):
    """Bilinear lookup, linear in the image. Its gradient is `_Spread`, whose gradient is the lookup again: torch's own
    backward of grid_sample cannot be differentiated."""

    @staticmethod
    def forward(image_NCHW: Tensor, grid_NJI2: Tensor) -> Tensor:
        return F.grid_sample(image_NCHW, grid_NJI2, mode="bilinear", padding_mode="border", align_corners=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        image_NCHW, grid_NJI2 = inputs
        ctx.save_for_backward(grid_NJI2)
        ctx.size = image_NCHW.shape[2:]

    @staticmethod
    def backward(ctx: Any, gradient_NCJI: Tensor) -> Any:
        (grid_NJI2,) = ctx.saved_tensors
        return _Spread.apply(gradient_NCJI, grid_NJI2, *ctx.size), None


class _Spread(torch.autograd.Function):
    """Adjoint of `_Sample`: every value goes back to its four corners."""

    @staticmethod
    def forward(value_NCJI: Tensor, grid_NJI2: Tensor, height: int, width: int) -> Tensor:
        like_NCHW = value_NCJI.new_empty((*value_NCJI.shape[:2], height, width))  # for its shape; no value is read
        bilinear_mode, border_padding, align_corners = 0, 1, True
        image_NCHW: Tensor = torch.ops.aten.grid_sampler_2d_backward(
            value_NCJI, like_NCHW, grid_NJI2, bilinear_mode, border_padding, align_corners, [True, False]
        )[0]
        return image_NCHW

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient_NCHW: Tensor) -> Any:
        (grid_NJI2,) = ctx.saved_tensors
        return _Sample.apply(gradient_NCHW, grid_NJI2), None, None, None


def mirrored(matrix_XE: Tensor, first: int, size: int) -> Tensor:
    """Return the matrix [X, S] that acts on S places as `matrix_XE` does on places first, first + 1, ... of their
    endless mirroring."""
    place_E = torch.arange(first, first + matrix_XE.shape[-1], device=matrix_XE.device)
    fold_ES = mirror(place_E, size)[:, None] == torch.arange(size, device=matrix_XE.device)
    return matrix_XE @ fold_ES.to(matrix_XE.dtype)


def banded(taps_T: Tensor, place: Tensor) -> Tensor:
    """Return the tap at each place, zero outside; `taps_T` may have leading axes, which come first."""
    count = taps_T.shape[-1]
    inside = (place >= 0) & (place < count)
    return torch.where(inside, taps_T[..., place.clamp(0, count - 1)], 0.0)


def _up(size: int, taps_T: Tensor) -> Tensor:
    """Return [U, S]: the upsampled places from `_FIRST` on."""
    reach = len(taps_T) // 2 + MARGIN
    fine_U = torch.arange(_FIRST, _FIRST + 2 * size + 4 * MARGIN, device=taps_T.device)
    coarse_E = torch.arange(-reach, size + reach, device=taps_T.device)
    band_UE = banded(taps_T * math.sqrt(2), fine_U[:, None] - 2 * coarse_E)
    return mirrored(band_UE, -reach, size)


def _down(size: int, taps_T: Tensor) -> Tensor:
    """Return [S, V]."""
    fine_V = torch.arange(2 * size + len(taps_T) - 2, device=taps_T.device)
    coarse_S = torch.arange(size, device=taps_T.device)
    return banded(taps_T / math.sqrt(2), fine_V - 2 * coarse_S[:, None])


def _upsampled(place: Tensor, size: int) -> Tensor:
    """Return the upsampled place of one in pixels, folded back where it lies beyond the margin."""
    beyond = (place < -MARGIN) | (place > size - 1 + MARGIN)
    return 2 * torch.where(beyond, mirror(place, size), place) + (_CENTER - _FIRST)


def _places(size: int, taps_T: Tensor) -> Tensor:
    """Return where `_down` expects its V inputs, in pixels from the centre of the image."""
    fine_V = torch.arange(2 * size + len(taps_T) - 2, device=taps_T.device, dtype=taps_T.dtype)
    return (fine_V - _CENTER) / 2 - (size - 1) / 2
