"""`bigtrain shards` as it is typed."""

import shutil

import numpy as np
import pytest
from PIL import Image

from bigtrain.cli import main
from bigtrain.data.index import FolderIndex
from bigtrain.data.pixels import encode
from tests.shard_factory import damage_sample, make_shards, numbered_image


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "source" / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(
                tmp_path / "source" / name / f"{number}.png"
            )
    return tmp_path / "source"


def test_folder_then_check(source, tmp_path, capsys):
    out = str(tmp_path / "out")
    words = ["--size", "16", "--fit", "pad", "--filter", "bicubic", "--format", "webp", "--quality", "80"]
    assert main(["shards", "folder", str(source), out, *words, "--jobs", "2", "--shard-mb", "0.02"]) == 0
    assert "12 images of 16x16x3 (webp), 2 classes" in capsys.readouterr().out
    index = FolderIndex.read(tmp_path / "out")
    assert index.resize == {"fit": "pad", "filter": "bicubic", "quality": 80}
    assert main(["shards", "check", out]) == 0
    said = capsys.readouterr().out
    assert "no fault" in said
    assert "samples a class: cat 6, dog 6" in said
    assert index.shards[0].name in said


def test_flat_folder_without_labels_then_check(source, tmp_path, capsys):
    out, words = str(tmp_path / "out"), ["--size", "16", "--jobs", "1"]
    assert main(["shards", "folder", str(source / "cat"), out, *words]) == 6
    assert "write images without labels with --labels none" in capsys.readouterr().err
    assert main(["shards", "folder", str(source / "cat"), out, *words, "--labels", "none"]) == 0
    assert "6 images of 16x16x3 (jpg), 0 classes" in capsys.readouterr().out
    assert main(["shards", "check", out, "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "no classes" in said
    assert "no fault" in said


def test_classes_can_be_left_out_and_are_kept_unless_told(source, tmp_path):
    words = ["--size", "16", "--jobs", "1", "--labels"]
    for labels, classes in (("none", ()), ("folders", ("cat", "dog"))):
        assert main(["shards", "folder", str(source), str(tmp_path / labels), *words, labels]) == 0
        index = FolderIndex.read(tmp_path / labels)
        assert (index.classes, index.num_samples) == (classes, 12)


def test_check_says_each_fault_and_returns_1(tmp_path, capsys):
    index = make_shards(tmp_path, [5, 5])
    path = tmp_path / index.shards[0].name
    path.write_bytes(path.read_bytes()[:-512])
    assert main(["shards", "check", str(tmp_path), "--jobs", "1"]) == 1
    said = capsys.readouterr().out
    assert f"fault: shard {index.shards[0].name}: has " in said
    assert said.strip().endswith("1 fault")


def test_check_without_decoding_compares_bytes_and_headers_alone(tmp_path, capsys, monkeypatch):
    index = make_shards(tmp_path, [5, 5])
    monkeypatch.setattr("bigtrain.data.check.decode_into", None)  # called, it would be an error of ours
    assert main(["shards", "check", str(tmp_path), "--jobs", "1", "--no-decode"]) == 0
    damage_sample(tmp_path, 7)
    capsys.readouterr()
    assert main(["shards", "check", str(tmp_path), "--jobs", "1", "--no-decode"]) == 1
    assert f"fault: shard {index.shards[1].name}: sample '000007'" in capsys.readouterr().out


def test_check_decodes_unless_told(tmp_path, capsys):
    make_shards(tmp_path, [3], image_bytes=lambda number: encode(numbered_image(number), "png")[:-30])
    for words, status in ((["--no-decode"], 0), ([], 1), (["--decode"], 1)):
        assert main(["shards", "check", str(tmp_path), "--jobs", "1", *words]) == status
    assert "the image cannot be decoded" in capsys.readouterr().out


def test_check_warns_of_sorted_shards(tmp_path, capsys):
    make_shards(tmp_path, [9, 9, 9], labels=[0] * 9 + [1] * 9 + [2] * 9)
    assert main(["shards", "check", str(tmp_path), "--window", "1", "--jobs", "1"]) == 0
    assert "warning: sorted by class: windows of 1 shards hold 0%" in capsys.readouterr().out


def test_check_without_an_index_says_what_to_do(tmp_path, capsys):
    assert main(["shards", "check", str(tmp_path)]) == 1
    assert "no index.json in" in capsys.readouterr().out


def test_digits_say_what_they_wrote(tmp_path, capsys):
    assert main(["shards", "digits", str(tmp_path)]) == 0
    assert "1797 images of 32x32x1 (png), 10 classes, 4 shards" in capsys.readouterr().out


def test_photos_then_check(tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["shards", "photos", out, "--side", "8", "--count", "1.1k", "--format", "jpg", "--quality", "80"]) == 0
    assert "1100 images of 8x8x3 (jpg), 0 classes, 2 shards" in capsys.readouterr().out
    assert FolderIndex.read(tmp_path / "out").resize["quality"] == 80
    assert main(["shards", "check", out, "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "no classes" in said
    assert "no fault" in said


def test_the_closing_table_counts_images_sizes_duplicates_and_rejections(source, tmp_path, capsys):
    shutil.copy(source / "cat" / "0.png", source / "dog" / "copy.png")
    (source / "cat" / "bad.jpg").write_bytes(b"no image")
    Image.new("RGB", (5, 9)).save(source / "cat" / "small.png")
    words = ["--size", "16", "--jobs", "1", "--skip-bad"]
    assert main(["shards", "folder", str(source), str(tmp_path / "out"), *words, "--duplicates", "drop"]) == 0
    said = capsys.readouterr().out
    assert "images        13 of 14" in said
    assert "source sizes  30x20 (12), 5x9 (1)" in said
    assert "enlarged      1 images were smaller than 16 pixels" in said
    assert "duplicates    1 (left out), such as" in said
    assert "1 have another label than the first" in said
    assert "rejected      1: the image cannot be decoded" in said
    assert "samples a class: cat 7, dog 6" in said


def test_a_folder_as_torchvision_reads_it(source, tmp_path, capsys):
    out, words = str(tmp_path / "out"), ["--size", "16", "--jobs", "1"]
    Image.new("RGB", (9, 9)).save(source / "cover.png")  # beside the classes, where torchvision does not look
    for root in (source, tmp_path / "sets"):
        assert main(["shards", "torchvision", "ImageFolder", str(root), out, *words]) == 0
        assert "12 images of 16x16x3 (jpg), 2 classes" in capsys.readouterr().out
        assert FolderIndex.read(tmp_path / "out").classes == ("cat", "dog")
        if root == source:
            (tmp_path / "sets").mkdir()
            source.rename(tmp_path / "sets" / "train")
    assert main(["shards", "torchvision", "ImageFolder", str(root), out, *words, "--split", "test"]) == 6
    assert "has no folder 'test'; leave --split out" in capsys.readouterr().err
    assert main(["shards", "torchvision", "ImageFolder", str(root / "train" / "cat"), out, *words]) == 6
    assert "holds no sub-folder, and so no class" in capsys.readouterr().err


@pytest.mark.parametrize(("form", "most"), [("jpg", 65_500), ("webp", 16_383)])
def test_sizes_that_a_format_cannot_hold_are_refused_before_an_image_is_read(source, tmp_path, capsys, form, most):
    words = ["--format", form, "--max-pixels", "64M", "--size", f"2x{most + 1}"]
    assert main(["shards", "folder", str(source), str(tmp_path / "out"), *words]) == 2
    assert f"--format {form} cannot hold {most + 1} pixels a side (at most {most})" in capsys.readouterr().err


def test_zip_then_resize(source, tmp_path, capsys):
    shutil.make_archive(str(tmp_path / "all"), "zip", source)
    words = ["--jobs", "1", "--format", "png"]
    zipped, out = str(tmp_path / "all.zip"), str(tmp_path / "out")
    assert main(["shards", "zip", zipped, out, "--size", "16", "--labels", "folders", *words]) == 0
    said = capsys.readouterr().out
    assert "12 images of 16x16x3 (png), 2 classes" in said
    assert "samples a class: cat 6, dog 6" in said
    assert main(["shards", "resize", out, out, "--size", "8", *words]) == 2
    assert "write into another folder" in capsys.readouterr().err
    assert main(["shards", "resize", out, str(tmp_path / "small"), "--size", "8", *words]) == 0
    assert "12 images of 8x8x3 (png), 2 classes" in capsys.readouterr().out
    assert main(["shards", "check", str(tmp_path / "small"), "--jobs", "1"]) == 0


def test_index_of_shards_without_one_then_check(tmp_path, capsys):
    make_shards(tmp_path, [5, 5])
    (tmp_path / "index.json").unlink()
    assert main(["shards", "index", str(tmp_path), "--jobs", "1", "--no-labels", "--label-key", "a"]) == 2
    assert "--label-key a and --no-labels contradict each other" in capsys.readouterr().err
    assert main(["shards", "index", str(tmp_path), "--jobs", "1", "--label-key", "kind"]) == 6
    assert "has no .json" in capsys.readouterr().err
    assert main(["shards", "index", str(tmp_path), "--jobs", "1"]) == 0
    said = capsys.readouterr().out
    assert "10 images of 4x4x1 (png), 3 classes, 2 shards" in said
    assert "samples a class: 0 " in said
    assert main(["shards", "check", str(tmp_path), "--jobs", "1"]) == 0
    assert main(["shards", "index", str(tmp_path), "--jobs", "1", "--no-labels"]) == 0
    said = capsys.readouterr().out
    assert "no classes" in said
    assert "left out, since no sample needs them: 10 .cls" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--side", "0"], "--side is 0, but must be at least 1"),
        (["--side", "500"], "--side is 500, but the photographs have 427 pixels"),
        (["--side", "8", "--count", "0"], "--count is 0, but must be at least 1"),
        (["--side", "8", "--count", "some"], "--count is 'some': not a whole count"),
        (["--side", "8", "--quality", "0"], "--quality is 0"),
        ([], "--side"),
    ],
)
def test_wrong_options_of_photos_are_one_sentence_and_status_2(tmp_path, capsys, words, message):
    assert main(["shards", "photos", str(tmp_path / "out"), *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "0"], "--size is 0, but must be at least 1"),
        (["--size", "8", "--quality", "101"], "--quality is 101, but must be at least 1 and at most 100"),
        (["--size", "8", "--shard-mb", "0"], "--shard-mb is 0, but must be over 0"),
        (["--size", "8", "--jobs", "0"], "--jobs is 0"),
        (["--size", "8", "--max-pixels", "many"], "--max-pixels is 'many': not a whole count"),
        (["--size", "8", "--fit", "stretch"], "invalid choice: 'stretch'"),
        (["--size", "8", "--labels", "names"], "--labels is 'names'; choose one of folders, none, csv:FILE, json:FILE"),
        ([], "--size"),
    ],
)
def test_wrong_options_are_one_sentence_and_status_2(source, tmp_path, capsys, words, message):
    assert main(["shards", "folder", str(source), str(tmp_path / "out"), *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_bad_images_are_one_sentence_and_status_6(source, tmp_path, capsys):
    (source / "cat" / "bad.jpg").write_bytes(b"no image")
    words = ["shards", "folder", str(source), str(tmp_path / "out"), "--size", "8", "--jobs", "1"]
    assert main(words) == 6
    assert "1 of 13 files cannot be used" in capsys.readouterr().err
    assert main([*words, "--skip-bad"]) == 0
    assert "left out: " in capsys.readouterr().out
