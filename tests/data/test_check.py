"""`shards check` finds what is wrong with a folder, and only that."""

import io
import os
import tarfile

import numpy as np
import pytest

from bigtrain.data.check import check_folder
from bigtrain.data.index import INDEX_NAME, FolderIndex, read_rows, write_rows
from bigtrain.data.mixing import label_mixing
from bigtrain.data.tar import members
from bigtrain.data.writer import file_sha256
from bigtrain.recipe.errors import DataError
from tests.shard_factory import make_shards

WINDOW = 2


@pytest.fixture
def folder(tmp_path):
    make_shards(tmp_path, [12, 10, 8])
    return tmp_path


def faults(folder):
    return check_folder(folder, WINDOW).faults


def edit_tar(folder, place, change):
    """Rebuild a shard with changed members and make the index's size and sha256 fit, as a careless tool would."""
    index = FolderIndex.read(folder)
    entry = index.shards[place]
    path = folder / entry.name
    with tarfile.open(path) as archive:
        files = [(member, archive.extractfile(member).read()) for member in archive]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for member, data in change(files):
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    fitting = entry.model_copy(update={"bytes": path.stat().st_size, "sha256": file_sha256(path)})
    shards = [*index.shards[:place], fitting, *index.shards[place + 1 :]]
    index.model_copy(update={"shards": tuple(shards)}).write(folder)


def test_good_shards_have_no_fault(folder):
    report = check_folder(folder, WINDOW, jobs=2)
    assert report.faults == ()
    assert [shard.samples for shard in report.shards] == [12, 10, 8]
    assert not report.is_sorted


def test_600_flipped_bits_are_all_found(folder):
    index = FolderIndex.read(folder)
    paths = [folder / name for entry in index.shards for name in (entry.name, entry.index_name)] + [folder / INDEX_NAME]
    rng = np.random.default_rng(0)
    for _ in range(600):
        path = paths[rng.integers(len(paths))]
        whole = path.read_bytes()
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(data))
        assert faults(folder), path
        path.write_bytes(whole)
    assert not faults(folder)


@pytest.mark.parametrize("keep", [0, 1, 511, 512, 1024, 5000, -1])
def test_a_truncated_shard_is_found(folder, keep):
    entry = FolderIndex.read(folder).shards[1]
    os.truncate(folder / entry.name, keep if keep >= 0 else entry.bytes + keep)
    assert any(f"shard {entry.name}: has " in fault and "cut short?" in fault for fault in faults(folder))


def test_a_missing_shard_and_a_missing_index_are_found(folder):
    entry = FolderIndex.read(folder).shards[1]
    (folder / entry.name).unlink()
    assert faults(folder) == (f"shard {entry.name}: is missing in {folder}",)
    (folder / INDEX_NAME).unlink()
    assert "no index.json in" in faults(folder)[0]


def test_a_wrong_label_is_found_though_all_checksums_fit(folder):
    def relabel(files):
        return [(member, b"2" if member.name == "000013.cls" else data) for member, data in files]

    label = int(read_rows(folder, FolderIndex.read(folder).shards[1])["label"][1])
    assert label != 2
    edit_tar(folder, 1, relabel)
    (fault,) = faults(folder)
    assert f"sample '000013' has label 2 in its .cls and {label} in its index" in fault


def test_a_label_outside_the_classes_in_the_rows_is_found(folder):
    index = FolderIndex.read(folder)
    rows = np.array(read_rows(folder, index.shards[0]))
    rows["label"][3] = 9
    entry = index.shards[0].model_copy(update={"index_sha256": write_rows(folder / index.shards[0].index_name, rows)})
    index.model_copy(update={"shards": (entry, *index.shards[1:])}).write(folder)
    found = "\n".join(faults(folder))
    assert "its rows have another class histogram than index.json" in found
    assert "sample '000003' has label 9, but labels run from 0 to 2" in found


