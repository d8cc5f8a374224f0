"""A folder of shards as a data set: parts, reading, and every way in which it can be broken."""

import errno
import json
import os
import pickle

import numpy as np
import pytest

from bigtrain.data import reader as reader_module
from bigtrain.data.index import INDEX_NAME, FolderIndex, read_rows, write_rows
from bigtrain.data.settings import DataSettings
from bigtrain.data.shards import ShardSet
from bigtrain.data.writer import Encoded, commit, file_sha256, write_shard, writing
from bigtrain.recipe.errors import DataError
from tests.shard_factory import label_of, make_shards, number_in


@pytest.fixture
def folder(tmp_path):
    make_shards(tmp_path, [20, 15, 5])
    return tmp_path


def rewrite_index(folder, **changes):
    """Change index.json and make its own sha256 fit, as a careless tool would."""
    index = FolderIndex.read(folder).model_copy(update=changes)
    index.write(folder)
    return index


def flip(path, offset, bit=4):
    data = bytearray(path.read_bytes())
    data[offset] ^= bit
    path.write_bytes(data)


def test_any_sample_is_read_by_its_number(folder):
    shards = ShardSet.open(folder)
    assert shards.num_samples == 40
    batch = shards.load([39, 0, 19, 20, 7])
    assert [number_in(image_CHW) for image_CHW in batch.image_NCHW] == [39, 0, 19, 20, 7] == batch.sample_N.tolist()
    assert batch.label_N.tolist() == [label_of(number, 3) for number in (39, 0, 19, 20, 7)]
    data, label = shards.read(21)
    assert data.startswith(b"\x89PNG")
    assert label == label_of(21, 3)
    assert shards.label_counts.tolist() == [[label_of(number, 3) for number in range(40)].count(k) for k in range(3)]
    assert shards.class_names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize("number", [-1, 40])
def test_a_number_outside_the_data_set_is_refused(folder, number):
    with pytest.raises(DataError, match=f"no sample {number} in .*, which holds samples 0 to 39"):
        ShardSet.open(folder).read(number)


def test_training_and_holdout_parts_are_disjoint_and_complete(folder):
    shards = ShardSet.open(folder, holdout=0.25, seed=1)
    kept, held = set(shards.numbers().tolist()), set(shards.holdout().numbers().tolist())
    assert (shards.num_samples, shards.holdout().num_samples, shards.whole().num_samples) == (30, 10, 40)
    assert kept | held == set(range(40))
    assert not kept & held
    assert shards.holdout().training().numbers().tolist() == shards.numbers().tolist()
    assert (shards.label_counts + shards.holdout().label_counts).tolist() == shards.whole().label_counts.tolist()
    assert set(shards.order(0, 2).samples(np.arange(30)).tolist()) == kept


def test_the_content_hash_tells_parts_and_contents_apart_but_not_places(folder, tmp_path_factory):
    plain = ShardSet.open(folder)
    elsewhere, other = tmp_path_factory.mktemp("same"), tmp_path_factory.mktemp("other")
    make_shards(elsewhere, [20, 15, 5])
    make_shards(other, [20, 15, 6])
    assert ShardSet.open(elsewhere).content_hash == plain.content_hash == plain.whole().content_hash
    views = [ShardSet.open(folder, 0.25, 1), ShardSet.open(folder, 0.25, 1).holdout(), ShardSet.open(folder, 0.25, 2)]
    assert len({shards.content_hash for shards in [plain, ShardSet.open(other), *views]}) == 5


def test_a_holdout_of_everything_is_refused(folder):
    with pytest.raises(DataError, match="keeps all 40 samples .* out of training; lower it"):
        ShardSet.open(folder, holdout=1.0)


def test_images_without_labels_have_label_minus_1(tmp_path):
    make_shards(tmp_path, [4], num_classes=0)
    shards = ShardSet.open(tmp_path)
    assert shards.load([0, 1]).label_N.tolist() == [-1, -1]
    assert shards.spec.num_classes == 0
    assert shards.label_counts.shape == (0,)


