"""Checkpoints of every format that was ever released load, and the present format is written byte for byte as then."""

from pathlib import Path

import pytest
import torch

from bigtrain.engine.checkpoints.checkpoint import Checkpoints
from bigtrain.engine.checkpoints.files import DTYPE_NAMES, FORMAT, read_checkpoint
from bigtrain.engine.checkpoints.names import folder_name
from tests.engine.checkpoint_cases import bits
from tests.rank_pool import run_ranks

GOLDEN = Path(__file__).parent / "golden"
IMAGES = 64


def tensors():
    """One tensor of each dtype, with values that no version of torch can draw differently."""
    by_dtype = {f"dtype/{name}": (torch.arange(6) % 2).reshape(2, 3).to(dtype) for dtype, name in DTYPE_NAMES.items()}
    return by_dtype | {"scalar": torch.tensor(0.1), "empty": torch.empty(0, 4), "weight": torch.arange(8) / 3}


RECORD = {"progress": {"images_seen": IMAGES, "turns": {"discriminator": 3}}, "loss": 0.1, "words": "é"}


def write(ranks, folder):
    Checkpoints(folder, ranks).save(IMAGES, tensors(), RECORD)


@pytest.mark.parametrize("version", range(1, FORMAT + 1))
def test_a_checkpoint_of_every_format_loads(version):
    checkpoint = read_checkpoint(GOLDEN / f"checkpoint-format-{version}" / folder_name(IMAGES))
    expected = tensors()
    assert checkpoint.images == IMAGES
    assert checkpoint.record == RECORD
    assert checkpoint.tensors.keys() == expected.keys()
    assert all(bits(checkpoint.tensors[name]) == bits(expected[name]) for name in expected)


@pytest.mark.two_process
def test_the_present_format_is_what_it_was(tmp_path):
    run_ranks(2, write, tmp_path)
    golden, written = (root / folder_name(IMAGES) for root in (GOLDEN / f"checkpoint-format-{FORMAT}", tmp_path))
    assert sorted(path.name for path in written.iterdir()) == sorted(path.name for path in golden.iterdir())
    for path in written.iterdir():
        assert path.read_bytes() == (golden / path.name).read_bytes(), f"{path.name} has changed: raise FORMAT"
