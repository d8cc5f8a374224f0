"""Images that are not square go through packing, indexing, checking and reading like any others."""

import numpy as np
import pytest
import torch
from PIL import Image

from bigtrain.cli import main
from bigtrain.data.feed import Feed
from bigtrain.data.index import FolderIndex
from bigtrain.data.pixels import fit, is_enlarged
from bigtrain.data.shards import ShardSet
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.image import ImageSpec
from bigtrain.recipe.layout import Layout
from bigtrain.recipe.load import load_recipe
from bigtrain.training.build import open_shards
from bigtrain.training.schema import ImageSettings, Recipe
from tests.data.test_foreign import picture, write_tar
from tests.data.test_sources import contents
from tests.shard_factory import make_shards, number_in, numbered_image
from tests.training.toy_runs import RECIPE, TOY

SIZES = [(4, 7), (9, 4)]
JOBS = ["--jobs", "1"]


@pytest.mark.parametrize("by_value_bytes", [0, 1 << 17])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_batches_hold_the_pixels_that_were_stored(tmp_path, monkeypatch, size, channels, by_value_bytes):
    monkeypatch.setattr("bigtrain.data.feed.BY_VALUE_BYTES", by_value_bytes)
    make_shards(tmp_path, [5, 4], channels=channels, size=size)
    shards = ShardSet.open(tmp_path)
    assert shards.spec == ImageSpec(size[0], channels, 3, size[1])
    feed = Feed(shards, shards.order(0, 1), Layout(0, 1, 2, 4), num_workers=1)
    for batch in feed.read(0):
        assert batch.image_NCHW.shape == (2, channels, *size)
        assert batch.image_NCHW.is_contiguous(memory_format=torch.channels_last)
        for image_CHW, number in zip(batch.image_NCHW, batch.sample_N.tolist(), strict=True):
            stored = numbered_image(number, size[0], channels, size[1]).reshape(*size, channels)
            assert np.array_equal(image_CHW.permute(1, 2, 0), stored)
    feed.close()
    assert main(["shards", "check", str(tmp_path), *JOBS]) == 0


def test_one_size_has_one_spec(tmp_path):
    make_shards(tmp_path, [3])
    said = ImageSettings(side=4, width=4, channels=1, num_classes=3).spec
    assert ShardSet.open(tmp_path).spec == said == ImageSpec(4, 1, 3)


def test_a_recipe_of_another_width_is_refused_with_the_key_to_set(tmp_path):
    make_shards(tmp_path / "wide", [8], size=(32, 48))
    make_shards(tmp_path / "square", [8], size=(32, 32))
    square = load_recipe(RECIPE, [*TOY, "image.num_classes=3"], Recipe)
    wide = square.model_copy(update={"image": square.image.model_copy(update={"width": 48})})
    for recipe, name, words in ((square, "wide", "null .* hold 48"), (wide, "square", "48 .* hold null")):
        data = recipe.data.model_copy(update={"shards": str(tmp_path / name)})
        with pytest.raises(DataError, match=f"image.width: {words}; set image.width="):
            open_shards(recipe.model_copy(update={"data": data}))
        right = data.model_copy(update={"shards": str(tmp_path / ("square" if name == "wide" else "wide"))})
        assert open_shards(recipe.model_copy(update={"data": right})).spec == recipe.image.spec


def spread(height, width):
    """Pixels that are all different along both axes."""
    return Image.fromarray((np.arange(height)[:, None] * 2 + np.arange(width) * 3).astype(np.uint8))


@pytest.mark.parametrize(
    ("source", "size", "rows", "columns"),
    [
        ((20, 40), (10, 15), (0, 20), (5, 35)),  # too wide
        ((40, 20), (10, 15), (13, 26), (0, 20)),  # too high: 20 wide are 13 1/3 high
        ((30, 20), (15, 10), (0, 30), (0, 20)),
        ((20, 40), (20, 20), (0, 20), (10, 30)),
    ],
)
def test_crop_takes_the_largest_centred_box_of_the_proportions(source, size, rows, columns):
    image = spread(*source)
    box = Image.fromarray(np.asarray(image)[slice(*rows), slice(*columns)])
    expected = np.asarray(box.resize((size[1], size[0]), Image.Resampling.BOX))
    assert np.array_equal(np.asarray(fit(image, size, "crop", "box")), expected)


def test_pad_keeps_all_between_black_bars_and_squash_fills_the_frame():
    wide, high = np.full((10, 40), 200, np.uint8), np.full((40, 10), 200, np.uint8)
    for pixels, rows, columns in ((wide, (5, 10), (0, 20)), (high, (0, 15), (8, 12))):
        image = Image.fromarray(pixels)
        padded = np.asarray(fit(image, (15, 20), "pad", "box"))
        expected = np.zeros((15, 20), np.uint8)
        expected[slice(*rows), slice(*columns)] = 200
        assert np.array_equal(padded, expected)
        assert np.array_equal(np.asarray(fit(image, (15, 20), "squash", "box")), np.full((15, 20), 200))


