"""The feed: the global order, whatever the ranks, micro-batches, workers and stops."""

import atexit
import contextlib
import multiprocessing.util
import os
import re
import select
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bigtrain.data import process
from bigtrain.data.feed import ASK_S, Feed
from bigtrain.data.shards import ShardSet
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.layout import Layout
from tests.shard_factory import label_of, make_shards, number_in

DEADLINE_S = 30  # far over the seconds it takes: a hang detector


def global_batches(shards, window, world, micro, accumulation, workers, starts):
    """Play all ranks; return the sample numbers of each global batch in the order's own order."""
    batch_images = world * micro * accumulation
    found = np.full((len(starts), batch_images), -1)
    for rank in range(world):
        layout = Layout(rank, world, micro, batch_images)
        feed = Feed(shards, shards.order(5, window), layout, workers)
        for row, start in enumerate(starts):
            batches = feed.read(start)
            assert len(batches) == layout.accumulation
            for micro_index, batch in enumerate(batches):
                found[row, list(layout.positions(micro_index))] = batch.sample_N
                assert [number_in(image_CHW) for image_CHW in batch.image_NCHW] == batch.sample_N.tolist()
                expected = [label_of(number, shards.spec.num_classes) for number in batch.sample_N.tolist()]
                assert batch.label_N.tolist() == expected
        feed.close()
    return found


def one_epoch(shards, batch_images):
    return range(0, 2 * shards.num_samples + batch_images, batch_images)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 0),
    share=st.sampled_from([0.0, 0.3]),
    window=st.integers(1, 6),
    world=st.integers(1, 3),
    micro=st.integers(1, 4),
    accumulation=st.integers(1, 3),
)
def test_all_ranks_together_read_the_global_order(tmp_path, sizes, share, window, world, micro, accumulation):
    folder = tmp_path / "-".join(map(str, sizes))
    if not folder.exists():
        make_shards(folder, sizes)
    shards = ShardSet.open(folder, share, seed=1)
    batch_images = world * micro * accumulation
    starts = one_epoch(shards, batch_images)
    found = global_batches(shards, window, world, micro, accumulation, 0, starts).ravel()
    assert found.tolist() == shards.order(5, window).samples(np.arange(len(found))).tolist()
    for epoch in range(2):
        part = found[epoch * shards.num_samples : (epoch + 1) * shards.num_samples]
        assert np.array_equal(np.sort(part), shards.numbers())


