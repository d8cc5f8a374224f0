"""The diversity of images: 0 for one image repeated, in units of their values, at a size that stays small."""

import math

import torch

from bigtrain.training.health.vitals import LARGEST_SIDE, mean_distance, reduced


def test_equal_images_have_no_distance_and_black_and_white_ones_have_two() -> None:
    black, white = torch.full((1, 3, 8, 8), -1.0), torch.full((1, 3, 8, 8), 1.0)
    assert mean_distance(black.expand(5, -1, -1, -1)) == 0
    assert math.isclose(mean_distance(torch.cat([black, white])), 2, rel_tol=1e-6)
    # Of six pairs four have different colors.
    assert math.isclose(mean_distance(torch.cat([black, black, white, white])), 2 * 4 / 6, rel_tol=1e-6)


def test_small_images_stay_and_large_ones_are_averaged() -> None:
    small = torch.randn(2, 1, 16, 64)
    assert torch.equal(reduced(small), small)
    large = torch.randn(2, 1, 4 * LARGEST_SIDE, 2 * LARGEST_SIDE)
    assert reduced(large).shape == (2, 1, LARGEST_SIDE, LARGEST_SIDE)
    assert torch.allclose(reduced(large).mean(), large.mean(), atol=1e-6)
    assert math.isnan(mean_distance(torch.full((2, 1, 4, 4), float("nan"))))
