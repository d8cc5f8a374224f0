"""Parquet, Arrow and torchvision's files become shards, without their libraries' downloads or guesses."""

import json
import struct

import numpy as np
import pyarrow as arrow
import pytest
from pyarrow import parquet

from bigtrain.cli import main
from bigtrain.data.pack import PackOptions, pack
from bigtrain.data.shards import ShardSet
from bigtrain.data.sources.packaged import find_packaged
from bigtrain.data.sources.tables import SPOOL, TableOptions, found_in_tables
from bigtrain.recipe.errors import DataError, UsageError
from tests.data.test_foreign import picture
from tests.data.test_sources import contents, pairs

OPTIONS = PackOptions(4, image_format="png", shard_mb=0.01)
NAMES = ["cat", "dog", "fish"]
COUNT = 10


def table(first, end, label=lambda number: number % 3, names=NAMES):
    images = [{"bytes": picture(number), "path": f"{number}.png"} for number in range(first, end)]
    made = arrow.table({"image": images, "label": [label(number) for number in range(first, end)]})
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    return made.replace_schema_metadata({"huggingface": json.dumps(features)} if names else None)


def refused(path, folder, words, options=TableOptions()):  # noqa: B008
    with pytest.raises(DataError, match=words), found_in_tables(path, folder, options):
        pass
    assert not (folder / SPOOL).exists()


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_tables_of_all_forms_keep_order_labels_and_names(tmp_path, kind):
    (tmp_path / "src").mkdir()
    for number, (first, end) in enumerate([(0, 6), (6, COUNT)]):
        made = table(first, end)
        path = tmp_path / "src" / f"data-{number}.{'parquet' if kind == 'parquet' else 'arrow'}"
        if kind == "parquet":
            parquet.write_table(made, path, row_group_size=2)
            continue
        writer = arrow.ipc.new_stream if kind == "stream" else arrow.ipc.new_file
        with writer(str(path), made.schema) as stream:
            stream.write_table(made, max_chunksize=4)
    for jobs in (1, 3):
        with found_in_tables(tmp_path / "src", tmp_path / str(jobs), TableOptions()) as found:
            report = pack(found, tmp_path / str(jobs), OPTIONS, jobs=jobs)
        assert not (tmp_path / str(jobs) / SPOOL).exists()
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert report.index.classes == ("cat", "dog", "fish")
    assert pairs(tmp_path / "1") == [(number, number % 3) for number in range(COUNT)]


def test_other_columns_names_as_labels_and_no_labels(tmp_path):
    data = {"picture": [picture(number) for number in range(4)], "thumb": [b""] * 4, "kind": ["b", "a", "b", "a"]}
    parquet.write_table(arrow.table(data), tmp_path / "a.parquet")
    refused(
        tmp_path / "a.parquet",
        tmp_path / "out",
        "of which picture, thumb can hold images; name one with --image-column",
    )
    refused(
        tmp_path / "a.parquet",
        tmp_path / "out",
        "has no column 'label' but picture, thumb, kind",
        TableOptions("picture"),
    )
    with found_in_tables(tmp_path / "a.parquet", tmp_path / "out", TableOptions("picture", "kind")) as found:
        pack(found, tmp_path / "out", OPTIONS)
    assert ShardSet.open(tmp_path / "out").class_names == ("a", "b")
    assert pairs(tmp_path / "out") == [(0, 1), (1, 0), (2, 1), (3, 0)]
    words = ["--image-column", "picture", "--no-labels", "--size", "4", "--jobs", "1"]
    assert main(["shards", "table", str(tmp_path / "a.parquet"), str(tmp_path / "bare"), *words]) == 0
    assert ShardSet.open(tmp_path / "bare").class_names == ()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (table(0, 3, lambda number: 7), "0 has label 7, but there are 3 classes"),
        (
            table(0, 3, lambda number: None),
            r"its label is missing \(null, or empty\); mend it, keep such images .* with --unlabelled keep",
        ),
        (table(0, 3, lambda number: -1), "its label is -1"),
        (table(0, 0), "holds no row|can hold images"),
        (arrow.table({"image": [{"bytes": None, "path": "/etc/passwd"}], "label": [0]}), "holds no bytes|can hold"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path, made, words):
    parquet.write_table(made, tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", tmp_path / "out", words)


def test_damaged_files_and_folders_of_splits_are_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    refused(tmp_path / "a.parquet", tmp_path / "out", r"a.parquet cannot be read")
    (tmp_path / "set" / "train").mkdir(parents=True)
    refused(tmp_path / "set", tmp_path / "out", "holds no .parquet or .arrow file; name one of its folders: train")


def test_mnist_files_are_read_and_nothing_is_downloaded(tmp_path, capsys):
    root = tmp_path / "root" / "MNIST" / "raw"
    with pytest.raises(DataError, match="does not hold MNIST as torchvision reads it"):
        find_packaged("MNIST", tmp_path / "root")
    with pytest.raises(UsageError, match="'ImageNet' is none of CIFAR10"):
        find_packaged("ImageNet", tmp_path)
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("t10k", 5)):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (root / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + pixels.tobytes())
        labels = bytes(number % 10 for number in range(count))
        (root / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels)
        if split == "train":
            train = pixels
    words = ["--size", "28", "--channels", "1", "--format", "png", "--jobs", "2"]
    assert main(["shards", "torchvision", "MNIST", str(tmp_path / "root"), str(tmp_path / "out"), *words]) == 0
    assert "12 images of 28x28x1 (png), 10 classes" in capsys.readouterr().out
    shards = ShardSet.open(tmp_path / "out")
    batch = shards.load(range(12))
    stored = {image.numpy().tobytes(): int(label) for image, label in zip(batch.image_NCHW, batch.label_N, strict=True)}
    assert stored == {image.tobytes(): number % 10 for number, image in enumerate(train)}
    words = [*words, "--split", "test"]
    assert main(["shards", "torchvision", "MNIST", str(tmp_path / "root"), str(tmp_path / "test"), *words]) == 0
    assert "5 images of 28x28x1" in capsys.readouterr().out


def test_a_cifar_pickle_that_is_not_the_published_one_is_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]:
        (base / name).write_bytes(b"cos\nmkdir\n(S'canary'\ntR.")
    with pytest.raises(DataError, match="does not hold CIFAR10 as torchvision reads it"):
        find_packaged("CIFAR10", tmp_path)
    assert not (tmp_path / "canary").exists()
