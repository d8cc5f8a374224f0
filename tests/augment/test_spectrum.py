"""Octave filters in the frequency domain, and their gains by hand."""

import math
from statistics import NormalDist

import pytest
import torch

from bigtrain.augment.slots import Slots
from bigtrain.augment.spectrum import amplify, octave_filters, octave_gains
from tests.augment.numbers import HALF, drawn_by, images, numbers_of

FILTERS = octave_filters()


def response(octave: int, frequency: float) -> float:
    """Response of an octave's filter at a frequency in radians a pixel."""
    place_T = torch.arange(FILTERS.shape[1]).double() - FILTERS.shape[1] // 2
    return (FILTERS[octave] * (place_T * frequency).cos()).sum().item()


def test_filters_sum_to_one_and_are_symmetric():
    unit_T = torch.zeros(FILTERS.shape[1], dtype=torch.float64)
    unit_T[FILTERS.shape[1] // 2] = 1
    assert torch.allclose(FILTERS.sum(0), unit_T, atol=1e-14)
    assert torch.allclose(FILTERS, FILTERS.flip(1), atol=1e-14)


def test_each_filter_passes_its_octave():
    # 0..pi/8, pi/8..pi/4, pi/4..pi/2, pi/2..pi: ends in full, middles mostly.
    assert [response(octave, 0.0) for octave in range(4)] == pytest.approx([1, 0, 0, 0], abs=1e-12)
    assert [response(octave, math.pi) for octave in range(4)] == pytest.approx([0, 0, 0, 1], abs=1e-12)
    for octave, middle in enumerate([math.pi / 16, 3 * math.pi / 16, 3 * math.pi / 8, 3 * math.pi / 4]):
        assert max(range(4), key=lambda other: response(other, middle)) == octave
        assert response(octave, middle) > 0.7


def test_no_choice_is_a_gain_of_one():
    gain_NB, chosen_N = octave_gains(Slots(numbers_of(), HALF))
    assert gain_NB.tolist() == [[1, 1, 1, 1]]
    assert chosen_N.tolist() == [False]


def test_one_octaves_gain_keeps_the_expected_power():
    gain_NB, chosen_N = octave_gains(Slots(numbers_of("band_2", band_2=0.9), HALF))
    factor = 2 ** NormalDist().inv_cdf(0.9)
    level = math.sqrt(10 / 13 + 1 / 13 + factor**2 / 13 + 1 / 13)
    assert gain_NB[0].tolist() == pytest.approx([1 / level, 1 / level, factor / level, 1 / level])
    assert chosen_N.tolist() == [True]


def test_gains_of_several_octaves_multiply():
    unit = {"band_0": 0.2, "band_3": 0.7}
    both, _ = octave_gains(Slots(numbers_of("band_0", "band_3", **unit), HALF))
    first, _ = octave_gains(Slots(numbers_of("band_0", **unit), HALF))
    second, _ = octave_gains(Slots(numbers_of("band_3", **unit), HALF))
    assert torch.allclose(both, first * second)


def test_amplifying_by_one_changes_nothing_and_by_two_doubles_twice():
    image_NCHW = images(2, 3, 9, 50)
    assert torch.allclose(amplify(image_NCHW, torch.ones(2, 4), FILTERS), image_NCHW, atol=1e-12)
    # Once along rows and once along columns.
    assert torch.allclose(amplify(image_NCHW, torch.full((2, 4), 2.0), FILTERS), 4 * image_NCHW, atol=1e-12)


def test_a_wave_is_multiplied_by_its_octaves_responses():
    width = 49
    x_W = torch.arange(width).double()
    frequency = math.pi * 20 / (width - 1)  # even about both ends: its mirrored continuation is itself
    image_NCHW = torch.cos(frequency * x_W).expand(1, 1, 5, width)
    gain_NB = torch.tensor([[1.0, 0.5, 3.0, 0.25]], dtype=torch.float64)
    factor = sum(gain_NB[0, octave].item() * response(octave, frequency) for octave in range(4))
    # Columns are constant: the lowest octave's gain of 1.
    assert torch.allclose(amplify(image_NCHW, gain_NB, FILTERS), factor * image_NCHW, atol=1e-12)


def test_filtering_is_differentiable_twice_and_each_image_has_its_own():
    gain_NB, _ = octave_gains(Slots(drawn_by(0, 1), torch.tensor(1.0)))
    image_NCHW = images(2, 1, 3, 4).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda image: amplify(image, gain_NB, FILTERS).sin(), image_NCHW)
    alone = amplify(image_NCHW[1:], gain_NB[1:], FILTERS)
    assert torch.allclose(amplify(image_NCHW, gain_NB, FILTERS)[1:], alone)
