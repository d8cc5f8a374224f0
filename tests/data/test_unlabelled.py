"""Images without a label beside labelled ones: kept where that is asked for, refused otherwise, never by accident."""

import json

import numpy as np
import pyarrow as arrow
import pytest
from PIL import ImageDraw
from pyarrow import parquet

from bigtrain.cli import main
from bigtrain.data.balance import Balance
from bigtrain.data.check import check_folder
from bigtrain.data.feed import Feed
from bigtrain.data.foreign import index_folder
from bigtrain.data.index import NO_LABEL, FolderIndex
from bigtrain.data.mixing import label_mixing
from bigtrain.data.overview import draw_overview
from bigtrain.data.pack import PackOptions, pack
from bigtrain.data.settings import DataSettings
from bigtrain.data.shards import ShardSet
from bigtrain.data.sources.tars import find_shards
from bigtrain.data.standin import StandIns
from bigtrain.data.walk import IndexOptions
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.layout import Layout
from tests.data.test_foreign import picture, sample, write_tar
from tests.data.test_sources import pairs, write_zip
from tests.shard_factory import damage_sample, make_shards

KEEP = ("--unlabelled", "keep")
FORM = ("--size", "4", "--format", "png", "--jobs", "1")
LABELS = [0, NO_LABEL, 1, 1, NO_LABEL, 0, 1, NO_LABEL]
"""Of image 0, 1, ...: class "a", none, class "b", ..."""
NAMES = {0: "a", 1: "b", NO_LABEL: None}


