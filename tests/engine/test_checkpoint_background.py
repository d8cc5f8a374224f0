"""A save in the background is the save of its moment: nothing that happens meanwhile reaches it, nobody sees half."""

import os
import time

import pytest
import torch

from bigtrain.engine import faults
from bigtrain.engine.checkpoints import disk
from bigtrain.engine.checkpoints.checkpoint import Checkpoints, NotFiniteError, deal
from bigtrain.engine.checkpoints.files import DamagedCheckpointError, committed, verify
from bigtrain.engine.checkpoints.names import folder_name
from bigtrain.engine.checkpoints.staging import Staging
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import RanksDriftedError
from tests.engine.checkpoint_cases import bits, is_state, leftovers, load_alone, record, save, state
from tests.rank_pool import run_ranks, start_ranks

POLL_S = 0.01
NUM_SAVES = 8
SLOW_FSYNC_S = 0.02  # so that polls fall into every part of a save


def train_and_save(ranks, folder):
    """Save eight times, each while the tensors go on changing in place, to a slow disk that takes little at a time."""
    disk.WRITE_BYTES = 256
    fsync = disk.OPERATIONS["fsync"]
    disk.OPERATIONS["fsync"] = lambda file: (time.sleep(SLOW_FSYNC_S), fsync(file))
    checkpoints = Checkpoints(folder, ranks)
    tensors = state(1)
    num_steps_beside = 0
    for images in range(1, NUM_SAVES + 1):
        with torch.no_grad():
            for name, tensor in state(images).items():
                tensors[name].copy_(tensor)
        checkpoints.begin(images, tensors, record(images))
        while not checkpoints.is_over():
            num_steps_beside += 1
            with torch.no_grad():
                for tensor in tensors.values():
                    tensor.fill_(num_steps_beside % 2)
            time.sleep(0.001)
        assert checkpoints.finish().images == images
    return num_steps_beside


def poll(folder, group):
    """Verify whatever is committed, 100 times a second, while a process runs; return the images that were seen."""
    seen = set()
    while any(process.is_alive() for process in group.processes):
        for images in committed(folder):
            try:
                verify(folder / folder_name(images))
                seen.add(images)
            except DamagedCheckpointError:
                assert not (folder / folder_name(images)).exists(), f"{images} is committed and not complete"
        time.sleep(POLL_S)
    return seen


@pytest.mark.two_process
@pytest.mark.parametrize("world", [1, 2])
def test_what_training_does_meanwhile_does_not_reach_the_disk_and_nobody_sees_half(tmp_path, world):
    group = start_ranks(world, train_and_save, tmp_path / "background")
    seen = poll(tmp_path / "background", group)
    assert all(steps > NUM_SAVES for steps in group.results()), "nothing went on beside the saves"
    assert len(seen) >= NUM_SAVES // 2
    for images in (NUM_SAVES - 1, NUM_SAVES):
        run_ranks(world, save, tmp_path / "at once", images)
        ours, theirs = (tmp_path / way / folder_name(images) for way in ("background", "at once"))
        assert sorted(os.listdir(ours)) == sorted(os.listdir(theirs))
        assert all((ours / name).read_bytes() == (theirs / name).read_bytes() for name in os.listdir(ours))
    assert leftovers(tmp_path / "background") == []


def over_when_all_are(ranks, folder):
    """Return whether a save was over for this rank's own thread and for all, before a slow rank's and after."""
    faults.arm("slow@checkpoint.fsync:1,rank=1", ranks.rank)
    checkpoints = Checkpoints(folder, ranks)
    assert not checkpoints.is_over()
    checkpoints.begin(1, state(1), record(1))
    first = checkpoints.is_over()
    path = checkpoints.finish().path
    return first, checkpoints.is_over(), path.is_dir(), checkpoints.finish()


@pytest.mark.two_process
def test_a_save_is_over_once_the_slowest_rank_is(tmp_path):
    assert run_ranks(2, over_when_all_are, tmp_path) == [(False, False, True, None)] * 2


def save_with_nan_on_rank_1(ranks, folder):
    tensors = state(2)
    assert "optimizer/moment" in deal(tensors, ranks.world)[-1]  # the last rank finds it, all are told
    tensors["optimizer/moment"].view(-1)[5] = float("inf")
    tensors["optimizer/moment"].view(-1)[7] = float("nan")
    try:
        Checkpoints(folder, ranks).save(2, tensors, record(2))
    except NotFiniteError as error:
        return str(error)