def test_few_files_are_open_however_many_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(reader_module, "OPEN_SHARDS", 2)
    make_shards(tmp_path, [1] * 9)
    shards = ShardSet.open(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for number in [*range(9), *range(9)]:
        assert number_in(shards.load([number]).image_NCHW[0]) == number
    assert len(os.listdir("/proc/self/fd")) <= before + 4
    shards.reader.close()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert shards.load([3]).sample_N.tolist() == [3]


def test_it_survives_pickling_without_its_open_files(folder):
    shards = ShardSet.open(folder)
    expected = shards.read(3)
    copy = pickle.loads(pickle.dumps(shards))
    shards.reader.close()
    assert copy.read(3) == expected


# Damage, each found before the first step where it can be.


def test_a_missing_index_is_named_with_the_way_out(folder):
    (folder / INDEX_NAME).unlink()
    with pytest.raises(DataError, match=r"no index.json in .*, which holds 3 tar files; .*`bigtrain shards folder`"):
        ShardSet.open(folder)
    with pytest.raises(DataError, match=r"no index.json in .*nowhere, which does not exist"):
        ShardSet.open(folder / "nowhere")


def test_a_cut_index_is_refused(folder):
    path = folder / INDEX_NAME
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"index.json is not JSON \(cut short\?\)"):
        ShardSet.open(folder)


def test_an_edited_index_is_refused(folder):
    path = folder / INDEX_NAME
    path.write_text(path.read_text().replace('"channels": 1', '"channels": 3'))
    with pytest.raises(DataError, match=r"index.json is not what was written"):
        ShardSet.open(folder)


@pytest.mark.parametrize("text", ["[]", "3", "null"])
def test_an_index_of_another_kind_is_refused(folder, text):
    (folder / INDEX_NAME).write_text(text)
    with pytest.raises(DataError, match="not an index"):
        ShardSet.open(folder)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("version", 2, "has version 2, but this program reads 1"),
        ("channels", 2, "channels"),
        ("image_format", "bmp", "image_format"),
        ("surplus", 1, "surplus"),
    ],
)
def test_an_index_with_unknown_content_is_refused_by_key(folder, key, value, words):
    record = json.loads((folder / INDEX_NAME).read_text())
    (folder / INDEX_NAME).write_text(json.dumps({**record, key: value}))
    with pytest.raises(DataError, match=words):
        ShardSet.open(folder)


@pytest.mark.parametrize("name", ["../a.tar", "/etc/a.tar", "a/b.tar", ".tar", "pipe:cat a.tar", "a.tar.gz"])
def test_shard_names_cannot_leave_the_folder(folder, name):
    record = json.loads((folder / INDEX_NAME).read_text())
    record["shards"][0]["name"] = name
    (folder / INDEX_NAME).write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"shards.0.name"):
        ShardSet.open(folder)


def test_a_label_outside_the_classes_is_known_before_training(folder):
    rewrite_index(folder, classes=("class 0", "class 1"))
    with pytest.raises(DataError, match="holds label 2, but labels run from 0 to 1"):
        ShardSet.open(folder)


def test_labels_without_classes_are_known_before_training(folder):
    rewrite_index(folder, classes=())
    with pytest.raises(DataError, match="holds label 0, but the data set has no classes"):
        ShardSet.open(folder)


def test_a_wrong_label_in_the_rows_alone_stops_the_read(folder):
    index = FolderIndex.read(folder)
    rows = np.array(read_rows(folder, index.shards[0]))
    rows["label"][3] = 9
    digest = write_rows(folder / index.shards[0].index_name, rows)
    entry = index.shards[0].model_copy(update={"index_sha256": digest})
    rewrite_index(folder, shards=(entry, *index.shards[1:]))
    with pytest.raises(DataError, match=r"sample '000003' \(offset \d+\) in .* has label 9, but there are 3 classes"):
        ShardSet.open(folder).load([3])


