"""A save is all or nothing: killed at any of its file operations, failing at any of them, on any rank."""

import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from bigtrain.engine.checkpoints import disk
from bigtrain.engine.checkpoints.checkpoint import SaveFailedError
from bigtrain.engine.checkpoints.files import committed
from bigtrain.engine.checkpoints.names import folder_name
from bigtrain.engine.ranks import Ranks
from tests.engine.checkpoint_cases import (
    MEMORY,
    StopAt,
    is_state,
    leftovers,
    load_alone,
    save,
    save_alone,
    save_in_background,
)
from tests.rank_pool import run_ranks, start_ranks

WRITE_BYTES = 512  # several writes a file, so that a kill can fall between them


@pytest.fixture
def disk_in_memory(tmp_path):
    """A folder on a file system in memory where there is one."""
    if MEMORY is None:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


def save_stopping_at(ranks, folder, images, number, how, culprit):
    disk.WRITE_BYTES = WRITE_BYTES
    with StopAt(number if ranks.rank == culprit else None, how) as stop:
        try:
            save_in_background(ranks, folder, images)
        except SaveFailedError as error:
            return stop.names, str(error)
    return stop.names, None


def operations_of_a_save(world, culprit, tmp_path):
    """Names of the file operations of `culprit` in the save that the tests below stop: the third one of a run."""
    folder = tmp_path / "count"
    save_alone(folder, 1, 2)
    names, sentence = run_ranks(world, save_stopping_at, folder, 3, None, "count", 0)[culprit]
    assert sentence is None
    shutil.rmtree(folder)
    return names


def check_after(folder, old, new):
    """A load gives one of two states, exactly; the next saves work and leave no trace of what happened."""
    num_before = len(committed(folder))
    loaded = load_alone(folder)
    assert is_state(loaded, old) or is_state(loaded, new), "neither the old state nor the new one"
    assert len(committed(folder)) == num_before, "something was set aside"
    assert num_before >= 2
    save_alone(folder, new)
    assert is_state(load_alone(folder), new)
    save_alone(folder, new + 1)
    assert is_state(load_alone(folder), new + 1)
    assert sorted(path.name for path in folder.iterdir()) == [folder_name(new), folder_name(new + 1)]
    return loaded.images


def test_everything_is_on_disk_before_the_name_and_the_name_before_anything_is_removed(tmp_path):
    """A kill loses nothing that was written; a power cut does, unless it was fsynced before what relies on it."""
    save_alone(tmp_path, 1, 2)
    opened, dirty, events = {}, set(), []

    def watched(name, operation):
        def run(*arguments):
            result = operation(*arguments)
            if name == "open":
                opened[result] = Path(arguments[0])
            elif name == "write":
                dirty.add(opened[arguments[0]])
            elif name == "fsync":
                dirty.discard(opened[arguments[0]])
                events.append(("fsync", opened[arguments[0]]))
            elif name in ("mkdir", "rename", "unlink"):
                events.append((name, *(Path(argument) for argument in arguments if not isinstance(argument, int))))
                assert name != "rename" or not dirty, f"{dirty} were not on disk at {events[-1]}"
            return result

        return run

    operations = dict(disk.OPERATIONS)
    try:
        disk.OPERATIONS.update({name: watched(name, operation) for name, operation in operations.items()})
        save_alone(tmp_path, 3)
    finally:
        disk.OPERATIONS.update(operations)
    renames = [index for index, event in enumerate(events) if event[0] == "rename"]
    _, aside, path = events[renames[0]]
    assert path == tmp_path / folder_name(3)
    assert events[renames[0] - 1] == ("fsync", aside), "the names of the files"
    assert events[renames[0] + 1] == ("fsync", tmp_path), "the checkpoint's own name"
    assert [event[0] for event in events[: renames[0]]].count("fsync") >= 4, (
        "a part, the record, the manifest, the folder"
    )
    first_unlink = next(index for index, event in enumerate(events) if event[0] == "unlink")
    assert events[renames[1]][1] == tmp_path / folder_name(1)
    assert renames[0] < renames[1] < first_unlink


def kill_at_each(ranks, folder, numbers, images, before):
    """Save once for every number, each time in a process of its own that is killed at that operation."""
    for number in numbers:
        save_alone(folder / str(number), *before)
        pid = os.fork()  # safe here: this process has one thread
        if pid == 0:
            save_stopping_at(ranks, folder / str(number), images, number, "kill", 0)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_save_killed_at_any_operation_leaves_the_old_or_the_new(disk_in_memory):
    names = operations_of_a_save(1, 0, disk_in_memory)
    assert names.count("rename") == 2, "the commit, and the renaming of what is pruned"
    assert names.count("fsync") >= 6
    numbers = range(1, len(names) + 1)
    run_ranks(1, kill_at_each, disk_in_memory, numbers, 3, [1, 2])
    seen = [check_after(disk_in_memory / str(number), 2, 3) for number in numbers]
    commit = names.index("rename")
    assert seen == [2] * (commit + 1) + [3] * (len(names) - commit - 1), "the rename is the one commit point"


