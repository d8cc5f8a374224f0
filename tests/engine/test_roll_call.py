"""Who is missing, judged from what ranks said: the rank that does not answer, stands still, or went on without the
others."""

import pytest

from bigtrain.engine.heartbeat import whereabouts
from bigtrain.engine.heartbeat.roll_call import LEAST_START_S, Limits, RollCall
from bigtrain.engine.heartbeat.whereabouts import Place
from bigtrain.recipe.errors import DataError, RankLostError

LIMITS = Limits(step_s=20.0, start_s=600.0)


def at(steps, moves, words="turn generator", is_waiting=False, is_under_way=True):
    return Place(steps, moves, words, is_waiting, is_under_way)


def roll_call(*places):
    """Return a roll call that has heard each rank at its place, at time 0."""
    called = RollCall(LIMITS)
    for rank, place in enumerate(places):
        called.hear(rank, f"node{rank}", place, 0.0)
    return called


def beat_all(called, now_s, *, but=()):
    """Hear every rank again where it was, but for those that are silent."""
    for rank in called.ranks:
        if rank not in but:
            called.hear(rank, f"node{rank}", called.place_of(rank), now_s)


def test_nobody_is_missing_while_all_answer_and_move():
    called = roll_call(at(5, 1), at(5, 1), at(5, 1))
    for second in range(1, 200, 5):
        for rank in range(3):
            called.hear(rank, "node", at(5 + second, 1), second)
        assert called.judge(second + 4.0) is None


def test_a_silent_rank_is_named_with_its_place_after_the_limit():
    called = roll_call(at(5, 1), at(5, 3), at(5, 1))
    beat_all(called, 19.0, but=[1])
    assert called.judge(20.0) is None
    verdict = called.judge(20.1)
    assert verdict.rank == 1
    assert "not answered for 20 s on node1, last seen at step 5, turn generator" in verdict.sentence
    assert verdict.is_urgent


def test_of_ranks_that_stand_still_the_one_behind_is_named():
    called = roll_call(at(5, 4, "turn discriminator"), at(5, 3, "waiting for data"), at(5, 4, "turn discriminator"))
    beat_all(called, 21.0)
    verdict = called.judge(21.0)
    assert verdict.rank == 1
    assert "last seen at step 5, waiting for data, rank 0 at step 5, turn discriminator" in verdict.sentence


def test_a_rank_that_waits_for_a_slow_one_inside_its_backward_pass_is_not_blamed():
    called = roll_call(at(5, 4, "turn discriminator"), at(5, 2, "waiting for data"))
    called.hear(1, "node1", at(5, 3, "waiting for data"), 15.0)
    beat_all(called, 25.0)
    assert called.judge(25.0) is None
    beat_all(called, 30.0, but=[1])
    assert called.judge(36.0).rank == 1


def test_a_rank_that_stopped_before_it_told_of_its_first_step_is_the_one_that_is_named():
    called = roll_call(at(3, 4), at(0, 9, is_under_way=False))
    beat_all(called, 19.0, but=[1])
    assert called.judge(20.5).rank == 1


def test_the_rank_that_went_on_without_what_the_others_wait_for_is_named():
    called = roll_call(at(5, 9, is_waiting=True), at(6, 2), at(5, 9, is_waiting=True))
    beat_all(called, 21.0)
    assert called.judge(21.0).rank == 1
    all_wait = roll_call(at(5, 9, is_waiting=True), at(6, 2, is_waiting=True), at(5, 9, is_waiting=True))
    beat_all(all_wait, 21.0)
    assert all_wait.judge(21.0).rank == 1


def test_ranks_may_wait_for_long_for_one_that_works():
    called = roll_call(at(5, 9, "the evaluation", is_waiting=True), at(5, 1))
    for second in range(1, 100):
        beat_all(called, float(second))
        called.hear(1, "node1", at(5, second, "the evaluation"), float(second))
        assert called.judge(float(second)) is None


def test_the_first_step_has_more_time():
    called = roll_call(at(5, 1, is_under_way=False), at(5, 1, is_under_way=False))
    beat_all(called, 599.0)
    assert called.judge(599.0) is None
    assert called.judge(601.0) is not None
    assert Limits.of(1.0) == Limits(60.0, LEAST_START_S)
    assert Limits.of(30.0) == Limits(1800.0, 5400.0)


def test_a_process_that_was_stopped_itself_blames_nobody():
    called = roll_call(at(5, 1), at(5, 1))
    called.forgive(1000.0)
    assert called.judge(1019.0) is None
    assert called.judge(1021.0) is not None


def test_who_said_goodbye_is_not_missed():
    called = roll_call(at(5, 1), at(5, 1))
    called.leave(1)
    called.hear(0, "node0", at(5, 2), 25.0)
    assert called.judge(30.0) is None


@pytest.mark.parametrize(("own", "told"), [(1, RankLostError.exit_status), (DataError.exit_status, 6)])
def test_a_rank_that_failed_is_quoted_and_what_a_user_can_mend_keeps_its_status(own, told):
    verdict = roll_call(at(5, 1), at(5, 1)).failed(1, "DataError: shard 3 is cut", own)
    assert verdict.exit_status == verdict.error().exit_status == told
    assert str(verdict.error()).startswith("rank 1 failed: DataError: shard 3 is cut (on node1, last seen at step 5")


def test_notes_count_moves_within_a_step_and_waits_are_timed(monkeypatch):
    monkeypatch.setattr(whereabouts, "_place", Place())
    whereabouts.note("the step", steps=7)
    assert whereabouts.here() == Place(7, 1, "the step")
    before_s = whereabouts.waited_s()
    with whereabouts.waiting():
        assert whereabouts.here() == Place(7, 2, "the step", is_waiting=True)
        with whereabouts.waiting():
            assert whereabouts.here().moves == 2
    assert whereabouts.here() == Place(7, 3, "the step")
    assert whereabouts.waited_s() > before_s
    whereabouts.note("between steps", is_under_way=True)
    whereabouts.note("the step", steps=8)
    assert whereabouts.here() == Place(8, 1, "the step", is_under_way=True)
    assert Place(8, 1) > Place(7, 9) > Place(7, 2)
