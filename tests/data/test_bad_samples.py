"""`data.on_error: skip`: what stands in for a damaged sample, and 200 damaged shards under both policies."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from bigtrain.data.feed import Feed
from bigtrain.data.shards import ShardSet
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.layout import Layout
from tests.shard_factory import damage_sample, label_of, make_shards, number_in

BATCH_IMAGES = 12


def skipping(folder, **opened):
    return replace(ShardSet.open(folder, **opened), on_error="skip")


def read_all(shards, world, workers, starts):
    """Return each global batch's images by position, and all that was told of bad samples."""
    images, bad = {}, []
    for rank in range(world):
        layout = Layout(rank, world, 2, BATCH_IMAGES)
        feed = Feed(shards, shards.order(5, 2), layout, workers)
        for start in starts:
            for micro_index, batch in enumerate(feed.read(start)):
                bad += batch.bad
                for place, image, number in zip(
                    layout.positions(micro_index), batch.image_NCHW, batch.sample_N.tolist(), strict=True
                ):
                    assert number_in(image) == number
                    images[start + place] = number
        feed.close()
    return [images[place] for place in sorted(images)], sorted(bad, key=lambda each: (each.number, each.stand_in))


def test_ranks_workers_and_seeks_give_the_same_stand_ins_and_all_others_stay(tmp_path):
    make_shards(tmp_path, [20, 1, 15, 6])
    clean = ShardSet.open(tmp_path)
    damaged = (3, 7, 22, 30, 41)
    for number in damaged:
        damage_sample(tmp_path, number)
    shards, starts = skipping(tmp_path), range(0, 84, BATCH_IMAGES)
    expected = clean.order(5, 2).samples(np.arange(84)).tolist()
    found, bad = read_all(shards, 1, 0, starts)
    assert len(bad) == 2 * len(damaged)  # once in each of two epochs
    assert {each.number for each in bad} == set(damaged)
    assert sum(ours != theirs for ours, theirs in zip(found, expected, strict=True)) == len(bad)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours not in damaged
        if theirs not in damaged:
            assert ours == theirs
        else:
            assert label_of(ours, 3) == label_of(theirs, 3)
            assert clean.reader.locate(ours)[0] == clean.reader.locate(theirs)[0]
    for world, workers in ((3, 0), (2, 2)):
        assert read_all(skipping(tmp_path), world, workers, starts) == (found, bad)
    assert read_all(skipping(tmp_path), 2, 0, [48, 60, 72])[0] == found[48:]


def test_a_bad_sample_is_told_with_shard_key_offset_and_reason(tmp_path):
    index = make_shards(tmp_path, [20])
    damage_sample(tmp_path, 4)
    batch = skipping(tmp_path).load([3, 4])
    (bad,) = batch.bad
    row = ShardSet.open(tmp_path).reader.rows(0)[4]
    assert (bad.number, bad.shard, bad.key, bad.offset) == (4, index.shards[0].name, "000004", int(row["offset"]))
    assert bad.reason.startswith("is damaged: crc32 ")
    assert batch.sample_N.tolist() == [3, bad.stand_in]


def test_images_that_are_too_large_are_replaced_like_damaged_ones_and_missing_shards_are_not(tmp_path):
    index = make_shards(tmp_path, [10, 10])
    with pytest.raises(DataError, match=r"claims 4x4 pixels.*none of its shard that could stand in"):
        skipping(tmp_path, max_pixels=10).load([0])
    shards = skipping(tmp_path)
    (tmp_path / index.shards[1].name).unlink()
    shards.load(range(10))
    with pytest.raises(DataError, match="cannot be opened|missing"):
        shards.load([10])


def test_nothing_that_is_held_out_stands_in_and_the_other_way_round(tmp_path):
    make_shards(tmp_path, [40])
    whole = ShardSet.open(tmp_path, 0.5)
    kept, held = whole.numbers().tolist(), whole.holdout().numbers().tolist()
    for number in (kept[0], kept[1], held[0], held[1]):
        damage_sample(tmp_path, number)
    shards = skipping(tmp_path, holdout=0.5)
    assert set(shards.load(kept).sample_N.tolist()) == set(kept[2:])
    assert set(shards.holdout().load(held).sample_N.tolist()) == set(held[2:])


