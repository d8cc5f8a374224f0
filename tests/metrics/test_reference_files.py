"""Mean and covariance of real features in files of other tools: read, written, and what they are not enough for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bigtrain.metrics.evaluation import Evaluator, build_evaluator
from bigtrain.metrics.features import RealImages
from bigtrain.metrics.reference import holds_moments, read_moments, write_moments
from bigtrain.metrics.settings import EvaluationSettings
from bigtrain.recipe.errors import DataError, RecipeError, UsageError
from bigtrain.recipe.image import ImageSpec

CPU = torch.device("cpu")
GRAY = ImageSpec(32, 1, 0)


def judge(real: Any, cache: Path, *metrics: str, **changes: Any) -> Evaluator:
    facts = {"every_images": 1, "num_images": 300, "extractor": {"kind": "random"}, "kernel": {"subsets": 2}}
    return build_evaluator(
        EvaluationSettings.model_validate({**facts, "metrics": metrics, **changes}), real, cache, CPU
    )


@pytest.fixture
def written(digits: RealImages, shared_cache: Path, tmp_path: Path) -> Path:
    """The digits' own statistics, as other tools write them."""
    law = judge(digits, shared_cache, "fd_random").reference("random")
    assert law is not None
    write_moments(tmp_path / "digits.npz", law)
    return tmp_path / "digits.npz"


def copier(digits: RealImages) -> Any:
    def generate(index_N: Tensor) -> Tensor:
        return digits.load((5 * index_N % digits.num_images).tolist())[0] // 2

    return generate


def test_a_file_gives_the_distance_that_its_images_give(digits: RealImages, shared_cache: Path, written: Path):
    assert holds_moments(written)
    with np.load(written) as arrays:
        assert set(arrays.files) == {"mu", "sigma"}
    from_images = judge(digits, shared_cache, "fd_random", "fd_random_infinity").evaluate(copier(digits))
    from_file = judge(read_moments(written, GRAY), shared_cache, "fd_random", "fd_random_infinity").evaluate(
        copier(digits)
    )
    assert set(from_file.figures) == {"fd_random", "fd_random_infinity"}
    for name, value in from_file.figures.items():
        assert value == pytest.approx(from_images.figures[name], rel=1e-9)
    assert from_file.protocol["real_known"].startswith("mean and covariance")
    assert "num_real" not in from_file.protocol
    assert from_file.protocol["real_content"] == read_moments(written, GRAY).content_hash


def test_further_arrays_and_float32_are_read_past(tmp_path: Path):
    arrays = {"mu": np.ones(2, np.float32), "sigma": np.eye(2), "mu_s": np.ones(3), "sigma_s": np.eye(3)}
    np.savez(tmp_path / "adm.npz", **arrays)
    moments = read_moments(tmp_path / "adm.npz", GRAY)
    assert moments.mean_D.dtype == torch.float64
    assert torch.equal(moments.covariance_DD, torch.eye(2, dtype=torch.float64))


def test_what_needs_images_is_refused(shared_cache: Path, written: Path):
    real = read_moments(written, GRAY)
    for name in ("kd_random", "prdc_random", "fd_random_per_class"):
        with pytest.raises(UsageError, match=f"{name} needs the real images, and of these only mean and covariance"):
            judge(real, shared_cache, "fd_random", name)
    with pytest.raises(RecipeError, match="classifier learns from the real images"):
        judge(real, shared_cache, "fd_classifier", extractor={"kind": "classifier"})


def test_statistics_of_another_extractor_are_refused(shared_cache: Path, tmp_path: Path):
    np.savez(tmp_path / "other.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    with pytest.raises(DataError, match="have 2048 dimensions and bigtrain-random has"):
        judge(read_moments(tmp_path / "other.npz", GRAY), shared_cache, "fd_random")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"mu": np.zeros(2)}, "cannot be read as statistics"),
        ({"mu": np.zeros(2), "sigma": np.eye(3)}, r"'mu' \[2\] and 'sigma' \[3, 3\]"),
        ({"mu": np.array([0, np.nan]), "sigma": np.eye(2)}, "not finite"),
        ({"mu": np.array([{}, {}], dtype=object), "sigma": np.eye(2)}, "cannot be read as statistics"),
    ],
)
def test_bad_files_are_a_sentence(tmp_path: Path, arrays: dict[str, Any], words: str):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=words):
        read_moments(tmp_path / "bad.npz", GRAY)


def test_file_that_is_no_archive(tmp_path: Path):
    (tmp_path / "bad.npz").write_text("no archive")
    assert not holds_moments(tmp_path / "bad.npz")
    with pytest.raises(DataError, match="cannot be read as statistics"):
        read_moments(tmp_path / "bad.npz", GRAY)
