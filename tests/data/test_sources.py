"""Zips, label files and shards of any size become shards by one pipeline, and what is wrong with them is named."""

import io
import json
import stat
import zipfile

import numpy as np
import pytest
from PIL import Image

from bigtrain.data.check import check_folder
from bigtrain.data.disk import LOCK_NAME
from bigtrain.data.folder import find, write_folder
from bigtrain.data.foreign import index_folder
from bigtrain.data.index import NO_LABEL
from bigtrain.data.pack import PackOptions, pack
from bigtrain.data.shards import ShardSet
from bigtrain.data.sources.archive import find_zip
from bigtrain.data.sources.tars import find_shards
from bigtrain.data.walk import IndexOptions
from bigtrain.recipe.errors import DataError, UsageError
from tests.data.test_foreign import picture, sample, write_tar
from tests.shard_factory import make_shards, number_in

OPTIONS = PackOptions(4, image_format="png", shard_mb=0.01)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK_NAME}


def pairs(folder):
    """Number and label of every sample, which our lossless images tell."""
    shards = ShardSet.open(folder)
    assert check_folder(folder, 8).faults == ()
    batch = shards.load(shards.numbers())
    return sorted((number_in(image), int(label)) for image, label in zip(batch.image_NCHW, batch.label_N, strict=True))


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return path


def images(count):
    return [(f"{number // 4:05d}/img{number:08d}.png", picture(number)) for number in range(count)]


def dataset(count, label):
    listed = [[name, label(number)] for number, (name, _) in enumerate(images(count))]
    return "dataset.json", json.dumps({"labels": listed}).encode()


def test_a_zip_as_stylegans_tool_writes_it_keeps_its_labels(tmp_path):
    path = write_zip(tmp_path / "a.zip", [*images(10), dataset(10, lambda number: number % 3), ("readme.txt", b"x")])
    report = pack(find_zip(path), tmp_path / "one", OPTIONS, jobs=1)
    pack(find_zip(path), tmp_path / "three", OPTIONS, jobs=3)
    assert len(report.index.shards) > 2
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert report.other_files == {".txt": 1}
    assert (report.index.classes, report.index.source) == (("0", "1", "2"), "zip of images")
    assert pairs(tmp_path / "one") == [(number, number % 3) for number in range(10)]


def test_a_zip_without_labels_has_none_or_those_of_its_folders(tmp_path):
    for name, extra in (("bare", []), ("null", [("dataset.json", b'{"labels": null}')])):
        found = find_zip(write_zip(tmp_path / f"{name}.zip", images(6) + extra))
        assert (found.classes, {source.label for source in found.sources}) == ((), {NO_LABEL})
    pack(find_zip(tmp_path / "bare.zip", "folders"), tmp_path / "out", OPTIONS)
    assert pairs(tmp_path / "out") == [(number, number // 4) for number in range(6)]
    with pytest.raises(UsageError, match="--labels is 'cls'; choose one of dataset, folders, none, csv:FILE"):
        find_zip(tmp_path / "bare.zip", "cls")


def linked():
    info = zipfile.ZipInfo("a.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("../a.png", picture(0))], "member '../a.png', whose name leaves the folder"),
        ([("/a.png", picture(0))], "whose name leaves the folder"),
        ([(linked(), "/etc/passwd")], "member 'a.png', which is a link"),
        ([("a.png", bytes((1 << 28) + 1))], "claims 268435457 bytes, more than an image needs"),
        ([("a.txt", b"")], "holds no image among 1 files"),
        ([*images(3), dataset(2, int)], r"no label for 1 of 3 images \(00000/img00000002.png\)"),
        ([*images(2), dataset(2, lambda number: [0, 1])], "the label of .* is a list, not a whole number or a name"),
        ([*images(2), dataset(2, lambda number: -1)], "is -1, but labels run from 0"),
        ([*images(2), ("dataset.json", b"[1")], "dataset.json in .* is not .*mend it"),
        ([*images(2), ("dataset.json", b'{"labels": [1]}')], "its labels are no list of pairs"),
    ],
)
def test_zips_that_cannot_be_trusted_are_refused(tmp_path, files, words):
    with pytest.raises(DataError, match=words):
        find_zip(write_zip(tmp_path / "a.zip", files))


def test_a_member_twice_a_damaged_one_and_no_zip_are_found(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_zip(tmp_path / "twice.zip", [("a.png", picture(0)), ("a.png", picture(1))])
    with pytest.raises(DataError, match="'a.png', which is there twice"):
        find_zip(tmp_path / "twice.zip")
    path = write_zip(tmp_path / "bad.zip", images(3))
    data = bytearray(path.read_bytes())
    data[70] ^= 255
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"1 of 3 files cannot be used: .*img00000000.png cannot be read from the zip"):
        pack(find_zip(path), tmp_path / "out", OPTIONS)
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match="is no whole zip"):
        find_zip(tmp_path / "nowhere.zip")


