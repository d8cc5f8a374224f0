"""Top singular values agree with the full decomposition."""

import pytest
import torch

from bigtrain.networks.layers.singular import largest_weights, top_singular_values


@pytest.mark.parametrize("shape", [(40, 30), (16, 8, 3, 3), (3, 50), (70, 2)])
def test_they_are_those_of_the_whole_decomposition(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, generator=generator)
    exact = torch.linalg.svdvals(weight.flatten(1))[:3]
    found = top_singular_values(weight)
    assert len(found) == min(3, *weight.flatten(1).shape)
    assert torch.all(found <= exact * (1 + 1e-5))
    assert torch.allclose(found, exact, rtol=0.05)
    assert torch.equal(found, top_singular_values(weight.clone()))


def test_a_direction_that_grows_shows_at_its_size() -> None:
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(2))
    left, right = torch.randn(64), torch.randn(64)
    weight += 1000 * torch.outer(left / left.norm(), right / right.norm())
    assert top_singular_values(weight)[0] == pytest.approx(1000, rel=0.02)


def test_the_largest_weights_are_matrices() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 7), torch.nn.LayerNorm(90))
    assert list(largest_weights(network, 1)) == ["1.weight"]
    assert list(largest_weights(network, 9)) == ["1.weight", "0.weight"]
    assert largest_weights(network, 0) == {}
