"""Shards from a web server: the run of the local folder bit for bit, whatever the server does meanwhile."""

import builtins
import logging
import multiprocessing
import re
import sys
import time
from typing import ClassVar

import numpy as np
import pytest
import torch

from bigtrain.data.feed import Feed
from bigtrain.data.index import FolderIndex
from bigtrain.data.places import Staging
from bigtrain.data.shards import ShardSet
from bigtrain.data.staging import fetch, sources
from bigtrain.data.staging import patience as waits
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.layout import Layout
from tests.data.staging.shard_server import serving

STARTS = range(0, 160, 8)  # over two epochs of 70


def staged(server, cache_dir, limit_gib=None):
    return ShardSet.open(server.url, staging=Staging(cache_dir, limit_gib))


def played(shards, workers, starts=STARTS, world=1):
    """Read global batches on all ranks; return sample numbers, labels and pixels of each rank."""
    found = []
    for rank in range(world):
        feed = Feed(shards, shards.order(5, 2), Layout(rank, world, 2, 8), workers)
        try:
            found += [batch for start in starts for batch in feed.read(start)]
        finally:
            feed.close()
    return [torch.cat([getattr(batch, name) for batch in found]) for name in ("sample_N", "label_N", "image_NCHW")]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_from_urls_is_the_run_from_the_folder(origin, server, cache_dir, workers):
    ours, theirs = played(staged(server, cache_dir), workers), played(ShardSet.open(origin), 0)
    assert all(torch.equal(our, their) for our, their in zip(ours, theirs, strict=True))
    shards = [name for name in server.served if name.endswith(".tar")]
    assert len(shards) == 6
    assert all(server.served[name] == 1 for name in shards), server.served


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_in_the_middle_with_an_empty_cache_goes_on_the_same(origin, server, tmp_path, workers):
    whole = played(ShardSet.open(origin), 0)
    before = played(staged(server, tmp_path / "node 1"), workers, STARTS[:7])
    after = played(staged(server, tmp_path / "node 2"), 2 - workers, STARTS[7:])
    for part, (early, late) in zip(whole, zip(before, after, strict=True), strict=True):
        assert torch.equal(part, torch.cat([early, late]))


def test_the_sequence_is_the_same_where_only_one_window_fits_the_cache(origin, server, cache_dir, copies):
    sizes = sorted(entry.bytes for entry in FolderIndex.read(origin).shards)
    limit_gib = sum(sizes[-2:]) / 2**30
    ours, theirs = played(staged(server, cache_dir, limit_gib), 1), played(ShardSet.open(origin), 0)
    assert all(torch.equal(our, their) for our, their in zip(ours, theirs, strict=True))
    of_two_windows = sizes[-1]  # one that a batch needs before the window of its first sample has passed
    assert sum(path.stat().st_size for path in copies.glob("*.tar")) <= sum(sizes[-2:]) + of_two_windows < sum(sizes)


def test_ranks_and_workers_of_a_node_copy_each_shard_once(server, cache_dir):
    server.slow_s = 0.05
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=read_all, args=(server.url, cache_dir, rank)) for rank in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert {name: count for name, count in server.served.items() if count != 1} == {"index.json": 3}


def read_all(url, cache_dir, rank):
    shards = ShardSet.open(url, staging=Staging(cache_dir))
    numbers = np.roll(np.arange(70), 20 * rank)
    assert shards.load(numbers).sample_N.tolist() == numbers.tolist()


