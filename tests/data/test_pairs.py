"""Pairs of images: packed, indexed, checked and read so that both stay together, and damage in either is noticed."""

import os
import re
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bigtrain.cli import main
from bigtrain.data import pack as packing
from bigtrain.data.batch import Batch
from bigtrain.data.check import check_folder
from bigtrain.data.feed import Feed, Parcel
from bigtrain.data.folder import find_pairs
from bigtrain.data.foreign import index_folder
from bigtrain.data.index import FolderIndex, read_rows
from bigtrain.data.pack import PackOptions, pack
from bigtrain.data.parts import Part, merge
from bigtrain.data.pixels import encode
from bigtrain.data.shards import ShardSet
from bigtrain.data.sources.tars import find_shards
from bigtrain.data.walk import IndexOptions
from bigtrain.evaluation.images import open_images
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.layout import Layout
from bigtrain.recipe.load import load_recipe
from bigtrain.training.build import open_shards
from bigtrain.training.schema import Recipe
from tests.data.test_foreign import picture, write_tar
from tests.data.test_overview import BAD, colours, rgb
from tests.data.test_sources import contents
from tests.shard_factory import make_shards, number_in, numbered_image
from tests.training.toy_runs import RECIPE, TOY

JOBS = ["--jobs", "1"]
SECOND = 10_000  # added to a sample's number in its second image
OPTIONS = PackOptions(4, width=6, image_format="png", shard_mb=0.02)
HANG_LIMIT_S = 60


def halves_png(number, channels=3):
    both = [numbered_image(at, 4, channels, 6) for at in (number, number + SECOND)]
    return encode(np.concatenate(both, axis=1), "png")


def members_of(number, channels=3, label=None):
    yield f"{number:04d}.a.png", picture(number, 4, channels=channels, width=6)
    yield f"{number:04d}.b.png", picture(number + SECOND, 4, channels=channels, width=6)
    if label is not None:
        yield f"{number:04d}.cls", str(label).encode()


def make_pairs(folder, sizes, pairing="members", channels=1):
    """Index shards of pairs, as others would have written them."""
    first = 0
    for shard, size in enumerate(sizes):
        files = []
        for number in range(first, first + size):
            if pairing == "members":
                files += members_of(number, channels, number % 3)
            else:
                files.append((f"{number:04d}.png", halves_png(number, channels)))
                files.append((f"{number:04d}.cls", b"%d" % (number % 3)))
        write_tar(folder / f"{shard}.tar", files)
        first += size
    index_folder(folder, IndexOptions(pairing=None if pairing == "members" else "halves"))
    return ShardSet.open(folder)


def assert_partners(batch):
    """Both images of each sample tell the sample's number."""
    assert [number_in(image) for image in batch.image_NCHW] == batch.sample_N.tolist()
    assert [number_in(image) for image in batch.image_b_NCHW] == (batch.sample_N + SECOND).tolist()
    assert batch.label_N.tolist() == (batch.sample_N % 3).tolist()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("pairing", ["members", "halves"])
def test_pairs_are_read_as_they_were_stored(tmp_path, pairing, channels):
    shards = make_pairs(tmp_path, [5, 4], pairing, channels)
    assert (shards.index.pairing, shards.spec) == (pairing, ImageSpec(4, channels, 3, 6))
    batch = shards.load(shards.numbers())
    assert_partners(batch)
    for image_NCHW, more in ((batch.image_NCHW, 0), (batch.image_b_NCHW, SECOND)):
        assert image_NCHW.is_contiguous(memory_format=torch.channels_last)
        stored = numbered_image(7 + more, 4, channels, 6).reshape(4, 6, channels)
        assert np.array_equal(image_NCHW[7].permute(1, 2, 0), stored)
    assert check_folder(tmp_path, 8).faults == ()


