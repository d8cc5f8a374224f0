"""Shards that others wrote are indexed where they lie, and what no data set needs is refused by name."""

import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bigtrain.data.check import check_folder
from bigtrain.data.foreign import index_folder
from bigtrain.data.index import INDEX_NAME, NO_LABEL, FolderIndex
from bigtrain.data.labels import class_names, read_label
from bigtrain.data.pixels import encode
from bigtrain.data.shards import ShardSet
from bigtrain.data.walk import IndexOptions
from bigtrain.recipe.errors import DataError
from tests.shard_factory import make_shards, number_in, numbered_image


def picture(number, side=4, kind="png", channels=3, width=None):
    return encode(numbered_image(number, side, channels, width), kind)


def write_tar(path, files):
    """Write (name, content) pairs as a tar; a TarInfo stands for itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(data))


def sample(number, label=None, name=None, kind="png"):
    name = name or f"{number:04d}"
    yield f"{name}.{kind}", picture(number, kind=kind)
    if label is not None:
        yield f"{name}.cls", label if isinstance(label, bytes) else str(label).encode()


@pytest.fixture
def folder(tmp_path):
    for shard, sizes in enumerate([range(5), range(5, 7), range(7, 12)]):
        files = [pair for number in sizes for pair in sample(number, number % 3)]
        write_tar(tmp_path / "others" / f"train-{shard:03d}.tar", files)
    return tmp_path / "others"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_index_makes_them_readable_like_our_own_and_leaves_them_alone(folder):
    before = contents(folder)
    report = index_folder(folder, IndexOptions(), jobs=2)
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert report.index == FolderIndex.read(folder)
    assert (report.left_out, report.empty_shards) == ({}, ())
    shards = ShardSet.open(folder)
    batch = shards.load(range(12))
    assert [number_in(image) for image in batch.image_NCHW] == list(range(12))
    assert batch.label_N.tolist() == [number % 3 for number in range(12)]
    assert shards.class_names == ("0", "1", "2")
    assert check_folder(folder, 8).faults == ()


def test_the_index_does_not_depend_on_the_number_of_processes_and_can_be_made_again(folder):
    index_folder(folder, IndexOptions(), jobs=1)
    first = contents(folder)
    index_folder(folder, IndexOptions(), jobs=3)
    assert contents(folder) == first


def test_names_in_cls_become_classes_in_their_order(tmp_path):
    files = [pair for number, name in enumerate([b"dog", b"cat\n", b"dog"]) for pair in sample(number, name)]
    write_tar(tmp_path / "a.tar", files)
    index_folder(tmp_path, IndexOptions())
    shards = ShardSet.open(tmp_path)
    assert shards.class_names == ("cat", "dog")
    assert shards.load(range(3)).label_N.tolist() == [1, 0, 1]
    assert check_folder(tmp_path, 8).faults == ()


def test_a_key_of_json_is_the_label_and_check_compares_it(tmp_path):
    def record(number):
        return json.dumps({"meta": {"kind": ["cat", "dog"][number % 2]}, "caption": "x"}).encode()

    files = [pair for n in range(4) for pair in [*sample(n), (f"{n:04d}.json", record(n))]]
    write_tar(tmp_path / "a.tar", files)
    with pytest.raises(DataError, match=r"no sample has a .cls, but 4 have a .json; .* --label-key KEY"):
        index_folder(tmp_path, IndexOptions())
    with pytest.raises(DataError, match="sample '0000': its label is not under 'class' .its keys are caption, meta."):
        index_folder(tmp_path, IndexOptions("class"))
    assert not (tmp_path / INDEX_NAME).exists()
    index_folder(tmp_path, IndexOptions("meta.kind"))
    assert ShardSet.open(tmp_path).load(range(4)).label_N.tolist() == [0, 1, 0, 1]
    assert FolderIndex.read(tmp_path).labels == "json:meta.kind"
    assert check_folder(tmp_path, 8).faults == ()
    index = FolderIndex.read(tmp_path)
    index.model_copy(update={"classes": ("dog", "cat")}).write(tmp_path)
    assert len(check_folder(tmp_path, 8).faults) == 4
    index_folder(tmp_path, IndexOptions(without_labels=True))
    assert ShardSet.open(tmp_path).load([0]).label_N.tolist() == [NO_LABEL]


def test_names_with_dots_are_samples_of_their_own_and_companions_are_left_out(tmp_path):
    files = [
        *sample(0, 0, "n01.v1"), *sample(1, 1, "n01.v2"), *sample(2, 1, "deep/n.02"), *sample(3, 0, "plain"),
        ("plain.seg.png", picture(9, side=2)), ("plain.txt", b"a caption"),
    ]  # fmt: skip
    write_tar(tmp_path / "a.tar", files)
    report = index_folder(tmp_path, IndexOptions())
    assert report.left_out == {"seg.png": 1, "txt": 1}
    batch = ShardSet.open(tmp_path).load(range(4))
    assert [number_in(image) for image in batch.image_NCHW] == [0, 1, 2, 3]
    assert batch.label_N.tolist() == [0, 1, 1, 0]
    assert check_folder(tmp_path, 8).faults == ()


@pytest.mark.parametrize("kind", ["jpg", "webp", "jpeg"])
def test_other_formats_and_upper_case_extensions_are_images(tmp_path, kind):
    data = picture(1, kind="jpg" if kind == "jpeg" else kind)
    write_tar(tmp_path / "a.tar", [(f"a.{kind.upper()}", data), (f"b.{kind}", data)])
    report = index_folder(tmp_path, IndexOptions())
    assert (report.index.num_samples, report.index.image_format) == (2, "jpg" if kind == "jpeg" else kind)
    assert ShardSet.open(tmp_path).load([0, 1]).image_NCHW.shape == (2, 3, 4, 4)


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


class Canary:
    """Unpickling it would write a file."""

    def __reduce__(self):
        return exec, ("open('canary', 'w').close()",)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (special("a.png", tarfile.SYMTYPE, "/etc/passwd"), "member 'a.png', which is no regular file"),
        (special("a.png", tarfile.LNKTYPE, "0000.png"), "no regular file"),
        (special("a.png", tarfile.FIFOTYPE), "no regular file"),
        (special("a.png", tarfile.CHRTYPE), "no regular file"),
        (special("a.png", tarfile.GNUTYPE_SPARSE), "member 'a.png', which is sparse"),
        (("/etc/a.png", picture(0)), "member '/etc/a.png', whose name leaves the folder"),
        (("../a.png", picture(0)), "whose name leaves the folder"),
        (("x/../../a.png", picture(0)), "whose name leaves the folder"),
        (("a.pkl", b"canary"), "member 'a.pkl', which can run code"),
        (("a.x.PICKLE", b"canary"), "can run code"),
        (("a.pyd.gz", b"canary"), "can run code"),
        (("0000.png", picture(0)), "two images of sample '0000'"),
        (("0000.jpg", picture(0, kind="jpg")), "two images of sample '0000'"),
        (("0000.cls", b"1"), "two labels of sample '0000'"),
        (("a.png", picture(0)), "sample 'a' of shard b.tar has no .cls"),
        (("a.png", b"hello"), "sample 'a': the image is no JPEG, PNG or WebP"),
    ],
)
def test_attacks_are_refused_by_name_and_no_index_is_written(tmp_path, monkeypatch, attack, words):
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "s" / "a.tar", list(sample(5, 0)))
    write_tar(tmp_path / "s" / "b.tar", [*sample(0, 0), attack])
    with pytest.raises(DataError, match=words) as caught:
        index_folder(tmp_path / "s", IndexOptions(), jobs=2)
    assert "b.tar" in str(caught.value)
    assert not (tmp_path / "s" / INDEX_NAME).exists()
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (picture(0, side=6), "the first is 4x4x3, and sample 'a' of shard b.tar is 6x6x3; .*shards resize"),
        (picture(0, channels=1), "sample 'a' of shard b.tar is 4x4x1"),
    ],
)
def test_sizes_and_channels_are_never_mixed(tmp_path, image, words):
    write_tar(tmp_path / "a.tar", list(sample(0, 0)))
    write_tar(tmp_path / "b.tar", [*sample(1, 0), ("a.png", image), ("a.cls", b"0")])
    with pytest.raises(DataError, match=words):
        index_folder(tmp_path, IndexOptions())


def test_images_that_cannot_be_held_are_refused(tmp_path):
    stream = io.BytesIO()
    Image.new("I;16", (4, 4)).save(stream, format="PNG")
    write_tar(tmp_path / "a.tar", [("deep.png", stream.getvalue())])
    with pytest.raises(DataError, match="sample 'deep': the image has 1 channels of 16 bits"):
        index_folder(tmp_path, IndexOptions())
    write_tar(tmp_path / "a.tar", [("huge.png", picture(0))])
    with pytest.raises(DataError, match="sample 'huge': the image claims 4x4 pixels, over the limit of 15"):
        index_folder(tmp_path, IndexOptions(max_pixels=15))


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (b"-1", "is '-1', not|is -1"),
        (b"", "not a name"),
        (b"99999999999", "labels run from 0"),
        (b"\xff", "is no text"),
    ],
)
def test_labels_that_are_none_are_refused_by_sample(tmp_path, label, words):
    write_tar(tmp_path / "a.tar", list(sample(0, label)))
    with pytest.raises(DataError, match=f"sample '0000': its label .*{words}"):
        index_folder(tmp_path, IndexOptions())


@pytest.mark.parametrize(("text", "label"), [(b"0000000012", 12), (b"000000000000", 0), (b" 0000000007\n", 7)])
def test_zeros_before_a_number_do_not_change_it(text, label):
    assert read_label(text, "cls") == label
    with pytest.raises(ValueError, match="is -12, but labels run from 0"):
        read_label(b"-000000000012", "cls")


@pytest.mark.parametrize("data", [b"[" * 100_000, b"{", b'{"class": 1.5}', b'{"class": true}', b'{"class": [1]}', b"3"])
def test_json_that_holds_no_label_is_refused(data):
    with pytest.raises(ValueError, match="no JSON|a float|a bool|a list|not under"):
        read_label(data, "json:class")


def test_a_cut_shard_an_empty_one_and_a_folder_without_any(folder):
    write_tar(folder / "empty.tar", [])
    assert index_folder(folder, IndexOptions()).empty_shards == ("empty.tar",)
    path = folder / "train-001.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"train-001.tar (is no whole tar|ends inside member)"):
        index_folder(folder, IndexOptions())
    (folder / "packed").mkdir()
    (folder / "packed" / "a.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds no \*.tar, but 1 compressed ones; unpack them"):
        index_folder(folder / "packed", IndexOptions())


def tar_of(path, numbers):
    write_tar(path, [pair for number in numbers for pair in sample(number, 0)])
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda data, at: data[:at], r"ends after 6,144 bytes without an end marker \(cut short\?\)"),
        (lambda data, at: data[: at + 100], r"has a damaged header at byte 6,144"),
        (lambda data, at: data[: at + 130] + bytes([data[at + 130] ^ 1]) + data[at + 131 :], "has a damaged header at"),
        (lambda data, at: data[:at] + bytes(512) + data[at + 512 :], r"goes on after an end marker at byte 6,144"),
    ],
)
def test_a_tar_that_python_takes_for_whole_though_samples_are_missing_is_refused(tmp_path, harm, words):
    data = tar_of(tmp_path / "a.tar", range(6))
    at = 12 * 512  # the fourth sample's header: an image and a label take four blocks
    (tmp_path / "a.tar").write_bytes(harm(data, at))
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert len(archive.getnames()) == 6
    with pytest.raises(DataError, match=words):
        index_folder(tmp_path, IndexOptions())


def test_a_tar_may_hold_folders_and_end_in_any_number_of_zeros(tmp_path):
    folder = tarfile.TarInfo("./")
    folder.type = tarfile.DIRTYPE
    write_tar(tmp_path / "a.tar", [(folder, b""), *sample(1, 0, "./x/1"), *sample(2, 1, "./x/2")])
    with (tmp_path / "a.tar").open("ab") as stream:
        stream.write(bytes(3 << 20))
    report = index_folder(tmp_path, IndexOptions())
    assert report.index.num_samples == 2
    assert check_folder(tmp_path, 8).faults == ()


def test_an_index_that_came_with_its_shards_is_not_replaced(tmp_path):
    index = make_shards(tmp_path, [4, 4])
    with pytest.raises(DataError, match="has an index that was written with its shards"):
        index_folder(tmp_path, IndexOptions())
    (tmp_path / INDEX_NAME).unlink()
    made = index_folder(tmp_path, IndexOptions()).index
    assert [(entry.sha256, entry.index_sha256) for entry in made.shards] == [
        (entry.sha256, entry.index_sha256) for entry in index.shards
    ], "the rows of our own shards, to the byte"


def test_a_changed_shard_is_found_by_check(folder):
    index_folder(folder, IndexOptions())
    data = bytearray((folder / "train-000.tar").read_bytes())
    data[data.index(b"\x89PNG") + 60] ^= 1
    (folder / "train-000.tar").write_bytes(bytes(data))
    assert any("crc32" in fault for fault in check_folder(folder, 8).faults)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    labels=st.lists(
        st.one_of(st.integers(0, 9), st.text("abc", min_size=1, max_size=3)).map(str), min_size=1, max_size=9
    ),
    cuts=st.sets(st.integers(1, 8), max_size=3),
    seed=st.integers(0, 99),
)
def test_any_labels_over_any_shards_are_read_back(tmp_path_factory, labels, cuts, seed):
    folder = tmp_path_factory.mktemp("shards")
    edges = [0, *sorted(cut for cut in cuts if cut < len(labels)), len(labels)]
    rng = np.random.default_rng(seed)
    for shard, (first, end) in enumerate(zip(edges, edges[1:], strict=False)):
        files = [pair for number in range(first, end) for pair in sample(number, labels[number].encode())]
        rng.shuffle(order := np.arange(len(files)))
        write_tar(folder / f"{shard}.tar", [files[at] for at in order])  # files of a sample need not be neighbours
    index_folder(folder, IndexOptions())
    shards = ShardSet.open(folder)
    batch = shards.load(range(len(labels)))
    found = [
        (number_in(image), shards.class_names[label])
        for image, label in zip(batch.image_NCHW, batch.label_N, strict=True)
    ]
    assert sorted(found) == list(enumerate(labels))
    assert check_folder(folder, 8).faults == ()


def test_numbers_stay_what_they_are_and_names_are_sorted():
    assert class_names([2, 0]) == ("0", "1", "2")
    assert class_names(["b", 1, "a"]) == ("1", "a", "b")
    assert class_names([]) == ()
