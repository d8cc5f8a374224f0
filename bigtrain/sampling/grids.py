"""Sheets of images: pixels from network output, rows and columns, one row a class.

Axes: N images, C channels, H height, W width (of one image or of a whole sheet).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bigtrain.recipe.errors import DivergenceError

GAP_PIXELS = 2
WHITE = 255


def to_pixels(image_NCHW: Tensor) -> Tensor:
    """Map network output to 8-bit pixels: -1 -> 0 and 1 -> 255, rounded to the nearest, clamped outside.

    Args:
        image_NCHW: floating point, -1..1.
    Returns:
        uint8, same shape; the inverse of the normalisation of training images, exactly.
    Raises:
        DivergenceError: some pixels are not finite (a clamp would show them as black).
    """
    finite_N = torch.isfinite(image_NCHW).flatten(1).all(1)
    if not bool(finite_N.all()):
        raise DivergenceError(
            f"{int((~finite_N).sum())} of {len(image_NCHW)} generated images hold NaN or infinite pixels; "
            "the generator has diverged: sample from an earlier checkpoint"
        )
    return ((image_NCHW.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def square_columns(num_images: int) -> int:
    """Return the number of columns that makes a sheet of `num_images` as square as can be, never taller than wide."""
    return max(1, math.ceil(math.sqrt(num_images)))


def grid(image_NCHW: Tensor, columns: int, gap_pixels: int = GAP_PIXELS) -> Tensor:
    """Lay images out row by row; image i stands in row i // columns, column i % columns.

    Args:
        image_NCHW: uint8, at least one image.
        columns: images in a row; a last row that is not full ends in white.
        gap_pixels: white pixels between neighbours; none at the rim.
    Returns:
        uint8 [C, rows * H + (rows - 1) * gap, columns * W + (columns - 1) * gap].
    """
    assert image_NCHW.dtype == torch.uint8, f"a grid is made of uint8 pixels, got {image_NCHW.dtype}"
    assert len(image_NCHW), "a grid needs an image"
    assert columns >= 1, f"a grid needs a column, got {columns}"
    num_images, channels, height, width = image_NCHW.shape
    rows = math.ceil(num_images / columns)
    pitch_y, pitch_x = height + gap_pixels, width + gap_pixels
    sheet_CHW = image_NCHW.new_full((channels, rows * pitch_y - gap_pixels, columns * pitch_x - gap_pixels), WHITE)
    for number, image_CHW in enumerate(image_NCHW):
        top, left = number // columns * pitch_y, number % columns * pitch_x
        sheet_CHW[:, top : top + height, left : left + width] = image_CHW
    return sheet_CHW


def class_rows(labels: Sequence[int], columns: int) -> Tensor:
    """Return the int64 labels [len(labels) * columns] of a sheet with one row a class, in the order given."""
    return torch.tensor(labels, dtype=torch.int64).repeat_interleave(columns)
