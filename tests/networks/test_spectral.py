"""Spectral normalisation: sigma is the largest singular value, its gradient is exact, and forwards never iterate."""

import copy

import pytest
import torch

from benchmarks.reference_forms import iterate_per_forward
from bigtrain.networks.layers.spectral import (
    SpectralConv2d,
    SpectralEmbedding,
    SpectralLinear,
    advance_power_iterations,
    spectral_norms,
)

LAYERS = {
    "conv": (lambda: SpectralConv2d(6, 5), (2, 6, 8, 8)),
    "conv up": (lambda: SpectralConv2d(6, 5, resample="up"), (2, 6, 8, 8)),
    "conv down": (lambda: SpectralConv2d(6, 5, resample="down"), (2, 6, 8, 8)),
    "linear": (lambda: SpectralLinear(7, 4), (2, 7)),
    "embedding": (lambda: SpectralEmbedding(9, 4), None),
}


@pytest.fixture(params=LAYERS, ids=str)
def layer_and_input(request):
    torch.manual_seed(0)
    build, shape = LAYERS[request.param]
    x = torch.tensor([3, 8]) if shape is None else torch.randn(shape, dtype=torch.float64)
    return build().double(), x


def test_sigma_becomes_the_largest_singular_value(layer_and_input):
    layer, _ = layer_and_input
    for _ in range(500):
        advance_power_iterations(layer)
    largest = torch.linalg.svdvals(layer.weight.flatten(1))[0]
    assert layer.sigma().item() == pytest.approx(largest.item(), rel=1e-9)
    assert torch.linalg.svdvals(layer.normalised_weight().flatten(1))[0].item() == pytest.approx(1, rel=1e-9)


def test_sigma_after_one_iteration_by_hand():
    layer = SpectralLinear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        layer.u.copy_(torch.tensor([1.0, 0.0]))
    advance_power_iterations(layer)
    assert layer.v.tolist() == [1.0, 0.0]
    assert layer.u.tolist() == [1.0, 0.0]
    assert spectral_norms(layer) == {"": torch.tensor(3.0)}
    assert layer.normalised_weight()[1, 1].item() == pytest.approx(4 / 3)


def test_the_gradient_through_sigma_is_exact(layer_and_input):
    layer, _ = layer_and_input
    weight, u, v = layer.weight.detach(), layer.u, layer.v
    target = torch.randn_like(weight)
    (layer.normalised_weight() * target).sum().backward()
    sigma = u @ weight.flatten(1) @ v
    outer = torch.outer(u, v).view_as(weight)
    by_hand = target / sigma - (target * weight).sum() / sigma**2 * outer
    torch.testing.assert_close(layer.weight.grad, by_hand)


def test_forwards_never_iterate(layer_and_input):
    layer, x = layer_and_input
    before = copy.deepcopy(layer.state_dict())
    first = layer.train()(x)
    assert torch.equal(layer(x), first)
    assert torch.equal(layer.eval()(x), first)
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


def test_advancing_once_and_then_a_forward_equals_the_textbook_forward(layer_and_input):
    layer, x = layer_and_input
    textbook = iterate_per_forward(layer)
    expected = textbook(x)
    advance_power_iterations(layer)
    assert torch.equal(layer(x), expected)
    assert torch.equal(layer.u, textbook.u)


def test_advancing_works_in_place_and_leaves_weights_alone(layer_and_input):
    layer, _ = layer_and_input
    pointers, weight = (layer.u.data_ptr(), layer.v.data_ptr()), layer.weight.detach().clone()
    advance_power_iterations(layer)
    assert (layer.u.data_ptr(), layer.v.data_ptr()) == pointers
    assert torch.equal(layer.weight, weight)
    assert not layer.u.requires_grad


def test_sigma_keeps_full_precision_under_autocast():
    layer = SpectralLinear(64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.sigma().dtype == torch.float32
        assert layer.sigma().item() == pytest.approx(
            (layer.u.double() @ layer.weight.double() @ layer.v.double()).item()
        )
        assert layer(torch.randn(2, 64)).dtype == torch.bfloat16
