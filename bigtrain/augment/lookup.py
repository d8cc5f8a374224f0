"""Whole pixels, moved or covered: no arithmetic touches those that remain."""

# Axes: N images, C channels, H height, W width, M = H * W, I and J places along x and y

import torch
from torch import Tensor


def mirror(place: Tensor, size: int) -> Tensor:
    """Return where 0..size-1, mirrored at both ends without end, holds `place`; whole numbers stay whole.

    The end itself is not repeated: -1 is 1, as in "reflect" padding.
    """
    last = size - 1
    return last - (torch.remainder(place, max(2 * last, 1)) - last).abs() if last else torch.zeros_like(place)


def pixels_at(image_NCHW: Tensor, row_NHW: Tensor, column_NHW: Tensor) -> Tensor:
    """Return for each place the pixel of its own image at (row, column), int64, both inside the image."""
    index_NM = (row_NHW * image_NCHW.shape[3] + column_NHW).flatten(1)
    index_NCM = index_NM[:, None].expand(-1, image_NCHW.shape[1], -1)
    return image_NCHW.flatten(2).gather(2, index_NCM).view(image_NCHW.shape)


def blit(image_NCHW: Tensor, source_N23: Tensor) -> Tensor:
    """Return the images with each pixel taken from the place that `source_N23` says, mirrored at the borders.

    Args:
        image_NCHW: of any dtype.
        source_N23: (x, y) of the source = matrix times (x, y, 1) of the result, in pixels from the centre of the image.
            Whole numbers: mirroring, quarter turns and translation. Where sides differ by an odd number, a quarter turn
            falls between pixels and takes the left and upper one.
    """
    height, width = image_NCHW.shape[2:]
    x_W = torch.arange(width, device=image_NCHW.device, dtype=source_N23.dtype) - (width - 1) / 2
    y_H = torch.arange(height, device=image_NCHW.device, dtype=source_N23.dtype) - (height - 1) / 2
    column_NHW = affine(source_N23[:, 0], x_W, y_H) + (width - 1) / 2
    row_NHW = affine(source_N23[:, 1], x_W, y_H) + (height - 1) / 2
    return pixels_at(image_NCHW, mirror(row_NHW.floor().long(), height), mirror(column_NHW.floor().long(), width))


def affine(row_N3: Tensor, x_I: Tensor, y_J: Tensor) -> Tensor:
    """Return a x + b y + c for every place [N, J, I] of a grid, with (a, b, c) of each image."""
    a_N11, b_N11, c_N11 = row_N3[:, :, None, None].unbind(1)
    return a_N11 * x_I + (b_N11 * y_J[:, None] + c_N11)


def cut_out(image_NCHW: Tensor, center_N2: Tensor, half_N2: Tensor) -> Tensor:
    """Return the images with zeros where both |x - center_x| < half_x and |y - center_y| < half_y, in pixels.

    (0, 0) is the middle of the first pixel; a negative half cuts nothing.
    """
    height, width = image_NCHW.shape[2:]
    x_W = torch.arange(width, device=image_NCHW.device, dtype=center_N2.dtype)
    y_H = torch.arange(height, device=image_NCHW.device, dtype=center_N2.dtype)
    across_NW = (x_W - center_N2[:, :1]).abs() < half_N2[:, :1]
    down_NH = (y_H - center_N2[:, 1:]).abs() < half_N2[:, 1:]
    return image_NCHW.masked_fill((down_NH[:, :, None] & across_NW[:, None, :])[:, None], 0.0)
