"""Streamed shards: what is drawn and read, by which rank and worker, from where, and what is refused beforehand."""

import contextlib
import gzip
import itertools
import json
import math
import os
import random
import re
import signal
import tarfile
import time
from collections import Counter

import numpy as np
import pytest
import torch

from bigtrain.data.pixels import encode
from bigtrain.data.settings import DataSettings
from bigtrain.data.staging import patience, sources
from bigtrain.data.staging.patience import Patience
from bigtrain.data.stream import bytes as stream_bytes
from bigtrain.data.stream import samples as stream_samples
from bigtrain.data.stream import shards as stream_shards
from bigtrain.data.stream.feed import StreamFeed, some_images
from bigtrain.data.stream.samples import HELD_MEMBERS, Sample, SampleRules, ShardSamples
from bigtrain.data.stream.shards import Share, drawn_shards, mixed
from bigtrain.data.tar import Member
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.layout import Layout
from tests.data.staging.shard_server import serving
from tests.shard_factory import label_of, make_shards, number_in
from tests.stream_tars import (
    NUM_CLASSES,
    SPEC,
    expected,
    opened,
    picture,
    read_all,
    sample,
    samples,
    split,
    tar_of,
    write_shards,
)

SIZES = [5, 1, 12, 3]
DEADLINE_S = 30  # far over the seconds it takes: a hang detector


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """Fail in fractions of a second; processes forked from here inherit it."""
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(sources, "STALL_S", 0.5)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def folder(tmp_path):
    list(write_shards(tmp_path / "shards", SIZES))
    return tmp_path / "shards"


def numbers_of(batch):
    """The images' own numbers; each has its own label."""
    found = [number_in(image_CHW) for image_CHW in batch.image_NCHW]
    assert batch.label_N.tolist() == [label_of(number, NUM_CLASSES) for number in found]
    return found


def read(shards, batches, position=0, layout=Layout(0, 1, 4, 8), workers=0):  # noqa: B008 (frozen)
    """Read global batches on one rank; return the images' own numbers."""
    feed = StreamFeed(shards, layout, workers)
    try:
        found = []
        for number in range(batches):
            micro_batches = feed.read(position + number * layout.batch_images)
            assert [len(batch) for batch in micro_batches] == [layout.micro_images] * layout.accumulation
            found += [number for batch in micro_batches for number in numbers_of(batch)]
        return found
    finally:
        feed.close()


# What is drawn.


def test_each_shard_that_is_drawn_gives_all_its_samples_in_order(folder):
    found = read(opened(folder), 30)
    starts = np.cumsum([0, *SIZES])
    shards = drawn_shards(len(SIZES), 5, 0, Share(0, 1))
    whole = itertools.chain.from_iterable(range(starts[shard], starts[shard + 1]) for shard in shards)
    assert found == list(itertools.islice(whole, len(found)))
    assert set(found) == set(range(sum(SIZES)))


def test_the_buffer_mixes_and_loses_nothing():
    many = [Sample(0, row, "", 0, b"x") for row in range(500)]
    found = [each.row for each in mixed(iter(many), 100, random.Random(1))]
    assert len(found) == len(set(found)) == 401
    assert found != sorted(found)
    early = sum(row < 100 for row in found[:100])  # of the 100 that were held at the start, about 1 - 1/e
    assert 45 < early < 80
    assert [each.row for each in mixed(iter(many), 1, random.Random(1))] == list(range(500))


def test_the_buffer_is_bounded_in_bytes_too(monkeypatch):
    monkeypatch.setattr(stream_shards, "BUFFER_BYTES", 1000)
    taken = []

    def many():
        for row in range(200):
            taken.append(row)
            yield Sample(0, row, "", 0, bytes(100))

    given = 0
    for _ in mixed(many(), 100, random.Random(1)):
        given += 1
        assert (len(taken) - given) * 100 <= 1000
    assert given == 190


