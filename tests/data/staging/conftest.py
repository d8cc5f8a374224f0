"""Shards, a server for them, and short pauses."""

import gc
import logging

import pytest

from bigtrain.data.staging import cache as cache_module
from bigtrain.data.staging import patience, prefetch, sources
from tests.data.staging.shard_server import serving
from tests.shard_factory import make_shards


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """Fail in fractions of a second; processes forked from here inherit it."""
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(sources, "STALL_S", 0.5)
    monkeypatch.setattr(prefetch, "POLL_S", 0.02)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    gc.collect()  # ends helpers of orders that the traceback of an expected error has held


@pytest.fixture
def origin(tmp_path):
    """Six shards of a few samples."""
    folder = tmp_path / "origin"
    folder.mkdir()
    make_shards(folder, [20, 15, 5, 10, 8, 12])
    return folder


@pytest.fixture
def server(origin):
    with serving(origin) as server:
        yield server


@pytest.fixture
def logged(tmp_path):
    """What staging has logged so far, in whichever process."""
    handler = logging.FileHandler(tmp_path / "staging.log")  # appends, so that forked processes can too
    log = logging.getLogger("bigtrain.data.staging")
    log.addHandler(handler)
    yield lambda: (tmp_path / "staging.log").read_text().splitlines()
    log.removeHandler(handler)
    handler.close()


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "node"


@pytest.fixture
def copies(cache_dir):
    """What lies in the cache."""
    return cache_dir / cache_module.FOLDER_NAME