@pytest.mark.filterwarnings("ignore:This DataLoader will create 5 worker processes")
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_do_not_change_what_is_read_even_with_fewer_shards_than_workers(tmp_path, workers):
    make_shards(tmp_path, [1, 40, 0, 9])
    shards = ShardSet.open(tmp_path)
    found = global_batches(shards, 2, 2, 3, 2, workers, one_epoch(shards, 12)).ravel()
    assert found.tolist() == shards.order(5, 2).samples(np.arange(len(found))).tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_seek_gives_the_batch_of_that_position_and_streams_on(tmp_path, workers):
    make_shards(tmp_path, [20, 15, 5])
    shards = ShardSet.open(tmp_path)
    order = shards.order(5, 2)
    feed = Feed(shards, order, Layout(0, 1, 4, 8), workers)
    for start in [0, 8, 1000, 1008, 16, 13, 21, 0]:
        read = torch.cat([batch.sample_N for batch in feed.read(start)])
        assert read.tolist() == order.samples(np.arange(start, start + 8)).tolist()
    feed.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_and_seeking_leave_the_random_generators_alone(tmp_path, workers):
    make_shards(tmp_path, [20])
    shards = ShardSet.open(tmp_path)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    feed = Feed(shards, shards.order(5, 2), Layout(0, 1, 4, 8), workers)
    for start in (0, 8, 40):
        feed.read(start)
    feed.close()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_four_ranks_stop_and_three_go_on_in_the_same_order(tmp_path):
    make_shards(tmp_path, [20, 15, 5])
    shards = ShardSet.open(tmp_path)
    before = global_batches(shards, 2, 4, 3, 1, 0, range(0, 36, 12)).ravel()
    after = global_batches(shards, 2, 3, 2, 2, 0, range(36, 84, 12)).ravel()
    assert [*before, *after] == shards.order(5, 2).samples(np.arange(84)).tolist()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 0),
    window=st.integers(1, 6),
    starts=st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 6]), st.integers(0, 4)), min_size=2, max_size=4),
)
def test_any_ranks_go_on_where_any_others_stopped_in_the_same_order(tmp_path, sizes, window, starts):
    folder = tmp_path / "-".join(map(str, sizes))
    if not folder.exists():
        make_shards(folder, sizes)
    shards, position, found = ShardSet.open(folder), 0, []
    for world, steps in [(4, 1), *starts]:
        batches = range(position, position + 12 * steps, 12)
        found += global_batches(shards, window, world, 12 // world, 1, 0, batches).ravel().tolist()
        position += 12 * steps
    assert found == shards.order(5, window).samples(np.arange(position)).tolist()


FEW_OF_ANY = [(1, 2, 5), (3, 2, 2), (5, 1, 1), (16, 2, 1)]
ALL_OF_ANY = [(count, world, workers) for count in (1, 3, 5, 16) for world in (1, 2) for workers in (0, 1, 2, 5)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 5 worker processes")
@pytest.mark.parametrize(
    ("count", "world", "workers"),
    [*FEW_OF_ANY, *(pytest.param(*each, marks=pytest.mark.slow) for each in ALL_OF_ANY if each not in FEW_OF_ANY)],
)
def test_any_shards_ranks_and_workers_read_every_sample_once_an_epoch_without_a_gap(tmp_path, count, world, workers):
    sizes = [1 + 13 * (shard % 3) ** 2 for shard in range(count)]  # 1, 14, 53
    make_shards(tmp_path, sizes)
    shards = ShardSet.open(tmp_path)
    found = global_batches(shards, 2, world, 4, 1, workers, one_epoch(shards, 4 * world)).ravel().tolist()
    for epoch in range(2):
        part = found[epoch * sum(sizes) : (epoch + 1) * sum(sizes)]
        assert sorted(part) == list(range(sum(sizes)))
    assert found == shards.order(5, 2).samples(np.arange(len(found))).tolist()


@pytest.mark.parametrize("by_value_bytes", [0, 1 << 17])
def test_batches_are_uint8_in_channels_last_memory(tmp_path, monkeypatch, by_value_bytes):
    monkeypatch.setattr("bigtrain.data.feed.BY_VALUE_BYTES", by_value_bytes)
    make_shards(tmp_path, [20], channels=3)
    shards = ShardSet.open(tmp_path)
    for workers in (0, 1):
        feed = Feed(shards, shards.order(0, 1), Layout(0, 1, 4, 8), workers)
        for batch in feed.read(0):
            assert batch.image_NCHW.dtype == torch.uint8
            assert batch.image_NCHW.shape == (4, 3, 4, 4)
            assert batch.image_NCHW.is_contiguous(memory_format=torch.channels_last)
            assert [number_in(image_CHW) for image_CHW in batch.image_NCHW] == batch.sample_N.tolist()
        assert feed.wait_s > 0
        feed.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_sample_stops_the_feed_when_its_batch_is_due_and_in_one_sentence(tmp_path, workers):
    index = make_shards(tmp_path, [20, 20])
    shards = ShardSet.open(tmp_path)
    order = shards.order(5, 2)
    number = order.sample(21)
    _, row = shards.reader.locate(number)
    entry = index.shards[number // 20]
    offset = int(shards.reader.rows(number // 20)["offset"][row])
    with (tmp_path / entry.name).open("r+b") as stream:
        stream.seek(offset + 30)
        flipped = bytes([stream.read(1)[0] ^ 4])
        stream.seek(offset + 30)
        stream.write(flipped)
    feed = Feed(ShardSet.open(tmp_path), order, Layout(0, 1, 4, 8), workers)
    assert len(feed.read(0)) == len(feed.read(8)) == 2
    with pytest.raises(DataError) as caught:
        feed.read(16)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert entry.name in sentence
    assert f"'{number:06d}'" in sentence
    assert "damaged: crc32" in sentence
    assert "copy the shard again" in sentence
    with pytest.raises(DataError, match=f"'{number:06d}'"):
        feed.read(16)  # asked again it does not skip
    assert len(feed.read(24)) == 2
    feed.close()


class StopAskedError(Exception):
    pass


class Patience:
    """Gives way after so many questions."""

    def __init__(self, questions):
        self.left = questions

    def __call__(self):
        self.left -= 1
        if self.left < 0:
            raise StopAskedError


def test_without_workers_a_read_gives_way_between_parcels(tmp_path):
    make_shards(tmp_path, [200])
    shards = ShardSet.open(tmp_path)
    feed = Feed(shards, shards.order(0, 1), Layout(0, 1, 64, 128), 0)
    with pytest.raises(StopAskedError):
        feed.read(0, Patience(1))
    assert len(feed.read(0, Patience(2))) == 2
    feed.close()


# The rest needs processes of its own: they are forked from this one, which has torch imported already.


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition):
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "still waiting"
        time.sleep(0.05)


def open_feed(folder, workers):
    shards = ShardSet.open(folder)
    feed = Feed(shards, shards.order(0, 1), Layout(0, 1, 4, 4), workers)
    for position in range(0, 4 * workers, 4):  # workers take turns: each has started when all have answered
        feed.read(position)
    return feed, [worker.pid for worker in feed._stream._workers]


class Child:
    """A forked process that plays `function(say)`; what it says comes out of `read_line`."""

    def __init__(self, function):
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            status = 1
            with contextlib.suppress(BaseException), os.fdopen(writing, "w", buffering=1) as stream:
                function(lambda *words: stream.write(" ".join(map(str, words)) + "\n"))
                status = 0
            os._exit(status)
        os.close(writing)
        self._stream = os.fdopen(reading)

    def read_line(self):
        assert select.select([self._stream], [], [], DEADLINE_S)[0], "the child says nothing"
        return self._stream.readline()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._stream.close()


@pytest.fixture
def reading_child(tmp_path):
    make_shards(tmp_path, [20])

    def read_on(say):
        feed, workers = open_feed(tmp_path, 2)
        say(*workers)
        for position in range(8, 4_000_000, 4):
            feed.read(position)
            time.sleep(0.01)

    child = Child(read_on)
    workers = [int(word) for word in child.read_line().split()]
    yield child, workers
    child.kill()
    for worker in filter(is_alive, workers):  # only after a failure: they hold the test's output open
        os.kill(worker, signal.SIGKILL)


def test_workers_die_with_a_killed_parent(reading_child):
    child, workers = reading_child
    assert len(workers) == 2
    assert all(map(is_alive, workers))
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # a stopped worker cannot notice by itself
    child.kill()
    wait_until(lambda: not any(map(is_alive, workers)))


def test_workers_leave_signals_to_their_parent(reading_child):
    child, workers = reading_child
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        for worker in workers:
            os.kill(worker, number)
    time.sleep(0.3)
    assert all(map(is_alive, [child.pid, *workers]))


def test_a_helper_outlives_a_term_by_its_grace_only(monkeypatch):
    monkeypatch.setattr(process, "TERM_GRACE_S", 1)

    def stay(say):
        process.FollowParent(os.getppid())()
        say("ready")
        while True:
            time.sleep(0.01)

    child = Child(stay)
    assert child.read_line() == "ready\n"
    os.kill(child.pid, signal.SIGTERM)
    time.sleep(0.3)
    assert is_alive(child.pid)
    wait_until(lambda: not is_alive(child.pid))
    child.kill()


def test_a_killed_worker_is_a_sentence_not_a_hang(tmp_path):
    make_shards(tmp_path, [20])

    def lose_a_worker(say):
        feed, workers = open_feed(tmp_path, 1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch raises in its handler too, anywhere
        os.kill(workers[0], signal.SIGKILL)
        try:
            for position in range(4, 4000, 4):
                feed.read(position)
        except DataError as error:
            say(error)

    child = Child(lose_a_worker)
    assert re.match(r"a process that reads data ended .* lower data.num_workers", child.read_line())
    child.kill()


@pytest.fixture
def slow_load(monkeypatch):
    """Have workers take so many seconds for the parcel with sample 7."""
    load = ShardSet.load

    def arm(seconds):
        def load_slowly(self, numbers):
            if 7 in numbers:
                time.sleep(seconds)
            return load(self, numbers)

        monkeypatch.setattr(ShardSet, "load", load_slowly)

    return arm


def test_a_wait_for_a_worker_that_hangs_gives_way_and_closing_ends_it_at_once(tmp_path, slow_load):
    slow_load(20 * DEADLINE_S)
    make_shards(tmp_path, [8])
    shards = ShardSet.open(tmp_path)
    feed = Feed(shards, shards.order(0, 1), Layout(0, 1, 8, 8), 1)
    with pytest.raises(StopAskedError):
        feed.read(0, Patience(3))
    workers = [worker.pid for worker in feed._stream._workers]
    started_s = time.monotonic()
    feed.close()
    wait_until(lambda: not any(map(is_alive, workers)))
    assert time.monotonic() - started_s < DEADLINE_S


def test_a_long_wait_for_a_worker_loses_nothing(tmp_path, slow_load):
    slow_load(3 * ASK_S)
    make_shards(tmp_path, [20])
    shards = ShardSet.open(tmp_path)
    feed, questions = Feed(shards, shards.order(0, 1), Layout(0, 1, 4, 4), 2), Patience(1000)
    read = [feed.read(position, questions)[0].sample_N.tolist() for position in range(0, 40, 4)]
    feed.close()
    assert sum(read, []) == shards.order(0, 1).samples(np.arange(40)).tolist()
    assert 1000 - questions.left > len(read), "nobody was asked during the wait"


def test_closing_ends_the_workers(tmp_path):
    make_shards(tmp_path, [20])
    feed, workers = open_feed(tmp_path, 2)
    feed.close()
    wait_until(lambda: not any(map(is_alive, workers)))
    assert not any(map(is_alive, workers))


def test_leaving_without_closing_ends_the_workers_at_once(tmp_path):
    # As after an error, whose traceback still holds the stream when the interpreter runs its exit hooks.
    make_shards(tmp_path, [20])

    def leave(say):
        atexit._clear()
        feed, workers = open_feed(tmp_path, 2)
        held = feed._stream
        started_s = time.monotonic()
        atexit._run_exitfuncs()
        multiprocessing.util._exit_function()  # waits for every helper of this process
        assert held is not None
        say(*workers, time.monotonic() - started_s)

    child = Child(leave)
    *workers, seconds = child.read_line().split()
    child.kill()
    assert len(workers) == 2
    assert float(seconds) < 0.5 * process.TERM_GRACE_S  # what it takes when nobody tells the workers to end
    wait_until(lambda: not any(map(is_alive, workers)))
