"""The picture of a data set shows its samples, its classes, and what is damaged."""

import numpy as np
import pytest
from PIL import Image

from bigtrain.cli import main
from bigtrain.data.index import FolderIndex, read_rows
from bigtrain.data.overview import BAD, FILL, draw_overview
from bigtrain.recipe.errors import DataError
from tests.shard_factory import make_shards


def colours(path):
    return set(map(tuple, np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).tolist()))


def rgb(text):
    return tuple(bytes.fromhex(text[1:]))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_samples_are_drawn_as_they_are_and_a_bar_for_each_class(tmp_path, channels):
    make_shards(tmp_path, [5, 4], channels=channels)
    assert main(["shards", "check", str(tmp_path), "--jobs", "1", "--picture", str(tmp_path / "a.png")]) == 0
    assert rgb(FILL) in colours(tmp_path / "a.png")
    assert rgb(BAD) not in colours(tmp_path / "a.png")
    draw_overview(tmp_path, tmp_path / "b.png")
    draw_overview(tmp_path, tmp_path / "c.png", seed=1)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes() != (tmp_path / "c.png").read_bytes()


def test_damaged_samples_are_crosses_and_check_says_them(tmp_path, capsys):
    index = make_shards(tmp_path, [5])
    path = tmp_path / index.shards[0].name
    data = bytearray(path.read_bytes())
    data[int(read_rows(tmp_path, FolderIndex.read(tmp_path).shards[0])["offset"][2]) + 40] ^= 1
    path.write_bytes(bytes(data))
    assert main(["shards", "check", str(tmp_path), "--jobs", "1", "--picture", str(tmp_path / "a.png")]) == 1
    assert "is damaged: crc32" in capsys.readouterr().out
    assert rgb(BAD) in colours(tmp_path / "a.png")


def test_many_classes_none_and_a_place_that_cannot_be_written(tmp_path, capsys):
    make_shards(tmp_path / "many", [70], num_classes=60)
    draw_overview(tmp_path / "many", tmp_path / "many.png")
    make_shards(tmp_path / "bare", [3], num_classes=0)
    draw_overview(tmp_path / "bare", tmp_path / "bare.png")
    assert rgb(FILL) not in colours(tmp_path / "bare.png")
    with pytest.raises(DataError, match="cannot be written"):
        draw_overview(tmp_path / "bare", tmp_path / "nowhere" / "a.png")
    words = ["--jobs", "1", "--picture", str(tmp_path / "nowhere" / "a.png")]
    assert main(["shards", "check", str(tmp_path / "bare"), *words]) == 0
    assert "no picture: the picture" in capsys.readouterr().out