@pytest.mark.parametrize("by_value_bytes", [0, 1 << 17])
@pytest.mark.parametrize(("pairing", "workers"), [("members", 2), ("halves", 1), ("members", 0)])
def test_workers_send_both_images_of_every_micro_batch(tmp_path, monkeypatch, pairing, workers, by_value_bytes):
    monkeypatch.setattr("bigtrain.data.feed.BY_VALUE_BYTES", by_value_bytes)
    shards = make_pairs(tmp_path, [9, 14], pairing)
    feed = Feed(shards, shards.order(3, 2), Layout(0, 1, 2, 8), workers)
    for position in (0, 8, 16, 800):
        batches = feed.read(position)
        assert [len(batch) for batch in batches] == [2] * 4
        for batch in batches:
            assert_partners(batch)
            assert batch.image_b_NCHW.is_contiguous(memory_format=torch.channels_last)
    feed.close()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    pairing=st.sampled_from(["members", "halves"]),
    window=st.integers(1, 5),
    world=st.integers(1, 3),
    micro=st.integers(1, 3),
    accumulation=st.integers(1, 3),
)
def test_every_pair_comes_once_an_epoch_for_any_layout(tmp_path, sizes, pairing, window, world, micro, accumulation):
    folder = tmp_path / "-".join([pairing, *map(str, sizes)])
    shards = ShardSet.open(folder) if folder.exists() else make_pairs(folder, sizes, pairing)
    batch_images = world * micro * accumulation
    order = shards.order(5, window)
    starts = range(0, 2 * shards.num_samples, batch_images)
    found = np.full((len(starts), batch_images), -1)
    for rank in range(world):
        layout = Layout(rank, world, micro, batch_images)
        feed = Feed(shards, order, layout, num_workers=0)
        for row, start in enumerate(starts):
            for micro_index, batch in enumerate(feed.read(start)):
                assert_partners(batch)
                found[row, list(layout.positions(micro_index))] = batch.sample_N
        feed.close()
    assert found.ravel().tolist() == order.samples(np.arange(found.size)).tolist()
    assert sorted(found.ravel()[: shards.num_samples].tolist()) == list(range(shards.num_samples))


