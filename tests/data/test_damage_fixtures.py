"""The ways in which shards are known to break, one by one, under `data.on_error: skip`.

In each of them WebDataset's own reading loses samples without a word, or gives one sample's image with another's label.
Here what is whole is read with its own label, what is not is named, and a shard that is lost stops the run.
"""

import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bigtrain.data.check import check_folder
from bigtrain.data.feed import Feed
from bigtrain.data.foreign import index_folder
from bigtrain.data.index import FolderIndex
from bigtrain.data.pixels import encode
from bigtrain.data.shards import ShardSet
from bigtrain.data.walk import IndexOptions
from bigtrain.data.writer import Encoded, commit, write_shard, writing
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.layout import Layout
from tests.data.test_decode import png_that_claims
from tests.data.test_foreign import sample, write_tar
from tests.shard_factory import number_in, numbered_image

SAMPLES, BROKEN = 10, 5  # of each of two shards; the second one's first key is that of the first one's broken sample
CLASSES = 20  # every sample has a class of its own, so that a mixture would show
HEADER_BYTES = 512


def stored(number: int) -> bytes:
    return encode(numbered_image(number, channels=3), "png")


def two_shards(folder, files=stored) -> FolderIndex:
    index = FolderIndex(
        resolution=(4, 4),
        channels=3,
        image_format="png",
        classes=tuple(map(str, range(CLASSES))),
        resize={},
        seed=0,
        source="test",
        shards=(),
    )
    with writing(folder):
        written = [
            write_shard(folder, 0, 0, "png", [Encoded(files(n), n) for n in range(SAMPLES)]),
            write_shard(folder, 1, BROKEN, "png", [Encoded(stored(n), n) for n in range(SAMPLES, 2 * SAMPLES)]),
        ]
        return commit(folder, index, written)


def image_at(shards: ShardSet) -> tuple[int, int]:
    row = shards.reader.rows(0)[BROKEN]
    return int(row["offset"]), int(row["size"])


