"""Shards are readable by anyone, equal for equal input, and put into force whole or not at all."""

import os
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from bigtrain.data import disk
from bigtrain.data.check import check_folder
from bigtrain.data.index import INDEX_NAME, FolderIndex, read_rows
from bigtrain.data.shards import ShardSet
from bigtrain.data.writer import writing
from bigtrain.recipe.errors import DataError
from tests.shard_factory import label_of, make_shards, numbered_image

OLD_SIZES, NEW_SIZES = [6, 5], [4, 3, 2]


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != disk.LOCK_NAME}


def test_equal_input_gives_equal_bytes_and_no_leftovers(tmp_path):
    make_shards(tmp_path / "a", [6, 5])
    make_shards(tmp_path / "b", [6, 5])
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")
    assert len(snapshot(tmp_path / "a")) == 2 * 2 + 1


def test_webdataset_reads_what_was_written(tmp_path):
    index = make_shards(tmp_path, [6, 5])
    urls = [str(tmp_path / entry.name) for entry in index.shards]
    pairs = webdataset.WebDataset(urls, shardshuffle=False).decode("l8").to_tuple("png", "cls")
    for number, (pixels, label) in enumerate(pairs):
        assert np.array_equal(pixels, numbered_image(number))
        assert label == label_of(number, 3)
    assert number == 10


def test_tars_are_plain_and_without_times(tmp_path):
    index = make_shards(tmp_path, [6])
    with tarfile.open(tmp_path / index.shards[0].name) as archive:
        members = archive.getmembers()
    assert [member.name for member in members[:4]] == ["000000.cls", "000000.png", "000001.cls", "000001.png"]
    assert {member.mtime for member in members} == {0}


def test_rows_say_where_each_image_lies(tmp_path):
    index = make_shards(tmp_path, [6, 5])
    rows = read_rows(tmp_path, index.shards[1])
    assert isinstance(rows, np.memmap)
    assert [row["key"].decode() for row in rows] == [f"{number:06d}" for number in range(6, 11)]
    assert rows["label"].tolist() == [label_of(number, 3) for number in range(6, 11)]
    assert sum(index.shards[1].class_histogram.values()) == 5


def test_new_shards_replace_the_old_ones_and_leave_other_files_alone(tmp_path):
    old = make_shards(tmp_path, OLD_SIZES)
    (tmp_path / "notes.tar").write_bytes(b"mine")
    new = make_shards(tmp_path, NEW_SIZES)
    assert FolderIndex.read(tmp_path) == new
    left = {path.name for path in tmp_path.iterdir()}
    assert not left & {entry.name for entry in old.shards}
    assert "notes.tar" in left
    assert len(left) == 2 * 3 + len([INDEX_NAME, disk.LOCK_NAME, "notes.tar"])


def test_a_second_writer_is_refused(tmp_path):
    with writing(tmp_path), pytest.raises(DataError, match="another process writes shards into"):
        make_shards(tmp_path, [1])
    make_shards(tmp_path, [1])


def write_and_die(folder, steps):
    """Fork a writer that is killed at its `steps`-th change of the folder; return whether it was."""
    child = os.fork()
    if child == 0:
        left = [steps]

        def counted(plain):
            def change(*words, **options):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return plain(*words, **options)

            return change

        for name in ("replace", "unlink"):
            setattr(Path, name, counted(getattr(Path, name)))
        os.fsync = counted(os.fsync)
        make_shards(folder, NEW_SIZES)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_writer_killed_at_any_moment_leaves_the_old_shards_or_the_new_ones(tmp_path):
    old = make_shards(tmp_path / "old", OLD_SIZES)
    new = make_shards(tmp_path / "new", NEW_SIZES)
    found, steps = [], 0
    while True:
        folder = tmp_path / f"killed-{steps}"
        make_shards(folder, OLD_SIZES)
        killed = write_and_die(folder, steps)
        index = FolderIndex.read(folder)
        assert index in (old, new)
        assert check_folder(folder, 8).faults == ()
        assert ShardSet.open(folder).load([8]).sample_N.tolist() == [8]
        found.append(index == new)
        make_shards(folder, NEW_SIZES)
        assert snapshot(folder) == snapshot(tmp_path / "new"), "the next writer removes what was left"
        if not killed:
            break
        steps += 1
    assert found == sorted(found), "once the new shards are in force they stay"
    assert found[0] is False
    assert found[-1] is True
    assert steps > 15


def test_a_file_is_replaced_not_overwritten(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        with disk.write_aside(path) as stream:
            stream.write(b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail():
        with disk.write_aside(path) as stream:
            stream.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
