"""Ranks agree, sum and fail together; seen with forked gloo ranks."""

import os
import signal
import threading
import time

import pytest
import torch

from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import BigtrainError, DataError
from tests.rank_pool import RankFailed, run_ranks, start_ranks


def everything(ranks, factor):
    value = torch.tensor([factor * (ranks.rank + 1.0), 1.0], dtype=torch.float64)
    ranks.barrier()
    return {
        "gathered": ranks.gather_objects({"rank": ranks.rank}),
        "gathered_to_main": ranks.gather_to_main({"rank": ranks.rank}),
        "from_1": ranks.broadcast_object(f"word of {ranks.rank}", source=ranks.world - 1),
        "any_of_none": ranks.any_true(False),
        "any_of_last": ranks.any_true(ranks.rank == ranks.world - 1),
        "all_but_first": ranks.all_true(ranks.rank != 0),
        "all": ranks.all_true(True),
        "sum": ranks.sum_tensor(value).tolist(),
        "mean": ranks.mean_tensor(value).tolist(),
        "kept": value.tolist(),
        "is_main": ranks.is_main,
    }


def test_two_ranks_hear_each_other():
    answers = run_ranks(2, everything, 10.0)
    for rank, answer in enumerate(answers):
        assert answer["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert answer["gathered_to_main"] == ([] if rank else [{"rank": 0}, {"rank": 1}])
        assert answer["from_1"] == "word of 1"
        assert answer["any_of_none"] is False
        assert answer["any_of_last"] is True
        assert answer["all_but_first"] is False
        assert answer["all"] is True
        assert answer["sum"] == [30.0, 2.0]
        assert answer["mean"] == [15.0, 1.0]
        assert answer["kept"] == [10.0 * (rank + 1), 1.0], "sum_tensor must not write into its argument"
        assert answer["is_main"] is (rank == 0)


def test_a_single_rank_needs_no_process_group():
    answer = everything(Ranks.single(), 10.0)
    assert not torch.distributed.is_initialized()
    assert answer["gathered"] == answer["gathered_to_main"] == [{"rank": 0}]
    assert answer["from_1"] == "word of 0"
    assert [answer[key] for key in ("any_of_none", "any_of_last", "all_but_first", "all")] == [False, True, False, True]
    assert answer["sum"] == answer["mean"] == [10.0, 1.0]
    assert run_ranks(1, everything, 10.0) == [answer]


def slopes_of_group_sum(ranks, size):
    """f = (sum over the group of x_r^2)^2 on each rank: the slope of the sum of all f, and the slope of all slopes."""
    group = ranks.group(size)
    x = torch.tensor(ranks.rank + 1.0, dtype=torch.float64, requires_grad=True)
    f = group.sum(x * x) ** 2
    (slope,) = torch.autograd.grad(f, x, create_graph=True)
    (curve,) = torch.autograd.grad(slope, x)
    return group.ranks, group.index, f.item(), slope.item(), curve.item(), group is ranks.group(size)


@pytest.mark.parametrize(("world", "size"), [(2, 1), (2, 2), (4, 2)])
def test_group_sum_has_first_and_second_derivatives(world, size):
    """F = sum of f over the group = size S^2 with S = sum of x^2, so dF/dx = 4 size S x."""
    for rank, answer in enumerate(run_ranks(world, slopes_of_group_sum, size)):
        members = [float(member + 1) for member in range(rank // size * size, rank // size * size + size)]
        total = sum(x * x for x in members)
        x = rank + 1.0
        # G = sum of all slopes of F = sum over members of 4 size S x; dG/dx = 4 size (2 x sum of members + S).
        slope, curve = 4 * size * total * x, 4 * size * (2 * x * sum(members) + total)
        assert answer == (size, rank // size, total**2, pytest.approx(slope), pytest.approx(curve), True)


def test_a_group_that_does_not_divide_the_world_is_refused():
    with pytest.raises(AssertionError, match="1 ranks do not split into groups of 2"):
        Ranks.single().group(2)


def fail_on(ranks, culprit):
    def action():
        if ranks.rank == culprit:
            raise DataError("shard 7 is cut short")
        return "done"

    try:
        return ranks.together(action)
    except BigtrainError as error:
        return f"{type(error).__name__}: {error}", error.exit_status


def test_what_fails_on_one_rank_fails_on_all_and_names_it():
    assert run_ranks(2, fail_on, None) == ["done", "done"]
    reason = "DataError: shard 7 is cut short"
    assert run_ranks(2, fail_on, 1) == [(f"FailedElsewhere: rank 1: {reason}", 6), (reason, 6)]


# The pool itself


def raise_on_rank_1(ranks):
    if ranks.rank == 1:
        raise ValueError("seven is not even")


def test_pool_carries_a_traceback_back():
    words = "(?s)rank 0: returned.*rank 1: Traceback.*in raise_on_rank_1.*ValueError: seven is not even"
    with pytest.raises(RankFailed, match=words):
        run_ranks(2, raise_on_rank_1)


def hang_on_rank_1(ranks):
    if ranks.rank == 1:
        time.sleep(1000)


def test_pool_kills_a_rank_that_hangs_and_shows_where():
    started_s = time.monotonic()
    with pytest.raises(RankFailed, match="(?s)rank 1: hung.*in hang_on_rank_1"):
        run_ranks(2, hang_on_rank_1, hang_limit_s=4.0)
    assert time.monotonic() - started_s < 40.0


def wait_for_ever(ranks, folder):
    (folder / f"ready-{ranks.rank}").touch()
    while ranks.world:
        time.sleep(0.01)


def test_pool_reports_a_killed_rank_by_its_signal(tmp_path):
    group = start_ranks(2, wait_for_ever, tmp_path)
    for rank in range(2):
        group.wait_for(tmp_path / f"ready-{rank}")
        group.signal(rank, signal.SIGKILL if rank else signal.SIGTERM)
    outcomes = group.outcomes()
    assert [outcome.exit_status for outcome in outcomes] == [-signal.SIGTERM, -signal.SIGKILL]


def facts_about_the_process(ranks):
    threads_of_server = len(os.listdir(f"/proc/{os.getppid()}/task"))
    return threads_of_server, torch.get_num_threads(), os.getppid(), os.environ["WORLD_SIZE"], os.environ["RANK"]


def test_ranks_are_forked_from_one_server_that_has_one_thread():
    first, second = run_ranks(2, facts_about_the_process)
    assert first[:2] == second[:2] == (1, 1)
    assert first[2] == second[2] != os.getpid()
    assert (first[3:], second[3:]) == (("2", "0"), ("2", "1"))


def speak_from_two_threads(ranks, number):
    """Say things in two threads at once, each in its own order and at its own pace; return what each has heard."""
    others, heard = ranks.for_another_thread(), []

    def speak():
        for place in range(number):
            time.sleep(0.002 * ranks.rank)
            heard.append(others.gather_objects(("thread", place, others.rank)))

    thread = threading.Thread(target=speak)
    thread.start()
    own = []
    for place in range(number):
        time.sleep(0.001 * (1 - ranks.rank))
        own.append(ranks.gather_objects(("main", place, ranks.rank)))
    thread.join()
    return own, heard


@pytest.mark.two_process
def test_another_thread_has_a_group_of_its_own():
    for own, heard in run_ranks(2, speak_from_two_threads, 30):
        assert own == [[("main", place, rank) for rank in range(2)] for place in range(30)]
        assert heard == [[("thread", place, rank) for rank in range(2)] for place in range(30)]


def test_one_process_needs_no_group_for_another_thread():
    assert Ranks.single().for_another_thread().gather_objects(7) == [7]
