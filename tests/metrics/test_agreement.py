"""The same PNG folders through torch-fidelity and through our evaluator: one number.

One call of torch-fidelity an extractor: it hands one weight file to every metric. Inception's weights are random ones,
whose BatchNorm statistics make images differ.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from torch import Tensor

from bigtrain.metrics.evaluation import Evaluation, build_evaluator
from bigtrain.metrics.features import RealImages
from bigtrain.metrics.settings import EvaluationSettings
from bigtrain.recipe.image import ImageSpec

CPU = torch.device("cpu")
NUM = 10  # of each set: Inception takes a CPU some 0.2 s an image


def scenes(num: int, seed: int, bright: float) -> Tensor:
    """Smooth coloured pictures, uint8 [N, 3, 32, 32]."""
    coarse = torch.rand(num, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1)
    return (255 * bright * smooth).round().to(torch.uint8)


@pytest.fixture(scope="module")
def sets() -> dict[str, Tensor]:
    """Generated and real pictures."""
    return {"generated": scenes(NUM, 1, 0.8), "real": scenes(NUM, 2, 1.0)}


@pytest.fixture(scope="module")
def theirs(
    sets: dict[str, Tensor], inception_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, float]:
    """torch-fidelity's figures of two folders of PNG files."""
    root = tmp_path_factory.mktemp("png")
    for name, image_NCHW in sets.items():
        (root / name).mkdir()
        for number, image_CHW in enumerate(image_NCHW):
            Image.fromarray(np.asarray(image_CHW.permute(1, 2, 0))).save(root / name / f"{number:04d}.png")
    return torch_fidelity.calculate_metrics(
        input1=str(root / "generated"), input2=str(root / "real"), fid=True, kid=True, isc=True, prc=True,
        kid_subset_size=NUM, kid_subsets=2, isc_splits=3, cuda=False, cache=False, verbose=False, batch_size=5,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(inception_weights),
    )  # fmt: skip


@pytest.fixture(scope="module")
def ours(sets: dict[str, Tensor], inception_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Our figures of the same pictures."""
    settings = EvaluationSettings.model_validate(
        {
            "every_images": 1, "num_images": NUM, "batch_images": 5, "metrics": ["fid", "kid", "is", "prdc_inception"],
            "extractor": {"kind": "inception", "weights": str(inception_weights)}, "score": {"splits": 3},
            "kernel": {"subsets": 2, "subset_size": NUM},
        }
    )  # fmt: skip

    def load(numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
        return sets["real"][list(numbers)], torch.zeros(len(numbers)).long()

    real = RealImages(ImageSpec(32, 3, 0), NUM, "scenes", load)
    judge = build_evaluator(settings, real, tmp_path_factory.mktemp("cache"), CPU)
    return judge.evaluate(lambda index_N: sets["generated"][index_N.clamp(max=NUM - 1)])


@pytest.mark.parametrize(
    ("name", "their_name", "most"),
    [
        ("fid", "frechet_inception_distance", 1e-3),
        ("kid", "kernel_inception_distance_mean", 1e-4),  # of whole sets: ours are shuffled before subsets are drawn
        ("inception_score", "inception_score_mean", 1e-4),
        ("inception_score_std", "inception_score_std", 1e-4),
        ("precision", "precision", 1e-4),
        ("recall", "recall", 1e-4),
    ],
)
def test_figures_are_torch_fidelitys(name: str, their_name: str, most: float, ours: Evaluation, theirs: dict[str, Any]):
    assert theirs[their_name] > 10 * most  # a figure of 0 would agree with anything
    assert ours.figures[name] == pytest.approx(theirs[their_name], abs=most)


def test_protocol_says_what_the_weights_are(ours: Evaluation):
    assert ours.protocol["extractor"] == "inception-v3-compat"
    assert ours.protocol["extractor_facts"]["weights"].startswith("custom ")
    assert "TensorFlow 1" in ours.protocol["extractor_facts"]["resize"]
