"""Modulated convolutions equal the paper's, whose weights are scaled and normalised for each image."""

import math

import pytest
import torch
import torch.nn.functional as F

from bigtrain.networks.layers.modulated import StyledConv2d, StyledOutput

EXACT = 1e-12  # float64


def build(layer_class=StyledConv2d, *args, **settings):
    """Return a layer of 3 -> 5 channels with styles of 4 numbers, whose parameters are all drawn."""
    torch.manual_seed(0)
    layer = layer_class(3, 5, 4, *args, **settings).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
        layer.affine.bias += 1
    return layer


def draw(height=4, width=6):
    return torch.randn(2, 3, height, width, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)


def low_pass(y_NCHW, padding):
    """Return the image padded with zeros and filtered by the outer square of [1, 3, 3, 1] / 4, whose sum is 4."""
    taps_K = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 4
    channels = y_NCHW.shape[1]
    kernel_C1KK = torch.outer(taps_K, taps_K).expand(channels, 1, 4, 4)
    return F.conv2d(F.pad(y_NCHW, (padding,) * 4), kernel_C1KK, groups=channels)


def by_hand(layer, x_NCHW, style_NZ, noise):
    """Return the paper's equations 1 to 3 for one image after the other, then noise, bias and activation."""
    images = []
    for x_CHW, style_Z in zip(x_NCHW, style_NZ, strict=True):
        scale_C = layer.affine.weight @ style_Z / math.sqrt(4) + layer.affine.bias
        weight_DCKK = layer.weight * scale_C[:, None, None]
        weight_DCKK = weight_DCKK / (weight_DCKK.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if layer.upsample:
            y_1DHW = low_pass(F.conv_transpose2d(x_CHW[None], weight_DCKK.transpose(0, 1), stride=2), 1)
        else:
            y_1DHW = F.conv2d(x_CHW[None], weight_DCKK, padding=1)
        if noise == "const":
            y_1DHW = y_1DHW + layer.noise_strength * layer.noise_const
        y_1DHW = y_1DHW + layer.bias[:, None, None]
        images.append(torch.where(y_1DHW > 0, y_1DHW, 0.2 * y_1DHW) * math.sqrt(2))
    return torch.cat(images)


@pytest.mark.parametrize("noise", ["const", "none"])
@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("size", [(4, 6), (1, 1), (5, 3)])
def test_styled_convolutions_equal_the_papers_in_value_and_gradients(size, upsample, noise):
    layer = build(StyledConv2d, tuple(side * (1 + upsample) for side in size), upsample=upsample)
    x_NCHW, style_NZ = draw(*size)
    wanted = [x_NCHW.requires_grad_(), style_NZ.requires_grad_(), *layer.parameters()]
    ours_NDHW, paper_NDHW = layer(x_NCHW, style_NZ, noise), by_hand(layer, x_NCHW, style_NZ, noise)
    assert ours_NDHW.shape == paper_NDHW.shape == (2, 5, *layer.noise_const.shape)
    assert (ours_NDHW - paper_NDHW).abs().max() < EXACT
    target_NDHW = torch.randn_like(ours_NDHW)
    unused = torch.zeros((), dtype=torch.float64)
    ours, paper = (
        [unused if g is None else g for g in torch.autograd.grad((y * target_NDHW).sum(), wanted, allow_unused=True)]
        for y in (ours_NDHW, paper_NDHW)
    )
    assert max((a - b).abs().max() / (1 + b.abs().max()) for a, b in zip(ours, paper, strict=True)) < EXACT


@pytest.mark.parametrize("upsample", [False, True])
def test_styled_convolutions_can_be_differentiated_twice(upsample):
    layer = build(StyledConv2d, (4, 4) if upsample else (2, 2), upsample=upsample)
    x_NCHW, style_NZ = draw(2, 2)

    def run(x_NCHW, style_NZ, weight_DCKK):
        parameters = {"weight": weight_DCKK}
        return torch.func.functional_call(layer, parameters, (x_NCHW, style_NZ, "const"))

    inputs = (x_NCHW.requires_grad_(), style_NZ.requires_grad_(), layer.weight.detach().clone().requires_grad_())
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_outputs_equal_one_convolution_per_image_without_demodulation():
    layer = build(StyledOutput)
    x_NCHW, style_NZ = draw()
    expected = []
    for x_CHW, style_Z in zip(x_NCHW, style_NZ, strict=True):
        scale_C = (layer.affine.weight @ style_Z / math.sqrt(4) + layer.affine.bias) / math.sqrt(3)
        expected.append(F.conv2d(x_CHW[None], (layer.weight * scale_C)[:, :, None, None], layer.bias))
    assert (layer(x_NCHW, style_NZ) - torch.cat(expected)).abs().max() < EXACT
    inputs = (x_NCHW[:, :, :2, :2].clone().requires_grad_(), style_NZ.requires_grad_())
    assert torch.autograd.gradgradcheck(layer, inputs)


def test_random_noise_is_one_field_for_all_channels_and_another_for_each_image():
    layer = build(StyledConv2d, (4, 6))
    x_NCHW, style_NZ = torch.zeros(2, 3, 4, 6, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64)
    with torch.no_grad():
        layer.bias.zero_()
        y_NDHW = layer(x_NCHW, style_NZ, "random")
    assert torch.equal(y_NDHW, y_NDHW[:, :1].expand_as(y_NDHW))
    assert not torch.equal(y_NDHW[0], y_NDHW[1])


@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("noise", ["const", "none"])
def test_clamping_cuts_what_a_styled_convolution_gives_out(upsample, noise):
    layer = build(StyledConv2d, (8, 12) if upsample else (4, 6), upsample=upsample)
    x_NCHW, style_NZ = draw()
    free_NDHW = layer(x_NCHW, style_NZ, noise)
    layer.clamp = 0.7
    assert free_NDHW.abs().max() > 0.7 > free_NDHW.abs().min()
    assert torch.equal(layer(x_NCHW, style_NZ, noise), free_NDHW.clamp(-0.7, 0.7))


@pytest.mark.parametrize("upsample", [False, True])
def test_float16_neither_overflows_nor_vanishes_where_demodulation_undoes_a_factor(upsample):
    layer = build(StyledConv2d, (8, 12) if upsample else (4, 6), upsample=upsample).float()
    x_NCHW, style_NZ = (tensor.float() for tensor in draw())
    expected_NDHW = layer(x_NCHW, style_NZ, "const")
    with torch.no_grad():
        for factor in (1.0, 1e5, 1e-10):  # one after the other
            layer.weight *= factor
            layer.affine.weight /= factor
            layer.affine.bias /= factor
            ours_NDHW = layer(x_NCHW.half(), style_NZ, "const")
            assert ours_NDHW.dtype == torch.float16
            assert (ours_NDHW.float() - expected_NDHW).norm() < 1e-2 * expected_NDHW.norm()