def test_the_first_save_killed_leaves_a_fresh_start(disk_in_memory):
    names, _ = run_ranks(1, save_stopping_at, disk_in_memory / "count", 1, None, "count", 0)[0]
    numbers = range(1, names.index("rename") + 2)
    run_ranks(1, kill_at_each, disk_in_memory, numbers, 1, [])
    for number in numbers:
        folder = disk_in_memory / str(number)
        assert load_alone(folder) is None
        save_alone(folder, 1)
        assert is_state(load_alone(folder), 1)
        assert leftovers(folder) == []


def killed(world, culprit, folder, number):
    save_alone(folder, 1, 2)
    outcomes = start_ranks(world, save_stopping_at, folder, 3, number, "kill", culprit).outcomes()
    assert outcomes[culprit].exit_status == -signal.SIGKILL
    assert all(outcome.exit_status is not None for outcome in outcomes), "a rank hung"


@pytest.mark.two_process
@pytest.mark.parametrize("culprit", [0, 1])
def test_any_rank_killed_while_saving_leaves_the_old_or_the_new(disk_in_memory, culprit):
    names = operations_of_a_save(2, culprit, disk_in_memory)
    # The first and last of each kind; `--full` plays all.
    numbers = {names.index(name) + 1 for name in names} | {len(names) - names[::-1].index(name) for name in names}
    for number in sorted(numbers):
        killed(2, culprit, disk_in_memory / str(number), number)
        check_after(disk_in_memory / str(number), 2, 3)


@pytest.mark.slow
@pytest.mark.two_process
@pytest.mark.parametrize("culprit", [0, 1])
def test_any_rank_killed_at_any_operation_leaves_the_old_or_the_new(disk_in_memory, culprit):
    for number in range(1, len(operations_of_a_save(2, culprit, disk_in_memory)) + 1):
        killed(2, culprit, disk_in_memory / str(number), number)
        check_after(disk_in_memory / str(number), 2, 3)


@pytest.mark.parametrize("how", ["enospc", "eio", "full"])
def test_an_error_at_any_operation_is_told_and_costs_nothing(disk_in_memory, how):
    names = operations_of_a_save(1, 0, disk_in_memory)
    commit = names.index("rename")
    for number in range(1, len(names) + 1):
        folder = disk_in_memory / f"{how}-{number}"
        save_alone(folder, 1, 2)
        _, sentence = save_stopping_at(Ranks.single(), folder, 3, number, how, 0)
        if number <= commit + 1 and not (how == "full" and "write" not in names[number - 1 :]):
            assert sentence is not None, f"error {number} ({names[number - 1]}) went unnoticed"
            assert "after 3 images was not saved" in sentence
            assert os.strerror(errno.EIO if how == "eio" else errno.ENOSPC) in sentence
            assert leftovers(folder) == [] or names[number - 1] != "write", "a full disk needs the room"
        check_after(folder, 2, 3)


@pytest.mark.two_process
@pytest.mark.parametrize("culprit", [0, 1])
def test_an_error_on_one_rank_stops_the_save_on_all(disk_in_memory, culprit):
    names = operations_of_a_save(2, culprit, disk_in_memory)
    save_alone(disk_in_memory, 1, 2)
    answers = run_ranks(2, save_stopping_at, disk_in_memory, 3, names.index("write") + 1, "enospc", culprit)
    for _, sentence in answers:
        assert f"rank {culprit}: [Errno 28] No space left on device" in sentence
        assert "earlier ones are untouched" in sentence
    assert leftovers(disk_in_memory) == []
    check_after(disk_in_memory, 2, 3)


def save_three_times(ranks, folder):
    sentences = []
    for images in (3, 4, 5):
        try:
            save(ranks, folder, images)
        except SaveFailedError as error:
            sentences.append(str(error))
    return sentences


@pytest.mark.two_process
def test_a_full_disk_costs_nothing_and_makes_nobody_wait(tmp_path):
    """A real one: a file system in memory of 64 KiB, of which two checkpoints and half a third fit."""
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"mounting a small file system needs to be root: {mount.stderr.decode().strip()}")
    try:
        save_alone(tmp_path, 1, 2)
        (tmp_path / "ballast").write_bytes(bytes(room_left(tmp_path) - 4096))
        for sentences in run_ranks(2, save_three_times, tmp_path):
            assert len(sentences) == 3
            assert all("No space left on device" in sentence for sentence in sentences)
        assert is_state(load_alone(tmp_path), 2)
        (tmp_path / "ballast").unlink()
        check_after(tmp_path, 2, 3)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def room_left(folder):
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize


@pytest.mark.two_process
def test_a_leftover_of_the_same_step_blocks_nobody(tmp_path):
    """A partial folder of the step, of a process that is gone: seen to hang other projects' ranks."""
    (tmp_path / f".tmp-{folder_name(3)}-node7-1-1").mkdir()
    (tmp_path / f".tmp-{folder_name(3)}-node7-1-1" / "part-001-of-002.safetensors").write_bytes(b"half")
    started_s = time.monotonic()
    run_ranks(2, save, tmp_path, 3)
    assert time.monotonic() - started_s < 60.0  # a hang detector: 0.2 s as measured
    assert is_state(load_alone(tmp_path), 3)
    assert leftovers(tmp_path) == []
