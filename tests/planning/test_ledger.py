"""The ledger's books, against sums done by hand."""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bigtrain.planning.ledger import Ledger


def test_bytes_are_those_of_living_tensors_and_their_peak():
    x = torch.zeros(1000)
    with Ledger([x]) as ledger:
        y = x + 1  # 4,000
        z = (y * 2).exp()  # 4,000 that live until exp is done, and 4,000
        assert (ledger.live_bytes, ledger.peak_bytes) == (8_000, 12_000)
        del y
        assert ledger.live_bytes == 4_000
        del z
    assert (ledger.live_bytes, ledger.peak_bytes) == (0, 12_000)


def test_views_and_what_was_there_before_cost_nothing():
    x = torch.zeros(10, 10)
    with Ledger([x]) as ledger:
        view = x.view(100)[5:].add_(1)
        assert ledger.peak_bytes == 0
        copy = view.clone().view(5, 19)
    assert ledger.live_bytes == 95 * 4
    del copy


def test_what_is_kept_for_a_backward_lives_until_it_has_run():
    x = torch.ones(1000, requires_grad=True)
    with Ledger([x]) as ledger:
        value = x.exp().exp().sum()  # both outputs of exp are kept
        assert ledger.live_bytes == 8_000 + 4
        value.backward()
        # x.grad is new here; the graph is gone, and the sum and its gradient are released with it
        del value
        assert ledger.live_bytes == 4_000


def test_a_product_of_matrices_counts_two_a_multiply_add_forward_and_four_more_backward():
    a, b = torch.ones(3, 5, requires_grad=True), torch.ones(5, 7, requires_grad=True)
    with Ledger([a, b]) as ledger:
        value = (a @ b).sum()
        assert ledger.flop == 2 * 3 * 5 * 7
        value.backward()
    assert ledger.flop == 3 * 2 * 3 * 5 * 7


def test_a_convolution_whose_input_needs_no_gradient_costs_one_product_backward():
    convolution, x = nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.ones(2, 3, 16, 16)
    forward = 2 * (2 * 8 * 16 * 16) * (3 * 3 * 3)
    with Ledger() as ledger:
        convolution(x).sum().backward()
    assert ledger.flop == 2 * forward


def test_a_gradient_penalty_counts_its_double_backward():
    """|d(w x)/dx|^2 of a linear judge: forward, gradient to x, and its gradient to w: three products."""
    judge, x = nn.Linear(6, 1, bias=False), torch.ones(4, 6, requires_grad=True)
    with Ledger() as ledger:
        (gradient,) = torch.autograd.grad(judge(x).sum(), x, create_graph=True)
        gradient.square().sum().backward(inputs=[judge.weight])
    assert ledger.flop == 3 * 2 * 4 * 6


def test_attention_on_a_cpu_is_counted():
    query, key = torch.ones(2, 1, 16, 8), torch.ones(2, 1, 4, 8)
    with Ledger() as ledger:
        nn.functional.scaled_dot_product_attention(query, key, key)
    assert ledger.flop == 2 * 2 * (2 * 16 * 4 * 8)  # two products of 2 images


def test_tensors_without_data_are_booked_alike():
    def books():
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
        with Ledger(network.parameters()) as ledger:
            network(torch.zeros(2, 3, 9, 9)).square().mean().backward()
        return ledger.flop, ledger.peak_bytes

    real = books()
    with FakeTensorMode():
        assert books() == real


def test_products_in_fewer_bits_are_told_apart():
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    with Ledger() as ledger:
        a @ b
        a.bfloat16() @ b.bfloat16()
    assert (ledger.flop, ledger.reduced_flop) == (420, 210)
