"""The folder of copies: whole files or none, one copy for all, room for what is needed, no trace of the killed."""

import errno
import multiprocessing
import os
import shutil
import signal
import time

import pytest

from bigtrain.data.disk import ASIDE
from bigtrain.data.index import FolderIndex
from bigtrain.data.staging import cache as cache_module
from bigtrain.data.staging.cache import Cache
from bigtrain.data.staging.fetch import Wanted
from bigtrain.data.staging.patience import Patience
from bigtrain.data.staging.sources import FolderSource
from bigtrain.recipe.errors import DataError


@pytest.fixture
def wanted(origin):
    """What stands for the shards."""
    source = FolderSource(origin)
    entries = FolderIndex.read(origin).shards
    return [Wanted(entry.name, entry.sha256, ".tar", entry.bytes, entry.bytes, source) for entry in entries]


def make_cache(cache_dir, limit_bytes=None):
    return Cache(cache_dir, limit_bytes, Patience())


def there(cache, wanted):
    return [number for number, each in enumerate(wanted) if cache.path(each).exists()]


@pytest.fixture(autouse=True)
def no_process_outlives_its_test():
    """One that was stopped would never end by itself, and pytest would wait for it."""
    yield
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


def forked(function, *arguments):
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def test_the_shards_used_longest_ago_go_first(wanted, cache_dir):
    cache = make_cache(cache_dir, sum(each.bytes for each in wanted[:3]))
    for number in (0, 1, 2):
        cache.obtain(wanted[number])
        time.sleep(0.01)
    assert cache.has(wanted[0])  # which is a use of it
    cache.obtain(wanted[4])
    assert there(cache, wanted) == [0, 2, 4]
    assert not cache.prefetch(wanted[2])
    assert cache.path(wanted[4]).read_bytes() == (wanted[4].source.folder / wanted[4].name).read_bytes()


def test_what_a_living_run_needs_stays_and_what_a_dead_one_needed_goes(wanted, cache_dir, caplog):
    cache = make_cache(cache_dir, sum(each.bytes for each in wanted[:3]))
    ready = multiprocessing.get_context("fork").Event()

    def need():
        other = make_cache(cache_dir)
        other.renew_lease(other.lease(), wanted[:2])
        ready.set()
        time.sleep(60)

    run = forked(need)
    assert ready.wait(30)
    for each in wanted[:3]:
        cache.obtain(each)
    assert cache.prefetch(wanted[4]), "2 has gone for it"
    assert there(cache, wanted) == [0, 1, 4]
    own = cache.lease()
    cache.renew_lease(own, [wanted[4]])
    assert not cache.prefetch(wanted[5]), "nothing may go, and nobody waits for it"
    assert not caplog.messages
    cache.obtain(wanted[5])  # somebody does
    assert there(cache, wanted) == [0, 1, 4, 5]
    assert "more than" in caplog.text
    assert "exceeded" in caplog.text
    run.kill()
    run.join()
    cache.obtain(wanted[2])
    assert set(there(cache, wanted)) >= {2, 4}
    assert 0 not in there(cache, wanted)
    own.end()
    assert not list((cache.folder / "leases").iterdir())


