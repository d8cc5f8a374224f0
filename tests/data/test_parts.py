"""Parts of an array job join to what one process writes, and a validation split shares nothing with training."""

from dataclasses import replace

import pytest

from bigtrain.cli import main
from bigtrain.data.check import check_folder
from bigtrain.data.folder import find
from bigtrain.data.index import FolderIndex
from bigtrain.data.pack import PackOptions, pack
from bigtrain.data.parts import Part, merge, split
from bigtrain.recipe.errors import DataError, UsageError
from tests.data.cats_and_dogs import write_cats_and_dogs
from tests.data.test_foreign import picture
from tests.data.test_sources import pairs

OPTIONS = PackOptions(4, image_format="png", shard_mb=0.01)
COUNT = 24


@pytest.fixture
def source(tmp_path):
    return write_cats_and_dogs(tmp_path / "source", COUNT)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def write_parts(source, folder, count, options=OPTIONS):
    for number in range(count, 0, -1):
        part = Part(number, count)
        pack(find(source), folder / part.folder_name, replace(options, part=part))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_merged_parts_are_the_bytes_of_one_run(source, tmp_path, count):
    whole = pack(find(source), tmp_path / "whole", OPTIONS).index
    assert len(whole.shards) > 3
    write_parts(source, tmp_path / "out", count)
    for _ in range(2):  # a second time changes nothing
        assert merge(tmp_path / "out") == whole
        assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert check_folder(tmp_path / "out", 8).faults == ()


def test_parts_are_joined_by_copying_where_links_are_impossible(source, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", refuse)
    whole = pack(find(source), tmp_path / "whole", OPTIONS).index
    write_parts(source, tmp_path / "out", 2)
    assert merge(tmp_path / "out") == whole


def test_missing_mixed_and_damaged_parts_are_refused_and_nothing_changes(source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="holds no folder part-0001-of-"):
        merge(out)
    write_parts(source, out, 3)
    (out / "part-0002-of-0003").rename(tmp_path / "away")
    with pytest.raises(DataError, match="lacks 1 of 3 parts, the first is 2; write it with --part 2/3"):
        merge(out)
    pack(find(source), out / "part-0002-of-0003", replace(OPTIONS, part=Part(2, 3), filter="box"))
    with pytest.raises(DataError, match="part-0002-of-0003 was packed with other options or images than"):
        merge(out)
    write_parts(source, out, 3)
    shard = next((out / "part-0003-of-0003").glob("*.tar"))
    data = shard.read_bytes()
    shard.write_bytes(data[:-512])
    with pytest.raises(DataError, match=r"is not \d+ bytes long; pack .*part-0003-of-0003 again"):
        merge(out)
    shard.unlink()
    with pytest.raises(DataError, match="is missing; pack its part again"):
        merge(out)
    (out / "part-0001-of-0004").mkdir()
    with pytest.raises(DataError, match="holds parts of 3 and of 4"):
        merge(out)
    assert files(out) == {}


@pytest.mark.parametrize("text", ["3", "0/4", "5/4", "a/b", "1/", "-1/4"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(UsageError, match="must be like 3/16"):
        Part.parse(text)


def test_more_parts_than_shards_are_refused():
    assert Part.parse("2/3").of([0, 1, 2, 3]) == [2]
    with pytest.raises(UsageError, match="only 2 shards; use at most 2 parts"):
        Part(1, 3).of([0, 1])


def test_a_validation_split_is_seeded_disjoint_and_complete(source, tmp_path):
    words = ["--size", "4", "--format", "png", "--jobs", "1"]
    for name, extra in (("a", []), ("b", []), ("c", ["--seed", "1"])):
        assert main(["shards", "folder", str(source), str(tmp_path / name), *words, "--val", "25%", *extra]) == 0
    train, val = pairs(tmp_path / "a"), pairs(tmp_path / "a" / "val")
    assert (len(train), len(val)) == (18, 6)
    assert sorted(train + val) == [(number, number % 2) for number in range(COUNT)]
    assert (pairs(tmp_path / "b" / "val") == val, pairs(tmp_path / "c" / "val") == val) == (True, False)
    index = FolderIndex.read(tmp_path / "a" / "val")
    assert index.source == "folder of images, validation split (0.25 drawn by seed 0)"


def test_no_image_is_in_both_splits_when_duplicates_are_dropped(source, tmp_path):
    for number in range(COUNT):
        (source / "cat" / f"copy{number}.png").write_bytes(picture(number))
    words = ["--size", "4", "--format", "png", "--jobs", "1", "--val", "0.5", "--duplicates", "drop"]
    assert main(["shards", "folder", str(source), str(tmp_path / "out"), *words]) == 0
    numbers = [{number for number, _ in pairs(folder)} for folder in (tmp_path / "out", tmp_path / "out" / "val")]
    assert not numbers[0] & numbers[1]
    assert numbers[0] | numbers[1] == set(range(COUNT))


def test_splits_and_parts_that_cannot_be_are_one_sentence(source, tmp_path, capsys):
    for share in (0.0, 0.01, 1.0):
        with pytest.raises(UsageError, match="leaves .* for validation"):
            split(find(source), share, 0)
    words = ["shards", "folder", str(source), str(tmp_path / "out"), "--size", "4"]
    assert main([*words, "--val", "5%", "--part", "1/2"]) == 2
    assert main([*words, "--val", "much"]) == 2
    said = capsys.readouterr().err
    assert "--val and --part cannot be combined" in said
    assert "--val is 'much'" in said
    assert not (tmp_path / "out").exists()


def test_parts_as_they_are_typed(source, tmp_path, capsys):
    words = ["--size", "4", "--format", "png", "--shard-mb", "0.01", "--jobs", "1"]
    for part in ("1/2", "2/2"):
        assert main(["shards", "folder", str(source), str(tmp_path / "out"), *words, "--part", part]) == 0
    assert main(["shards", "merge", str(tmp_path / "out")]) == 0
    assert "24 images of 4x4x3 (png), 2 classes" in capsys.readouterr().out
    assert main(["shards", "check", str(tmp_path / "out"), "--jobs", "1"]) == 0
