"""Sheets: whole pixels, and names that fit."""

import pytest
import torch

from bigtrain.sampling.grids import GAP_PIXELS, grid
from bigtrain.sampling.sheets import Sheet, _font, draw_sheet, enlarged, enlargement, shortened


@pytest.mark.parametrize(
    ("height", "width", "factor"), [(32, 32, 2), (8, 8, 8), (64, 128, 1), (63, 200, 2), (256, 256, 1)]
)
def test_small_images_are_enlarged_by_whole_numbers(height, width, factor):
    assert enlargement(height, width) == factor


def test_an_enlarged_pixel_is_a_square_of_equal_pixels():
    image_NCHW = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2)
    assert enlarged(image_NCHW, 2)[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_stand_unchanged_below_and_beside_their_names(channels):
    image_NCHW = torch.randint(0, 256, (6, channels, 40, 50), dtype=torch.uint8)
    plain = draw_sheet(Sheet(image_NCHW, 3), 2)
    assert torch.equal(plain, grid(enlarged(image_NCHW, 2), 3))
    named = draw_sheet(Sheet(image_NCHW, 3, ("cat", "dog"), ("a", "b", "c"), "title"), 2)
    assert named.shape[0] == channels
    assert torch.equal(named[:, -plain.shape[1] :, -plain.shape[2] :], plain)
    margin = named[0, :, : named.shape[2] - plain.shape[2]]
    assert (margin == 0).any(), "no letter beside the rows"
    assert (named[0, : named.shape[1] - plain.shape[1]] == 0).any(), "no letter over the columns"


def test_names_take_at_most_half_the_width_and_end_in_an_ellipsis():
    sheet = Sheet(torch.zeros(2, 1, 32, 32, dtype=torch.uint8), 1, ("a" * 200, "b"))
    assert draw_sheet(sheet, 2).shape[2] <= 64 * 3 // 2 + 12
    font = _font(11)
    short = shortened("brown bear, Ursus arctos", 60, font)
    assert short.startswith("brown")
    assert short.endswith("…")
    assert font.getlength(short) <= 60
    assert shortened("bear", 60, font) == "bear"
    assert shortened("bear", 2, font) == ""


def test_rows_and_gaps_add_up():
    sheet = Sheet(torch.zeros(5, 3, 16, 16, dtype=torch.uint8), 2)
    assert sheet.num_rows == 3
    assert draw_sheet(sheet, 1).shape == (3, 3 * 16 + 2 * GAP_PIXELS, 2 * 16 + GAP_PIXELS)
