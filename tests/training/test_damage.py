"""Runs that skip damaged samples: what is counted and told, a resume, and when it is too much."""

import json
import shutil
from dataclasses import asdict

import pytest
import torch

from bigtrain.data.batch import BadSample, Batch
from bigtrain.data.shards import ShardSet
from bigtrain.recipe.errors import DataError
from bigtrain.training.damage import BAD_SAMPLES, Damage, tell_of
from tests.rank_pool import run_ranks
from tests.shard_factory import damage_sample
from tests.training.test_resume import assert_same_run
from tests.training.toy_runs import as_json, enter, play, status_lines, toy_overrides


class Alone:
    """One rank."""

    def gather_objects(self, own):
        return [own]


ALONE = Alone()


def bad(number, shard="a.tar"):
    return BadSample(number, shard, f"{number:06d}", 512, "is damaged", number + 1)


def batch_with(*samples):
    return (Batch(torch.empty(0), torch.empty(0), torch.empty(0), samples),)


def test_more_bad_samples_than_allowed_among_the_last_10_000_stop_the_run_and_older_ones_do_not_count():
    damage = Damage(0.001)
    for position in range(0, 60_000, 2000):  # 5 of any 10,000
        damage.note(position, batch_with(bad(position)))
        damage.agree(ALONE, position + 2000)
        damage.refuse()
    assert damage.replaced == 30
    damage.note(60_000, batch_with(*(bad(number, "b.tar") for number in range(7))))
    damage.agree(ALONE, 62_000)
    with pytest.raises(DataError, match=r"11 of the last 10,000 images were damaged, 7 of them in shard b.tar"):
        damage.refuse()


def test_one_rank_that_meets_too_many_stops_at_once_without_waiting_for_the_others():
    damage = Damage(0.0)
    with pytest.raises(DataError, match="1 of the last 10,000 images"):
        damage.note(0, batch_with(bad(0)))


def test_what_was_read_for_a_step_that_was_not_played_does_not_count():
    damage = Damage(0.5)
    damage.note(0, batch_with(bad(1)))
    damage.note(64, batch_with(bad(2)))
    assert [each.number for each in damage.agree(ALONE, 64)] == [1]
    assert damage.replaced == 1


def test_each_bad_sample_has_one_line_also_after_a_resume_and_a_torn_line(tmp_path):
    tell_of([bad(1), bad(2), bad(1)], tmp_path)
    path = tmp_path / BAD_SAMPLES
    path.write_bytes(path.read_bytes() + b'{"number": 3, "sha')
    tell_of([bad(2), bad(3), bad(4)], tmp_path)
    lines = path.read_text().splitlines()
    assert [json.loads(line)["number"] for line in (*lines[:2], *lines[3:])] == [1, 2, 3, 4]
    assert json.loads(lines[0]) == asdict(bad(1))


# Real runs.


@pytest.fixture(scope="module")
def damaged_digits(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "digits"
    shutil.copytree(digits, folder)
    shards = ShardSet.open(folder)
    numbers = shards.order(0, 8).samples(range(160))[[3, 40, 41, 100, 150]].tolist()
    for number in numbers:
        damage_sample(folder, number)
    return folder, numbers


def overrides_of(folder, run_dir, *more):
    few = ("data.on_error=skip", "data.holdout=0", "checkpoint.every_images=32", "log.every_images=16")
    return toy_overrides(folder, run_dir, *few, *more)


@pytest.mark.two_process
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_of_two_ranks_goes_on_over_bad_samples_and_a_stop_in_between_changes_nothing(
    damaged_digits, tmp_path, workers
):
    folder, numbers = damaged_digits
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run_ranks(2, play, overrides_of(folder, whole))
    overrides = overrides_of(folder, stopped, f"data.num_workers={workers}")
    run_ranks(2, play, overrides, 3)
    run_ranks(2, play, overrides)
    assert_same_run(stopped, whole)
    counts = [line["bad_samples"] for line in status_lines(stopped)]
    assert counts == [1, 3, 3, 4, 5, 5, 5, 5, 5, 5]  # two batches a step
    for run in (whole, stopped):
        lines = [json.loads(line) for line in (run / BAD_SAMPLES).read_text().splitlines()]
        assert [line["number"] for line in lines] == numbers
        assert all(line["shard"].endswith(".tar") and line["reason"] for line in lines)


@pytest.mark.two_process
def test_too_many_bad_samples_end_all_ranks_with_status_6_and_the_worst_shard(damaged_digits, tmp_path):
    folder, _ = damaged_digits
    overrides = overrides_of(folder, tmp_path / "run", "engine=ddp", "data.max_bad_fraction=0.02%")
    assert run_ranks(2, enter, overrides) == [6, 6]
    status = as_json(tmp_path / "run" / "status.json")
    assert status["exit_status"] == 6
    assert "3 of the last 10,000 images were damaged" in json.dumps(status)
    assert len((tmp_path / "run" / BAD_SAMPLES).read_text().splitlines()) == 3
    overrides = overrides_of(folder, tmp_path / "run", "engine=ddp", "data.max_bad_fraction=1%")
    assert run_ranks(2, enter, overrides) == [0, 0]
    assert len((tmp_path / "run" / BAD_SAMPLES).read_text().splitlines()) == 5
