"""Moving averages by hand: half-life, ramp-up, what is averaged and what is copied."""

import pytest
import torch
from torch import nn

from bigtrain.engine.ema import AverageSettings, WeightAverage
from bigtrain.networks.layers.batchnorm import AffineBatchNorm
from bigtrain.networks.layers.spectral import SpectralLinear


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = SpectralLinear(3, 2)
        self.norm = AffineBatchNorm(2)


def test_a_weight_counts_half_after_the_halflife() -> None:
    settings = AverageSettings(halflife_images=64)
    assert settings.decay(batch_images=64, images_seen=0) == 0.5
    assert settings.decay(batch_images=16, images_seen=10**6) ** 4 == pytest.approx(0.5)


def test_the_rampup_shortens_the_halflife_early_on() -> None:
    settings = AverageSettings(halflife_images=1000, rampup=0.05)
    assert settings.decay(batch_images=10, images_seen=0) == 0.0  # the first step's weights are copied
    assert settings.decay(batch_images=10, images_seen=200) == 0.5  # half-life 200 * 0.05 = 10
    assert settings.decay(batch_images=10, images_seen=10**6) == pytest.approx(0.5**0.01)


def test_before_the_start_the_average_is_a_copy() -> None:
    settings = AverageSettings(halflife_images=1000, start_images=100)
    assert settings.decay(10, 99) == 0.0
    assert settings.decay(10, 100) > 0.9


def test_parameters_and_statistics_lerp_and_other_buffers_are_copied() -> None:
    live = Network()
    average = WeightAverage(AverageSettings(halflife_images=8), {"generator": live})
    kept = average.networks["generator"]
    before = {name: tensor.clone() for name, tensor in kept.state_dict().items()}
    with torch.no_grad():
        for tensor in live.state_dict().values():
            tensor.copy_(torch.randn_like(tensor))
    average.update(batch_images=16, images_seen=0)  # decay 2 ** (-16 / 8) = 1 / 4
    now = live.state_dict()
    assert {"linear.weight", "norm.running_mean", "norm.running_var", "linear.u"} <= set(before)
    for name, tensor in kept.state_dict().items():
        expected = now[name] if name in ("linear.u", "linear.v") else 0.25 * before[name] + 0.75 * now[name]
        torch.testing.assert_close(tensor, expected)


def test_networks_for_sampling_fit_sigma_to_the_averaged_weight_and_leave_the_average_alone() -> None:
    live = Network()
    average = WeightAverage(AverageSettings(halflife_images=8), {"generator": live})
    kept = average.networks["generator"].linear
    before = {name: tensor.clone() for name, tensor in kept.state_dict().items()}
    ready = average.ready_networks()["generator"].linear
    v = nn.functional.normalize(before["weight"].T @ before["u"], dim=0)
    torch.testing.assert_close(ready.v, v)
    torch.testing.assert_close(ready.u, nn.functional.normalize(before["weight"] @ v, dim=0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in kept.state_dict().items())
