"""Crops of the two photographs: pixels of theirs, never enlarged, without labels, and the same every time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigtrain.data.check import check_folder
from bigtrain.data.disk import LOCK_NAME, only_writer
from bigtrain.data.photos import LARGEST_SCALE, PhotoOptions, load_photos, plan_crops, write_photos
from bigtrain.data.shards import ShardSet
from bigtrain.recipe.errors import DataError, UsageError

SIZES = [(640, 427), (640, 427)]
SMALL = PhotoOptions(side=16, count=40)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK_NAME}


@pytest.fixture(scope="module")
def photos():
    return load_photos()


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, SMALL)
    return ShardSet.open(folder)


def test_the_photographs_are_two_of_640_by_427_in_colour(photos):
    assert [(photo.mode, photo.size) for photo in photos] == [("RGB", size) for size in SIZES]


def test_a_set_of_crops_has_no_labels(crops):
    assert (crops.spec.side, crops.spec.channels, crops.spec.num_classes) == (16, 3, 0)
    assert crops.num_samples == 40
    assert crops.class_names == ()
    assert crops.label_counts.shape == (0,)
    assert (crops.load(range(40)).label_N == -1).all()
    assert crops.index.resize["filter"] == "lanczos"
    assert "CC BY 2.0" in crops.index.source
    assert check_folder(Path(crops.where), 8).faults == ()


def test_every_sample_is_its_crop_made_smaller(crops, photos):
    batch = crops.load(range(SMALL.count))
    for image_CHW, crop in zip(batch.image_NCHW, plan_crops(SMALL, SIZES), strict=True):
        square = np.asarray(photos[crop.photo])[crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
        small = Image.fromarray(square).resize((16, 16), Image.Resampling.LANCZOS)
        assert np.array_equal(image_CHW.permute(1, 2, 0).numpy(), np.asarray(small))


@pytest.mark.parametrize(("side", "largest"), [(1, 4), (16, 64), (64, 256), (107, 427), (128, 427), (427, 427)])
def test_crops_lie_inside_and_are_never_enlarged(side, largest):
    crops = plan_crops(PhotoOptions(side, count=3000), SIZES)
    assert [crop.photo for crop in crops] == [0, 1] * 1500
    assert all(side <= crop.side <= largest for crop in crops)
    assert all(0 <= crop.left <= 640 - crop.side and 0 <= crop.top <= 427 - crop.side for crop in crops)
    assert min(crop.left for crop in crops) <= 5
    assert min(crop.top for crop in crops) <= 5
    assert max(crop.left + crop.side for crop in crops) >= 635
    assert max(crop.top + crop.side for crop in crops) >= 422


def test_sizes_are_log_uniform_and_places_uniform():
    crops = plan_crops(PhotoOptions(64, count=20_000), SIZES)
    scale = np.log([crop.side / 64 for crop in crops]) / np.log(LARGEST_SCALE)
    left = [crop.left / (640 - crop.side) for crop in crops]
    top = [crop.top / (427 - crop.side) for crop in crops]
    for share in (scale, left, top):  # mean 1/2, deviation 1/sqrt(12); flooring shifts by less than 0.01
        assert np.mean(share) == pytest.approx(0.5, abs=0.015)
        assert np.std(share) == pytest.approx(1 / np.sqrt(12), abs=0.01)
    assert np.abs(np.corrcoef([scale, left, top]) - np.eye(3)).max() < 0.03


def test_a_crop_depends_on_seed_and_number_alone():
    few, many = (plan_crops(PhotoOptions(64, count=count), SIZES) for count in (10, 500))
    assert many[:10] == few
    assert plan_crops(PhotoOptions(64, count=10, seed=1), SIZES) != few
    assert len(set(many)) == 500


def test_writing_again_gives_the_same_bytes_and_another_seed_others(crops, tmp_path):
    write_photos(tmp_path, SMALL)
    assert contents(tmp_path) == contents(Path(crops.where))
    other = write_photos(tmp_path, PhotoOptions(side=16, count=40, seed=1))
    assert other.content_sha256() != crops.index.content_sha256()
    assert len(contents(tmp_path)) == 3  # the old shard, its rows and its index are gone


def test_crops_are_dealt_to_shards_of_1024(tmp_path):
    done = []
    index = write_photos(tmp_path, PhotoOptions(side=4, count=2100), lambda *counts: done.append(counts))
    assert [entry.samples for entry in index.shards] == [1024, 1024, 52]
    assert done == [(1024, 2100), (2048, 2100), (2100, 2100)]
    assert check_folder(tmp_path, 8).faults == ()


def test_jpeg_is_smaller_and_close(crops, tmp_path):
    index = write_photos(tmp_path, PhotoOptions(side=16, count=40, image_format="jpg", quality=90))
    assert (index.image_format, index.resize["quality"]) == ("jpg", 90)
    assert "quality" not in crops.index.resize
    stored, exact = (shards.load(range(40)).image_NCHW.float() for shards in (ShardSet.open(tmp_path), crops))
    assert 0 < (stored - exact).abs().mean() < 4
    assert check_folder(tmp_path, 8).faults == ()


def test_a_side_above_the_photographs_is_refused_before_anything_is_written(tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(UsageError, match="--side is 428, but the photographs have 427 pixels .* choose at most 427"):
        write_photos(folder, PhotoOptions(side=428))
    assert not folder.exists()


def test_a_second_writer_is_refused_and_a_broken_off_one_leaves_the_old_set(crops, tmp_path, monkeypatch):
    write_photos(tmp_path, SMALL)
    before = contents(tmp_path)
    with only_writer(tmp_path), pytest.raises(DataError, match="writ"):
        write_photos(tmp_path, SMALL)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bigtrain.data.photos.encode", full)
    with pytest.raises(OSError, match="No space left"):
        write_photos(tmp_path, PhotoOptions(side=16, count=40, seed=1))
    assert contents(tmp_path) == before
    assert torch.equal(ShardSet.open(tmp_path).load([3]).image_NCHW, crops.load([3]).image_NCHW)
