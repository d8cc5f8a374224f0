"""Resampling with [1, 3, 3, 1] equals the textbook: zeros between pixels, a depthwise convolution, thinning out."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from bigtrain.networks.layers.fir import blur, down, up

EXACT = 1e-13  # float64


def upfirdn(x_NCHW, upper, lower, pad):
    """Return x with upper - 1 zeros after each pixel, `pad` zeros before and after, filtered; every lower-th pixel."""
    images, channels, height, width = x_NCHW.shape
    stuffed_NCHW = x_NCHW.new_zeros(images, channels, upper * height, upper * width)
    stuffed_NCHW[:, :, ::upper, ::upper] = x_NCHW
    stuffed_NCHW = F.pad(stuffed_NCHW, (pad[0], pad[1], pad[0], pad[1]))
    taps_K = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x_NCHW.dtype) / 8
    kernel_C1KK = torch.outer(taps_K, taps_K).expand(channels, 1, 4, 4)
    return F.conv2d(stuffed_NCHW, kernel_C1KK, groups=channels)[:, :, ::lower, ::lower]


def random_image(shape, seed, channels_last):
    generator = torch.Generator().manual_seed(seed)
    x_NCHW = torch.randn(shape, dtype=torch.float64, generator=generator)
    return x_NCHW.contiguous(memory_format=torch.channels_last) if channels_last else x_NCHW


shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
quickly = settings(max_examples=40, deadline=None, derandomize=True)


@quickly
@given(shape=shapes, seed=st.integers(0, 99), channels_last=st.booleans())
def test_up_equals_the_textbook(shape, seed, channels_last):
    x_NCHW = random_image(shape, seed, channels_last)
    expected_NCHW = 4 * upfirdn(x_NCHW, 2, 1, (2, 1))
    assert up(x_NCHW).shape == (*shape[:2], 2 * shape[2], 2 * shape[3])
    assert (up(x_NCHW) - expected_NCHW).abs().max() < EXACT


@quickly
@given(shape=shapes, seed=st.integers(0, 99), channels_last=st.booleans())
def test_down_equals_the_textbook(shape, seed, channels_last):
    x_NCHW = random_image((*shape[:2], 2 * shape[2], 2 * shape[3]), seed, channels_last)
    assert down(x_NCHW).shape == shape
    assert (down(x_NCHW) - upfirdn(x_NCHW, 1, 2, (1, 1))).abs().max() < EXACT


@quickly
@given(shape=shapes, seed=st.integers(0, 99), channels_last=st.booleans(), padding=st.integers(0, 3))
def test_blur_equals_the_textbook(shape, seed, channels_last, padding):
    x_NCHW = random_image((*shape[:2], shape[2] + 3, shape[3] + 3), seed, channels_last)
    assert blur(x_NCHW, padding).shape == (*shape[:2], shape[2] + 2 * padding, shape[3] + 2 * padding)
    assert (blur(x_NCHW, padding) - upfirdn(x_NCHW, 1, 1, (padding, padding))).abs().max() < EXACT


def test_one_pixel_by_hand():
    pixel_NCHW = torch.tensor([[[[16.0]]]])
    rows = [[9.0, 9.0], [9.0, 9.0]]  # 3/4 of the pixel and 1/4 of the zeros outside, on each axis
    assert up(pixel_NCHW).tolist() == [[rows]]
    # Pixel (1, 1) of 4x4 carries taps 3 and 1 of [1, 3, 3, 1] / 8 to the two pixels of each axis.
    image_NCHW = torch.zeros(1, 1, 4, 4)
    image_NCHW[0, 0, 1, 1] = 64.0
    assert down(image_NCHW).tolist() == [[[[9.0, 3.0], [3.0, 1.0]]]]


FUNCTIONS = {"up": up, "down": down} | {f"blur {n}": (lambda x, n=n: blur(x, n)) for n in range(4)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_and_their_gradients(name):
    x_NCHW = random_image((1, 2, 4, 6), 0, True).requires_grad_()
    assert torch.autograd.gradcheck(FUNCTIONS[name], x_NCHW)
    assert torch.autograd.gradgradcheck(lambda x: FUNCTIONS[name](x).square(), x_NCHW)
