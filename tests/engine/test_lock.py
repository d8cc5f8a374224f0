"""A run folder has one writer; a dead one's place is taken, a live one's is not, on this host and on others."""

import errno
import json
import os
import signal
import threading
import time
from dataclasses import asdict, replace

import pytest

from bigtrain.engine.processes import lock as lock_module
from bigtrain.engine.processes.holder import HOLDER_FILE, Holder, read_holder
from bigtrain.engine.processes.lock import LOCK_FILE, RunLock
from bigtrain.recipe.errors import FolderLockedError, UsageError
from tests.rank_pool import run_ranks, start_ranks


def hold(ranks, folder):
    with RunLock(folder, ranks, wait_s=0.0):
        (folder / f"held-{ranks.rank}").touch()
        while not (folder / "leave").exists():
            time.sleep(0.005)


def try_to_take(ranks, folder, wait_s):
    started_s = time.monotonic()
    try:
        with RunLock(folder, ranks, wait_s=wait_s):
            return "taken", time.monotonic() - started_s
    except FolderLockedError as error:
        return str(error), time.monotonic() - started_s, error.exit_status


@pytest.fixture
def holder(tmp_path):
    """A process that holds tmp_path until `leave` is made or it is killed."""
    group = start_ranks(1, hold, tmp_path)
    group.wait_for(tmp_path / "held-0")
    yield group
    (tmp_path / "leave").touch()
    group.outcomes()


def write_holder(folder, **changes):
    holder = replace(Holder.own(), **changes)
    (folder / HOLDER_FILE).write_text(json.dumps(asdict(holder)))
    return holder


def test_a_second_writer_is_refused_with_status_3_and_told_who_has_it(tmp_path, holder):
    with pytest.raises(FolderLockedError, match=f"process {holder.pids[0]} on {os.uname().nodename}") as caught:
        RunLock(tmp_path, wait_s=0.3).acquire()
    assert caught.value.exit_status == 3
    assert str(tmp_path) in str(caught.value)
    assert "run_dir" in str(caught.value)


def test_all_ranks_of_a_second_run_are_refused_together(tmp_path, holder):
    for sentence, waited_s, exit_status in run_ranks(2, try_to_take, tmp_path, 0.5):
        assert f"process {holder.pids[0]} on" in sentence
        assert exit_status == 3
        assert waited_s < 10.0


def test_a_writer_that_leaves_while_another_waits_hands_over(tmp_path, holder):
    waiting = start_ranks(1, try_to_take, tmp_path, 30.0)
    time.sleep(0.5)
    (tmp_path / "leave").touch()
    assert waiting.results()[0][0] == "taken"


def test_a_killed_writer_is_replaced_at_once(tmp_path, holder):
    holder.signal(0, signal.SIGKILL)
    holder.outcomes()
    assert read_holder(tmp_path).pid == holder.pids[0], "a killed process cleans up nothing"
    lock = RunLock(tmp_path, wait_s=0.0)
    lock.acquire()
    assert read_holder(tmp_path).pid == os.getpid()
    lock.release()


def test_two_ranks_take_one_lock_and_give_it_back(tmp_path):
    for _ in range(2):
        assert [answer[0] for answer in run_ranks(2, try_to_take, tmp_path, 0.0)] == ["taken", "taken"]
    assert read_holder(tmp_path) is None


def test_of_many_that_start_at_once_one_wins(tmp_path):
    groups = [start_ranks(1, hold, tmp_path) for _ in range(4)]
    groups[0].wait_for(tmp_path / "held-0")
    deadline_s = time.monotonic() + 30.0
    while (
        sum(process.is_alive() for group in groups for process in group.processes) > 1 and time.monotonic() < deadline_s
    ):
        time.sleep(0.01)
    (tmp_path / "leave").touch()
    errors = [group.outcomes()[0].error for group in groups]
    assert sum(error is None for error in errors) == 1
    assert all("FolderLockedError" in error for error in errors if error is not None)