def test_ranks_and_workers_share_one_sequence_of_draws():
    whole = list(itertools.islice(drawn_shards(9, 3, 64, Share(0, 1)), 120))
    for of in (2, 3, 8):
        parts = [list(itertools.islice(drawn_shards(9, 3, 64, Share(number, of)), 120 // of)) for number in range(of)]
        assert [shard for row in zip(*parts, strict=True) for shard in row] == whole


@pytest.mark.parametrize("share", [Share(0, 1), Share(3, 4)])
def test_draws_are_uniform_over_shards_and_do_not_depend_on_the_one_before(share):
    """Hoeffding: each share of n draws is off by t or more with a chance of at most 2 exp(-2 n t^2), here 1e-9."""
    num_shards, draws = 7, 60_000
    bound = math.sqrt(math.log(2e9) / (2 * draws))
    found = np.fromiter(itertools.islice(drawn_shards(num_shards, 1, 0, share), draws), dtype=np.int64)
    share_K = np.bincount(found, minlength=num_shards) / draws
    assert np.abs(share_K - 1 / num_shards).max() < bound
    pairs = np.bincount(found[0::2] * num_shards + found[1::2], minlength=num_shards**2) / (draws // 2)
    assert np.abs(pairs - 1 / num_shards**2).max() < math.sqrt(math.log(2e9) / draws)


def test_what_is_read_depends_on_seed_position_rank_and_worker_alone(folder):
    first = read(opened(folder, shuffle_samples=5), 4)
    assert read(opened(folder, shuffle_samples=5), 4) == first
    others = [
        read(opened(folder, shuffle_samples=5), 4, position=64),
        read(opened(folder, shuffle_samples=5, seed=6), 4),
        read(opened(folder, shuffle_samples=5), 4, layout=Layout(1, 2, 4, 8)),
        read(opened(folder, shuffle_samples=5), 4, workers=2),
        first,
    ]
    assert len({tuple(found) for found in others}) == 5


@pytest.mark.parametrize("place", ["shards", "shards/000002.tar"])  # of one shard, the buffer alone makes a difference
def test_draws_and_mixing_both_begin_anew_with_seed_and_position(folder, place):
    def begun(seed, position, share):
        how = {"shuffle_samples": 10 if place.endswith("tar") else 1, "seed": seed}
        return tuple(numbers_of(opened(folder.parent / place, **how).opened(position, share).load(20)))

    starts = [(5, 0, Share(0, 2)), (6, 0, Share(0, 2)), (5, 64, Share(0, 2)), (5, 0, Share(1, 2))]
    found = [begun(*start) for start in starts]
    assert len(set(found)) == 4
    assert [begun(*start) for start in starts] == found


def test_no_variable_chooses_rank_or_worker(folder, monkeypatch):
    before = read(opened(folder), 2)
    for name in ("RANK", "WORKER"):
        monkeypatch.setenv(name, "1")
    for name in ("WORLD_SIZE", "NUM_WORKERS"):
        monkeypatch.setenv(name, "2")
    assert read(opened(folder), 2) == before


def test_a_feed_that_goes_elsewhere_opens_the_stream_anew(folder):
    feed = StreamFeed(opened(folder), Layout(0, 1, 4, 8), 0)
    there = [numbers_of(batch) for position in (0, 8, 64, 72) for batch in feed.read(position)]
    back = [numbers_of(batch) for position in (64, 72) for batch in feed.read(position)]
    feed.close()
    assert back == there[4:]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_more_ranks_and_workers_than_shards_and_unequal_ones_read_equal_batches(tmp_path, workers):
    list(write_shards(tmp_path, [1, 9]))
    layouts = [Layout(rank, 3, 2, 12) for rank in range(3)]
    found = [read(opened(tmp_path, shuffle_samples=4), 12, layout=layout, workers=workers) for layout in layouts]
    assert {len(numbers) for numbers in found} == {48}
    assert len({tuple(numbers) for numbers in found}) == 3
    assert {number for numbers in found for number in numbers} == set(range(10))


def test_a_small_shard_is_drawn_as_often_as_a_large_one(tmp_path):
    list(write_shards(tmp_path, [1, 9]))
    counts = Counter(read(opened(tmp_path), 500))
    visits = counts[0] + counts[5]
    bound = math.sqrt(math.log(2e9) / (2 * visits))  # as above
    assert abs(counts[0] / visits - 1 / 2) < bound


# What is a sample.


def test_images_without_classes_need_no_label(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of([(f"{n}.png", picture(n)) for n in range(4)]))
    batch = opened(tmp_path, ImageSpec(4, 1, 0)).opened(0, Share(0, 1)).load(4)
    assert [number_in(image_CHW) for image_CHW in batch.image_NCHW] == [0, 1, 2, 3]
    assert batch.label_N.tolist() == [-1] * 4


def test_labels_may_be_under_a_key_of_json(tmp_path):
    files = [
        file
        for n in range(4)
        for file in [(f"{n}.json", json.dumps({"meta": {"kind": n % 3}}).encode()), (f"{n}.png", picture(n))]
    ]
    (tmp_path / "a.tar").write_bytes(tar_of(files))
    batch = opened(tmp_path, label_key="meta.kind").opened(0, Share(0, 1)).load(4)
    assert batch.label_N.tolist() == [0, 1, 2, 0]


def test_names_with_dots_are_samples_of_their_own_and_companions_are_left_out():
    mask = picture(9, side=2)
    files = [
        *sample(0, "n01.v1"), *sample(1, "n01.v2"), ("plain.a.png", mask), *sample(2, "plain"),
        ("plain.seg.png", mask), ("plain.txt", b"a caption"), *sample(3, "deep.er/n.02"),
    ]  # fmt: skip
    assert split(read_all(tar_of(files))) == (expected(range(4)), [])
    versions = [file for number in range(300) for file in sample(number, f"v1.{number}")]
    assert split(read_all(tar_of(versions))) == (expected(range(300)), [])


def test_no_more_members_are_held_than_it_takes_to_look_for_a_plain_image():
    taken = []

    def members():
        for number in range(300):
            taken.append(number)
            yield Member(key="v1", extension=f"{number}.png", offset=0, size=3, crc32=0, data=b"png")

    found = iter(ShardSamples(0, members(), SampleRules(ImageSpec(4, 1, 0), "cls")))
    for given in range(300):
        assert next(found).key == f"v1.{given}"
        assert len(taken) <= given + HELD_MEMBERS + 1


def test_images_need_not_be_square(tmp_path):
    pixels = np.arange(4 * 7 * 3, dtype=np.uint8).reshape(4, 7, 3)
    (tmp_path / "a.tar").write_bytes(tar_of([("a.png", encode(pixels, "png"))]))
    batch = opened(tmp_path, ImageSpec(4, 3, 0, 7)).opened(0, Share(0, 1)).load(2)
    assert batch.image_NCHW.shape == (2, 3, 4, 7)
    assert np.array_equal(batch.image_NCHW[1].permute(1, 2, 0).numpy(), pixels)
    with pytest.raises(DataError, match="the image is 7x4, not 4x4"):
        opened(tmp_path, ImageSpec(4, 3, 0)).opened(0, Share(0, 1)).load(1)


@pytest.mark.parametrize("most_bytes", [1, 200, 1000, 64 << 20])
def test_no_sample_is_torn_where_many_share_a_name_before_their_first_dot(monkeypatch, most_bytes):
    monkeypatch.setattr(stream_samples, "HELD_BYTES", most_bytes)
    files = [file for number in range(200) for file in sample(number, f"v1.{number}")]
    del files[101]  # so that every second member is an image no more
    whole, faults = split(read_all(tar_of(files)))
    assert whole == expected([number for number in range(200) if number != 50])
    assert faults == ["v1.50: has no .cls beside it, so no label"]
    plain = [file for number in range(5) for file in reversed(sample(number))]
    assert split(read_all(tar_of(plain))) == (expected(range(5)), [])


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_form_are_read_in_blocks_of_any_size(form):
    name = "a" * 90 + "/" + "é" * 20 if form == tarfile.USTAR_FORMAT else "é" * 90 + "/" + "b" * 200
    folder = tarfile.TarInfo("folder")
    folder.type, folder.size = tarfile.DIRTYPE, 700  # as some writers have it, and nothing comes behind it
    data = folder.tobuf(form) + tar_of([*sample(0), *sample(1, name), *sample(2)], form)
    for block_bytes in (1, 513, 1 << 20):
        assert split(read_all(data, block_bytes=block_bytes)) == (expected(range(3)), [])
        assert split(read_all(gzip.compress(data), block_bytes=block_bytes)) == (expected(range(3)), [])
    parts = gzip.compress(data[:5000]) + gzip.compress(data[5000:]) + bytes(100)
    assert split(read_all(parts)) == (expected(range(3)), [])


def test_only_as_much_is_read_as_a_sample_needs():
    rules = SampleRules(SPEC, "cls")
    assert rules.most_bytes("txt") == rules.most_bytes("json") == 0
    assert SampleRules(ImageSpec(4, 1, 0), "cls").most_bytes("cls") == 0
    assert 1 << 20 <= rules.most_bytes("png") < 1 << 25


# Where shards lie.


def test_folders_braces_and_single_shards_are_found(folder):
    names = [f"{number:06d}.tar" for number in range(4)]
    assert [shard.name for shard in opened(folder).shards] == names
    assert [shard.name for shard in opened(f"{folder}/{{000001..000003}}.tar").shards] == names[1:]
    (folder / "x.tar.gz").write_bytes(gzip.compress((folder / names[0]).read_bytes()))
    (folder / ".hidden.tar").write_bytes(b"")
    assert [shard.name for shard in opened(folder).shards] == [*names, "x.tar.gz"]
    assert read(opened(folder / "x.tar.gz"), 1) == [0, 1, 2, 3, 4, 0, 1, 2]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("{}/nowhere", "is no folder; name the one"),
        ("{}/000009.tar", "shard 000009.tar is missing in"),
        ("{}/{{000000,000000}}.tar", "is named twice"),
        ("{}/empty", "holds no shard"),
        ("http://127.0.0.1:1/shards", "nothing lists the files of a URL; name them, such as http.*0{6}..0{4}99}.tar"),
        ("pipe:cat {}/000000.tar", "commands are never run"),
        ("{}/000000.tar::x.tar", "chains URLs"),
    ],
)
def test_a_place_that_cannot_be_read_is_refused_before_training(folder, place, words):
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=words):
        opened(place.format(folder))


def test_indexed_shards_can_be_streamed_and_the_names_of_shards_tell_data_apart(tmp_path):
    for place, sizes in (("a", [5, 3]), ("b", [3, 5])):
        list(write_shards(tmp_path / place, sizes))
    make_shards(tmp_path / "indexed", [5, 3])
    assert set(read(opened(tmp_path / "indexed"), 8)) == set(range(8))
    assert set(read(opened(tmp_path / "a"), 8)) == set(range(8))
    hashes = {opened(tmp_path / place).content_hash for place in ("a", "b")}
    assert len(hashes) == 1
    assert opened(tmp_path / "a", label_key="x").content_hash not in hashes
    (tmp_path / "a" / "more.tar").write_bytes(tar_of(samples([0])))
    assert opened(tmp_path / "a").content_hash not in hashes
    assert "image 1 of it" in opened(tmp_path / "a").place((1 << 32) + 1)


def test_names_of_shards_may_be_any_bytes_and_lie_at_the_root(tmp_path):
    hashes = set()
    for name in (b"\xff.tar", b"\xfe.tar"):
        (tmp_path / os.fsdecode(name)).write_bytes(tar_of(samples([0])))
        shards = opened(tmp_path)
        hashes.add(shards.content_hash)
        assert len(shards.opened(0, Share(0, 1)).load(2)) == 2
    assert len(hashes) == 2
    with pytest.raises(DataError, match=r"shard no-such-shard.tgz is missing in /;"):
        opened("/no-such-shard.tgz")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"mode": "stream", "holdout": 0.05}, "data.holdout: which samples are held out is said by an index"),
        ({"mode": "stream", "cache_dir": "/tmp"}, "data.cache_dir: streamed shards are read where they lie"),
        ({"mode": "stream", "cache_gib": 1}, "data.cache_gib: streamed shards are not copied"),
        (
            {"mode": "stream", "shuffle_window_shards": 2},
            "data.shuffle_window_shards: .* mixed by data.shuffle_samples",
        ),
        ({"mode": "stream", "balance": "class"}, "data.balance: how many samples each class has is said by an index"),
        ({"mode": "stream", "allow_sorted": True}, "data.allow_sorted: nobody knows beforehand"),
        (
            {"mode": "stream", "shards": "http://h/{0..3}.tar", "num_workers": 0},
            "data.num_workers: 0 reads in the proc",
        ),
        ({"label_key": "kind"}, "data.label_key: the index says where labels are; .* data.mode: stream"),
        ({"shuffle_samples": 5}, "data.shuffle_samples: the index gives an order"),
    ],
)
def test_keys_of_the_other_mode_are_refused(keys, words):
    problems = list(DataSettings.model_validate({"shards": "x", **keys}).problems())
    assert len(problems) == 1
    assert re.search(words, problems[0])