def test_a_missing_label_a_missing_image_and_a_stranger_are_found(folder):
    edit_tar(folder, 0, lambda files: [pair for pair in files if pair[0].name != "000004.cls"])
    assert any("sample '000004' has label None in its .cls" in fault for fault in faults(folder))
    edit_tar(folder, 1, lambda files: [pair for pair in files if pair[0].name != "000015.png"])
    assert any("1 of 10 samples of the index are not in the tar, the first is '000015'" in f for f in faults(folder))

    def rename(files):
        for member, data in files:
            member.name = member.name.replace("000025.png", "stranger.png")
            yield member, data

    edit_tar(folder, 2, rename)
    assert any("sample 'stranger' (offset" in fault and "is not in its index" in fault for fault in faults(folder))


def test_images_of_another_size_are_found(folder):
    index = FolderIndex.read(folder)
    index.model_copy(update={"resolution": (8, 8)}).write(folder)
    found = faults(folder)
    assert len(found) == 30
    assert all("the image is 4x4, not 8x8 as the index says" in fault for fault in found)


def member(name, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, 1 if kind == tarfile.REGTYPE else 0, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (member("a.pyd"), "can run code"),
        (member("a.pickle"), "can run code"),
        (member("a.x.pkl"), "can run code"),
        (member("a.pyd.gz"), "can run code"),
        (member("../a.png"), "leaves the folder"),
        (member("/a.png"), "leaves the folder"),
        (member("x/../../a.png"), "leaves the folder"),
        (member("a.png", tarfile.SYMTYPE), "no regular file"),
        (member("a.png", tarfile.LNKTYPE), "no regular file"),
        (member("a.png", tarfile.FIFOTYPE), "no regular file"),
        (member("a.png", tarfile.CHRTYPE), "no regular file"),
        (member("a.png", tarfile.BLKTYPE), "no regular file"),
    ],
)
def test_members_that_no_data_set_needs_are_refused(tmp_path, info, words):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(DataError, match=words):
        list(members(tmp_path / "a.tar"))


def test_names_are_split_as_webdataset_splits_them(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("dir.x/000.left.PNG", "b.cls"):
            archive.addfile(member(name), io.BytesIO(b"x"))
    assert [(found.key, found.extension) for found in members(tmp_path / "a.tar")] == [
        ("dir.x/000", "left.png"),
        ("b", "cls"),
    ]


@pytest.mark.parametrize(
    ("sizes", "labels", "law"),
    [
        ([300] * 10, [number % 10 for number in range(3000)], lambda mixing: mixing > 0.98),
        ([300] * 10, [number // 300 for number in range(3000)], lambda mixing: mixing < 0.35),
        ([30] * 4, [number // 60 for number in range(120)], lambda mixing: mixing == 0.0),
        ([30] * 4, [0] * 120, lambda mixing: mixing == 1.0),
        ([60] * 2, [number // 60 for number in range(120)], lambda mixing: mixing == 1.0),  # one window
    ],
)
def test_label_mixing_tells_sorted_shards_from_mixed_ones(tmp_path, sizes, labels, law):
    entries, first = [], 0
    small = make_shards(tmp_path, [1], num_classes=max(labels) + 1, labels=[0])
    for size in sizes:
        part = labels[first : first + size]
        entries.append(small.shards[0].model_copy(update={"class_histogram": {k: part.count(k) for k in set(part)}}))
        first += size
    index = small.model_copy(update={"shards": tuple(entries)})
    assert law(label_mixing(index, WINDOW))


def test_random_labels_in_many_small_shards_do_not_count_as_sorted(tmp_path):
    rng = np.random.default_rng(0)
    small = make_shards(tmp_path, [1], num_classes=200, labels=[0])
    counts = rng.multinomial(50, np.full(200, 1 / 200), size=40)
    entries = [small.shards[0].model_copy(update={"class_histogram": dict(enumerate(row.tolist()))}) for row in counts]
    mixing = label_mixing(small.model_copy(update={"shards": tuple(entries)}), 1)
    assert 0.97 < mixing < 1.03
