"""`data.cache_dir`: local shards through a folder of the node, with variables in its name."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from bigtrain.data.balance import Balance
from bigtrain.data.index import FolderIndex
from bigtrain.data.places import Staging
from bigtrain.data.settings import DataSettings
from bigtrain.data.shards import ShardSet
from bigtrain.recipe.errors import DataError
from tests.shard_factory import make_shards, number_in


def staged(place, cache_dir, limit_gib=None):
    return ShardSet.open(str(place), staging=Staging(cache_dir, limit_gib))


def numbers_read(shards, numbers):
    batch = shards.load(numbers)
    assert [number_in(image_CHW) for image_CHW in batch.image_NCHW] == list(numbers)
    return batch


def test_variables_and_the_home_folder_are_expanded_when_the_data_is_opened(origin, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "job 7"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for words, folder in (("$SLURM_TMPDIR/shards", "job 7/shards"), ("${SLURM_TMPDIR}", "job 7"), ("~/x", "home/x")):
        shards = DataSettings(shards=str(origin), cache_dir=words).build(0)
        numbers_read(shards, [0, 30, 69])
        assert len(list((tmp_path / folder).glob("*/*.tar"))) == 3


def test_nothing_else_in_a_recipe_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HERE", str(tmp_path))
    with pytest.raises(DataError, match=r"\$HERE"):
        DataSettings(shards="$HERE").build(0)


def test_copies_are_read_and_the_originals_may_go(origin, cache_dir, copies):
    shards = staged(origin, cache_dir)
    assert not list(copies.glob("*.tar")), "rows come first, shards when they are needed"
    assert len(list(copies.glob("*.npy"))) == 6
    plain = ShardSet.open(origin)
    assert shards.content_hash == plain.content_hash
    numbers_read(shards, range(70))
    for path in origin.glob("*.tar"):
        path.unlink()
    again = numbers_read(shards, range(70))
    assert again.label_N.tolist() == shards.reader.labels(np.arange(70)).tolist()
    assert len(list(copies.glob("*.tar"))) == 6


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_balanced_order_is_the_local_one_and_copies_no_shard_for_its_labels(origin, cache_dir, copies, share):
    shards = ShardSet.open(str(origin), share, 1, staging=Staging(cache_dir))
    balance, positions = Balance.parse("class"), np.arange(150)
    order = shards.order(0, 2, balance)
    assert (
        order.order.samples(positions).tolist()
        == ShardSet.open(origin, share, 1).order(0, 2, balance).samples(positions).tolist()
    )
    assert not list(copies.glob("*.tar"))
    assert len(next(order.order.windows_from(75))) == 2


def test_labels_of_a_holdout_are_counted_without_copying_shards(origin, cache_dir, copies):
    shards = ShardSet.open(str(origin), 0.3, 1, staging=Staging(cache_dir))
    assert shards.label_counts.tolist() == ShardSet.open(origin, 0.3, 1).label_counts.tolist()
    assert not list(copies.glob("*.tar"))


def test_a_copy_that_is_damaged_is_copied_again(origin, cache_dir, copies, caplog):
    numbers_read(staged(origin, cache_dir), range(70))
    index = FolderIndex.read(origin)
    shards = [copies / f"{entry.sha256}.tar" for entry in index.shards]
    flipped = bytearray(shards[0].read_bytes())
    flipped[index.shards[0].bytes // 2] ^= 1
    shards[0].write_bytes(bytes(4 * 512) + bytes(flipped[4 * 512 :]))
    os.truncate(shards[1], 100)
    shards[2].unlink()
    (copies / f"{index.shards[3].index_sha256}.npy").write_bytes(b"no rows")
    caplog.clear()
    numbers_read(staged(origin, cache_dir), range(70))
    assert [path.read_bytes() for path in shards] == [(origin / entry.name).read_bytes() for entry in index.shards]
    assert len(caplog.messages) == 3, caplog.messages  # one line for each that was there, none for the one that was not
    assert all("fetched again" in line for line in caplog.messages)


def test_a_shard_that_is_damaged_at_its_source_stops_the_read(origin, cache_dir):
    entry = FolderIndex.read(origin).shards[1]
    shards = staged(origin, cache_dir)
    data = bytearray((origin / entry.name).read_bytes())
    data[700] ^= 1
    (origin / entry.name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{entry.name} could not be fetched after 5 attempts: sha256 \w+ came where"):
        shards.load([20])
    numbers_read(shards, [0, 35])


def test_a_short_shard_at_a_local_source_is_known_before_training(origin, cache_dir):
    entry = FolderIndex.read(origin).shards[1]
    os.truncate(origin / entry.name, 100)
    with pytest.raises(DataError, match=rf"{entry.name} in .* has 100 bytes where index.json says {entry.bytes}"):
        staged(origin, cache_dir)


def test_several_folders_are_one_data_set_staged_or_not(tmp_path, cache_dir):
    for name, sizes in (("a", [4, 3]), ("b", [4, 3]), ("c", [5])):
        (tmp_path / name).mkdir()
        make_shards(tmp_path / name, sizes)
    plain, copied = ShardSet.open(f"{tmp_path}/{{b,a,c}}"), staged(f"{tmp_path}/{{b,a,c}}", cache_dir)
    assert plain.num_samples == copied.num_samples == 19
    expected = [*range(7), *range(7), *range(5)]
    for shards in (plain, copied):
        assert [number_in(image_CHW) for image_CHW in shards.load(range(19)).image_NCHW] == expected
    assert plain.content_hash == copied.content_hash
    assert plain.content_hash != ShardSet.open(f"{tmp_path}/{{a,c}}").content_hash


def test_shards_are_named_one_by_one_in_the_order_of_the_index(origin, cache_dir):
    stem = FolderIndex.read(origin).shards[0].name.partition("-")[0]
    some = ShardSet.open(f"{origin}/{stem}-{{000003..000004}}.tar")
    assert [number_in(image_CHW) for image_CHW in some.load(range(18)).image_NCHW] == list(range(40, 58))
    whole = ShardSet.open(f"{origin}/{stem}-{{000000..000005}}.tar")
    assert whole.content_hash == ShardSet.open(origin).content_hash
    with pytest.raises(
        DataError, match=rf"{stem}-000006.tar is no shard \(and 3 more\) of .*, whose index.json lists 6"
    ):
        ShardSet.open(f"{origin}/{stem}-{{000000..000009}}.tar")
    for twice in (f"{origin}/{stem}-{{000001,000001}}.tar", f"{{{origin},{origin}}}", f"{{{origin},{origin}/x.tar}}"):
        with pytest.raises(DataError, match="named twice"):
            ShardSet.open(twice)


def test_folders_that_do_not_fit_each_other_are_refused(tmp_path):
    for name, classes in (("a", 3), ("b", 2)):
        (tmp_path / name).mkdir()
        make_shards(tmp_path / name, [4], classes)
    with pytest.raises(DataError, match=r"b has other classes \(.*\) than .*a \(.*\); name folders that fit"):
        ShardSet.open(f"{tmp_path}/{{a,b}}")


def test_a_cache_that_cannot_be_written_is_a_sentence(origin, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"data.cache_dir: .*/file/x cannot be written \(.*\); name a folder"):
        staged(origin, tmp_path / "file" / "x")


def test_a_cache_too_small_for_a_window_is_refused_before_training(origin, cache_dir):
    settings = DataSettings(shards=str(origin), cache_dir=str(cache_dir), cache_gib=1e-6, shuffle_window_shards=2)
    with pytest.raises(DataError, match=r"cannot hold the 2 shards of a shuffle window, which take up to .*; give"):
        settings.build(0)


def test_workers_copy_ahead_of_need_and_their_helper_ends_with_the_order(origin, cache_dir, copies):
    shards = staged(origin, cache_dir)
    order = shards.order(5, 2)
    assert order.samples(range(4)).tolist() == ShardSet.open(origin).order(5, 2).samples(range(4)).tolist()
    helper = order._process
    wait_until(lambda: len(list(copies.glob("*.tar"))) == 6)  # three windows of two
    assert helper.is_alive()
    del order
    assert not helper.is_alive()
    assert helper.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(("limit_gib", "shards_leased"), [(None, 4), (1.0, 4), (1e-4, 2)])
def test_the_next_window_is_kept_where_two_fit(origin, cache_dir, copies, limit_gib, shards_leased):
    order = staged(origin, cache_dir, limit_gib).order(5, 2)
    order.samples([0])
    wait_until(lambda: any(path.stat().st_size for path in copies.glob("leases/*")))
    assert [len(path.read_text().split()) for path in copies.glob("leases/*")] == [shards_leased]


def test_copies_that_were_deleted_are_not_held_open_past_two_windows(origin, cache_dir, copies):
    shards = staged(origin, cache_dir)
    shards.order(5, 1)
    for number in (0, 20, 35, 40, 50, 60):  # one of each shard
        numbers_read(shards, [number])
        for path in copies.glob("*.tar"):
            path.unlink()
    held = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert sum(name.startswith(str(copies)) and ".tar" in name for name in held) == 2


def wait_until(is_so, limit_s=30.0):
    end_s = time.monotonic() + limit_s  # a hang detector
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.02)
