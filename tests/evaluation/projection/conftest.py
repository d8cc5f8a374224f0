"""Toy runs with checkpoints, which hold the discriminator."""

from pathlib import Path

import pytest

from bigtrain.data.digits import write_digits
from tests.evaluation.toy_models import KINDS
from tests.rank_pool import run_ranks
from tests.training.toy_runs import play, toy_overrides


@pytest.fixture(scope="session")
def toy_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A BigGAN and a StyleGAN2 run of four steps, by name."""
    folder = tmp_path_factory.mktemp("projection")
    write_digits(folder / "digits")
    for kind in ("biggan", "stylegan2"):
        overrides = toy_overrides(folder / "digits", folder / kind, *KINDS[kind], "total_images=64")
        run_ranks(1, play, overrides)
    return {kind: folder / kind for kind in ("biggan", "stylegan2")}
