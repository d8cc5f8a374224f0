"""Sheets laid out by hand, and pixels against the normalisation of training images."""

import pytest
import torch

from bigtrain.recipe.errors import DivergenceError
from bigtrain.sampling.grids import class_rows, grid, square_columns, to_pixels


def test_pixels_invert_the_normalisation_exactly():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_pixels(pixels.float() / 127.5 - 1), pixels)


def test_pixels_round_to_the_nearest_and_clamp():
    image = torch.tensor([-5.0, -1.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 0.0, 1.0, 7.0]).view(1, 1, 1, 7)
    assert to_pixels(image).flatten().tolist() == [0, 0, 0, 1, 128, 255, 255]
    assert to_pixels(image.bfloat16()).flatten().tolist()[-1] == 255


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_pixels_that_are_not_finite_are_counted_not_shown_as_black(bad: float):
    image = torch.zeros(3, 1, 2, 2)
    image[1, 0, 1, 1] = bad
    with pytest.raises(DivergenceError, match="1 of 3 generated images"):
        to_pixels(image)


def test_grid_is_laid_out_row_by_row():
    images = torch.tensor([1, 2, 3], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 3)
    sheet = grid(images, columns=2, gap_pixels=1)
    assert sheet.tolist() == [
        [
            [1, 1, 1, 255, 2, 2, 2],
            [1, 1, 1, 255, 2, 2, 2],
            [255, 255, 255, 255, 255, 255, 255],
            [3, 3, 3, 255, 255, 255, 255],
            [3, 3, 3, 255, 255, 255, 255],
        ]
    ]


def test_grid_keeps_channels_and_needs_no_gap():
    images = torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2)
    sheet = grid(images, columns=2, gap_pixels=0)
    assert sheet.shape == (3, 2, 4)
    assert torch.equal(sheet, torch.cat([images[0], images[1]], dim=2))


def test_grid_wider_than_its_images_ends_in_white():
    assert grid(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), columns=3, gap_pixels=1).tolist() == [[[0, *[255] * 4]]]


def test_grid_refuses_floats_and_emptiness():
    with pytest.raises(AssertionError, match="uint8"):
        grid(torch.zeros(1, 1, 2, 2), columns=1)
    with pytest.raises(AssertionError, match="needs an image"):
        grid(torch.zeros(0, 1, 2, 2, dtype=torch.uint8), columns=1)


def test_class_rows_give_one_row_a_class_in_the_order_given():
    labels = class_rows([3, 0], columns=3)
    assert labels.tolist() == [3, 3, 3, 0, 0, 0]
    assert labels.dtype == torch.int64
    shades = grid((labels * 10).to(torch.uint8).view(6, 1, 1, 1), columns=3, gap_pixels=0)
    assert shades.tolist() == [[[30, 30, 30], [0, 0, 0]]]


@pytest.mark.parametrize(("num", "columns"), [(0, 1), (1, 1), (2, 2), (4, 2), (5, 3), (64, 8), (65, 9)])
def test_square_sheets_are_never_taller_than_wide(num: int, columns: int):
    assert square_columns(num) == columns