def flip(folder, number, name):
    """Flip a bit of one image of a pair."""
    index = FolderIndex.read(folder)
    row = read_rows(folder, index.shards[0], index.pairing)[number]
    with (folder / index.shards[0].name).open("r+b") as stream:
        stream.seek(int(row[f"offset{name}"]) + int(row[f"size{name}"]) // 2)
        flipped = bytes([stream.read(1)[0] ^ 4])
        stream.seek(-1, os.SEEK_CUR)
        stream.write(flipped)


@pytest.mark.parametrize(("name", "words"), [("", " is damaged"), ("_b", " has a second image that is damaged")])
def test_damage_in_either_image_is_that_of_the_pair_and_one_stand_in_replaces_both(tmp_path, capsys, name, words):
    make_pairs(tmp_path, [9])
    flip(tmp_path, 2, name)
    shards = ShardSet.open(tmp_path)
    with pytest.raises(DataError, match=rf"shard 0.tar, sample '0002' \(offset 6656\) in \S+{words}: crc32"):
        shards.load([2])
    batches = [make_skipping(shards).load(numbers) for numbers in ([1, 2, 3], [2])]
    stand_in = int(batches[1].sample_N[0])
    assert stand_in != 2
    assert stand_in % 3 == 2  # of its class
    assert [bad.number for bad in batches[0].bad] == [2]
    assert batches[0].sample_N.tolist() == [1, stand_in, 3]
    for batch in batches:
        assert_partners(batch)
    picture_path = tmp_path / "look.png"
    assert main(["shards", "check", str(tmp_path), *JOBS, "--picture", str(picture_path)]) == 1
    assert f"sample '0002.{'b' if name else 'a'}' (offset" in capsys.readouterr().out
    assert rgb(BAD) in colours(picture_path)


def make_skipping(shards):
    return replace(shards, on_error="skip")


def test_check_finds_what_is_missing_twice_or_elsewhere_in_pairs(tmp_path):
    make_pairs(tmp_path, [3])
    whole = [pair for number in range(3) for pair in members_of(number, 1, number % 3)]
    for files, words in [
        (whole[:-2] + whole[-1:], "1 of 3 samples of the index are not in the tar, the first is '0002'"),
        ([*whole, whole[1]], r"sample '0000' has two images \.b\."),
        ([whole[1], whole[0], *whole[2:]], r"sample '0000.b' \(offset 512\) lies elsewhere than its index says"),
        ([*whole, ("0009.b.png", picture(9, 4, channels=1, width=6))], "sample '0009.b' .* is not in its index"),
        ([*whole, ("0002.png", picture(9, 4, channels=1, width=6))], "sample '0002' .* is not in its index"),
    ]:
        write_tar(tmp_path / "0.tar", files)
        faults = "\n".join(check_folder(tmp_path, 8).faults)
        assert re.search(words, faults), faults


def test_the_picture_has_both_images_beside_each_other(tmp_path, capsys):
    make_pairs(tmp_path, [1], channels=1)
    assert main(["shards", "check", str(tmp_path), *JOBS, "--picture", str(tmp_path / "a.png")]) == 0
    assert "0.tar" in capsys.readouterr().out
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    scale = 11  # 6 px wide become 66
    tiles = pixels[8 : 8 + 4 * scale, 8 : 8 + 12 * scale][::scale, ::scale]
    assert np.array_equal(tiles, np.concatenate([numbered_image(at, 4, 1, 6) for at in (0, SECOND)], axis=1))


def test_pairs_without_a_label_are_kept_where_that_is_asked_for(tmp_path, two_folders, capsys):
    write_tar(tmp_path / "some" / "0.tar", [*members_of(0, 3, 0), *members_of(1, 3), *members_of(2, 3, 2)])
    command = ["shards", "index", str(tmp_path / "some"), *JOBS]
    assert main(command) == 6
    assert "sample '0001' of shard 0.tar has no .cls" in capsys.readouterr().err
    assert main([*command, "--unlabelled", "keep"]) == 0
    assert ShardSet.open(tmp_path / "some").load([0, 1, 2]).label_N.tolist() == [0, -1, 2]
    assert partners(tmp_path / "some") == [(0, 0, 0), (1, 1, -1), (2, 2, 2)]
    for side in ("a", "b"):
        (two_folders / side / "cat" / "0.png").rename(two_folders / side / "loose.png")
    words = ["--pairs", "folders", "--size", "4x6", "--format", "png", "--labels", "folders", "--unlabelled", "keep"]
    assert main(["shards", "folder", str(two_folders), str(tmp_path / "out"), *words, *JOBS]) == 0
    assert partners(tmp_path / "out")[0] == (0, 0, -1)
    assert main(["shards", "folder", str(two_folders), str(tmp_path / "out"), *words[:-4], *words[-2:]]) == 2
    assert "--unlabelled keep means images without a label among labelled ones" in capsys.readouterr().err


def test_one_flip_mirrors_both_and_pixels_are_mapped_alike():
    image_NCHW = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).reshape(2, 3, 4, 5)
    label_N = torch.zeros(2, dtype=torch.int64)
    batch = Batch(image_NCHW, label_N, label_N, image_b_NCHW=255 - image_NCHW)
    ready = batch.on_device(torch.device("cpu"), torch.tensor([True, False]))
    assert torch.equal(ready.image_b_NCHW, -ready.image_NCHW)
    assert torch.equal(ready.image_NCHW[0], (image_NCHW[0].float().flip(2) - 127.5) / 127.5)
    assert ready.image_b_NCHW.is_contiguous(memory_format=torch.channels_last)
    assert batch.part(slice(1, 2)).image_b_NCHW.shape == (1, 3, 4, 5)
    plain = Batch(image_NCHW, label_N, label_N)
    assert plain.on_device(torch.device("cpu")).image_b_NCHW is None
    assert plain.part(slice(1, 2)).image_b_NCHW is None