def copy_and_die(cache_dir, wanted, signum):
    """Die in the middle of a copy, which holds the lock and half a file."""
    read = FolderSource.read

    def dying(self, name):
        for block in read(self, name):
            yield block[: len(block) // 2]
            os.kill(os.getpid(), signum)

    FolderSource.read = dying
    make_cache(cache_dir).obtain(wanted)


def test_a_killed_copier_leaves_nothing_in_the_way(wanted, cache_dir):
    process = forked(copy_and_die, cache_dir, wanted[0], signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    folder = cache_dir / cache_module.FOLDER_NAME
    assert len(list(folder.glob(ASIDE + "*"))) == 1
    cache = make_cache(cache_dir)
    assert not list(folder.glob(ASIDE + "*"))
    assert there(cache, wanted) == []
    cache.obtain(wanted[0])
    assert there(cache, wanted) == [0]


def test_a_waiter_takes_over_from_a_killed_copier(wanted, cache_dir):
    process = forked(copy_and_die, cache_dir, wanted[0], signal.SIGSTOP)
    folder = cache_dir / cache_module.FOLDER_NAME
    wait_until(lambda: list(folder.glob(ASIDE + "*")))
    cache = make_cache(cache_dir)
    assert list(folder.glob(ASIDE + "*")), "its writer is alive"
    assert not cache.prefetch(wanted[0]), "who need not wait does not"
    waiter = forked(cache.obtain, wanted[0])
    time.sleep(0.3)
    assert waiter.is_alive()
    assert cache.patience.signs == 0, "whoever waits for one that hangs must not look alive"
    os.utime(next(folder.glob(ASIDE + "*")))
    wait_until(lambda: cache.patience.signs)
    process.kill()
    process.join()
    waiter.join(30)
    assert waiter.exitcode == 0
    assert there(cache, wanted) == [0]


def test_two_runs_on_a_node_share_copies(wanted, cache_dir):
    make_cache(cache_dir).obtain(wanted[0])
    before = cache_dir.joinpath(cache_module.FOLDER_NAME, f"{wanted[0].sha256}.tar").stat().st_ino
    other = make_cache(cache_dir)
    assert other.obtain(wanted[0]).stat().st_ino == before


def test_a_disk_that_is_full_makes_room_or_is_a_sentence(wanted, cache_dir, monkeypatch):
    cache = make_cache(cache_dir)
    cache.obtain(wanted[0])
    fetch, fulls = cache_module.fetch, [errno.ENOSPC]

    def full(each, stream, patience):
        if fulls:
            raise OSError(fulls.pop(), "No space left on device")
        fetch(each, stream, patience)

    monkeypatch.setattr(cache_module, "fetch", full)
    cache.obtain(wanted[1])
    assert there(cache, wanted) == [1]
    fulls += [errno.ENOSPC] * 2
    cache.renew_lease(lease := cache.lease(), [wanted[1]])
    with pytest.raises(DataError, match=rf"data.cache_dir: {wanted[2].name} .*No space left on device\); make room"):
        cache.obtain(wanted[2])
    lease.end()
    assert there(cache, wanted) == [1]
    assert not list(cache.folder.glob(ASIDE + "*"))


def test_where_there_are_no_locks_copies_are_whole_all_the_same(wanted, cache_dir, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("bigtrain.data.staging.locks.fcntl.flock", no_locks)
    cache = make_cache(cache_dir)
    copiers = [forked(cache.obtain, wanted[number % 2]) for number in range(6)]
    for copier in copiers:
        copier.join()
    assert [copier.exitcode for copier in copiers] == [0] * 6
    assert there(cache, wanted) == [0, 1]
    assert [cache.path(each).read_bytes() for each in wanted[:2]] == [
        (each.source.folder / each.name).read_bytes() for each in wanted[:2]
    ]


def test_where_there_are_no_locks_what_living_processes_need_stays_for_a_day(wanted, cache_dir, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("bigtrain.data.staging.locks.fcntl.flock", no_locks)
    copier = forked(copy_and_die, cache_dir, wanted[0], signal.SIGSTOP)
    folder = cache_dir / cache_module.FOLDER_NAME
    wait_until(lambda: list(folder.glob(ASIDE + "*")))
    cache = make_cache(cache_dir)
    cache.renew_lease(cache.lease(), wanted[:1])
    make_cache(cache_dir)
    copier.kill()
    copier.join()
    left = [*folder.glob(ASIDE + "*"), *folder.glob("leases/*")]
    assert len(left) == 2, left
    for path in left:
        os.utime(path, (0, 0))
    make_cache(cache_dir)
    assert not any(path.exists() for path in left)


def test_a_cache_that_is_cleared_away_during_a_run_is_a_sentence(wanted, cache_dir):
    cache = make_cache(cache_dir)
    shutil.rmtree(cache_dir)
    for use in (cache.obtain, cache.prefetch, cache.renew):
        with pytest.raises(DataError, match=r"cannot be used any more \(No such file or directory\); see that nothing"):
            use(wanted[0])


def wait_until(is_so, limit_s=30.0):
    end_s = time.monotonic() + limit_s  # a hang detector
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.02)
