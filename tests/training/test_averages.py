"""Two moving averages in one run: both evaluated, the better one named wherever a user looks."""

import json
from pathlib import Path

import pytest

from bigtrain.engine.ranks import Ranks
from bigtrain.training.log import read_log
from bigtrain.training.snapshot import snapshot_record
from tests.rank_pool import run_ranks
from tests.training.test_hooks import EVALUATE
from tests.training.toy_runs import enter, toy_overrides

FROZEN, MOVING = "ema-1000000000", "ema-32"  # the first is the untrained generator for ever


def enter_and_listen(ranks: Ranks, overrides: list[str]) -> tuple[int, str]:
    """Go through the door of training; return its status and what it said."""
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = enter(ranks, overrides)
    return status, said.getvalue()


@pytest.fixture(scope="module")
def two_averages(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of 40 steps with an average that stands still and one that follows, and what it printed."""
    folder = tmp_path_factory.mktemp("averages") / "run"
    overrides = toy_overrides(
        digits, folder, EVALUATE.replace("every_images: 32", "every_images: 320"),
        "ema=[{halflife_images: 1G}, {halflife_images: 32}]", "total_images=640",
        "checkpoint={every_images: 320, keep_best: 1, keep_best_average: any}",
    )  # fmt: skip
    ((status, said),) = run_ranks(1, enter_and_listen, overrides, hang_limit_s=240.0)
    assert status == 0
    return folder, said


def test_every_average_is_evaluated_and_the_better_one_named_in_log_and_files(two_averages: tuple[Path, str]) -> None:
    folder, _ = two_averages
    events = [event for event in read_log(folder / "log.jsonl") if event["event"] == "evaluation"]
    assert [(event["images_seen"], event["average"]) for event in events] == [
        (320, FROZEN), (320, MOVING), (640, FROZEN), (640, MOVING),
    ]  # fmt: skip
    for frozen, moving in (events[:2], events[2:]):
        assert moving["fd_classifier"] < frozen["fd_classifier"]
        assert frozen["best_average"] == moving["best_average"] == MOVING
    assert events[0]["fd_classifier"] == pytest.approx(events[2]["fd_classifier"], rel=1e-3), "it stands still"
    for event in events:
        record = json.loads(
            (folder / "evaluations" / f"{event['images_seen']:012d}-{event['protocol']}.json").read_text()
        )
        assert (record["average"], record["best_average"], record["by"]) == (event["average"], MOVING, "training")


def test_the_winner_stands_in_the_snapshot_and_at_the_end_of_the_run(two_averages: tuple[Path, str]) -> None:
    folder, said = two_averages
    assert snapshot_record(folder / "snapshots" / "000000000640.safetensors")["best_average"] == {
        "average": MOVING, "images_seen": 640,
    }  # fmt: skip
    last = said.splitlines()[-1]
    assert f"evaluated best by fd_classifier: {MOVING} after 640 images" in last
    assert f"in the end {MOVING} (" in last
    assert f"; {FROZEN} " in last


def test_the_pin_of_the_best_checkpoint_names_the_average(two_averages: tuple[Path, str]) -> None:
    folder, _ = two_averages
    pins = [path.read_text() for path in (folder / "checkpoints").glob("*/PINNED")]
    assert any(pin.startswith("best evaluation so far: fd_classifier") and MOVING in pin for pin in pins)