@pytest.fixture
def source(tmp_path):
    for name, data in images(6):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(data)
    return tmp_path / "source"


def test_labels_of_csv_and_json_are_those_of_the_images_they_name(source, tmp_path):
    names = [name for name, _ in images(6)]
    kinds = ["dog", "cat", "dog", "cat", "cat", "dog"]
    rows = [["file", "kind"], *([f"./{name}", kind] for name, kind in zip(names, kinds, strict=True)), ["x.png", "cat"]]
    (tmp_path / "a.csv").write_text("\n".join(",".join(row) for row in rows))
    (tmp_path / "a.json").write_text(json.dumps(dict(zip(names, kinds, strict=True))))
    wanted = [(number, int(kind == "dog")) for number, kind in enumerate(kinds)]
    for place in ("csv", "json"):
        labels = f"{place}:{tmp_path / 'a'}.{place}"
        report = write_folder(source, tmp_path / place, OPTIONS, labels=labels)
        assert report.index.classes == ("cat", "dog")
        assert pairs(tmp_path / place) == wanted
        assert len(report.notes) == (place == "csv")
        found = find_zip(write_zip(tmp_path / "a.zip", images(6)), labels)
        assert [label for label, _ in sorted((source.label, 0) for source in found.sources)] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b,c", "line 1 has 3 columns"),
        ("00000/img00000000.png,1", "has no label for 5 of 6 images"),
        ("00000/img00000000.png,1\n00000/img00000000.png,2", "the labels 1 and 2; keep one"),
        (
            "00000/img00000000.png,",
            r"is missing \(null, or empty\); mend it, or keep such images without one with --unlabelled keep",
        ),
    ],
)
def test_label_files_that_do_not_fit_are_refused(source, tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        find(source, f"csv:{tmp_path / 'a.csv'}")
    with pytest.raises(DataError, match="cannot be read"):
        find(source, f"csv:{tmp_path / 'b.csv'}")
    with pytest.raises(UsageError, match="names no file"):
        find(source, "csv:")


def test_shards_are_written_in_another_size_with_their_labels(tmp_path):
    index = make_shards(tmp_path / "small", [7, 5])
    report = pack(find_shards(tmp_path / "small", IndexOptions()), tmp_path / "same", OPTIONS)
    assert report.index.classes == index.classes
    assert pairs(tmp_path / "same") == pairs(tmp_path / "small")
    large = PackOptions(8, image_format="png", filter="box", channels=1)
    report = pack(find_shards(tmp_path / "small", IndexOptions()), tmp_path / "large", large, jobs=2)
    assert (report.index.resolution, report.enlarged, report.index.channels) == ((8, 8), 12, 1)
    assert (
        ShardSet.open(tmp_path / "large").label_counts.tolist()
        == ShardSet.open(tmp_path / "small").label_counts.tolist()
    )


def test_shards_of_mixed_sizes_that_no_index_takes_are_brought_to_one(tmp_path):
    sizes = [4, 6, 9]
    files = [(f"{side}.png", picture(1, side=side)) for side in sizes] + [(f"{side}.cls", b"cat") for side in sizes]
    write_tar(tmp_path / "others" / "a.tar", [*files, *sample(0, "dog")])
    with pytest.raises(DataError, match="bigtrain shards resize"):
        index_folder(tmp_path / "others", IndexOptions())
    report = pack(find_shards(tmp_path / "others", IndexOptions(), jobs=2), tmp_path / "out", OPTIONS)
    assert report.index.classes == ("cat", "dog")
    assert ShardSet.open(tmp_path / "out").label_counts.tolist() == [3, 1]
    assert check_folder(tmp_path / "out", 8).faults == ()


def test_a_changed_byte_of_a_shard_is_rejected_by_name(tmp_path):
    index = make_shards(tmp_path / "small", [4])
    path = tmp_path / "small" / index.shards[0].name
    data = bytearray(path.read_bytes())
    data[data.index(b"\x89PNG") + 50] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"1 of 4 files cannot be used: .*tar/000000 is damaged: its crc32"):
        pack(find_shards(tmp_path / "small", IndexOptions()), tmp_path / "out", OPTIONS)


def test_nothing_is_written_where_every_image_is_rejected(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(stream, format="PPM")
    path = write_zip(tmp_path / "a.zip", [("a.png", stream.getvalue())])
    with pytest.raises(DataError, match="1 of 1 files cannot be used"):
        pack(find_zip(path), tmp_path / "out", PackOptions(4, skip_bad=True))
