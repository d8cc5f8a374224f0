"""Ways between latents against points known by hand."""

import math

import pytest
import torch

from bigtrain.recipe.errors import RecipeError
from bigtrain.sampling.interpolation import INTERPOLATIONS, evenly

EAST = torch.tensor([[2.0, 0.0]])
NORTH = torch.tensor([[0.0, 2.0]])


def latent_path(start: torch.Tensor, end: torch.Tensor, num_steps: int, kind: str) -> torch.Tensor:
    """Return evenly spaced points from each start to its end."""
    points: torch.Tensor = INTERPOLATIONS.get(kind)(start, end, evenly(num_steps))
    return points


@pytest.mark.parametrize("kind", INTERPOLATIONS.names())
def test_both_ends_are_exact(kind: str):
    torch.manual_seed(0)
    start, end = torch.randn(5, 16), torch.randn(5, 16)
    path = latent_path(start, end, 7, kind)
    assert path.shape == (5, 7, 16)
    assert path.dtype == torch.float32
    assert torch.equal(path[:, 0], start)
    assert torch.equal(path[:, -1], end)


def test_lerp_is_the_straight_line():
    path = latent_path(EAST, NORTH, 5, "lerp")
    assert path[0].tolist() == [[2.0, 0.0], [1.5, 0.5], [1.0, 1.0], [0.5, 1.5], [0.0, 2.0]]


def test_slerp_is_the_great_circle_at_constant_speed():
    path = latent_path(EAST, NORTH, 4, "slerp")[0]
    angles = [0, math.pi / 6, math.pi / 3, math.pi / 2]
    expected = torch.tensor([[2 * math.cos(angle), 2 * math.sin(angle)] for angle in angles])
    assert torch.allclose(path, expected, atol=1e-6)


def test_slerp_stays_on_the_sphere_that_lerp_leaves():
    torch.manual_seed(1)
    start, end = (torch.nn.functional.normalize(torch.randn(8, 128), dim=1) * 128**0.5 for _ in range(2))
    radius = latent_path(start, end, 9, "slerp").norm(dim=-1)
    assert torch.allclose(radius, torch.full_like(radius, 128**0.5), rtol=1e-5)
    assert (latent_path(start, end, 3, "lerp")[:, 1].norm(dim=-1) < 0.85 * 128**0.5).all()


@pytest.mark.parametrize("end", [[4.0, 0.0], [-2.0, 0.0], [0.0, 0.0]])
def test_slerp_without_a_circle_takes_the_straight_line(end: list[float]):
    end_NZ = torch.tensor([end])
    path = latent_path(EAST, end_NZ, 5, "slerp")
    assert torch.equal(path, latent_path(EAST, end_NZ, 5, "lerp"))


def test_unknown_way_names_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'slerp'"):
        latent_path(EAST, NORTH, 3, "slrep")