def folder_with_loose_images(tmp_path):
    for number, label in enumerate(LABELS):
        path = tmp_path / "src" / (NAMES[label] or "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return ["folder", str(tmp_path / "src")]


def flat(tmp_path, labels):
    for number in range(len(LABELS)):
        path = tmp_path / "src" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return ["folder", str(tmp_path / "src"), "--labels", labels]


def csv_without_lines(tmp_path):
    rows = [f"{number}.png,{NAMES[label]}" for number, label in enumerate(LABELS) if label != NO_LABEL]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return flat(tmp_path, f"csv:{tmp_path / 'labels.csv'}")


def csv_with_empty_cells(tmp_path):
    rows = [f"{number}.png,{NAMES[label] or ''}" for number, label in enumerate(LABELS)]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return flat(tmp_path, f"csv:{tmp_path / 'labels.csv'}")


def json_with_nulls(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({f"{number}.png": NAMES[label] for number, label in enumerate(LABELS)}))
    return flat(tmp_path, f"json:{tmp_path / 'a.json'}")


def json_with_minus_one(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({f"{number}.png": label for number, label in enumerate(LABELS)}))
    return flat(tmp_path, f"json:{tmp_path / 'a.json'}")


def zip_with_null(tmp_path):
    listed = {"labels": [[f"{number}.png", NAMES[label]] for number, label in enumerate(LABELS)]}
    images = [(f"{number}.png", picture(number)) for number in range(len(LABELS))]
    return ["zip", str(write_zip(tmp_path / "a.zip", [*images, ("dataset.json", json.dumps(listed).encode())]))]


def zip_with_loose_images(tmp_path):
    images = [(f"{NAMES[label] or '.'}/{number}.png", picture(number)) for number, label in enumerate(LABELS)]
    return ["zip", str(write_zip(tmp_path / "a.zip", [(name.removeprefix("./"), data) for name, data in images])),
            "--labels", "folders"]  # fmt: skip


def table(tmp_path, label_of):
    images = [{"bytes": picture(number)} for number in range(len(LABELS))]
    made = arrow.table({"image": images, "label": [label_of(label) for label in LABELS]})
    parquet.write_table(made, tmp_path / "a.parquet")
    return ["table", str(tmp_path / "a.parquet")]


def table_with_nulls(tmp_path):
    return table(tmp_path, NAMES.get)


def table_with_minus_one(tmp_path):
    return table(tmp_path, lambda label: label)


def tars(tmp_path):
    files = [pair for number, label in enumerate(LABELS) for pair in sample(number, NAMES[label])]
    write_tar(tmp_path / "others" / "a.tar", files)
    return ["resize", str(tmp_path / "others")]


@pytest.mark.parametrize(
    "source",
    [folder_with_loose_images, csv_without_lines, csv_with_empty_cells, json_with_nulls, json_with_minus_one,
     zip_with_null, zip_with_loose_images, table_with_nulls, table_with_minus_one, tars],
)  # fmt: skip
def test_images_without_a_label_are_refused_with_the_way_to_keep_them_and_kept_by_it(tmp_path, capsys, source):
    word, where, *more = source(tmp_path)
    words = ["shards", word, where, str(tmp_path / "out"), *more, *FORM]
    assert main(words) == 6
    assert "keep such images without one with --unlabelled keep" in capsys.readouterr().err
    assert not (tmp_path / "out" / "index.json").exists()
    assert main([*words, *KEEP]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "unlabelled 3 of these images have no label; classes: 2" in said
    assert said.endswith("2, 1 3; 3 without a label" if "minus" in source.__name__ else "2, b 3; 3 without a label")
    assert pairs(tmp_path / "out") == list(enumerate(LABELS))  # also checks the folder: no fault
    shards = ShardSet.open(tmp_path / "out")
    assert (shards.label_counts.tolist(), shards.num_unlabelled, shards.index.num_unlabelled) == ([2, 3], 3, 3)


@pytest.mark.parametrize("nothing", [None, b'{"meta": {"kind": null}}', b'{"meta": {}}', b'{"meta": {"kind": -1}}'])
def test_tars_of_others_are_indexed_with_their_unlabelled_samples_where_that_is_asked_for(tmp_path, capsys, nothing):
    files = []
    for number, label in enumerate(LABELS):
        files += sample(number)
        content = nothing if label == NO_LABEL else json.dumps({"meta": {"kind": label}}).encode()
        files += [(f"{number:04d}.json", content)] if content is not None else []
    write_tar(tmp_path / "a.tar", files)
    words = ["shards", "index", str(tmp_path), "--label-key", "meta.kind", "--jobs", "1"]
    assert main(words) == 6
    assert "keep such images without one with --unlabelled keep" in capsys.readouterr().err
    assert not (tmp_path / "index.json").exists()
    assert main([*words, *KEEP]) == 0
    assert "samples a class: 0 2, 1 3; 3 without a label" in capsys.readouterr().out
    assert pairs(tmp_path) == list(enumerate(LABELS))
    assert main(["shards", "check", str(tmp_path), "--jobs", "1"]) == 0
    assert "3 without a label" in capsys.readouterr().out


def test_a_set_without_any_label_is_not_made_one_of_classes(tmp_path, capsys):
    write_tar(tmp_path / "others" / "a.tar", [pair for number in range(3) for pair in sample(number)])
    with pytest.raises(DataError, match="has no .json, though 0 others have one; mend it at its source, or leave"):
        index_folder(tmp_path / "others", IndexOptions("kind", keep_unlabelled=True))
    for content in (None, b"-1"):
        write_tar(tmp_path / "bare" / "a.tar", [pair for number in range(3) for pair in sample(number, content)])
        assert main(["shards", "index", str(tmp_path / "bare"), "--jobs", "1", *KEEP]) == 6
        assert "no sample has a label, so there are no classes" in capsys.readouterr().err
    write_zip(tmp_path / "a.zip", [("0.png", picture(0)), ("dataset.json", b'{"labels": null}')])
    assert main(["shards", "zip", str(tmp_path / "a.zip"), str(tmp_path / "out"), *FORM, *KEEP]) == 6
    assert "a.zip has no labels in a dataset.json, so there are no classes" in capsys.readouterr().err
    (tmp_path / "a.csv").write_text("")
    assert main(["shards", *flat(tmp_path, f"csv:{tmp_path / 'a.csv'}"), str(tmp_path / "out"), *FORM, *KEEP]) == 6
    assert "has no label for 8 of 8 images" in capsys.readouterr().err
    assert main(["shards", *table(tmp_path, lambda _: None), str(tmp_path / "out"), *FORM, *KEEP]) == 6
    assert "has no label in any row" in capsys.readouterr().err
    for words in (["index", str(tmp_path / "others"), "--no-labels"], [*flat(tmp_path, "none"), str(tmp_path), *FORM]):
        assert main(["shards", *words, *KEEP]) == 2
        assert "--unlabelled keep means images without a label among labelled ones" in capsys.readouterr().err


def test_a_label_that_is_damaged_is_refused_all_the_same(tmp_path):
    write_tar(tmp_path / "a.tar", [*sample(0, 1), *sample(1, b"\xff\xfe")])
    with pytest.raises(DataError, match="its label is no text"):
        index_folder(tmp_path, IndexOptions(keep_unlabelled=True))


def test_a_class_may_be_called_none(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"0.png": "None", "1.png": "some"}))
    assert main(["shards", *flat(tmp_path, f"json:{tmp_path / 'a.json'}"), str(tmp_path / "out"), *FORM, *KEEP]) == 0
    assert pairs(tmp_path / "out")[:3] == [(0, 0), (1, 1), (2, NO_LABEL)]


@pytest.fixture
def some(tmp_path):
    """40 samples in 4 shards, of which 10 have no label."""
    labels = [NO_LABEL if number % 4 == 3 else number % 3 for number in range(40)]
    make_shards(tmp_path / "some", [10, 10, 10, 10], labels=labels)
    return tmp_path / "some"


