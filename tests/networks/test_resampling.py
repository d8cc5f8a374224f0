"""Convolutions fused with resampling equal the two steps one after the other."""

import pytest
import torch

from benchmarks.reference_forms import TextbookConv2d
from bigtrain.networks.layers.resampling import box_matrix, box_sum
from bigtrain.networks.layers.spectral import SpectralConv2d

EXACT = 1e-12  # float64


@pytest.mark.parametrize("resample", ["up", "down"])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_fused_equals_textbook_in_value_and_gradients(resample, kernel_size, bias):
    torch.manual_seed(0)
    fused = SpectralConv2d(3, 5, kernel_size, bias=bias, resample=resample).double()
    if bias:
        torch.nn.init.normal_(fused.bias)
    x_NCHW = torch.randn(2, 3, 6, 8, dtype=torch.float64, requires_grad=True)
    wanted = [x_NCHW, *fused.parameters()]
    ours_NCHW, textbook_NCHW = fused(x_NCHW), TextbookConv2d(fused)(x_NCHW)
    assert ours_NCHW.shape[2:] == ((12, 16) if resample == "up" else (3, 4))
    assert (ours_NCHW - textbook_NCHW).abs().max() < EXACT
    weight_NCHW = torch.randn_like(ours_NCHW)
    ours = torch.autograd.grad((ours_NCHW * weight_NCHW).sum(), wanted)
    textbook = torch.autograd.grad((textbook_NCHW * weight_NCHW).sum(), wanted)
    assert max((a - b).abs().max() for a, b in zip(ours, textbook, strict=True)) < EXACT


def test_box_sums_by_hand():
    weight_DCKK = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])[None, None]
    rows = [1.0, 3.0, 6.0, 4.0]  # w0, w0 + w1, w1 + w2, w2
    down_DCKK, up_DCKK = (box_sum(weight_DCKK, box_matrix(direction)) for direction in ("down", "up"))
    assert (4 * down_DCKK).tolist() == [[[rows, rows, [0.0] * 4, [0.0] * 4]]]
    assert up_DCKK.tolist() == [[[[0.0] * 4, [0.0] * 4, rows[::-1], rows[::-1]]]]


def test_box_sums_keep_full_precision_under_autocast():
    weight_DCKK, box_PE = torch.randn(4, 4, 3, 3), box_matrix("down")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(box_sum(weight_DCKK, box_PE), box_sum(weight_DCKK.double(), box_PE.double()).float())
