"""A toy run and its shards, made once; evaluations of it in the features of the random network, which needs nothing."""

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from bigtrain.data.folder import write_folder
from bigtrain.data.pack import PackOptions
from bigtrain.sampling.files import save_folder
from tests.rank_pool import run_ranks
from tests.training.toy_runs import play, toy_overrides

NUM_DIGITS = 200
TOY_EVALUATION = "evaluate={every_images: 160, num_images: 100, extractor: {kind: random}, kernel: {subsets: 5}, "
TOY_EVALUATION += "batch_images: 32, standing_batches: 2, standing_images: 32}"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 200 digits as shards: few, so that their features are quick to compute."""
    folder, bunch = tmp_path_factory.mktemp("digits"), load_digits()
    small = torch.tensor(bunch.images[:NUM_DIGITS] * 15, dtype=torch.uint8)[:, None]
    names = [f"{label}/{number}" for number, label in enumerate(bunch.target[:NUM_DIGITS])]
    save_folder(folder / "images", small.repeat_interleave(4, 2).repeat_interleave(4, 3), names)
    write_folder(folder / "images", folder / "shards", PackOptions(side=32, channels=1, image_format="png"))
    return folder / "shards"


@pytest.fixture(scope="session")
def toy_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps with two averages, evaluated at its end."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    averages = "ema=[{halflife_images: 1k, rampup: 0.05}, {halflife_images: 100}]"
    run_ranks(1, play, toy_overrides(digits, folder, averages, TOY_EVALUATION, "snapshots.every_images=160"))
    return folder
