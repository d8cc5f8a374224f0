"""Inception score, precision, recall, density, coverage, classes and extrapolation, against torch-fidelity and by
hand."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from bigtrain.metrics import prdc as prdc_module
from bigtrain.metrics.classes import ClassCollector, ClassFeatures, distances_within
from bigtrain.metrics.exchange import ONE_PROCESS
from bigtrain.metrics.frechet import frechet_of_features
from bigtrain.metrics.infinity import InfinitySettings, extrapolated
from bigtrain.metrics.prdc import PrdcSettings, prdc, radii
from bigtrain.metrics.score import ScoreSettings, ScoreSums


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("num", "splits"), [(203, 10), (40, 1), (7, 10)])
def test_score_is_torch_fidelitys_in_any_batches(num: int, splits: int):
    logit_NK = 3 * drawn(num, 12)
    sums = ScoreSums(ScoreSettings(splits=splits), num, 12)
    for place_N in torch.split(torch.arange(num), 16):
        sums.update(place_N, logit_NK[place_N])
    score = sums.score(lambda value: value)
    theirs = isc_features_to_metric(logit_NK, splits=min(splits, num))
    assert score.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-8)
    assert score.std == pytest.approx(theirs["inception_score_std"], rel=1e-6, abs=1e-8)


def test_score_of_sure_and_varied_logits_is_the_number_of_classes():
    logit_NK = 1000 * torch.eye(4).repeat(25, 1)  # a probability of 0 is no obstacle
    sums = ScoreSums(ScoreSettings(splits=1), 100, 4)
    sums.update(torch.arange(100), logit_NK)
    assert sums.score(lambda value: value).mean == pytest.approx(4.0)


def test_four_figures_by_hand():
    """Real features 0, 1, 2, 10 on a line, radius of the nearest neighbour: 1, 1, 1, 8. Generated: 2.5, 30, 31."""
    real, generated = torch.tensor([0.0, 1, 2, 10])[:, None], torch.tensor([2.5, 30, 31])[:, None]
    found = prdc(generated, real, PrdcSettings(neighbours=1, density_neighbours=1))
    # 2.5 lies in the balls of 2 (1.5..3) and of 10 (2..18); radii of generated features: 27.5, 1, 1.
    assert found.precision == pytest.approx(1 / 3)
    assert found.density == pytest.approx(2 / 3)
    assert found.coverage == pytest.approx(2 / 4)
    assert found.recall == pytest.approx(1.0)
    assert [radius.sqrt().tolist() for radius in radii(real, (1, 2))] == [[1, 1, 1, 8], [2, 1, 2, 9]]


@pytest.mark.parametrize("shift", [0.0, 0.7, 3.0])
def test_precision_and_recall_are_torch_fidelitys(shift: float, monkeypatch: pytest.MonkeyPatch):
    generated, real = drawn(211, 6, seed=1) + shift, drawn(300, 6, seed=2)
    theirs = prc_features_to_metric(
        generated, real, prc_neighborhood=3, prc_batch_size=64, save_cpu_ram=True, verbose=False
    )
    whole = prdc(generated, real, PrdcSettings())
    assert whole.precision == pytest.approx(theirs["precision"], abs=1e-6)
    assert whole.recall == pytest.approx(theirs["recall"], abs=1e-6)
    monkeypatch.setattr(prdc_module, "BLOCK_NUMBERS", 2000)  # blocks of 6 rows
    assert prdc(generated, real, PrdcSettings()) == whole


def test_density_and_coverage_by_counting():
    generated, real = drawn(40, 3, seed=1).double(), drawn(50, 3, seed=2).double()
    distance = torch.cdist(generated, real)
    reach = torch.cdist(real, real).kthvalue(5 + 1).values
    inside = distance <= reach
    found = prdc(generated, real, PrdcSettings())
    assert found.density == pytest.approx(inside.sum().item() / (5 * 40))
    assert found.coverage == pytest.approx(inside.any(0).double().mean().item())


def test_a_set_against_itself_is_perfect():
    feature_ND = drawn(60, 4)
    found = prdc(feature_ND, feature_ND, PrdcSettings())
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_first_images_of_every_class_are_kept_in_any_order():
    label_N = torch.tensor([0, 1, 1, 0, 1, -1, 2, 1] * 10)
    feature_ND = torch.arange(80.0)[:, None]
    kept = []
    for order in (torch.arange(80), torch.randperm(80, generator=torch.Generator().manual_seed(0))):
        collector = ClassCollector(num_classes=3, dims=1, max_images=9)
        for part in torch.split(order, 7):
            collector.add(part, label_N[part], feature_ND[part])
        kept.append(collector.collect(ONE_PROCESS))
    assert kept[0].label_M.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert kept[0].feature_MD[:, 0].tolist() == [0, 3, 8, 1, 2, 4, 6, 14, 22]
    assert torch.equal(kept[0].feature_MD, kept[1].feature_MD)


def test_features_by_class_are_copied_a_few_times_however_many_there_are(monkeypatch: pytest.MonkeyPatch):
    copied, cat = [], torch.cat

    def counted(tensors: Sequence[Tensor], *args: Any, **options: Any) -> Tensor:
        copied.append(sum(len(tensor) for tensor in tensors if tensor.dim() == 2))
        return cat(tensors, *args, **options)

    monkeypatch.setattr("bigtrain.metrics.classes.torch.cat", counted)
    collector = ClassCollector(num_classes=2, dims=1, max_images=400)
    for part in torch.split(torch.arange(2000), 5):
        collector.add(part, part % 2, part[:, None].float())
    assert collector.collect(ONE_PROCESS).label_M.bincount().tolist() == [200, 200]
    assert sum(copied) <= 3 * 2000


def test_distance_within_a_class_is_that_of_its_features():
    label = torch.tensor([0] * 9 + [1] * 9 + [2])
    a, b = (ClassFeatures(label, drawn(19, 3, seed=seed)) for seed in (1, 2))
    found = distances_within(a, b)
    assert set(found) == {0, 1}  # one image has no covariance
    assert found[1] == pytest.approx(frechet_of_features(a.feature_MD[9:18], b.feature_MD[9:18]))
    with_n = distances_within(a, b, "n")[1]
    of_means = float((a.feature_MD[9:18].mean(0) - b.feature_MD[9:18].mean(0)).square().sum())
    assert with_n - of_means == pytest.approx((found[1] - of_means) * 8 / 9)


def test_extrapolation_finds_the_distance_without_bias():
    numbers = InfinitySettings(points=5).cuts(1000)
    assert numbers == [200, 400, 600, 800, 1000]
    assert extrapolated(numbers, [7.0 + 300 / n for n in numbers]) == pytest.approx(7.0)
    assert InfinitySettings(points=10).cuts(4) == [2, 3, 4]
    assert math.isfinite(extrapolated([2, 3, 4], [3.0, 2.0, 1.0]))
