"""A tracker shows the log to somebody else; that it fails costs its pictures, not the run."""

from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker

from bigtrain.engine.processes.launch import start
from bigtrain.engine.ranks import Ranks
from bigtrain.engine.trackers import TRACKERS, Trackers
from bigtrain.training.log import read_log
from tests.rank_pool import run_ranks
from tests.training.toy_runs import enter, toy_overrides


class Moody(GeneralTracker):
    """Remembers what it was told, and raises where it is asked to."""

    name, requires_logging_directory, tracker = "moody", False, None
    main_process_only = False
    told: list[str]

    def __init__(self, *fails: str) -> None:
        super().__init__()
        self.fails, self.told = fails, []

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        pass

    def log(self, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
        self.told.append("log")
        if "log" in self.fails:
            raise ConnectionError("no network")

    def finish(self) -> None:
        self.told.append("finish")
        if "finish" in self.fails:
            raise OSError("no space")


def sentences(ranks: Ranks, *fails: str) -> tuple[list[str], list[str], list[list[str]]]:
    """Log twice and close with a tracker that fails and one that does not; return what they said and were told."""
    made = []

    def make(*arguments: object) -> Moody:
        made.append(Moody(*(fails if not made else ())))
        return made[-1]

    TRACKERS["tensorboard"] = TRACKERS["wandb"] = make
    accelerator = start("plain", 1).accelerator
    trackers = Trackers(accelerator, ("tensorboard", "wandb"), "toy", Path(), 0)
    logged = [sentence for images in (16, 32) for sentence in trackers.log({"loss": 1.0}, images)]
    closed = trackers.close()
    accelerator.end_training()
    return logged, closed, [each.told for each in made]


def test_a_tracker_that_fails_is_left_out_and_the_others_are_not() -> None:
    ((logged, closed, told),) = run_ranks(1, sentences, "log")
    assert logged == ["moody failed and is left out from now on (ConnectionError: no network)"]
    assert closed == []
    assert told == [["log"], ["log", "log", "finish"]]
    ((logged, closed, told),) = run_ranks(1, sentences, "finish")
    assert logged == []
    assert closed == ["moody failed and is left out from now on (OSError: no space)"]
    assert told == [["log", "log", "finish"]] * 2


def train_with(ranks: Ranks, overrides: list[str], *fails: str) -> int:
    TRACKERS["tensorboard"] = lambda *arguments: Moody(*fails)
    return enter(ranks, overrides)


@pytest.mark.parametrize("fails", [("finish",), ("log", "finish")])
def test_a_run_ends_with_its_own_status_whatever_its_tracker_does(
    digits: Path, tmp_path: Path, fails: tuple[str, ...]
) -> None:
    overrides = toy_overrides(digits, tmp_path, "total_images=32", "log={every_images: 16, tensorboard: true}")
    assert run_ranks(1, train_with, overrides, *fails) == [0]
    events = read_log(tmp_path / "log.jsonl")
    (alarm,) = [event for event in events if event["event"] == "alarm"]
    assert alarm["reason"].startswith("moody failed")