def test_both_images_are_pinned(tmp_path, monkeypatch):
    pinned = {}

    def pin(tensor):
        copy = tensor.clone(memory_format=torch.preserve_format)
        pinned[copy.data_ptr()] = copy
        return copy

    batch = make_pairs(tmp_path, [3]).load([2, 0])
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    (parcel,) = Parcel.of(batch).pin_memory().unpacked(2)
    for ready in (batch.pin_memory(), parcel):
        assert_partners(ready)
        assert {ready.image_NCHW.data_ptr(), ready.image_b_NCHW.data_ptr()} <= pinned.keys()


@pytest.fixture
def two_folders(tmp_path):
    for side, more in (("a", 0), ("b", SECOND)):
        for number in range(12):
            path = tmp_path / "src" / side / ("cat", "dog")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(numbered_image(number + more, 4, 3, 6)).save(path)
    return tmp_path / "src"


@pytest.fixture
def one_folder(tmp_path):
    (tmp_path / "halves").mkdir()
    for number in range(12):
        (tmp_path / "halves" / f"{number}.png").write_bytes(halves_png(number))
    return tmp_path / "halves"


def partners(folder):
    """The numbers of both images of every sample, and its label."""
    shards = ShardSet.open(folder)
    assert check_folder(folder, 8).faults == ()
    batch = shards.load(shards.numbers())
    both = zip(batch.image_NCHW, batch.image_b_NCHW, batch.label_N.tolist(), strict=True)
    return sorted((number_in(a), number_in(b) - SECOND, label) for a, b, label in both)


@pytest.mark.parametrize("jobs", [1, 3])
def test_two_folders_are_paired_by_name_whatever_the_jobs(two_folders, tmp_path, jobs):
    report = pack(find_pairs(two_folders, "folders"), tmp_path / "out", OPTIONS, jobs=jobs)
    assert len(report.index.shards) > 1
    assert (report.sizes, report.enlarged, report.index.pairing) == ({"6x4": 24}, 0, "members")
    assert partners(tmp_path / "out") == [(number, number, -1) for number in range(12)]
    pack(find_pairs(two_folders, "folders"), tmp_path / "again", OPTIONS, jobs=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "again")
    pack(find_pairs(two_folders, "folders", "folders"), tmp_path / "labelled", OPTIONS)
    assert partners(tmp_path / "labelled") == [(number, number, number % 2) for number in range(12)]


def test_halves_are_cut_in_the_middle_and_written_like_two_folders(one_folder, two_folders, tmp_path, capsys):
    words = ["--pairs", "halves", "--size", "4x6", "--format", "png", *JOBS]
    assert main(["shards", "folder", str(one_folder), str(tmp_path / "out"), *words]) == 0
    said = capsys.readouterr().out
    assert "pairs         12 of 12" in said
    assert "source sizes  6x4 (24)" in said
    assert "12 pairs of images of 6x4x3 (png), 0 classes" in said
    assert partners(tmp_path / "out") == [(number, number, -1) for number in range(12)]
    Image.new("RGB", (13, 4)).save(one_folder / "odd.png")
    assert main(["shards", "folder", str(one_folder), str(tmp_path / "out"), *words]) == 6
    assert "odd.png is 13 pixels wide, an odd number, so it has no halves" in capsys.readouterr().err
    assert main(["shards", "folder", str(one_folder), str(tmp_path / "out"), *words, "--skip-bad"]) == 0
    assert len(partners(tmp_path / "out")) == 12


