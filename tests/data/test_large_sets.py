"""A million samples: a resume is a seek, and memory stays flat. One stored image stands for all."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from bigtrain.data.balance import Balance
from bigtrain.data.feed import Feed
from bigtrain.data.holdout import Holdout
from bigtrain.data.index import FolderIndex, ShardEntry, histogram, row_type
from bigtrain.data.pixels import encode
from bigtrain.data.reader import ShardReader
from bigtrain.data.shards import ShardSet
from bigtrain.recipe.layout import Layout
from tests.shard_factory import numbered_image

MIB = 2**20


class MadeUpFiles:
    """Files whose every sample is the same image; counts what is asked of it."""

    where = "nowhere"

    def __init__(self, index, path, label_N):
        self.index, self.path, self.label_N = index, path, label_N
        data = path.read_bytes()
        self.row = (0, len(data), zlib.crc32(data), 0, b"000000")
        self.opened, self.read = [], []

    def open(self, shard):
        self.opened.append(shard)
        return os.open(self.path, os.O_RDONLY)

    def rows(self, shard):
        self.read.append(shard)
        rows = np.array([self.row] * self.index.shards[shard].samples, dtype=row_type(6))
        rows["label"] = self.label_N
        return rows

    def renew(self, shard):
        return False


def made_up_set(tmp_path, num_shards, samples, share=0.0, num_classes=1):
    """Every shard has the same labels; of several classes, the first are the most frequent."""
    label_N = np.arange(samples) ** 2 * num_classes // samples**2
    path = tmp_path / "one.png"
    path.write_bytes(encode(numbered_image(7), "png"))
    zeros = "0" * 64
    entries = tuple(
        ShardEntry(
            name=f"{shard:06d}.tar", bytes=0, sha256=zeros, index_sha256=zeros, samples=samples,
            class_histogram=histogram(label_N),
        )
        for shard in range(num_shards)
    )  # fmt: skip
    index = FolderIndex(
        resolution=(4, 4), channels=1, image_format="png", classes=tuple(map(str, range(num_classes))), resize={},
        seed=0, source="", shards=entries,
    )  # fmt: skip
    parts = Holdout((samples,) * num_shards, share, 0)
    return ShardSet(index, parts, "training", ShardReader(MadeUpFiles(index, path, label_N), index))


@pytest.mark.parametrize("share", [0.0, 0.05])
@pytest.mark.parametrize(("epoch", "part"), [(0, 0.9), (6, 0.5), (40, 0.3)])
def test_the_first_batch_after_a_resume_opens_the_shards_of_its_window_and_reads_its_own_samples(
    tmp_path, monkeypatch, share, epoch, part
):
    shards = made_up_set(tmp_path, 1000, 1000, share)
    order = shards.order(3, 8)
    position = int((epoch + part) * shards.num_samples) // 64 * 64
    expected = shards.order(3, 8).samples(np.arange(position, position + 64)).tolist()
    reads, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda *words: reads.append(words) or pread(*words))
    feed = Feed(shards, order, Layout(0, 1, 64, 64), 0)
    (batch,) = feed.read(position)
    assert batch.sample_N.tolist() == expected
    assert len(reads) == 64
    files = shards.reader.files
    assert len(files.opened) <= 16  # shards of a window, or of two at a joint
    assert sorted(files.read) == sorted(set(files.read)) == sorted(files.opened)
    feed.close()


@pytest.mark.parametrize("balance", ["class", "temperature(3)"])
def test_a_resume_of_a_balanced_order_opens_the_shards_of_its_window_too(tmp_path, monkeypatch, balance):
    shards = made_up_set(tmp_path, 1000, 1000, num_classes=1000)
    position = int(6.5 * shards.num_samples) // 64 * 64
    reads, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda *words: reads.append(words) or pread(*words))
    order = shards.order(3, 8, Balance.parse(balance))
    assert not shards.reader.files.read, "sizes of windows follow from the class histograms"
    feed = Feed(shards, order, Layout(0, 1, 64, 64), 0)
    (batch,) = feed.read(position)
    assert batch.sample_N.tolist() == order.samples(np.arange(position, position + 64)).tolist()
    assert len(reads) == 64
    files = shards.reader.files
    assert len(files.read) == len(set(files.read)) <= 16  # shards of a window, or of two at a joint
    assert set(files.opened) <= set(files.read)
    feed.close()


def rss_mib(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


@pytest.mark.slow
def test_memory_of_reader_and_worker_stays_flat_over_three_epochs_of_100_000_samples(tmp_path):
    shards = made_up_set(tmp_path, 200, 500)
    feed = Feed(shards, shards.order(3, 8), Layout(0, 1, 64, 64), 1)
    feed.read(0)
    pids = [os.getpid(), *(worker.pid for worker in feed._stream._workers)]
    first, most = [rss_mib(pid) for pid in pids], [0.0, 0.0]
    for step, position in enumerate(range(64, 300_000, 64)):
        feed.read(position)
        if step % 100 == 0:
            most = [max(pair) for pair in zip(most, map(rss_mib, pids), strict=True)]
    feed.close()
    assert all(later - before < 100 for later, before in zip(most, first, strict=True)), (first, most)