def test_what_stream_mode_allows_has_no_problem():
    fine = {"shards": "http://h/{0..3}.tar", "mode": "stream", "label_key": "kind", "shuffle_samples": "2k"}
    assert list(DataSettings.model_validate(fine).problems()) == []


# Servers and workers.


@pytest.mark.parametrize("kind", ["500", "cut", "stall"])
def test_a_server_that_fails_and_recovers_gives_what_the_folder_gives(folder, kind):
    whole = read(opened(folder), 6)
    with serving(folder) as server:
        server.faults = {"000002.tar": [kind] * 4, "000000.tar": [kind]}
        place = f"{server.url}/{{000000..000003}}.tar"
        assert read(opened(place), 6, workers=1) == whole
        assert server.asked["000002.tar"] >= 5


class Limping:
    """A source that breaks off a few bytes further each time."""

    where = "there"
    is_remote = False

    def __init__(self, data, further):
        self.data, self.further, self.openings = data, further, 0

    def read(self, name):
        self.openings += 1
        for at in range(0, len(self.data), 3):
            if at >= self.openings * self.further:
                raise sources.SourceError("it broke off")
            yield self.data[at : at + 3]


def test_a_source_that_breaks_off_again_and_again_is_read_on_as_long_as_more_comes():
    source = Limping(bytes(range(100)), 7)
    assert b"".join(stream_bytes.blocks_of(source, "a.tar", Patience())) == bytes(range(100))
    assert source.openings == 15
    stuck = Limping(bytes(range(100)), 0)
    with pytest.raises(DataError, match="there/a.tar could not be read after 5 attempts: it broke off"):
        list(stream_bytes.blocks_of(stuck, "a.tar", Patience()))
    assert stuck.openings == 5


