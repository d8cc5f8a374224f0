"""Results of runs, from folders made by hand."""

import json

import pytest

from bigtrain.recipe.load import load_recipe
from bigtrain.reports.results import result_of, table
from bigtrain.training.log import read_log
from bigtrain.training.schema import Recipe

AVERAGE = "ema-5000"


@pytest.fixture
def made(tmp_path):
    """Make a run folder from evaluations (images, protocol, average, figures); return its recipe."""

    def make(name, evaluations, status=None):
        folder = tmp_path / name
        (folder / "evaluations").mkdir(parents=True)
        for images, protocol, average, figures in evaluations:
            record = {
                "images_seen": images,
                "figures": figures,
                "protocol": {"as": protocol, "sampling": {"average": average}},
            }
            (folder / "evaluations" / f"{images:012d}-{protocol}.json").write_text(json.dumps(record))
        if status:
            (folder / "status.json").write_text(json.dumps(status))
        words = [f"run_dir={folder}", f"name={name}", "total_images=1000", "ema=[{halflife_images: 5000}]"]
        return load_recipe("bigtrain:digits-mlp", words, Recipe)

    return make


def test_best_and_last_are_of_the_newest_protocol(made):
    evaluations = [
        (100, "old", AVERAGE, {"fid": 1.0, "fid_std": 0.5}),
        (200, "new", AVERAGE, {"fid": 9.0, "precision": 0.2, "fid_std": 0.5, "fid_real_against_real": 0.1}),
        (300, "new", AVERAGE, {"fid": 7.0, "precision": 0.9}),
        (400, "new", AVERAGE, {"fid": 8.0, "precision": 0.3}),
        (300, "other", "ema-9", {"fid": 0.1}),
    ]
    found = result_of(made("a", evaluations, {"state": "complete", "images_seen": 1000})).record()
    assert found["state"] == "complete"
    assert (found["images_seen"], found["total_images"], found["protocol"]) == (1000, 1000, "new")
    assert found["figures"] == {
        "fid": {"best": 7.0, "best_images": 300, "last": 8.0},
        "precision": {"best": 0.9, "best_images": 300, "last": 0.3},
    }


def test_a_running_run_is_as_far_as_its_log(made):
    recipe = made("a", [], {"state": "running", "exit_status": None})
    lines = [{"event": "status", "images_seen": 64}, {"event": "status", "images_seen": 128}]
    (recipe.run_folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"torn')
    found = result_of(recipe, read_log(recipe.run_folder / "log.jsonl"))
    assert (found.state, found.images_seen, found.figures) == ("running", 128, {})


def test_what_is_not_there_or_torn_is_left_out(made):
    recipe = made("a", [])
    assert result_of(recipe).state == "not started"
    (recipe.run_folder / "evaluations" / "000000000100-x.json").write_text('{"images_seen": 1')
    (recipe.run_folder / "status.json").write_text('{"state"')
    assert result_of(recipe).record()["figures"] == {}


def test_the_table_marks_the_best_run_and_says_where_protocols_differ(made):
    results = [
        result_of(made("a", [(100, "p", AVERAGE, {"fid": 3.0})], {"state": "complete", "images_seen": 100})),
        result_of(made("b", [(100, "q", AVERAGE, {"fid": 2.0})])),
        result_of(made("c", [])),
    ]
    head, *rows, last = table(results)
    assert head.split() == ["run", "images", "state", "fid", "best", "fid", "last"]
    assert rows[0].split() == ["a", "100/1,000", "complete", "3", "at", "100", "3"]
    assert rows[1].split() == ["b", "0/1,000", "not", "started", "2*", "at", "100", "2"]
    assert rows[2].split() == ["c", "0/1,000", "not", "started", "-", "-"]
    assert last == "evaluated by different protocols: these figures do not compare"