def test_a_process_that_locks_twice_is_refused_and_keeps_its_lock(tmp_path):
    """Closing any descriptor of a locked file drops a record lock, so the second attempt must not open it."""
    with RunLock(tmp_path, wait_s=0.0):
        with pytest.raises(FolderLockedError, match="this process itself"):
            RunLock(tmp_path, wait_s=0.0).acquire()
        (tmp_path / HOLDER_FILE).unlink()  # the kernel's lock alone must do
        assert "left no name" in run_ranks(1, try_to_take, tmp_path, 0.0)[0][0]
    assert run_ranks(1, try_to_take, tmp_path, 0.0)[0][0] == "taken"


def test_a_live_writer_on_this_host_is_respected_also_without_its_kernel_lock(tmp_path, holder):
    (tmp_path / LOCK_FILE).unlink()  # somebody tidied up
    with pytest.raises(FolderLockedError, match=f"process {holder.pids[0]} on"):
        RunLock(tmp_path, wait_s=0.0).acquire()


def test_a_reused_process_number_is_not_mistaken_for_the_writer(tmp_path):
    write_holder(tmp_path, pid=os.getppid(), start_ticks=1)
    RunLock(tmp_path, wait_s=0.0).acquire()
    assert read_holder(tmp_path).pid == os.getpid()


def test_a_writer_on_another_host_is_respected_while_its_beat_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "BEAT_S", 0.1)
    elsewhere = write_holder(tmp_path, host="node7", pid=4711, job="99")
    stop = threading.Event()

    def beat():
        count = 0
        while not stop.wait(0.05):
            count += 1
            (tmp_path / "aside").write_text(json.dumps(asdict(replace(elsewhere, beat=count))))
            (tmp_path / "aside").replace(tmp_path / HOLDER_FILE)

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(FolderLockedError, match="process 4711 on node7 of job 99 since"):
            RunLock(tmp_path, wait_s=2.0).acquire()
    finally:
        stop.set()
        heart.join()
    started_s = time.monotonic()
    with RunLock(tmp_path, wait_s=20.0):
        assert time.monotonic() - started_s >= 0.3, "taken before the beat was missed"


def test_the_requeued_start_of_a_job_does_not_wait_for_its_own_ghost(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    write_holder(tmp_path, host="node7", job="99", restart="0")
    RunLock(tmp_path, wait_s=0.0).acquire()
    assert read_holder(tmp_path).pid == os.getpid()


def test_the_beat_goes_on_while_the_folder_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "BEAT_S", 0.02)
    with RunLock(tmp_path, wait_s=0.0):
        first = read_holder(tmp_path)
        deadline_s = time.monotonic() + 20.0
        while (last := read_holder(tmp_path)) == first and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert last.beat > first.beat
    assert read_holder(tmp_path) is None


def test_where_the_file_system_has_no_locks_the_beat_guards_alone(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock_module.fcntl, "lockf", no_locks)
    monkeypatch.setattr(lock_module, "SETTLE_S", 0.01)
    write_holder(tmp_path, host="node7")
    with pytest.raises(FolderLockedError, match="on node7"):
        RunLock(tmp_path, wait_s=0.0).acquire()
    (tmp_path / HOLDER_FILE).unlink()
    with RunLock(tmp_path, wait_s=0.0):
        assert read_holder(tmp_path).pid == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": "a"}', "\x00" * 20])
def test_an_unreadable_name_does_not_block_the_folder(tmp_path, text):
    (tmp_path / HOLDER_FILE).write_text(text)
    RunLock(tmp_path, wait_s=0.0).acquire()
    assert read_holder(tmp_path).pid == os.getpid()


def test_a_folder_that_cannot_be_made_is_the_users_mistake(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file/run cannot be written .* choose another run_dir"):
        RunLock(tmp_path / "file" / "run").acquire()


@pytest.fixture(autouse=True)
def _release_all(monkeypatch):
    """Give back what a test took without `with`."""
    taken = []
    acquire = RunLock.acquire

    def remember(self):
        acquire(self)
        taken.append(self)

    monkeypatch.setattr(RunLock, "acquire", remember)
    yield
    for lock in taken:
        lock.release()