def cut_in_image(data, offset, size):
    del data[offset + size // 2 :]


def cut_after_image(data, offset, size):
    """The label of this sample is lost, and all after it."""
    del data[offset + -(-size // HEADER_BYTES) * HEADER_BYTES :]


def cut_in_header_after(data, offset, size):
    del data[offset + -(-size // HEADER_BYTES) * HEADER_BYTES + 100 :]


def flip_in_header(data, offset, size):
    data[offset - HEADER_BYTES + 130] ^= 1


def flip_in_image(data, offset, size):
    data[offset + size // 2] ^= 1


def hole(data, offset, size):
    data[offset : offset + 5 * HEADER_BYTES] = bytes(5 * HEADER_BYTES)  # into the image after it


HARMS = {
    cut_in_image: range(BROKEN, SAMPLES),
    cut_after_image: range(BROKEN + 1, SAMPLES),
    cut_in_header_after: range(BROKEN + 1, SAMPLES),
    flip_in_header: (),
    flip_in_image: (BROKEN,),
    hole: (BROKEN, BROKEN + 1),
}
"""Which samples are lost by each: an image is read by its place, so others stay whole."""


def read_epoch(shards, workers):
    """Return (sample asked for, sample in the pixels, label) of an epoch, and what was told of bad samples."""
    batch_images = 4
    order = shards.order(3, 2)
    asked = order.samples(np.arange(2 * SAMPLES)).tolist()
    feed = Feed(shards, order, Layout(0, 1, batch_images, batch_images), workers)
    read, bad = [], []
    for position in range(0, 2 * SAMPLES, batch_images):
        (batch,) = feed.read(position)
        read += zip(map(number_in, batch.image_NCHW), batch.label_N.tolist(), strict=True)
        bad += batch.bad
    feed.close()
    return [(number, *pair) for number, pair in zip(asked, read, strict=True)], bad


def check_epoch(shards, lost, workers):
    triples, bad = read_epoch(shards, workers)
    assert sorted(each.number for each in bad) == sorted(lost)
    for asked, seen, label in triples:
        assert label == seen, "an image with another's label"
        assert (seen == asked) == (asked not in lost)
        assert seen not in lost
    name, rows = shards.index.shards[0].name, shards.reader.rows(0)
    for each in bad:
        assert (each.shard, each.key) == (name, f"{each.number:06d}")
        assert each.offset == rows[each.number]["offset"]
        assert each.reason
    return bad


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_what_is_whole_is_read_with_its_own_label_and_the_rest_is_named(tmp_path, harm, workers):
    index = two_shards(tmp_path)
    shards = replace(ShardSet.open(tmp_path), on_error="skip")
    path = tmp_path / index.shards[0].name
    data = bytearray(path.read_bytes())
    whole_bytes = len(data)
    harm(data, *image_at(shards))
    shards.reader.close()
    path.write_bytes(data)  # while the run goes on
    check_epoch(shards, HARMS[harm], workers)
    assert any(index.shards[0].name in fault for fault in check_folder(tmp_path, 2).faults)
    if len(data) != whole_bytes:
        with pytest.raises(DataError, match=rf"{index.shards[0].name} .* has \d+ bytes where index.json says \d+"):
            ShardSet.open(tmp_path)


@pytest.mark.parametrize("left", ["nothing", "garbage", "no file"])
def test_a_shard_that_is_lost_stops_the_run_and_is_named(tmp_path, left):
    index = two_shards(tmp_path)
    shards = replace(ShardSet.open(tmp_path), on_error="skip")
    path = tmp_path / index.shards[0].name
    path.write_bytes(b"" if left == "nothing" else np.random.default_rng(0).bytes(path.stat().st_size))
    if left == "no file":
        path.unlink()
    with pytest.raises(DataError, match=index.shards[0].name) as caught:
        read_epoch(shards, 0)
    assert "\n" not in str(caught.value)


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


GRAY = Image.new("L", (4, 4), 100)
BAD_IMAGES = {
    "no image": (b"<html>404</html>", "is no JPEG, PNG or WebP"),
    "empty": (b"", "is no JPEG, PNG or WebP"),
    "cut png": (stored(5)[:-30], "cannot be decoded"),
    "cut jpg": (encode(numbered_image(5, 4, 3), "jpg")[:-30], "cannot be decoded"),
    "CMYK": (saved(GRAY.convert("CMYK"), "JPEG"), "has 4 channels"),
    "gray": (saved(GRAY, "PNG"), "has 1 channels"),
    "16 bits": (saved(Image.fromarray(np.full((4, 4), 999, np.uint16)), "PNG"), "has 16 bits a channel"),
    "1 pixel": (saved(Image.new("RGB", (1, 1)), "PNG"), "is 1x1, not 4x4"),
    "bomb": (png_that_claims(20_000, 20_000), "over data.max_pixels"),
}


@pytest.mark.parametrize("what", BAD_IMAGES)
def test_images_that_were_bad_from_the_start_are_replaced_with_their_reason(tmp_path, what):
    data, words = BAD_IMAGES[what]
    two_shards(tmp_path, lambda number: data if number == BROKEN else stored(number))
    (bad,) = check_epoch(replace(ShardSet.open(tmp_path), on_error="skip"), (BROKEN,), 0)
    assert words in bad.reason
    assert any(words.removesuffix("data.max_pixels") in fault for fault in check_folder(tmp_path, 2).faults)
    with pytest.raises(DataError, match="sample '000005'"):
        ShardSet.open(tmp_path).load([BROKEN])


def test_files_of_a_sample_that_lie_apart_are_one_sample_and_dots_in_names_part_them(tmp_path):
    apart = [("a.png", stored(1)), ("x.1.png", stored(3)), ("x.2.png", stored(4)), ("b.png", stored(2))]
    labels = [("b.cls", b"2"), ("x.2.cls", b"4"), ("x.1.cls", b"3"), ("a.cls", b"1")]
    write_tar(tmp_path / "s.tar", [*apart, *labels])
    index_folder(tmp_path, IndexOptions())
    batch = ShardSet.open(tmp_path).load(range(4))
    assert [number_in(image) for image in batch.image_NCHW] == batch.label_N.tolist()
    assert sorted(batch.label_N.tolist()) == [1, 2, 3, 4]


def test_a_tar_without_a_sample_is_told_and_a_sample_without_a_label_is_refused(tmp_path):
    write_tar(tmp_path / "a.tar", sample(1, 1, "a"))
    with tarfile.open(tmp_path / "b.tar", "w"):
        pass
    assert index_folder(tmp_path, IndexOptions()).empty_shards == ("b.tar",)
    write_tar(tmp_path / "c.tar", [("c.png", stored(2))])
    with pytest.raises(DataError, match=r"sample 'c' of shard c.tar has no .cls"):
        index_folder(tmp_path, IndexOptions())
