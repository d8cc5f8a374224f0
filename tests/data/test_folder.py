"""A folder of images becomes shards: the same ones for any number of processes, and nothing is left out silently."""

import os
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bigtrain.data.check import check_folder
from bigtrain.data.decode import decode_into
from bigtrain.data.disk import LOCK_NAME
from bigtrain.data.folder import find_classes, find_unlabelled, write_folder
from bigtrain.data.index import NO_LABEL, FolderIndex
from bigtrain.data.pack import PackOptions
from bigtrain.data.pixels import fit, open_image
from bigtrain.data.shards import ShardSet
from bigtrain.recipe.errors import DataError, UsageError

CLASSES = ("cat", "dog", "fish")
COUNTS = (9, 5, 7)


def paint(path, number, size=(20, 14), mode="RGB"):
    colours = {"RGB": (number * 10, 255 - number * 10, 40), "L": number * 10, "RGBA": (number * 10, 0, 0, 128)}
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colours[mode]).save(path)


@pytest.fixture
def source(tmp_path):
    for label, (name, count) in enumerate(zip(CLASSES, COUNTS, strict=True)):
        for number in range(count):
            paint(tmp_path / "source" / name / f"{number}.{'png' if number % 2 else 'jpg'}", number + 3 * label)
    (tmp_path / "source" / "dog" / "notes.txt").write_text("no image")
    return tmp_path / "source"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK_NAME}


