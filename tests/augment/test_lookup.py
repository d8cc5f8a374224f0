"""Whole pixels go where they are sent, and nothing is computed with them."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bigtrain.augment.lookup import blit, cut_out, mirror
from tests.augment.numbers import images


def source(*rows: list[float]) -> Tensor:
    """A source matrix for one image."""
    return torch.tensor([rows])


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_mirror_is_numpys_reflection(size: int):
    line = np.arange(size)
    for place in range(-40, 40):
        expected = np.pad(line, (40, 40), mode="reflect")[place + 40] if size > 1 else 0
        assert mirror(torch.tensor(place), size).item() == expected
    if size > 1:
        assert mirror(torch.tensor([-0.25, size - 0.75]), size).tolist() == [0.25, size - 1.25]


@pytest.mark.parametrize("shape", [(2, 3, 6, 6), (1, 1, 5, 5), (2, 2, 4, 6)])
def test_flips_and_half_turns_are_permutations(shape: tuple[int, ...]):
    image_NCHW = images(*shape)
    count = shape[0]
    assert torch.equal(blit(image_NCHW, source([-1, 0, 0], [0, 1, 0]).expand(count, 2, 3)), image_NCHW.flip(3))
    assert torch.equal(blit(image_NCHW, source([-1, 0, 0], [0, -1, 0]).expand(count, 2, 3)), image_NCHW.flip(2, 3))
    assert torch.equal(blit(image_NCHW, source([1, 0, 0], [0, 1, 0]).expand(count, 2, 3)), image_NCHW)


@pytest.mark.parametrize("side", [5, 6])
def test_quarter_turns_are_permutations(side: int):
    image_NCHW = images(2, 3, side, side)
    turned_NCHW = blit(image_NCHW, source([0, -1, 0], [1, 0, 0]).expand(2, 2, 3))
    assert torch.equal(turned_NCHW, torch.rot90(image_NCHW, 1, (2, 3)))


def test_a_quarter_turn_keeps_the_frame_of_a_wide_image():
    image_NCHW = images(1, 1, 4, 6)
    turned = blit(image_NCHW, source([0, -1, 0], [1, 0, 0]))[0, 0]
    middle = torch.rot90(image_NCHW[0, 0, :, 1:5], 1)  # the square in the middle turns within itself
    assert torch.equal(turned[:, 1:5], middle)
    # Left and right show what lies above and below the middle of the turned image: rows mirrored.
    padded = np.pad(image_NCHW[0, 0, :, 1:5].numpy(), ((1, 1), (0, 0)), mode="reflect")
    assert np.array_equal(turned.numpy(), np.rot90(padded, 1))


def test_a_quarter_turn_between_pixels_takes_the_left_and_upper_one():
    image_NCHW = images(1, 1, 3, 4)
    turned = blit(image_NCHW, source([0, -1, 0], [1, 0, 0]))[0, 0]
    for y, x in np.ndindex(3, 4):
        # From the centre (1.5, 1): x' = -(y - 1) + 1.5 and y' = (x - 1.5) + 1, both halves.
        row, column = mirror(torch.tensor(math.floor(x - 0.5)), 3), mirror(torch.tensor(math.floor(2.5 - y)), 4)
        assert turned[y, x] == image_NCHW[0, 0, row, column]


@pytest.mark.parametrize(("shift_x", "shift_y"), [(0, 1), (-2, 0), (3, -1), (9, -7)])
def test_translation_moves_pixels_and_mirrors_the_border(shift_x: int, shift_y: int):
    image_NCHW = images(1, 2, 6, 5)
    moved_NCHW = blit(image_NCHW, source([1, 0, -shift_x], [0, 1, -shift_y]))
    padded = np.pad(image_NCHW.numpy(), ((0, 0), (0, 0), (12, 12), (12, 12)), mode="reflect")
    assert np.array_equal(moved_NCHW.numpy(), padded[:, :, 12 - shift_y : 18 - shift_y, 12 - shift_x : 17 - shift_x])


def test_every_image_is_moved_by_its_own_matrix():
    image_NCHW = images(2, 1, 4, 4)
    both = torch.cat([source([1, 0, 0], [0, 1, 0]), source([-1, 0, 0], [0, 1, 0])])
    assert torch.equal(blit(image_NCHW, both), torch.stack([image_NCHW[0], image_NCHW[1].flip(2)]))


def test_cut_out_covers_what_is_nearer_than_half_a_side():
    image_NCHW = torch.ones(3, 1, 4, 5)
    center, half = (
        torch.tensor([[1.5, 0.0], [2.0, 1.0], [2.0, 2.0]]),
        torch.tensor([[1.0, 1.5], [1.0, 1.0], [-1.0, -1.0]]),
    )
    hole = cut_out(image_NCHW, center, half)
    assert hole[0, 0].tolist() == [[1, 0, 0, 1, 1], [1, 0, 0, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert (hole[1, 0] == 0).nonzero().tolist() == [[1, 2]]
    assert torch.equal(hole[2], image_NCHW[2])
