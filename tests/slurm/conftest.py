"""A real SLURM of two nodes for the tests of this folder, and the digits as shards."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bigtrain.data.digits import write_digits
from tests.slurm.cluster import CHECKOUT, Cluster

START_LIMIT_S = 900  # installing the packages included


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A private SLURM, started for these tests alone; without one they are skipped, with what is missing."""
    folder = Path(tempfile.mkdtemp(prefix="bigtrain-slurm-"))  # a short path: munge's socket is in it
    environment = {**os.environ, "BIGTRAIN_SLURM_DIR": str(folder)}

    def local_slurm(verb: str) -> "subprocess.CompletedProcess[str]":
        command = ["bash", str(CHECKOUT / "tools" / "local_slurm.sh"), verb]
        limit_s = START_LIMIT_S
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=limit_s, check=False, cwd=folder
        )

    started = local_slurm("up")
    if started.returncode == 2:
        shutil.rmtree(folder)
        pytest.skip(f"no SLURM on this machine: {started.stderr.strip().splitlines()[-1]}")
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        yield Cluster(folder)
    finally:
        ended = local_slurm("down")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real digits as shards, written once."""
    folder = tmp_path_factory.mktemp("shards") / "digits"
    write_digits(folder)
    return folder
