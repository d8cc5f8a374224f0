"""Moments, Frechet and kernel distances against numbers derived by hand."""

import math

import numpy as np
import pytest
import torch

from bigtrain.metrics.frechet import frechet_distance
from bigtrain.metrics.kernel import KernelSettings, kernel_distance
from bigtrain.metrics.moments import STEP, Moments, MomentSums


def with_law(mean: list[float], covariance: list[list[float]], num: int = 10) -> Moments:
    """Moments of some `num` features that have exactly this mean and covariance."""
    mean_D, covariance_DD = torch.tensor(mean, dtype=torch.float64), torch.tensor(covariance, dtype=torch.float64)
    outer_DD = covariance_DD * (num - 1) + num * torch.outer(mean_D, mean_D)
    return Moments(torch.tensor(float(num), dtype=torch.float64), num * mean_D, outer_DD)


def features(num: int, dims: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(num, dims, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_moments_are_those_of_numpy():
    feature_ND = (features(50, 6) * 1024).round() / 1024 * 3 + 100
    moments = Moments.of(feature_ND)
    assert moments.count == 50
    np.testing.assert_allclose(moments.mean_D.numpy(), feature_ND.numpy().mean(0), rtol=1e-13)
    np.testing.assert_allclose(
        moments.covariance_DD.numpy(), np.cov(feature_ND.numpy(), rowvar=False), rtol=0, atol=1e-9
    )
    assert torch.equal(moments.covariance_DD, moments.covariance_DD.T)


def test_moments_of_float32_features_are_summed_in_float64():
    feature_ND = torch.full((1000, 1), 0.1, dtype=torch.float32)
    moments = Moments.of(feature_ND)
    assert moments.sum_D.dtype == torch.float64
    assert moments.sum_D.item() == pytest.approx(1000 * float(torch.tensor(0.1)), abs=1000 * STEP / 2)


@pytest.mark.parametrize("size", [1e-4, 1.0, 30.0])
def test_moments_are_the_same_bits_whatever_the_batches_and_ranks(size: float):
    """In plain float64 the last bits depend on the order: shown beside it, so that this can fail."""
    feature_ND = features(1000, 40, dtype=torch.float32) * size
    whole = Moments.of(feature_ND)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    halves = [MomentSums(40), MomentSums(40)]
    for number, part in enumerate(feature_ND[order].split(7)):
        halves[number % 2].update(part)
    (shared,) = halves[0].totals(lambda packed: packed + halves[1].packed)
    plain, other = feature_ND.double(), feature_ND[order].double()
    assert not torch.equal(plain.T @ plain, other.T @ other)
    assert torch.equal(shared.outer_DD, whole.outer_DD)
    assert torch.equal(shared.sum_D, whole.sum_D)
    assert shared.count == whole.count == 1000
    assert torch.allclose(whole.outer_DD, plain.T @ plain, rtol=1e-6, atol=1000 * size * STEP)


def test_frechet_distance_of_equal_moments_is_zero():
    moments = Moments.of(features(100, 8))
    assert frechet_distance(moments, moments) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_on_a_line_is_the_difference_of_means_and_deviations_squared():
    # (3 - 1)^2 + (5 - 2)^2
    assert frechet_distance(with_law([3.0], [[25.0]]), with_law([1.0], [[4.0]])) == pytest.approx(13.0, rel=1e-12)


def test_frechet_distance_of_axis_parallel_laws_adds_up():
    a, b = with_law([0.0, 0, 1], np.diag([1.0, 4, 9]).tolist()), with_law([0.0, 2, 0], np.diag([4.0, 4, 1]).tolist())
    # 2^2 + 1^2 + (1 - 2)^2 + 0 + (3 - 1)^2
    assert frechet_distance(a, b) == pytest.approx(10.0, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(10.0, rel=1e-12)


def test_frechet_distance_of_covariances_that_do_not_commute():
    a, b = [[2.0, 1.0], [1.0, 2.0]], [[1.0, 0.0], [0.0, 4.0]]
    # For 2 x 2 matrices M = A B: trace(M^(1/2)) = sqrt(trace(M) + 2 sqrt(det(M))); trace 2 + 8, det 3 * 4.
    expected = 4 + 5 - 2 * math.sqrt(10 + 2 * math.sqrt(12))
    assert frechet_distance(with_law([0.0, 0], a), with_law([0.0, 0], b)) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_copes_with_fewer_features_than_dimensions():
    a, b = features(5, 12, seed=1), features(6, 12, seed=2)
    distance = frechet_distance(Moments.of(a), Moments.of(b))
    # The trace of the root is the nuclear norm of the product of the centred features.
    centred = [(f - f.mean(0)) / math.sqrt(len(f) - 1) for f in (a, b)]
    trace = torch.linalg.matrix_norm(centred[0] @ centred[1].T, ord="nuc")
    mean_part = (a.mean(0) - b.mean(0)).square().sum()
    expected = mean_part + centred[0].square().sum() + centred[1].square().sum() - 2 * trace
    assert distance == pytest.approx(expected.item(), rel=1e-6)


def test_kernel_distance_of_three_points_is_the_textbook_sum():
    a, b = [1.0, 2.0, -1.0], [0.0, 3.0, 1.0]

    def kernel(x: float, y: float) -> float:
        return (x * y + 1) ** 3

    def within(points: list[float]) -> float:
        return sum(kernel(x, y) for i, x in enumerate(points) for j, y in enumerate(points) if i != j) / 6

    expected = within(a) + within(b) - 2 * sum(kernel(x, y) for x in a for y in b) / 9
    distance = kernel_distance(torch.tensor(a)[:, None], torch.tensor(b)[:, None], KernelSettings(subsets=4))
    assert distance.mean == pytest.approx(expected, rel=1e-12)
    assert distance.std == pytest.approx(0, abs=1e-12)
    assert distance.subset_size == 3


def test_kernel_distance_divides_by_the_number_of_dimensions():
    a, b = features(6, 1, seed=1), features(6, 1, seed=2)
    one = kernel_distance(a, b, KernelSettings(subsets=1))
    four = kernel_distance(a.repeat(1, 4), b.repeat(1, 4), KernelSettings(subsets=1))
    assert four.mean == pytest.approx(one.mean, rel=1e-12)


def test_kernel_distance_is_around_zero_for_one_law_and_far_from_it_for_two():
    settings = KernelSettings(subsets=20, subset_size=200)
    same = kernel_distance(features(800, 16, seed=1), features(900, 16, seed=2), settings)
    other = kernel_distance(features(800, 16, seed=1), features(900, 16, seed=2) + 0.5, settings)
    assert abs(same.mean) < 3 * same.std
    assert other.mean > 5 * other.std
    assert same.subset_size == 200


def test_kernel_subsets_follow_the_seed():
    a, b = features(100, 4, seed=1), features(100, 4, seed=2)
    first, again, other = (
        kernel_distance(a, b, KernelSettings(subsets=3, subset_size=20, seed=seed)).mean for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