@pytest.mark.parametrize(
    ("kind", "words"),
    [("503", "after 5 attempts: the server answers 503"), ("stall", "after 5 attempts: nothing came for 0.5 s")],
)
def test_a_server_that_stays_away_ends_the_run_with_a_sentence(folder, kind, words):
    with serving(folder) as server:
        server.always = {"000001.tar": kind}
        with pytest.raises(DataError, match=rf"shards/000001.tar could not be read {words}"):
            read(opened(f"{server.url}/000001.tar", on_error="skip"), 1, workers=1)


def test_a_page_or_half_a_shard_from_a_server_is_a_bad_shard(folder):
    with serving(folder) as server:
        server.always = {"000001.tar": "page", "000002.tar": "short"}
        place = f"{server.url}/{{000001..000003}}.tar"
        feed = StreamFeed(opened(place, on_error="skip", max_bad_fraction=1), Layout(0, 1, 64, 64), 1)
        (batch,) = feed.read(0)
        feed.close()
        assert {bad.shard for bad in batch.bad} == {"000001.tar", "000002.tar"}
        assert all("without an end marker" in bad.reason for bad in batch.bad)
        assert set(numbers_of(batch)) > {18, 19, 20}


def test_a_wait_for_a_server_gives_way(folder, monkeypatch):
    monkeypatch.setattr(sources, "STALL_S", 60.0)

    class StopError(Exception):
        pass

    calls = []

    def give_way():
        calls.append(1)
        if len(calls) > 2:
            raise StopError

    with serving(folder) as server:
        server.always = {"000001.tar": "stall"}
        feed = StreamFeed(opened(f"{server.url}/000001.tar"), Layout(0, 1, 4, 8), 1)
        started_s = time.monotonic()
        with pytest.raises(StopError):
            feed.read(0, give_way)
        feed.close()
        assert time.monotonic() - started_s < DEADLINE_S