@pytest.mark.parametrize("how", ["crop", "pad", "squash"])
def test_an_image_of_the_right_size_is_not_touched(how):
    image = spread(12, 20)
    assert np.array_equal(fit(image, (12, 20), how, "lanczos"), image)


@pytest.mark.parametrize(
    ("source", "enlarged"),
    [((20, 30), ""), ((19, 30), "crop squash"), ((40, 29), "crop squash"), ((19, 29), "crop pad squash")],
)
def test_enlarged_is_what_has_fewer_pixels_than_it_gets(source, enlarged):
    assert [how for how in ("crop", "pad", "squash") if is_enlarged(source, (20, 30), how)] == enlarged.split()


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "src"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(numbered_image(number, 12, 3, 18)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("channels", ["1", "3", "4"])
def test_folder_resize_and_zip_write_the_size_that_was_asked_for(pictures, tmp_path, capsys, channels):
    form = [*JOBS, "--format", "png", "--channels", channels]
    large, small = str(tmp_path / "large"), str(tmp_path / "small")
    words = ["--labels", "none", "--size", "12x18"]
    assert main(["shards", "folder", str(pictures), large, *words, *form]) == 0
    assert f"6 images of 18x12x{channels} (png), 0 classes" in capsys.readouterr().out
    assert main(["shards", "resize", large, small, "--size", "6x12", *form]) == 0
    said = capsys.readouterr().out
    assert "source sizes  18x12 (6)" in said
    assert "enlarged" not in said
    assert FolderIndex.read(tmp_path / "small").resolution == (6, 12)
    assert main(["shards", "resize", large, str(tmp_path / "more"), "--size", "13x18", *form]) == 0
    assert "enlarged      6 images were smaller than 18x13 pixels" in capsys.readouterr().out
    for folder in (large, small):
        picture_path = str(tmp_path / "look.png")
        assert main(["shards", "check", folder, *JOBS, "--picture", picture_path]) == 0
        capsys.readouterr()


def test_a_square_said_twice_is_the_square(pictures, tmp_path):
    for name, size in (("a", "8"), ("b", "8x8")):
        words = ["--labels", "none", "--size", size, *JOBS]
        assert main(["shards", "folder", str(pictures), str(tmp_path / name), *words]) == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("size", ["64x", "x64", "8x8x8", "8 x 8", "8X8", "wide", "1000000"])
def test_a_size_that_is_none_is_one_sentence(pictures, tmp_path, capsys, size):
    assert main(["shards", "folder", str(pictures), str(tmp_path / "out"), "--labels", "none", "--size", size]) == 2
    assert f"--size is {size!r}, but must be a side such as 64, or height x width" in capsys.readouterr().err
    assert main(["shards", "folder", str(pictures), str(tmp_path / "out"), "--labels", "none", "--size", "0x8"]) == 2
    assert "--size is 0, but must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["99999", "9x8"])
def test_a_size_that_training_would_refuse_is_refused_before_an_image_is_made(pictures, tmp_path, capsys, size):
    limit = [] if size == "99999" else ["--max-pixels", "71"]
    words = ["--labels", "none", "--size", size, *limit]
    assert main(["shards", "folder", str(pictures), str(tmp_path / "out"), *words]) == 2
    assert f"--size {size} makes images of " in capsys.readouterr().err


def test_shards_of_others_that_are_not_square_are_indexed(tmp_path, capsys):
    write_tar(tmp_path / "a.tar", [(f"{number}.png", picture(number, 4, width=7)) for number in range(5)])
    assert main(["shards", "index", str(tmp_path), *JOBS]) == 0
    assert "5 images of 7x4x3 (png)" in capsys.readouterr().out
    batch = ShardSet.open(tmp_path).load(range(5))
    assert batch.image_NCHW.shape == (5, 3, 4, 7)
    assert [number_in(image) for image in batch.image_NCHW] == list(range(5))
    write_tar(tmp_path / "b.tar", [("9.png", picture(9, 7, width=4))])
    assert main(["shards", "index", str(tmp_path), *JOBS]) == 6
    assert "the first is 7x4x3, and sample '9' of shard b.tar is 4x7x3" in capsys.readouterr().err


def test_the_picture_keeps_their_proportions(tmp_path):
    make_shards(tmp_path, [1], num_classes=0, size=(32, 16))
    assert main(["shards", "check", str(tmp_path), *JOBS, "--picture", str(tmp_path / "a.png")]) == 0
    tile = np.asarray(Image.open(tmp_path / "a.png").convert("L"))[8 : 8 + 64, 8 : 8 + 32]
    assert np.array_equal(tile[::2, ::2], numbered_image(0, 32, 1, 16))