@pytest.mark.two_process
@pytest.mark.parametrize("world", [1, 2])
def test_what_is_not_finite_is_never_committed_and_named(tmp_path, world):
    run_ranks(1, save, tmp_path, 1)
    for sentence in run_ranks(world, save_with_nan_on_rank_1, tmp_path):
        assert "optimizer/moment holds 2 of 44 values that are not finite" in sentence
        assert "lower the learning rate" in sentence
    assert committed(tmp_path) == [1]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_every_float_dtype_is_looked_at(tmp_path, dtype, value):
    tensors = {"fine": torch.tensor([1e-40, -65504.0]), "ours": torch.zeros(9, dtype=dtype)}
    tensors["ours"][4] = value
    with pytest.raises(NotFiniteError, match="ours holds 1 of 9 values"):
        Checkpoints(tmp_path, Ranks.single()).save(1, tensors, {})


def save_with_a_bug(ranks, folder):
    faults.arm("exception@checkpoint.write:2,rank=1", ranks.rank)
    try:
        save(ranks, folder, 1)
    except Exception as error:
        return type(error).__name__, str(error), getattr(error, "exit_status", None)


@pytest.mark.two_process
def test_a_bug_in_one_ranks_thread_ends_all_ranks(tmp_path):
    other, own = run_ranks(2, save_with_a_bug, tmp_path)
    assert own == ("InjectedFaultError", "injected", None)
    assert other == ("FailedElsewhere", "rank 1: injected", 1)
    assert committed(tmp_path) == []


def save_other_tensors_in_background(ranks, folder):
    tensors = state(1)
    if ranks.rank == 1:
        del tensors["game/count"]
    checkpoints = Checkpoints(folder, ranks)
    checkpoints.begin(1, tensors, record(1))  # says nothing yet: the hashes travel in the background too
    try:
        checkpoints.finish()
    except RanksDriftedError as error:
        return str(error)


@pytest.mark.two_process
def test_ranks_that_hold_other_tensors_learn_it_when_the_save_is_finished(tmp_path):
    assert all("rank 1 holds other" in words for words in run_ranks(2, save_other_tensors_in_background, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_one_save_at_a_time_and_a_load_waits_for_it(tmp_path):
    checkpoints = Checkpoints(tmp_path, Ranks.single())
    checkpoints.begin(1, state(1), record(1))
    with pytest.raises(AssertionError, match="a save is in flight"):
        checkpoints.begin(2, state(2), record(2))
    assert is_state(checkpoints.load_newest(), 1)
    assert checkpoints.finish().images == 1


def test_a_run_that_ends_by_an_error_still_gets_its_save(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path, Ranks.single())
    checkpoints.begin(1, state(1), record(1))
    checkpoints.close()
    assert is_state(load_alone(tmp_path), 1)
    checkpoints.begin(2, {"bad": torch.tensor([float("nan")])}, record(2))
    checkpoints.close()
    assert "the checkpoint after 2 images was not saved: " in caplog.text
    checkpoints.close()


def test_copies_lie_in_one_kept_buffer_and_are_equal_to_the_last_bit():
    staging, expected = Staging(), state(3)
    staging.reserve(expected)
    places = []
    for images in (4, 3):
        copies = staging.copy(state(images)).wait()
        places.append({name: copy.data_ptr() for name, copy in copies.items()})
    assert places[0] == places[1], "memory was taken anew"
    assert copies.keys() == expected.keys()
    assert all(bits(copies[name]) == bits(expected[name]) for name in expected)
    assert all(copy.is_contiguous() and copy.data_ptr() % 64 == 0 for copy in copies.values() if copy.numel())
    spans = sorted((copy.data_ptr(), copy.data_ptr() + copy.nbytes) for copy in copies.values())
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False)), "copies overlap"
    more = staging.copy(expected | {"more": torch.ones(10_000)}).wait()  # grows where it must
    assert torch.equal(more["more"], torch.ones(10_000))


def save_knowing_only_the_own_share(ranks, folder):
    tensors = state(1)
    own = deal(tensors, ranks.world)[ranks.rank]
    known = {name: tensor if name in own else tensor.detach().to("meta") for name, tensor in tensors.items()}
    Checkpoints(folder, ranks).save(1, known, record(1))


@pytest.mark.two_process
def test_a_rank_needs_the_values_of_its_own_share_alone(tmp_path):
    run_ranks(2, save_knowing_only_the_own_share, tmp_path)
    assert is_state(load_alone(tmp_path), 1)
