"""Runs on streamed shards: started, stopped and resumed on two ranks; what the log says; what such a run cannot do."""

import contextlib
import gzip
import io
import json
import os
import re
import signal
import tarfile
import time

import pytest

from bigtrain.cli import main
from bigtrain.data.stream.shards import Share, drawn_shards
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.load import load_recipe
from bigtrain.training.damage import BAD_SAMPLES
from bigtrain.training.log import read_log
from bigtrain.training.schema import Recipe
from tests.data.staging.shard_server import serving
from tests.rank_pool import run_ranks, start_ranks
from tests.stream_tars import tar_of
from tests.training.toy_runs import RECIPE, as_json, enter, play, status_lines, toy_overrides

HANG_LIMIT_S = 200.0
STREAM = ("data.mode=stream", "data.holdout=0", "data.shuffle_samples=50", "engine=ddp", "total_images=96")


@pytest.fixture(scope="module")
def streamed(digits, tmp_path_factory):
    """A hundred digits without an index, one shard gzipped and one cut short."""
    folder = tmp_path_factory.mktemp("streamed")
    with tarfile.open(next(digits.glob("*.tar"))) as archive:
        files = [(entry.name, archive.extractfile(entry).read()) for entry in archive.getmembers()[:200]]
    shards = [tar_of(files[first : first + 40]) for first in range(0, 200, 40)]
    for number, data in enumerate(shards[2:]):
        (folder / f"{number}.tar").write_bytes(data)
    (folder / "zipped.tar.gz").write_bytes(gzip.compress(shards[0]))
    (folder / "cut.tar").write_bytes(shards[1][:20_700])
    return folder


def enter_aloud(ranks, overrides):
    """Go through the door and return the status and what was said."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = enter(ranks, overrides)
    return status, said.getvalue()


@pytest.mark.two_process
def test_a_run_of_two_ranks_starts_stops_and_resumes_and_says_that_it_is_not_exact(streamed, tmp_path):
    run_dir = tmp_path / "run"
    overrides = toy_overrides(streamed, run_dir, *STREAM, "data.num_workers=1", "data.on_error=skip")
    run_ranks(2, play, overrides, 2, hang_limit_s=HANG_LIMIT_S)
    (status, said), *others = run_ranks(2, enter_aloud, overrides, hang_limit_s=HANG_LIMIT_S)
    assert "data.mode: stream; a resume is not exact" in said
    assert (status, others) == (0, [(0, "")])
    resumed = next(line for line in read_log(run_dir / "log.jsonl") if line["event"] == "resumed")
    assert resumed["step"] == 2
    assert resumed["data_mode"] == "stream"
    assert resumed["data_order"].startswith("a resume is not exact: shards are drawn anew at each start")
    last = status_lines(run_dir)[-1]
    assert last["images_seen"] == 96
    assert last["bad_samples"] >= 1
    assert 0 < last["sample_diversity"] < 10  # of real images off the stream, too
    (bad,) = [json.loads(line) for line in (run_dir / BAD_SAMPLES).read_text().splitlines()]
    assert bad["shard"] == "cut.tar"
    assert "without an end marker" in bad["reason"]
    other = [*overrides, "data.mode=indexed", "data.shuffle_samples=1k", "data.num_workers=0"]
    assert run_ranks(2, enter, [*other, f"data.shards={streamed}"], hang_limit_s=HANG_LIMIT_S) == [6, 6]


@pytest.mark.two_process
def test_bad_shards_stop_all_ranks_with_status_6_unless_they_are_skipped(streamed, tmp_path):
    overrides = toy_overrides(streamed / "cut.tar", tmp_path / "run", *STREAM)
    assert run_ranks(2, enter, overrides, hang_limit_s=HANG_LIMIT_S) == [6, 6]
    assert "shard cut.tar" in json.dumps(as_json(tmp_path / "run" / "status.json"))


@pytest.mark.two_process
def test_verbs_that_need_the_images_say_why_they_refuse(streamed, tmp_path, capsys):
    run_dir = str(tmp_path / "run")
    alone = toy_overrides(streamed, run_dir, *STREAM, "total_images=16", "engine=plain", "data.on_error=skip")
    assert run_ranks(1, enter, alone, hang_limit_s=HANG_LIMIT_S) == [0]
    for words, status, sentence in (
        (["audit", run_dir], 2, "was trained with data.mode: stream, so nothing says which images it saw"),
        (["evaluate", run_dir, "--num", "64"], 6, "was trained on streamed shards, .* name images with --real"),
        (["replay", run_dir, "--at", "0", "--turn", "generator"], 2, "which never gives the same images again"),
    ):
        assert main(words) == status
        assert re.search(sentence, capsys.readouterr().err)


def end_on_node(ranks, overrides):
    """End the process with the status of the door."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    os._exit(enter(ranks, overrides))


@pytest.mark.two_process
@pytest.mark.parametrize("diversity_images", [0, pytest.param(32, marks=pytest.mark.slow)])  # what is read first
def test_a_stop_while_a_server_keeps_silent_is_polite(streamed, tmp_path, diversity_images):
    with serving(streamed) as server:
        place = f"{server.url}/{{0,1,2}}.tar"
        watchdog = f"watchdog.diversity_images={diversity_images}"
        overrides = toy_overrides(place, tmp_path / "run", *STREAM, "data.num_workers=1", watchdog)
        names = [f"{number}.tar" for number in range(3)]
        server.always = dict.fromkeys(names, "stall")
        group = start_ranks(2, end_on_node, overrides, hang_limit_s=HANG_LIMIT_S)
        end_s = time.monotonic() + HANG_LIMIT_S
        while not any(server.asked[name] for name in names):
            assert time.monotonic() < end_s
            time.sleep(0.05)
        group.signal(1, signal.SIGTERM)
        outcomes = group.outcomes()
    assert [outcome.exit_status for outcome in outcomes] == [75, 75], outcomes


def test_a_start_and_its_resume_draw_different_shards():
    draws = [[next(drawn_shards(1000, 0, position, Share(rank, 2))) for rank in range(2)] for position in (0, 32, 64)]
    assert len({tuple(row) for row in draws}) == 3


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "evaluate={every_images: 64, metrics: [fid]}",
            "evaluate: compares with all images .* evaluate RUN --watch --real DIR",
        ),
        ("game.fake_labels=empirical", "game.fake_labels: empirical draws classes as often as the data has them"),
        ("data.holdout=5%", "data.holdout: which samples are held out is said by an index"),
    ],
)
def test_what_needs_an_index_is_refused_before_training(override, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe(RECIPE, [*toy_overrides("x", "y", *STREAM), "engine=plain", override], Recipe)
