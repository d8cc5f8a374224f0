"""Shards that the tests of this folder share."""

from pathlib import Path

import pytest

from bigtrain.data.digits import write_digits


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real digits as shards, written once."""
    folder = tmp_path_factory.mktemp("shards") / "digits"
    write_digits(folder)
    return folder