PASSING = {
    "500": "the server answers 500",
    "503": "the server answers 503",
    "stall": "nothing came for 0.5 s",
    "cut": "ClientPayloadError|bytes came where",
    "short": "bytes came where the index says",
    "more": "more came than the",
    "page": "bytes came where the index says",
    "wrong": "sha256 .* came where the index says",
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_outlived_and_each_failure_is_logged_once(origin, server, cache_dir, logged, kind):
    index = FolderIndex.read(origin)
    server.faults = {"index.json": ["500"], index.shards[0].index_name: [kind], index.shards[2].name: [kind, kind]}
    shards = staged(server, cache_dir)
    assert shards.load(range(70)).sample_N.tolist() == list(range(70))
    messages = logged()
    assert len(messages) == 4, messages
    for name, count in (("index.json", 1), (index.shards[0].index_name, 1), (index.shards[2].name, 2)):
        lines = [line for line in messages if f"/{name}: attempt" in line]
        assert [f"attempt {number} of 5" in line for number, line in enumerate(lines, 1)] == [True] * count
    assert re.search(PASSING[kind], messages[-1])


STAYING = [(kind, 0) for kind in ("500", "cut", "more", "wrong", "403")] + [(kind, 2) for kind in ("stall", "403")]
ALL_STAYING = [(kind, workers) for kind in (*PASSING, "403") for workers in (0, 2)]
REST_STAYING = [pytest.param(*case, marks=pytest.mark.slow) for case in ALL_STAYING if case not in STAYING]


@pytest.mark.parametrize(("kind", "workers"), [*STAYING, *REST_STAYING])
def test_what_stays_ends_in_a_sentence_and_no_wrong_pixel(origin, server, cache_dir, kind, workers, monkeypatch):
    monkeypatch.setattr(fetch, "ATTEMPTS", 2)
    monkeypatch.setattr(sources, "STALL_S", 0.2)
    entry = FolderIndex.read(origin).shards[3]
    server.always = {entry.name: kind}
    shards = staged(server, cache_dir)
    with pytest.raises(DataError, match=rf"{server.url}/{entry.name} could not be fetched") as failed:
        played(shards, workers)
    assert len(str(failed.value).splitlines()) == 1
    server.always = {}
    expected = played(ShardSet.open(origin), 0)
    assert all(torch.equal(our, their) for our, their in zip(played(shards, workers), expected, strict=True))
    assert not list(cache_dir.glob("*/.aside-*"))


def test_a_missing_shard_is_not_asked_for_again_and_again(origin, server, cache_dir):
    entry = FolderIndex.read(origin).shards[3]
    shards = staged(server, cache_dir)
    (origin / entry.name).unlink()
    with pytest.raises(DataError, match=rf"{entry.name} could not be fetched: there is no such file"):
        shards.load([45])
    assert server.asked[entry.name] == 1


@pytest.mark.parametrize("kind", ["page", "wrong", "short", "404"])
def test_an_index_that_is_none_is_refused(origin, server, cache_dir, kind):
    if kind == "404":
        (origin / "index.json").unlink()
    server.always = {"index.json": kind}
    with pytest.raises(DataError, match=r"http://127.*/index.json (is not JSON|could not be fetched: there is no)"):
        staged(server, cache_dir)
    assert list(server.served) in (["index.json"], [])


def test_an_index_without_end_is_refused(server, cache_dir, monkeypatch):
    monkeypatch.setattr("bigtrain.data.places.MAX_INDEX_BYTES", 100)
    with pytest.raises(DataError, match="it has over 100 bytes, which is no index"):
        staged(server, cache_dir)


def test_a_server_that_is_away_ends_in_a_sentence(origin, cache_dir):
    with serving(origin) as server:
        pass
    with pytest.raises(DataError, match=r"index.json could not be fetched after 5 attempts: .*[Cc]onnect"):
        staged(server, cache_dir)


def test_those_who_waited_for_a_failure_share_it(origin, server, cache_dir):
    entry = FolderIndex.read(origin).shards[0]
    server.always, server.slow_s = {entry.name: "wrong"}, 0.1
    staged(server, cache_dir)
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=expect_failure, args=(server.url, cache_dir)) for _ in range(4)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0] * 4
    assert server.asked[entry.name] <= 2 * fetch.ATTEMPTS  # one of them may come only after the first has given up


def expect_failure(url, cache_dir):
    logging.disable()
    with pytest.raises(DataError, match="could not be fetched"):
        ShardSet.open(url, staging=Staging(cache_dir)).load([0])


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_missing_package_is_a_sentence(scheme, package, cache_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf"need the package {package}, .* pip install 'bigtrain\[{scheme}\]'"):
        ShardSet.open(f"{scheme}://bucket/shards", staging=Staging(cache_dir))


@pytest.mark.parametrize("workers", [0, 2])
def test_object_stores_are_read_through_fsspec(origin, cache_dir, monkeypatch, workers):
    """A store in memory stands for them: what is checked is the way through fsspec, not a store's own library."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Store(MemoryFileSystem):
        protocol = "s3"
        store: ClassVar = {f"/bucket/shards/{path.name}": path for path in origin.iterdir()}

        @classmethod
        def _strip_protocol(cls, path):
            return path.removeprefix("s3:/")

        def _open(self, path, mode="rb", **options):
            assert options["block_size"] == sources.RANGE_BYTES
            return self.store[path].open(mode)

    monkeypatch.setitem(sys.modules, "s3fs", builtins)
    monkeypatch.setattr(fsspec, "filesystem", lambda scheme, **options: {"s3": Store}[scheme]())
    shards = ShardSet.open("s3://bucket/shards", staging=Staging(cache_dir))
    expected = played(ShardSet.open(origin), 0)
    assert all(torch.equal(our, their) for our, their in zip(played(shards, workers), expected, strict=True))


def test_a_large_shard_is_copied_in_blocks(origin, server, monkeypatch):
    """Memory does not grow with the shard: one of 64 MiB comes in blocks of at most one."""
    monkeypatch.setattr(sources, "STALL_S", 30.0)
    with (origin / "large.bin").open("wb") as stream:
        stream.truncate(64 << 20)
    blocks = [len(block) for block in sources.UrlSource(server.url, "http").read("large.bin")]
    assert sum(blocks) == 64 << 20
    assert max(blocks) <= sources.BLOCK_BYTES


def test_a_wait_shows_signs_of_life_and_can_be_ended(origin, server, cache_dir):
    shards = staged(server, cache_dir)
    server.always = {FolderIndex.read(origin).shards[0].name: "503"}
    patience, calls = shards.reader.files.patience, []

    class StopError(Exception):
        pass

    def give_way():
        calls.append(time.monotonic())
        if len(calls) > 3:
            raise StopError

    before = patience.signs
    patience.give_way = give_way
    waits.FIRST_PAUSE_S = 10.0  # restored by short_waits
    started_s = time.monotonic()
    with pytest.raises(StopError):
        shards.load([0])
    assert time.monotonic() - started_s < 9
    assert patience.signs > before
