"""Figures of every rank in the log; the rank that is slow by itself is named, not the ones that wait for it."""

import os
from pathlib import Path

import pytest
import torch

from bigtrain.engine import faults
from bigtrain.engine.pace import Pace
from bigtrain.engine.ranks import Ranks
from bigtrain.training.health.stragglers import FEWEST_STEPS, STRAGGLER_FACTOR, RankFigures, by_rank, stragglers
from bigtrain.training.log import comparable, read_log
from tests.rank_pool import run_ranks
from tests.training.toy_runs import enter, toy_overrides

LISTS = {"step_s_by_rank", "compute_s_by_rank", "data_wait_s_by_rank", "memory_gib_by_rank"}


def figures(*compute_s: float, data_wait_s: float = 0.0, steps: int = 20) -> list[RankFigures]:
    """Return ranks that differ in computing; the last one waited for data."""
    last = len(compute_s) - 1
    return [
        RankFigures(f"node{rank // 2}", steps, 1.0, own_s, data_wait_s if rank == last else 0.0, 2.0)
        for rank, own_s in enumerate(compute_s)
    ]


@pytest.mark.parametrize(
    ("found", "slow"),
    [
        (figures(0.5, 0.5, 0.5, 0.76), [3]),
        (figures(0.5, 0.5, 0.5, 0.74), []),
        (figures(0.5, 0.9), [1]),
        (figures(0.9, 0.5, 0.5, 0.9), [0, 3]),
        (figures(0.5, 0.5, 0.5, 0.5, data_wait_s=20 * 0.5), [3]),
        (figures(0.5, 5.0, steps=FEWEST_STEPS - 1), []),
        (figures(0.5), []),
    ],
)
def test_ranks_over_the_factor_of_the_median_are_named(found: list[RankFigures], slow: list[int]) -> None:
    alarms = stragglers(found)
    assert [alarm["rank"] for alarm in alarms] == slow
    for alarm in alarms:
        assert f"rank {alarm['rank']} on node{alarm['rank'] // 2}" in alarm["reason"]
        assert alarm["host"] == f"node{alarm['rank'] // 2}"
    assert STRAGGLER_FACTOR == 1.5


def test_one_process_has_no_lists_and_lists_do_not_make_lines_different() -> None:
    assert by_rank(figures(0.5)) == {}
    lists = by_rank(figures(0.123456, 0.5))
    assert lists.keys() == LISTS
    assert lists["compute_s_by_rank"] == [0.1235, 0.5]
    assert comparable({"step": 3, "time_s": 1.0, "data_wait_s": 1.0, "kimg": 0.1, **lists}) == {"step": 3, "kimg": 0.1}


def test_own_computing_ends_with_the_last_gradient_of_every_micro_batch() -> None:
    pace, weight = Pace(torch.device("cpu")), torch.ones(3, requires_grad=True)
    for _ in range(2):
        pace.begin_step()
        for _ in range(2):
            pace.begin()
            loss = (weight * 2).sum()
            pace.end_after(loss)
            loss.backward()
        pace.end_step()
    taken = pace.take()
    assert taken.steps == 2
    assert 0 < taken.compute_s <= taken.step_s
    assert pace.take().steps == 0


def slow_once(ranks: Ranks, overrides: list[str]) -> int:
    os.environ[faults.VARIABLE] = "slow@backward:20,rank=1"
    return enter(ranks, overrides)


@pytest.mark.two_process
def test_a_rank_that_is_slow_in_a_period_is_named_although_all_steps_take_equally_long(
    digits: Path, tmp_path: Path
) -> None:
    overrides = toy_overrides(digits, tmp_path, "engine=ddp", "log={every_images: 160, tensorboard: true}")
    assert run_ranks(2, slow_once, overrides) == [0, 0]
    events = read_log(tmp_path / "log.jsonl")
    (status,) = [event for event in events if event["event"] == "status"]
    assert all(len(status[name]) == 2 for name in LISTS)
    quick_s, slow_s = status["compute_s_by_rank"]
    assert slow_s - quick_s > 0.5 * faults.SLOW_S / 10, "ten steps, one of them with a pause"
    assert abs(status["step_s_by_rank"][0] - status["step_s_by_rank"][1]) < 0.5 * faults.SLOW_S / 10
    alarms = [event for event in events if event["event"] == "alarm"]
    assert [alarm["rank"] for alarm in alarms] == [1], alarms
    assert "rank 1 on " in alarms[0]["reason"]