def test_what_has_no_partner_is_refused_by_name(two_folders, tmp_path, capsys):
    words = ["--pairs", "folders", "--size", "8", *JOBS]
    command = ["shards", "folder", str(two_folders), str(tmp_path / "out"), *words]
    (two_folders / "b" / "cat" / "4.png").rename(two_folders / "b" / "cat" / "four.png")
    assert main(command) == 6
    said = capsys.readouterr().err
    assert "2 images in " in said
    assert "have no partner of their name: " in said
    assert "a/cat/4.png" in said
    assert "b/cat/four.png" in said
    (two_folders / "b" / "cat" / "four.png").rename(two_folders / "b" / "cat" / "4.jpg")  # read by its content
    assert main(command) == 0
    (two_folders / "a" / "cat" / "4.jpg").write_bytes(picture(4))
    assert main(command) == 6
    assert "have one name, so a pair could be either; rename one" in capsys.readouterr().err
    assert main(["shards", "folder", str(two_folders / "a"), str(tmp_path / "out"), *words]) == 6
    assert "does not hold the folders a and b" in capsys.readouterr().err


def test_a_bad_second_image_is_named(two_folders, tmp_path, capsys):
    (two_folders / "b" / "dog" / "5.png").write_bytes(b"no image")
    words = ["--pairs", "folders", "--size", "8", *JOBS]
    assert main(["shards", "folder", str(two_folders), str(tmp_path / "out"), *words]) == 6
    assert "b/dog/5.png cannot be decoded" in capsys.readouterr().err
    assert main(["shards", "folder", str(two_folders), str(tmp_path / "out"), *words, "--skip-bad"]) == 0
    assert FolderIndex.read(tmp_path / "out").num_samples == 11


def test_duplicates_are_pairs_of_which_both_are_equal(two_folders, tmp_path):
    for side in ("a", "b"):
        source = two_folders / side / "cat" / "0.png"
        (two_folders / side / "cat" / "copy.png").write_bytes(source.read_bytes())
    (two_folders / "a" / "cat" / "half.png").write_bytes((two_folders / "a" / "cat" / "0.png").read_bytes())
    (two_folders / "b" / "cat" / "half.png").write_bytes((two_folders / "b" / "cat" / "2.png").read_bytes())
    report = pack(find_pairs(two_folders, "folders"), tmp_path / "out", replace(OPTIONS, duplicates="drop"))
    assert [duplicate.path.name for duplicate in report.duplicates] == ["copy.png"]
    assert report.index.num_samples == 13