def test_without_workers_a_read_gives_way_between_blocks_and_goes_on_afterwards(folder):
    shards = opened(folder, shuffle_samples=500)
    before = read(shards, 2)
    stop = iter([False] * 3 + [True])

    def give_way():
        if next(stop, False):
            raise InterruptedError

    signs = shards.signs_of_life
    shards.give_way_to(give_way)
    feed = StreamFeed(shards, Layout(0, 1, 4, 8), 0)
    with pytest.raises(InterruptedError):
        feed.read(0)
    assert shards.signs_of_life > signs
    found = [number for position in (0, 8) for batch in feed.read(position) for number in numbers_of(batch)]
    assert found == before


def test_a_worker_that_is_killed_is_a_sentence(folder):
    feed = StreamFeed(opened(folder), Layout(0, 1, 4, 8), 1)
    feed.read(0)
    os.kill(feed._stream._workers[0].pid, signal.SIGKILL)
    with pytest.raises(DataError, match="a process that reads data ended"):
        [feed.read(position) for position in range(8, 8000, 8)]
    with contextlib.suppress(DataError):
        feed.close()


def test_some_images_are_the_same_on_every_rank(folder):
    batches = [some_images(opened(folder, shuffle_samples=7), 6, lambda: None) for _ in range(2)]
    assert torch.equal(batches[0].image_NCHW, batches[1].image_NCHW)
    assert numbers_of(batches[0]) == read(opened(folder), 1)[:6]