def test_they_are_read_as_minus_one_and_stay_when_shards_are_written_in_another_form(some, tmp_path):
    batch = ShardSet.open(some).load([2, 3, 4])
    assert batch.label_N.tolist() == [2, NO_LABEL, 1]
    report = pack(find_shards(some, IndexOptions()), tmp_path / "again", PackOptions(4, image_format="png", channels=1))
    assert report.index.num_unlabelled == 10
    assert pairs(tmp_path / "again") == pairs(some)
    shards = ShardSet.open(some, 0.3, seed=1)
    assert shards.num_unlabelled + shards.holdout().num_unlabelled == shards.whole().num_unlabelled == 10
    assert shards.label_counts.sum() + shards.num_unlabelled == shards.num_samples
    assert ShardSet.open(make_folder(tmp_path / "bare", 0)).num_unlabelled == 0


def test_shards_with_an_index_are_written_again_without_any_label(some, tmp_path, capsys):
    words = ["shards", "resize", str(some), str(tmp_path / "bare"), *FORM, "--channels", "1"]
    assert main([*words, "--no-labels"]) == 0
    assert pairs(tmp_path / "bare") == [(number, NO_LABEL) for number in range(40)]
    index = FolderIndex.read(tmp_path / "bare")
    assert (index.classes, index.num_unlabelled) == ((), 0)
    assert main([*words, "--label-key", "kind"]) == 2
    assert "--label-key kind is for shards without an index" in capsys.readouterr().err


def make_folder(folder, num_classes):
    make_shards(folder, [6], num_classes)
    return folder


def test_a_label_that_is_gone_from_the_tar_is_a_fault_and_one_that_should_not_be_there_too(some):
    assert check_folder(some, 8).faults == ()
    name = FolderIndex.read(some).shards[2].name  # samples 20 to 29, of which 23 and 27 have no label
    write_tar(some / name, [pair for at in range(20, 30) for pair in sample(at, None if at == 20 else 1, f"{at:06d}")])
    faults = check_folder(some, 8).faults
    assert any("sample '000020' has label None in its .cls and 2 in its index" in fault for fault in faults)
    assert any("sample '000023' has label 1 in its .cls and -1 in its index" in fault for fault in faults)


def test_a_sample_whose_label_is_lost_is_not_taken_for_an_unlabelled_one(tmp_path):
    make_shards(tmp_path, [8])
    shards = ShardSet.open(tmp_path)
    rows = shards.reader.rows(0).copy()
    rows["label"][3] = NO_LABEL
    shards.reader.rows = lambda shard: rows
    shards.reader._opened(0).rows = rows
    with pytest.raises(DataError, match="has label -1, but there are 3 classes"):
        shards.load([3])


def test_the_picture_shows_which_have_none(some, tmp_path, monkeypatch):
    texts, draw = [], ImageDraw.ImageDraw.text
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda *a, **k: texts.append(a[2]) or draw(*a, **k))
    draw_overview(some, tmp_path / "some.png")
    assert sum(text.startswith("no l") for text in texts) == 10  # cut to the width of a tile
    assert "10 samples without a label" in texts


def test_all_in_their_own_shards_counts_as_sorted(tmp_path):
    make_shards(tmp_path / "apart", [20] * 4, labels=[0, 1] * 20 + [NO_LABEL] * 40)
    make_shards(tmp_path / "mixed", [20] * 4, labels=[0, NO_LABEL, 1, NO_LABEL] * 20)
    assert label_mixing(FolderIndex.read(tmp_path / "apart"), 1) < 0.75
    assert label_mixing(FolderIndex.read(tmp_path / "mixed"), 1) > 0.95
    with pytest.raises(DataError, match="sorted by class"):
        DataSettings(shards=str(tmp_path / "apart"), shuffle_window_shards=1).build(0)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_balance_of_classes_leaves_them_their_places(tmp_path, share):
    make_shards(tmp_path, [10, 10, 10, 10], labels=[NO_LABEL, 0, 0, 0, 1, 0, 2, 0, 0, 0] * 4)
    shards = ShardSet.open(tmp_path, share, seed=1)
    balance = Balance("class")
    feed = Feed(shards, shards.order(0, 2, balance), Layout(0, 1, 1, 1), 0)
    for epoch in range(2):
        places = range(epoch * shards.num_samples, (epoch + 1) * shards.num_samples)
        labels = [int(feed.read(position)[0].label_N) for position in places]
        assert labels.count(NO_LABEL) == shards.num_unlabelled
        counts = [labels.count(label) for label in range(3)]
        assert counts == shards.label_places(balance).tolist()
        assert max(counts) - min(counts) <= 1
    feed.close()


def test_a_damaged_one_is_replaced_by_another_one_without_a_label(some):
    damage_sample(some, 15)
    shards = DataSettings(shards=str(some), on_error="skip", allow_sorted=True).build(0)
    batch = shards.load([15])
    assert batch.label_N.tolist() == [NO_LABEL]
    assert batch.bad[0].stand_in in (11, 19)
    assert next(StandIns(shards.reader, shards.parts, shards.part).of(15)) == batch.bad[0].stand_in
    assert np.all(shards.reader.labels(np.array([batch.bad[0].stand_in])) == NO_LABEL)
