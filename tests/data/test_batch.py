"""Pixels on the device: the range is exact, and flips are the ones asked for."""

import pytest
import torch

from bigtrain.data.batch import Batch, to_unit_range
from bigtrain.recipe.errors import DataError

CPU = torch.device("cpu")


def make_batch(image_NCHW):
    number_N = torch.arange(len(image_NCHW))
    return Batch(image_NCHW, number_N, number_N + 100)


def test_0_becomes_minus_1_and_255_becomes_1_exactly_and_steps_are_even():
    ramp = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    unit = to_unit_range(ramp).flatten()
    assert unit.dtype == torch.float32
    assert (unit[0].item(), unit[255].item()) == (-1.0, 1.0)
    assert torch.equal(unit, -unit.flip(0))
    assert torch.equal(((unit + 1) * 127.5).round().to(torch.uint8), ramp.flatten())


def test_float_images_are_refused_since_they_would_be_scaled_twice():
    with pytest.raises(DataError, match=r"torch.float32, not uint8, .* hand over the batch as it was read"):
        make_batch(torch.zeros(1, 1, 2, 2)).on_device(CPU)


def test_only_the_chosen_images_are_mirrored_left_to_right():
    image_NCHW = torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8).repeat(2, 1, 1, 1)
    batch = make_batch(image_NCHW).on_device(CPU, torch.tensor([False, True]))
    assert torch.allclose(batch.image_NCHW[0, 0], torch.tensor([[-1.0, 1.0], [-0.6, -0.2]]))
    assert torch.equal(batch.image_NCHW[1], batch.image_NCHW[0].flip(2))
    assert batch.label_N.tolist() == [0, 1]
    assert batch.sample_N.tolist() == [100, 101]


def test_images_stay_in_channels_last_memory_and_the_input_is_untouched():
    image_NCHW = torch.zeros(2, 3, 4, 4, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    batch = make_batch(image_NCHW)
    moved = batch.on_device(CPU, torch.tensor([True, False]))
    assert moved.image_NCHW.is_contiguous(memory_format=torch.channels_last)
    assert batch.image_NCHW.dtype == torch.uint8
    assert len(moved) == 2