@pytest.mark.parametrize("changed", [False, True])
def test_a_packing_that_was_killed_takes_up_its_finished_shards_of_pairs(two_folders, tmp_path, monkeypatch, changed):
    written = []
    write_shard = packing.write_shard

    def interrupted(*arguments):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(arguments)
        return write_shard(*arguments)

    monkeypatch.setattr(packing, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(find_pairs(two_folders, "folders"), tmp_path / "out", OPTIONS)
    monkeypatch.undo()
    if changed:
        os.utime(two_folders / "b" / "cat" / "0.png", ns=(1, 1))  # a second image: what was finished may be out of date
    report = pack(find_pairs(two_folders, "folders"), tmp_path / "out", OPTIONS)
    assert report.taken_up == (0 if changed else 1)
    pack(find_pairs(two_folders, "folders"), tmp_path / "whole", OPTIONS)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_real_kill_while_pairs_are_packed_leaves_nothing_wrong(two_folders, tmp_path):
    pid = os.fork()
    if not pid:
        try:
            pack(find_pairs(two_folders, "folders"), tmp_path / "out", OPTIONS)
        finally:
            os._exit(0)
    started_s = time.monotonic()
    while not (tmp_path / "out").exists():
        assert time.monotonic() - started_s < HANG_LIMIT_S
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pack(find_pairs(two_folders, "folders"), tmp_path / "out", OPTIONS)
    pack(find_pairs(two_folders, "folders"), tmp_path / "whole", OPTIONS)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_parts_merge_and_a_shard_of_rejected_pairs_alone_is_empty(two_folders, tmp_path):
    pack(find_pairs(two_folders, "folders"), tmp_path / "whole", OPTIONS)
    for number in (1, 2):
        part = Part(number, 2)
        pack(find_pairs(two_folders, "folders"), tmp_path / "out" / part.folder_name, replace(OPTIONS, part=part))
    merge(tmp_path / "out")
    ours = contents(tmp_path / "whole")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.*") if path.name in ours} == ours
    shard = packing.permutation(12, "folder", 0)[:6].tolist()
    found = find_pairs(two_folders, "folders")
    for at in shard:
        found.sources[at].second.path.write_bytes(b"no image")
    report = pack(found, tmp_path / "empty", replace(OPTIONS, skip_bad=True, shard_mb=0.05))
    assert report.index.num_samples == 6
    assert len(partners(tmp_path / "empty")) == 6


def test_resize_keeps_pairs_of_any_form(tmp_path):
    for pairing in ("members", "halves"):
        make_pairs(tmp_path / pairing, [4, 3], pairing, channels=3)
        pack(find_shards(tmp_path / pairing, IndexOptions()), tmp_path / f"{pairing}-out", OPTIONS)
        assert partners(tmp_path / f"{pairing}-out") == [(number, number, number % 3) for number in range(7)]
    (tmp_path / "members" / "index.json").unlink()
    pack(find_shards(tmp_path / "members", IndexOptions()), tmp_path / "walked", OPTIONS)
    assert partners(tmp_path / "walked") == partners(tmp_path / "members-out")
    one, two = (contents(tmp_path / name) for name in ("members-out", "halves-out"))
    assert one.keys() == two.keys()


@pytest.mark.parametrize(
    ("files", "pairs", "words"),
    [
        (
            [("x.a.png", 0)],
            None,
            r"sample 'x' has one image of a pair and no \.b\.; complete the pairs .* --pairs none",
        ),
        ([("x.b.png", 0)], "members", r"sample 'x' has one image of a pair and no \.a\."),
        ([("x.a.png", 0), ("x.b.png", 1), ("y.png", 2)], None, "holds the pair 'x' and the single image 'y'"),
        ([("x.a.png", 0), ("x.a.webp", 0), ("x.b.png", 1)], None, "two images of sample 'x'"),
        ([("x.png", 0)], "members", "holds single images, not pairs named KEY.a.png and KEY.b.png"),
        (
            [("x.png", 0)],
            "halves",
            "images are 7 pixels wide, which is odd, so they have no halves; write them with an even width",
        ),
    ],
)
def test_what_is_no_pair_is_refused_by_name(tmp_path, capsys, files, pairs, words):
    stored = [(name, picture(number, 4, name.rpartition(".")[2], width=7)) for name, number in files]
    write_tar(tmp_path / "0.tar", stored)
    with pytest.raises(DataError, match=words):
        index_folder(tmp_path, IndexOptions(pairing=pairs))
    assert not (tmp_path / "index.json").exists()


def test_single_images_may_have_names_of_pairs_and_companions_stay_companions(tmp_path, capsys):
    write_tar(tmp_path / "0.tar", [("x.a.png", picture(0)), ("y.b.png", picture(1))])
    assert main(["shards", "index", str(tmp_path), "--pairs", "none", *JOBS]) == 0
    assert "2 images of 4x4x3" in capsys.readouterr().out
    assert ShardSet.open(tmp_path).load([0, 1]).image_b_NCHW is None
    write_tar(tmp_path / "0.tar", [("x.png", picture(0)), ("x.a.png", picture(1)), ("x.b.png", picture(2))])
    assert main(["shards", "index", str(tmp_path), *JOBS]) == 0
    said = capsys.readouterr().out
    assert "1 images of 4x4x3" in said
    assert "left out, since no sample needs them: 1 .a.png, 1 .b.png" in said
    write_tar(tmp_path / "1.tar", [("z.a.png", picture(1)), ("z.b.png", picture(2))])
    assert main(["shards", "index", str(tmp_path), *JOBS]) == 6
    assert "shard 1.tar holds pairs and shard 0.tar single images" in capsys.readouterr().err


def test_an_index_of_single_images_does_not_tell_of_pairs(tmp_path):
    make_shards(tmp_path / "one", [3])
    assert b"pairing" not in (tmp_path / "one" / "index.json").read_bytes()
    make_pairs(tmp_path / "two", [3])
    assert b'"pairing": "members"' in (tmp_path / "two" / "index.json").read_bytes()
    make_pairs(tmp_path / "three", [3], "halves")
    with pytest.raises(DataError, match="has other pairing"):
        ShardSet.open(str(tmp_path) + "/{two,three}")


def test_rows_of_another_form_than_the_index_are_refused(tmp_path):
    make_pairs(tmp_path, [3])
    entry = FolderIndex.read(tmp_path).shards[0]
    with pytest.raises(DataError, match="not 3 samples"):
        read_rows(tmp_path, entry)


@pytest.mark.parametrize("pairing", ["members", "halves"])
def test_a_game_of_single_images_and_figures_refuse_pairs_in_one_sentence(tmp_path, pairing):
    side = 32
    for number in range(4):
        files = [
            (f"{number}.a.png", picture(number, side, channels=1)),
            (f"{number}.b.png", picture(9, side, channels=1)),
        ]
        if pairing == "halves":
            files = [(f"{number}.png", picture(number, side, channels=1, width=2 * side))]
        write_tar(tmp_path / f"{number}.tar", [*files, (f"{number}.cls", b"%d" % (number % 3))])
    index_folder(tmp_path, IndexOptions(pairing="halves" if pairing == "halves" else None))
    overrides = [*TOY, "image.num_classes=3", f"data.shards={tmp_path}", "data.allow_sorted=true"]
    recipe = load_recipe(RECIPE, overrides, Recipe)
    with pytest.raises(DataError) as caught:
        open_shards(recipe)
    start = f"game.kind: noise_to_image trains on single images, but {tmp_path} holds pairs of images;"
    assert str(caught.value) == f"{start} point data.shards at single images"
    with pytest.raises(DataError, match="holds pairs of images, and figures are those of single ones"):
        open_images(str(tmp_path))


@pytest.mark.parametrize(
    ("size_b", "fit", "is_taken"),
    [
        ((8, 16), "crop", True),
        ((9, 16), "crop", True),  # rounded to whole pixels
        ((16, 8), "crop", False),
        ((9, 9), "pad", False),
        ((16, 8), "squash", True),
    ],
)
def test_images_of_a_pair_that_would_be_cut_differently_are_refused(tmp_path, capsys, size_b, fit, is_taken):
    for side, size in (("a", (4, 8)), ("b", size_b)):
        (tmp_path / "src" / side).mkdir(parents=True)
        Image.fromarray(numbered_image(1, size[0], 3, size[1])).save(tmp_path / "src" / side / "x.png")
    words = ["--pairs", "folders", "--size", "4", "--fit", fit, *JOBS]
    assert main(["shards", "folder", str(tmp_path / "src"), str(tmp_path / "out"), *words]) == (0 if is_taken else 6)
    width, height = size_b[::-1]
    said = f"b/x.png is {width}x{height} and the other one of its pair 8x4, so that --fit {fit} would not take the same"
    assert (said in capsys.readouterr().err) != is_taken


def test_an_index_says_what_samples_are_and_resize_says_so(tmp_path, capsys):
    make_shards(tmp_path / "one", [3], size=(4, 6))
    command = ["shards", "resize", str(tmp_path / "one"), str(tmp_path / "out"), "--size", "4", "--channels", "1"]
    for pairs in ("halves", "members"):
        assert main([*command, "--pairs", pairs, *JOBS]) == 2
        assert f"--pairs {pairs} is for shards without an index, and the index.json of " in capsys.readouterr().err
    assert main([*command, "--pairs", "none", *JOBS]) == 0
