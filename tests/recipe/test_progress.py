"""Counters of a run, and when a period is crossed."""

import json

import pytest

from bigtrain.recipe.progress import Progress, crossed


def test_progress_counts_reads_turns_and_steps_apart():
    progress = Progress().after_read(64).after_turn("discriminator/main").after_read(64)
    progress = progress.after_turn("discriminator/main").after_turn("generator/main").after_step(64)
    assert progress == Progress(
        steps=1, images_seen=64, position=128, turns={"discriminator/main": 2, "generator/main": 1}, salt=0
    )


def test_progress_survives_json():
    progress = Progress(3, 192, 384, {"generator/main": 3}, salt=2)
    assert Progress.from_record(json.loads(json.dumps(progress.record()))) == progress


def test_progress_is_not_changed_by_counting():
    start = Progress(turns={"a": 1})
    start.after_turn("a")
    assert start.turns == {"a": 1}


@pytest.mark.parametrize(
    ("period", "before", "after", "expected"),
    [(100, 0, 99, False), (100, 0, 100, True), (100, 100, 164, False), (100, 164, 228, True), (100, 90, 310, True),
     (None, 0, 10**9, False), (0, 0, 10**9, False)],
)  # fmt: skip
def test_a_period_is_crossed_when_a_multiple_lies_in_the_step(period, before, after, expected):
    assert crossed(period, before, after) is expected
