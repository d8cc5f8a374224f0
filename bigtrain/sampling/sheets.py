"""Sheets of images with names beside rows and over columns, small images enlarged pixel by pixel.

Axes: N images, C channels, H height, W width (of one image or of a whole sheet).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from bigtrain.sampling.grids import GAP_PIXELS, WHITE, grid

READABLE_SIDE = 64  # pixels of the shorter side of an image that is not enlarged any more
SMALLEST_LETTERS, LARGEST_LETTERS = 11, 20  # pixels
LETTERS_PER_SIDE = 5  # an image is this many times as high as letters, within the two bounds
NAME_GAP_PIXELS = 6  # between a name and what it names
RIM_PIXELS = 4  # before a row's name
ELLIPSIS = "…"
LARGEST_FACTOR = 64  # by which images are enlarged
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Sheet:
    """Images in rows, and what to call rows, columns and the whole."""

    image_NCHW: Tensor
    """uint8; image i stands in row i // columns, column i % columns."""
    columns: int
    row_names: tuple[str, ...] = ()
    column_names: tuple[str, ...] = ()
    title: str = ""

    @property
    def num_rows(self) -> int:
        """Rows, the last of which may not be full."""
        return -(-len(self.image_NCHW) // self.columns)


def enlargement(height: int, width: int) -> int:
    """Return the smallest whole factor that makes the shorter side at least `READABLE_SIDE` pixels."""
    return max(1, -(-READABLE_SIDE // min(height, width)))


def enlarged(image_NCHW: Tensor, factor: int) -> Tensor:
    """Return images in which each pixel is a square of `factor` x `factor` equal pixels."""
    assert factor >= 1, f"an enlargement is a whole number from 1 on, got {factor}"
    return image_NCHW.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def shortened(name: str, most_pixels: int, font: Font) -> str:
    """Return the name if it is at most so wide, else its beginning and an ellipsis, or nothing where not even one
    letter fits."""
    if font.getlength(name) <= most_pixels:
        return name
    for length in range(len(name) - 1, 0, -1):
        short = name[:length].rstrip() + ELLIPSIS
        if font.getlength(short) <= most_pixels:
            return short
    return ""


def draw_sheet(sheet: Sheet, factor: int) -> Tensor:
    """Return the sheet as one image, uint8 [C, H, W]; equal sheets give equal pixels under one version of Pillow.

    Row names take a margin of at most half the width of the images, column names the width of their column, the title
    that of the sheet; what is longer ends in an ellipsis.

    Args:
        sheet: at least one image.
        factor: whole number by which images are enlarged; letters are not.
    """
    images_CHW = grid(enlarged(sheet.image_NCHW, factor), sheet.columns)
    height, width = (factor * length for length in sheet.image_NCHW.shape[-2:])
    font = _font(min(LARGEST_LETTERS, max(SMALLEST_LETTERS, height // LETTERS_PER_SIDE)))
    row_names = [shortened(name, images_CHW.shape[2] // 2, font) for name in sheet.row_names]
    left = max((RIM_PIXELS + int(font.getlength(name)) + 1 + NAME_GAP_PIXELS for name in row_names if name), default=0)
    line = sum(_extent(font)) + NAME_GAP_PIXELS
    top = line * (bool(sheet.title) + bool(sheet.column_names))
    channels, inner_height, inner_width = images_CHW.shape
    drawn = Image.new("L", (left + inner_width, top + inner_height), WHITE)
    pen = ImageDraw.Draw(drawn)
    if sheet.title:
        pen.text((left + RIM_PIXELS, 0), shortened(sheet.title, inner_width - RIM_PIXELS, font), fill=0, font=font)
    for number, name in enumerate(sheet.column_names):
        middle = left + number * (width + GAP_PIXELS) + width // 2
        _centred(pen, shortened(name, width, font), middle, top - line, font)
    for number, name in enumerate(row_names):
        y = top + number * (height + GAP_PIXELS) + (height - sum(_extent(font))) // 2
        pen.text((RIM_PIXELS, y), name, fill=0, font=font)
    sheet_CHW = torch.from_numpy(np.array(drawn)).expand(channels, -1, -1).clone()
    if channels == 4:
        sheet_CHW[3] = WHITE  # opaque
    sheet_CHW[:, top:, left:] = images_CHW.cpu()
    return sheet_CHW


def _centred(pen: ImageDraw.ImageDraw, text: str, middle: int, y: int, font: Font) -> None:
    pen.text((middle - int(font.getlength(text)) // 2, y), text, fill=0, font=font)


def _extent(font: Font) -> tuple[int, int]:
    """Return how far letters go up and down from their base line, in pixels."""
    return font.getmetrics() if isinstance(font, ImageFont.FreeTypeFont) else (SMALLEST_LETTERS, 0)


@cache
def _font(size: int) -> Font:
    """Return Pillow's own font; without FreeType it has one size."""
    return ImageFont.load_default(size)
