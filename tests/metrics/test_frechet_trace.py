"""The trace of the root of two covariances, by our symmetric form, against torch-fidelity's and against factors."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_statistics_to_metric

from bigtrain.metrics.collect import FeatureSet
from bigtrain.metrics.frechet import frechet_distance, frechet_of_features, root_trace
from bigtrain.metrics.measures import distance_between
from bigtrain.metrics.moments import GaussianLaw, Moments

SPECTRA = {
    "flat": lambda place: 1 + 0 * place,
    "power": lambda place: (place + 1) ** -1.5,
    "ill_conditioned": lambda place: 10 ** (-10 * place / place[-1]),
    "singular_in_float64": lambda place: 10 ** (-24 * place / place[-1]),
}


def rotated(scale_D: Tensor, generator: torch.Generator, num: int | None = None) -> Tensor:
    """A factor F [D, R]: F F^T is a covariance with these scales, or that of `num` features drawn with them."""
    dims = len(scale_D)
    turn_DD = torch.linalg.qr(torch.randn(dims, dims, dtype=torch.float64, generator=generator)).Q
    if num is None:
        return turn_DD * scale_D.sqrt()
    feature_ND = torch.randn(num, dims, dtype=torch.float64, generator=generator) * scale_D.sqrt() @ turn_DD.T
    return (feature_ND - feature_ND.mean(0)).T / (num - 1) ** 0.5


def theirs(a_DD: Tensor, b_DD: Tensor) -> float:
    mean = np.zeros(len(a_DD))
    statistics = [{"mu": mean, "sigma": covariance.numpy()} for covariance in (a_DD, b_DD)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


def ours(a_DD: Tensor, b_DD: Tensor) -> float:
    mean = torch.zeros(len(a_DD), dtype=torch.float64)
    return frechet_distance(GaussianLaw(mean, a_DD), GaussianLaw(mean, b_DD))


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_trace_is_the_sum_of_singular_values_and_torch_fidelitys(spectrum: str):
    generator = torch.Generator().manual_seed(0)
    scale_D = SPECTRA[spectrum](torch.arange(96, dtype=torch.float64))
    factors = [rotated(scale_D, generator) for _ in range(2)]
    a_DD, b_DD = (factor @ factor.T for factor in factors)
    assert root_trace(a_DD, b_DD) == pytest.approx(
        float(torch.linalg.svdvals(factors[0].T @ factors[1]).sum()), rel=1e-6
    )
    scale = float(a_DD.trace() + b_DD.trace())
    assert ours(a_DD, b_DD) == pytest.approx(theirs(a_DD, b_DD), abs=1e-6 * scale)


@pytest.mark.parametrize(("num_a", "num_b"), [(30, 30), (30, 400), (400, 30), (30, 12), (97, 97)])
def test_fewer_features_than_dimensions(num_a: int, num_b: int):
    generator = torch.Generator().manual_seed(1)
    scale_D = SPECTRA["power"](torch.arange(96, dtype=torch.float64))
    factors = [rotated(scale_D, generator, num) for num in (num_a, num_b)]
    a_DD, b_DD = (factor @ factor.T for factor in factors)
    expected = float(torch.linalg.svdvals(factors[0].T @ factors[1]).sum())
    assert root_trace(a_DD, b_DD) == pytest.approx(expected, rel=1e-6)
    assert root_trace(b_DD, a_DD) == pytest.approx(expected, rel=1e-6)
    assert ours(a_DD, b_DD) == pytest.approx(theirs(a_DD, b_DD), rel=1e-6)


@pytest.mark.slow
def test_trace_agrees_at_the_size_of_inception():
    generator = torch.Generator().manual_seed(2)
    scale_D = SPECTRA["power"](torch.arange(2048, dtype=torch.float64))
    a_DD, b_DD = (factor @ factor.T for factor in (rotated(scale_D, generator, num) for num in (5000, 3000)))
    assert ours(a_DD, b_DD) == pytest.approx(theirs(a_DD, b_DD), rel=1e-6)


def test_constant_features_have_the_distance_of_their_means():
    nothing = torch.zeros(3, 3, dtype=torch.float64)
    a, b = (GaussianLaw(torch.tensor(mean, dtype=torch.float64), nothing) for mean in ([1.0, 0, 0], [0, 2.0, 0]))
    assert frechet_distance(a, b) == pytest.approx(5.0)


@pytest.mark.parametrize("num", [(8, 9), (8, 60), (60, 70)])
def test_distance_of_features_is_that_of_their_moments(num: tuple[int, int]):
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(n, 20, generator=generator) for n in num)
    moments = [Moments.of(feature_ND) for feature_ND in (a, b)]
    assert frechet_of_features(a, b) == pytest.approx(frechet_distance(*moments), rel=1e-6)
    by_number = [one.law("n") for one in moments]
    assert frechet_of_features(a, b, "n") == pytest.approx(frechet_distance(*by_number), rel=1e-6)
    sets = [FeatureSet(one, feature_ND) for one, feature_ND in zip(moments, (a, b), strict=True)]
    assert distance_between(*sets, "n") == pytest.approx(frechet_distance(*by_number), rel=1e-6)
    first_alone = [FeatureSet(one.moments, one.feature_ND[:5]) for one in sets]  # what is kept is not all
    assert distance_between(*first_alone, "n-1") == frechet_distance(*moments)


def test_divisor_of_the_covariance():
    feature_ND = torch.tensor([[0.0], [2.0], [4.0]])
    moments = Moments.of(feature_ND)
    assert moments.law("n-1").covariance_DD.item() == pytest.approx(4.0)
    assert moments.law("n").covariance_DD.item() == pytest.approx(8 / 3)
    assert moments.law("n").mean_D.item() == 2.0
