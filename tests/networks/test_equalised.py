"""Equalised layers: weights scaled by hand, resampling, gains and clamps."""

import math

import pytest
import torch
import torch.nn.functional as F

from bigtrain.networks.layers.equalised import EqualisedConv2d, EqualisedEmbedding, EqualisedLinear

EXACT = 1e-12  # float64


def drawn(layer):
    """Return the layer in float64 with all parameters drawn."""
    torch.manual_seed(0)
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return layer


def activated(y, activate):
    return torch.where(y > 0, y, 0.2 * y) * math.sqrt(2) if activate else y


@pytest.mark.parametrize("activate", [False, True])
@pytest.mark.parametrize("num_images", [2, 40])  # fewer and more numbers than the weight has
def test_linear_maps_by_hand(num_images, activate):
    layer = drawn(EqualisedLinear(3, 5, lr_multiplier=0.01, activate=activate))
    x_NC = torch.randn(num_images, 3, dtype=torch.float64)
    expected_ND = activated(x_NC @ layer.weight.mT * (0.01 / math.sqrt(3)) + 0.01 * layer.bias, activate)
    assert (layer(x_NC) - expected_ND).abs().max() < EXACT


def test_the_first_values_do_not_depend_on_the_learning_rate_multiplier():
    found = []
    for multiplier in (1.0, 0.01):
        torch.manual_seed(0)
        found.append(EqualisedLinear(3, 5, bias=1.0, lr_multiplier=multiplier)(torch.ones(2, 3)))
    torch.testing.assert_close(found[0], found[1])


def test_an_embedding_is_a_linear_map_of_one_hot_rows():
    layer = drawn(EqualisedEmbedding(6, 4))
    label_N = torch.tensor([5, 0, 2, 2])
    expected_ND = F.one_hot(label_N, 6).double() @ layer.weight / math.sqrt(6) + layer.bias
    assert (layer(label_N) - expected_ND).abs().max() < EXACT


@pytest.mark.parametrize("activate", [False, True])
@pytest.mark.parametrize("downsample", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("side", [4, 16])  # fewer and more numbers than the weight has
def test_convolutions_by_hand(side, kernel_size, downsample, activate):
    layer = drawn(EqualisedConv2d(3, 15, kernel_size, downsample=downsample, activate=activate))
    x_NCHW = torch.randn(2, 3, side, side + 2, dtype=torch.float64)
    weight_DCKK = layer.weight / math.sqrt(3 * kernel_size**2)
    if downsample:
        taps_K = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
        kernel_C1KK = torch.outer(taps_K, taps_K).expand(3, 1, 4, 4)
        padding = 1 + kernel_size // 2
        filtered_NCHW = F.conv2d(x_NCHW, kernel_C1KK, padding=padding, groups=3)
        expected_NDHW = F.conv2d(filtered_NCHW, weight_DCKK, layer.bias, stride=2)
    else:
        expected_NDHW = F.conv2d(x_NCHW, weight_DCKK, layer.bias, padding=kernel_size // 2)
    expected_NDHW = 0.6 * activated(expected_NDHW, activate)
    ours_NDHW = layer(x_NCHW, 0.6)
    assert ours_NDHW.shape == expected_NDHW.shape
    assert (ours_NDHW - expected_NDHW).abs().max() < EXACT


@pytest.mark.parametrize("activate", [False, True])
@pytest.mark.parametrize("gain", [1.0, math.sqrt(0.5)])
def test_convolutions_clamp_before_their_gain(activate, gain):
    layer = drawn(EqualisedConv2d(3, 5, 3, activate=activate))
    x_NCHW = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    free_NDHW = layer(x_NCHW)
    assert free_NDHW.abs().max() > 0.7 > free_NDHW.abs().min()
    assert (layer(x_NCHW, gain, 0.7) - gain * free_NDHW.clamp(-0.7, 0.7)).abs().max() < EXACT


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_downsampling_convolutions_can_be_differentiated_twice(kernel_size):
    layer = drawn(EqualisedConv2d(2, 3, kernel_size, downsample=True))
    x_NCHW = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def run(x_NCHW, weight_DCKK):
        return torch.func.functional_call(layer, {"weight": weight_DCKK}, (x_NCHW,))

    assert torch.autograd.gradgradcheck(run, (x_NCHW, layer.weight.detach().clone().requires_grad_()))