def test_where_a_class_has_no_whole_sample_another_class_stands_in_with_its_own_label(tmp_path):
    make_shards(tmp_path, [12], labels=[0, 0] + [1] * 10, num_classes=2)
    damage_sample(tmp_path, 0)
    damage_sample(tmp_path, 1)
    batch = skipping(tmp_path).load([0])
    assert batch.label_N.tolist() == [1]
    assert number_in(batch.image_NCHW[0]) == batch.sample_N[0] > 1


def test_a_thousand_bad_samples_cost_little(tmp_path):
    make_shards(tmp_path, [4000])
    for number in range(0, 4000, 4):
        damage_sample_fast(tmp_path, number)
    started_s = time.monotonic()
    batch = skipping(tmp_path).load(range(4000))
    assert len(batch.bad) == 1000
    assert time.monotonic() - started_s < 5  # about 0.6 s; a pause for each would be 500 s


def damage_sample_fast(folder, number, opened={}):  # noqa: B006
    if folder not in opened:
        shards = ShardSet.open(folder)
        opened[folder] = folder / shards.index.shards[0].name, np.array(shards.reader.rows(0)["offset"])
    path, offsets = opened[folder]
    with path.open("r+b") as stream:
        stream.seek(int(offsets[number]) + 40)
        byte = stream.read(1)[0]
        stream.seek(int(offsets[number]) + 40)
        stream.write(bytes([byte ^ 1]))


# 200 damaged shards.


def flip(data, rng):
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))


def cut(data, rng):
    del data[int(rng.integers(len(data))) :]


def hole(data, rng):
    start = int(rng.integers(len(data)))
    end = min(len(data), start + int(rng.integers(1, 3000)))
    data[start:end] = bytes(end - start)


def tail(data, rng):
    data += rng.bytes(int(rng.integers(1, 3000)))


def insertion(data, rng):
    start = int(rng.integers(len(data)))
    data[start:start] = rng.bytes(int(rng.integers(1, 600)))


@pytest.mark.parametrize("image_format", ["png", "jpg"])
@pytest.mark.parametrize("harm", [flip, cut, hole, tail, insertion])
def test_of_20_random_corruptions_none_gives_a_wrong_pixel_or_more_than_a_sentence(tmp_path, harm, image_format):
    index = make_shards(tmp_path, [12, 9], image_format=image_format, channels=3)
    clean = ShardSet.open(tmp_path).load(range(21))
    path = tmp_path / index.shards[0].name
    whole, rng = path.read_bytes(), np.random.default_rng([3, *harm.__name__.encode()])
    seen = 0
    for _ in range(20):
        data = bytearray(whole)
        harm(data, rng)
        path.write_bytes(data)
        if len(data) != len(whole):
            with pytest.raises(DataError, match=r"has \d+ bytes where index.json says"):
                ShardSet.open(tmp_path)
            path.write_bytes(whole)  # as if it were harmed after the start
            stopping, path_data = ShardSet.open(tmp_path), data
            path.write_bytes(path_data)
        else:
            stopping = ShardSet.open(tmp_path)
        seen += check_every_sample(stopping, clean)
        check_every_sample_skipping(replace(stopping, on_error="skip"), clean)
    assert seen or harm is tail


def check_every_sample(shards, clean):
    sentences = []
    for number in range(21):
        try:
            batch = shards.load([number])
        except DataError as error:
            sentences.append((number, str(error)))
        else:
            assert torch.equal(batch.image_NCHW[0], clean.image_NCHW[number])
            assert batch.label_N[0] == clean.label_N[number]
    for number, sentence in sentences:
        assert "\n" not in sentence
        assert f"sample '{number:06d}'" in sentence
    return len(sentences)


def check_every_sample_skipping(shards, clean):
    sentences = []
    for number in range(21):
        try:
            batch = shards.load([number])
        except DataError as error:
            sentences.append(str(error))
        else:
            found = int(batch.sample_N[0])
            assert torch.equal(batch.image_NCHW[0], clean.image_NCHW[found])
            assert batch.label_N[0] == clean.label_N[found]
            assert [bad.number for bad in batch.bad] == ([] if found == number else [number])
    assert all("could stand in" in sentence for sentence in sentences)