def test_classes_labels_and_sizes_are_recorded_and_all_images_are_there(source, tmp_path):
    report = write_folder(source, tmp_path / "out", PackOptions(8, image_format="png", filter="box", shard_mb=0.02))
    index = FolderIndex.read(tmp_path / "out")
    assert report.index == index
    assert index.classes == CLASSES
    assert index.resize == {"fit": "crop", "filter": "box"}
    assert len(index.shards) > 2
    assert report.other_files == {".txt": 1}
    assert (report.enlarged, report.rejections) == (0, ())
    shards = ShardSet.open(tmp_path / "out")
    assert shards.label_counts.tolist() == list(COUNTS)
    assert check_folder(tmp_path / "out", 8).faults == ()
    batch = shards.load(shards.numbers())
    reds = sorted(zip(batch.label_N.tolist(), (batch.image_NCHW[:, 0, 0, 0] // 10).tolist(), strict=True))
    wanted = sorted((label, number + 3 * label) for label, count in enumerate(COUNTS) for number in range(count))
    assert all(abs(red - want) <= 1 for (_, red), (_, want) in zip(reds, wanted, strict=True))


def test_the_result_does_not_depend_on_the_number_of_processes(source, tmp_path):
    options = PackOptions(8, shard_mb=0.01)
    progress: list[tuple[int, int]] = []
    write_folder(source, tmp_path / "one", options, jobs=1, progress=lambda *done: progress.append(done))
    write_folder(source, tmp_path / "three", options, jobs=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert progress[-1] == (21, 21)


def test_samples_are_permuted_across_classes_and_by_seed(source, tmp_path):
    write_folder(source, tmp_path / "a", PackOptions(8, seed=0))
    write_folder(source, tmp_path / "b", PackOptions(8, seed=1))
    labels = [ShardSet.open(tmp_path / name).load(range(21)).label_N.tolist() for name in "ab"]
    assert labels[0] != labels[1]
    assert labels[0] != sorted(labels[0])
    assert sorted(labels[0]) == sorted(labels[1])


def test_files_that_cannot_be_used_stop_the_writing_and_are_named(source, tmp_path):
    write_folder(source, tmp_path / "out", PackOptions(8))
    before = contents(tmp_path / "out")
    (source / "cat" / "broken.jpg").write_bytes((source / "cat" / "0.jpg").read_bytes()[:200])
    (source / "cat" / "text.png").write_text("hello")
    with pytest.raises(DataError, match=r"2 of 23 files cannot be used: .*(broken.jpg|text.png) .*; .* --skip-bad"):
        write_folder(source, tmp_path / "out", PackOptions(8))
    assert contents(tmp_path / "out") == before, "the shards in force stay"
    report = write_folder(source, tmp_path / "out", PackOptions(8, skip_bad=True))
    assert {rejection.path.name for rejection in report.rejections} == {"broken.jpg", "text.png"}
    assert report.index.num_samples == 21
    assert check_folder(tmp_path / "out", 8).faults == ()


def test_small_images_are_enlarged_and_counted(source, tmp_path):
    report = write_folder(source, tmp_path / "out", PackOptions(16))
    assert report.enlarged == 21


@pytest.mark.parametrize(("image_format", "channels"), [("jpg", 1), ("png", 4), ("webp", 3), ("webp", 4)])
def test_formats_and_channels_can_be_read_back(source, tmp_path, image_format, channels):
    write_folder(source, tmp_path / "out", PackOptions(8, image_format=image_format, channels=channels))
    shards = ShardSet.open(tmp_path / "out")
    assert shards.load(shards.numbers()).image_NCHW.shape == (21, channels, 8, 8)


@pytest.mark.parametrize(("image_format", "channels"), [("jpg", 4), ("webp", 1)])
def test_a_format_that_cannot_hold_the_channels_is_refused(source, tmp_path, image_format, channels):
    with pytest.raises(UsageError, match=f"--format {image_format} cannot hold {channels} channels .* --format png"):
        write_folder(source, tmp_path / "out", PackOptions(8, image_format=image_format, channels=channels))


def test_wrong_folders_are_refused_with_the_way_out(source, tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        find_classes(tmp_path / "nowhere")
    (source / "empty").mkdir()
    with pytest.raises(DataError, match="class 'empty' in .* has no image"):
        find_classes(source)
    (source / "empty").rmdir()
    paint(source / "loose.png", 1)
    with pytest.raises(DataError, match="3 sub-folders and 1 images beside them; put every image into the sub-folder"):
        find_classes(source)
    with pytest.raises(DataError, match="0 sub-folders and 9 images .* write images without labels with --labels none"):
        find_classes(source / "cat")


def test_a_source_without_labels_must_hold_images(source, tmp_path):
    with pytest.raises(DataError, match="is no folder; name one that holds images"):
        find_unlabelled(tmp_path / "nowhere")
    (tmp_path / "bare" / "below").mkdir(parents=True)
    (tmp_path / "bare" / "below" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"bare and its 1 sub-folders hold no image.*\.png.* among 1 files; name the"):
        write_folder(tmp_path / "bare", tmp_path / "out", PackOptions(8), labels="none")
    assert not (tmp_path / "out").exists()
    (source / "empty").mkdir()
    assert len(find_unlabelled(source).sources) == 21


def test_without_labels_images_of_all_depths_are_stored_and_no_class(source, tmp_path):
    paint(source / "loose.png", 1)
    paint(source / "fish" / "deep" / "er" / "0.png", 2)
    paint(source / ".trash" / "0.png", 3)
    (source / "readme.md").write_text("no image")
    report = write_folder(source, tmp_path / "out", PackOptions(8, image_format="png", shard_mb=0.02), labels="none")
    index = FolderIndex.read(tmp_path / "out")
    assert report.index == index
    assert (index.classes, index.spec.num_classes, index.num_samples) == ((), 0, 23)
    assert all(entry.class_histogram == {NO_LABEL: entry.samples} for entry in index.shards)
    assert report.other_files == {".txt": 1, ".md": 1}
    names = []
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path) as tar:
            names += tar.getnames()
    assert sorted(names) == [f"{number:06d}.png" for number in range(23)], "an image a sample, and no label"
    shards = ShardSet.open(tmp_path / "out")
    assert shards.label_counts.tolist() == []
    assert check_folder(tmp_path / "out", 8).faults == ()
    batch = shards.load(shards.numbers())
    reds = sorted((batch.image_NCHW[:, 0, 0, 0] / 10).round().int().tolist())
    wanted = [number + 3 * label for label, count in enumerate(COUNTS) for number in range(count)]
    assert reds == sorted([*wanted, 1, 2])


def test_without_labels_the_order_is_the_seeds_alone(source, tmp_path):
    """That of the same folder with its classes, for any number of processes, and another one for another seed."""
    options = PackOptions(8, image_format="png", shard_mb=0.02)
    write_folder(source, tmp_path / "classes", options)
    write_folder(source, tmp_path / "one", options, jobs=1, labels="none")
    write_folder(source, tmp_path / "three", options, jobs=3, labels="none")
    write_folder(source, tmp_path / "other", replace(options, seed=1), labels="none")
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    images = {name: ShardSet.open(tmp_path / name).load(range(21)).image_NCHW for name in ("classes", "one", "other")}
    assert np.array_equal(images["one"], images["classes"])
    assert not np.array_equal(images["one"], images["other"])
    reds = images["one"][:, 0, 0, 0].tolist()
    assert reds != sorted(reds)


def test_without_labels_a_bad_file_leaves_the_shards_in_force_and_a_second_try_replaces_them(source, tmp_path):
    write_folder(source, tmp_path / "out", PackOptions(8))
    before = contents(tmp_path / "out")
    (source / "broken.png").write_text("hello")
    options = PackOptions(8)
    with pytest.raises(DataError, match=r"1 of 22 files cannot be used: .*broken.png"):
        write_folder(source, tmp_path / "out", options, labels="none")
    assert contents(tmp_path / "out") == before
    (source / "broken.png").unlink()
    write_folder(source, tmp_path / "out", options, labels="none")
    write_folder(source, tmp_path / "fresh", options, labels="none")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def gradient(width, height):
    return Image.fromarray(np.tile(np.arange(width, dtype=np.uint8) * (240 // width), (height, 1)))


def test_fits_keep_the_centre_all_or_the_frame():
    wide = gradient(40, 20)
    crop, pad, squash = (np.asarray(fit(wide, (20, 20), how, "box")) for how in ("crop", "pad", "squash"))
    assert np.array_equal(crop, np.asarray(wide)[:, 10:30])
    assert (pad[:5] == 0).all()
    assert (pad[15:] == 0).all()
    assert np.array_equal(pad[5:15], squash[:10])
    assert squash.shape == (20, 20)
    assert np.array_equal(squash[0], np.asarray(wide)[0].reshape(20, 2).mean(1).round().astype(np.uint8))


def test_an_image_of_the_right_size_is_not_touched():
    image = gradient(20, 20)
    assert all(np.array_equal(fit(image, (20, 20), how, "lanczos"), image) for how in ("crop", "pad", "squash"))


def test_photographs_are_turned_as_their_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn a quarter clockwise
    gradient(20, 10).save(tmp_path / "a.png", exif=exif)
    assert open_image(tmp_path / "a.png", 1, 1000).size == (10, 20)


def test_transparency_is_seen_over_white_unless_alpha_is_kept(tmp_path):
    paint(tmp_path / "a.png", 0, mode="RGBA")
    assert open_image(tmp_path / "a.png", 3, 1000).getpixel((0, 0)) == (127, 127, 127)
    assert open_image(tmp_path / "a.png", 4, 1000).getpixel((0, 0)) == (0, 0, 0, 128)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: Image.new("I;16", (9, 9)).save(path), "more than 8 bits a channel"),
        (lambda path: Image.new("L", (2000, 2000)).save(path), "claims 2000x2000 pixels, over the limit of 1000000"),
        (lambda path: gradient(9, 9).save(path, format="PPM"), "cannot be decoded"),  # stands for EPS and the like
        (
            lambda path: gradient(9, 9).save(
                path, format="GIF", save_all=True, append_images=[Image.new("L", (9, 9), 9)]
            ),
            "is an animation",
        ),
    ],
)
def test_images_that_would_lose_something_are_refused(tmp_path, make, words):
    make(tmp_path / "a.png")
    with pytest.raises(ValueError, match=words):
        open_image(tmp_path / "a.png", 1, 1_000_000)


def test_jpeg_keeps_colour_at_full_resolution(tmp_path):
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 0)
    stripes[:, 1::2] = (0, 0, 255)
    (tmp_path / "source" / "a").mkdir(parents=True)
    Image.fromarray(stripes).save(tmp_path / "source" / "a" / "0.png")
    write_folder(tmp_path / "source", tmp_path / "out", PackOptions(16))
    shards = ShardSet.open(tmp_path / "out")
    out_HWC = np.empty((16, 16, 3), np.uint8)
    decode_into(shards.read(0)[0], shards.spec, out_HWC)
    assert np.abs(out_HWC.astype(int) - stripes).mean() < 12  # 4:2:0 would mix red and blue: over 60


def test_links_in_the_source_are_followed_only_to_files(source, tmp_path):
    os.symlink(source / "cat" / "1.png", source / "dog" / "linked.png")
    assert len(find_classes(source).sources) == len(find_unlabelled(source).sources) == 22