def test_a_truncated_shard_is_known_before_training(folder):
    name = FolderIndex.read(folder).shards[1].name
    size = (folder / name).stat().st_size
    os.truncate(folder / name, size - 5000)
    with pytest.raises(DataError, match=rf"shard {name} in .* has {size - 5000} bytes where index.json says {size}"):
        ShardSet.open(folder)


def test_a_missing_shard_is_known_before_training(folder):
    name = FolderIndex.read(folder).shards[1].name
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"shard {name}, which index.json lists, is missing"):
        ShardSet.open(folder)


def test_a_shard_that_shrinks_while_training_is_a_sentence(folder):
    shards = ShardSet.open(folder)
    shards.read(39)
    os.truncate(folder / shards.index.shards[2].name, 700)
    with pytest.raises(DataError, match=r"sample '000039' .* is cut short"):
        shards.read(39)


def test_a_disk_that_fails_is_a_sentence(folder, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(DataError, match=r"sample '000003' .* cannot be read \(Input/output error\); mend the disk"):
        ShardSet.open(folder).read(3)


def test_a_missing_or_damaged_row_file_is_refused(folder):
    entry = FolderIndex.read(folder).shards[0]
    flip(folder / entry.index_name, -3)
    with pytest.raises(DataError, match=f"{entry.index_name} is damaged: sha256"):
        ShardSet.open(folder).read(0)
    (folder / entry.index_name).unlink()
    with pytest.raises(DataError, match=f"{entry.index_name} of shard .*: No such file"):
        ShardSet.open(folder).read(0)


def test_every_flipped_bit_of_an_image_is_found(folder):
    shards = ShardSet.open(folder)
    sample = shards.reader.read(5)
    path = folder / sample.shard
    whole = path.read_bytes()
    for at in range(len(sample.data)):
        flip(path, sample.offset + at, 1 << (at % 8))
        with pytest.raises(DataError, match=r"sample '000005' .* is damaged: crc32"):
            shards.read(5)
        path.write_bytes(whole)
    assert shards.read(5)[0] == sample.data


def test_images_of_another_size_or_channel_count_than_the_index_are_refused(folder):
    rewrite_index(folder, resolution=(8, 8))
    with pytest.raises(DataError, match=r"sample '000000' .*: the image is 4x4, not 8x8 as the index says; remove it"):
        ShardSet.open(folder).load([0])
    rewrite_index(folder, resolution=(4, 4), channels=3)
    with pytest.raises(DataError, match=r"has 1 channels \(colour type 0\), not 3 as the index says"):
        ShardSet.open(folder).load([0])
    rewrite_index(folder, resolution=(4, 8), channels=1)
    with pytest.raises(DataError, match=r"the image is 4x4, not 8x4 as the index says"):
        ShardSet.open(folder).load([0])
    rewrite_index(folder, resolution=(4, 0))
    with pytest.raises(DataError, match=r"resolution.1: Input should be greater than or equal to 1"):
        ShardSet.open(folder)


def test_an_index_without_samples_is_refused(folder):
    rewrite_index(folder, shards=())
    with pytest.raises(DataError, match="no shard holds a sample"):
        ShardSet.open(folder)


def test_an_image_over_max_pixels_stops_training(folder):
    with pytest.raises(DataError, match=r"claims 4x4 pixels, over data.max_pixels \(10\)"):
        DataSettings(shards=str(folder), max_pixels=10).build(0).load([0])


def test_class_sorted_shards_are_refused_unless_allowed(tmp_path):
    make_shards(tmp_path, [20] * 6, labels=sorted(number % 3 for number in range(120)))
    with pytest.raises(DataError, match=r"shards are sorted by class: windows of 2 shards .* data.allow_sorted=true"):
        DataSettings(shards=str(tmp_path), shuffle_window_shards=2).build(0)
    assert DataSettings(shards=str(tmp_path), shuffle_window_shards=2, allow_sorted=True).build(0).num_samples == 120
    assert (
        DataSettings(shards=str(tmp_path), shuffle_window_shards=6).build(0).num_samples == 120
    )  # one window mixes all


def test_shards_that_are_half_sorted_are_refused_too(tmp_path):
    make_shards(tmp_path, [20] * 4, num_classes=10, labels=[number // 8 for number in range(80)])
    with pytest.raises(DataError, match="hold 7[0-9]% of the label entropy"):
        DataSettings(shards=str(tmp_path), shuffle_window_shards=2).build(0)


def test_settings_take_suffixes_and_refuse_unknown_keys():
    settings = DataSettings.model_validate({"shards": "x", "holdout": "5%", "max_pixels": "2M"})
    assert (settings.holdout, settings.max_pixels, settings.on_error) == (0.05, 2_000_000, "stop")
    with pytest.raises(ValueError, match="on_error"):
        DataSettings.model_validate({"shards": "x", "on_error": "ignore"})
    with pytest.raises(ValueError, match="shrads"):
        DataSettings.model_validate({"shrads": "x"})


def test_labels_outside_the_classes_are_never_put_into_force(folder):
    old = FolderIndex.read(folder)
    with pytest.raises(DataError, match="holds label 7, but labels run from 0 to 2"), writing(folder):
        commit(folder, old, [write_shard(folder, 0, 0, "png", [Encoded(b"x", 7)])])
    assert FolderIndex.read(folder) == old
    assert ShardSet.open(folder).load([0]).label_N.tolist() == [0]


class Canary:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


def put_rows(folder, write):
    """Replace the rows of the first shard, with all sums in `index.json` made to fit, as an attacker would."""
    index = FolderIndex.read(folder)
    entry = index.shards[0]
    path = folder / entry.index_name
    write(path)
    fitting = entry.model_copy(update={"index_sha256": file_sha256(path)})
    rewrite_index(folder, shards=(fitting, *index.shards[1:]))


def pickled(path, canary):
    np.save(path, np.array([Canary(canary)] * 20, dtype=object), allow_pickle=True)


def archive(path, canary):
    with path.open("wb") as stream:
        np.savez(stream, offset=np.zeros(20))


def plain_pickle(path, canary):
    path.write_bytes(pickle.dumps(Canary(canary)))


@pytest.mark.parametrize("attack", [pickled, archive, plain_pickle])
def test_rows_that_would_run_code_or_are_no_rows_are_a_sentence_and_run_nothing(folder, tmp_path, attack):
    canary = tmp_path / "canary"
    put_rows(folder, lambda path: attack(path, canary))
    with pytest.raises(DataError, match="holds no rows") as caught:
        ShardSet.open(folder).load([0])
    assert "\n" not in str(caught.value)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("column", "value"), [("size", 1 << 62), ("size", -1), ("offset", -512), ("offset", 1 << 62), ("offset", 10**6)]
)
def test_rows_that_point_outside_their_shard_are_refused_before_anything_is_read(folder, column, value):
    def point_outside(path):
        rows = np.array(np.load(path))
        rows[column][3] = value
        np.save(path, rows)

    put_rows(folder, point_outside)
    with pytest.raises(DataError, match="places sample 3 outside of shard"):
        ShardSet.open(folder).load([0])


def test_a_key_that_is_no_text_does_not_break_the_sentence(folder):
    def spoil(path):
        rows = np.array(np.load(path))
        rows["key"][3], rows["crc32"][3] = b"\xff\x1b[2J", 0
        np.save(path, rows)

    put_rows(folder, spoil)
    with pytest.raises(DataError, match="is damaged: crc32") as caught:
        ShardSet.open(folder).load([3])
    assert "\x1b" not in str(caught.value)
