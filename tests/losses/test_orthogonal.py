"""Orthogonal regularisation against its definition and its gradient in closed form."""

import pytest
import torch
from torch import Tensor

from bigtrain.losses.orthogonal import orthogonal_penalty

SHAPES = [(4, 3, 3, 3), (6, 6), (20, 3), (5, 5, 1, 1), (64, 2, 2), (1, 7)]  # (20, 3) and (64, 2, 2) have many rows


def weight_of(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Standard normal float64 weights."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def off_diagonal(weight_DM: Tensor) -> Tensor:
    """Return W W^T o (1 - I), by the textbook."""
    return (weight_DM @ weight_DM.T) * (1 - torch.eye(len(weight_DM), dtype=weight_DM.dtype))


def test_two_rows_at_an_angle_cost_twice_their_squared_inner_product():
    # Rows (1, 2) and (3, -1): inner product 1, on both sides of the diagonal.
    assert orthogonal_penalty([torch.tensor([[1.0, 2.0], [3.0, -1.0]])]).item() == 2.0


def test_orthogonal_rows_cost_nothing_whatever_their_norms():
    assert orthogonal_penalty([torch.diag(torch.tensor([1.0, 5.0, 0.1]))]).item() == 0.0


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradient_are_those_of_the_paper(shape: tuple[int, ...]):
    weight = weight_of(shape).requires_grad_()
    value = orthogonal_penalty([weight])
    value.backward()
    weight_DM = weight.detach().flatten(1)
    assert value.item() == pytest.approx(off_diagonal(weight_DM).square().sum().item(), rel=1e-12)
    assert weight.grad is not None
    assert torch.allclose(weight.grad.flatten(1), 4 * off_diagonal(weight_DM) @ weight_DM, rtol=1e-10, atol=1e-10)


def test_a_weight_of_very_many_rows_needs_no_matrix_of_rows_by_rows():
    weight_DM = torch.ones(200_000, 1)  # the textbook form would take 160 GB
    assert orthogonal_penalty([weight_DM]).item() == pytest.approx(200_000**2, rel=1e-4)


def test_weights_are_summed():
    weights = [weight_of(shape, seed) for seed, shape in enumerate(SHAPES)]
    alone = sum(orthogonal_penalty([weight]).item() for weight in weights)
    assert orthogonal_penalty(iter(weights)).item() == pytest.approx(alone)


def test_autocast_and_half_precision_do_not_coarsen_it():
    weight = weight_of((8, 16)).float()
    exact = orthogonal_penalty([weight])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(orthogonal_penalty([weight]), exact)
    assert orthogonal_penalty([weight.bfloat16()]).dtype == torch.float32


def test_no_weight_is_a_mistake():
    with pytest.raises(AssertionError, match="no weight at all"):
        orthogonal_penalty([])
