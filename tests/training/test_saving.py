"""Saves of a real run on two ranks, beside the steps: what is on disk, what a broken disk costs, what a kill leaves."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from bigtrain.engine import faults
from bigtrain.engine.checkpoints.checkpoint import read_checkpoint
from bigtrain.engine.checkpoints.files import committed, verify
from bigtrain.engine.checkpoints.names import folder_name
from bigtrain.engine.ranks import Ranks
from bigtrain.training.log import read_log
from bigtrain.training.saving import MAX_FAILED_SAVES
from tests.rank_pool import run_ranks, start_ranks
from tests.training.toy_runs import BATCH_IMAGES, as_json, enter, final_state, play, status_lines, toy_overrides

EVERY_STEP = "checkpoint={every_images: 16, keep_last: 20}"
EVERY_SECOND_STEP = "checkpoint={every_images: 32, keep_last: 20}"


def enter_with_fault(ranks: Ranks, overrides: list[str], text: str) -> int:
    """Go through the door of training with BIGTRAIN_FAULT set; return its status."""
    os.environ[faults.VARIABLE] = text
    return enter(ranks, [*overrides, f"engine={'plain' if ranks.world == 1 else 'ddp'}"])


def enter_saving_at_once(ranks: Ranks, overrides: list[str]) -> int:
    """Train while every save is over before the next step begins."""
    from bigtrain.training import saving

    begin = saving.begin

    def begin_and_finish(run: Any) -> None:
        begin(run)
        saving.finish(run)

    saving.begin = begin_and_finish
    return enter_with_fault(ranks, overrides, "")


def count_writes(ranks: Ranks, overrides: list[str]) -> tuple[int, int]:
    """Train; return how often this rank wrote, and how many saves there were."""
    faults.arm("slow@step:1000000", ranks.rank)  # visits are only counted while something is armed
    arm, faults.arm = faults.arm, lambda text, rank: None
    play(ranks, overrides)
    faults.arm = arm
    return faults._visits["checkpoint.write", "visits"], len(committed(Path(run_dir_of(overrides)) / "checkpoints"))


def run_dir_of(overrides: list[str]) -> str:
    return next(each for each in reversed(overrides) if each.startswith("run_dir=")).partition("=")[2]


def events(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_log(run_dir / "log.jsonl") if event["event"] == kind]


@pytest.fixture(scope="module")
def quiet(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """A run of two ranks that saves after every step, undisturbed, and how often each rank writes in one save."""
    folder = tmp_path_factory.mktemp("saving") / "run"
    counts = run_ranks(2, count_writes, toy_overrides(digits, folder, EVERY_STEP))
    assert [saves for _, saves in counts] == [10, 10]
    return folder, [writes // saves for writes, saves in counts]


@pytest.mark.two_process
def test_a_background_save_is_the_save_of_its_step(digits: Path, tmp_path: Path, quiet: tuple[Path, list[int]]) -> None:
    assert run_ranks(2, enter_saving_at_once, toy_overrides(digits, tmp_path, EVERY_STEP)) == [0, 0]
    for images in range(BATCH_IMAGES, 160 + 1, BATCH_IMAGES):
        ours, theirs = (root / "checkpoints" / folder_name(images) for root in (quiet[0], tmp_path))
        for part in sorted(theirs.glob("part-*")):
            assert (ours / part.name).read_bytes() == part.read_bytes(), f"{part.name} after {images} images"
        records = [read_checkpoint(path).record for path in (ours, theirs)]
        for record in records:
            del record["time_s"], record["log_bytes"], record["recipe"]["run_dir"]  # lines of the log hold times
        assert records[0] == records[1]
    assert status_lines(quiet[0]) == status_lines(tmp_path)


def test_every_save_is_logged_once_it_is_on_disk(quiet: tuple[Path, list[int]]) -> None:
    saved = events(quiet[0], "checkpoint")
    assert [event["images_seen"] for event in saved] == list(range(16, 161, 16))
    assert [event["step"] for event in saved] == list(range(1, 11))
    assert all(event["save_s"] >= event["stall_s"] >= 0 for event in saved)
    assert all(event["path"].endswith(folder_name(event["images_seen"])) for event in saved)


def memory_of_saves(ranks: Ranks, overrides: list[str]) -> list[tuple[int, int]]:
    """Train; return the address and the bytes of the memory for copies before each save and after the last."""
    from bigtrain.engine.checkpoints.checkpoint import Checkpoints

    begin, seen = Checkpoints.begin, []

    def look(checkpoints: Checkpoints) -> None:
        buffer = checkpoints._staging._buffer
        seen.append((buffer.data_ptr(), buffer.numel()))

    def look_and_begin(checkpoints: Checkpoints, *arguments: Any, **named: Any) -> None:
        look(checkpoints)
        begin(checkpoints, *arguments, **named)
        look(checkpoints)

    Checkpoints.begin = look_and_begin  # type: ignore[method-assign]
    play(ranks, overrides)
    return seen


@pytest.mark.two_process
def test_memory_for_copies_is_taken_once_before_the_first_save(digits: Path, tmp_path: Path) -> None:
    shares = run_ranks(2, memory_of_saves, toy_overrides(digits, tmp_path, EVERY_SECOND_STEP))
    assert all(len(seen) == 10 and len(set(seen)) == 1 for seen in shares)
    sizes = [seen[0][1] for seen in shares]
    part_bytes = [path.stat().st_size for path in sorted((tmp_path / "checkpoints" / folder_name(160)).glob("part-*"))]
    for taken, written in zip(sizes, part_bytes, strict=True):
        assert 0.5 * written < taken < 1.5 * written, "each rank takes memory for its own share alone"


def break_writes(digits: Path, run_dir: Path, culprit: int, number: int, how: str) -> None:
    """Train on two ranks; the `number`-th write of one rank, in the second save, fails; check what that cost."""
    overrides = toy_overrides(digits, run_dir, EVERY_SECOND_STEP)
    assert run_ranks(2, enter_with_fault, overrides, f"{how}@checkpoint.write:{number},rank={culprit}") == [0, 0]
    checkpoints = run_dir / "checkpoints"
    failed = [event for event in events(run_dir, "alarm") if "failed_saves" in event]
    assert [event["failed_saves"] for event in failed] == [1]
    assert f"rank {culprit}: [Errno" in failed[0]["reason"]
    assert "the checkpoint after 64 images was not saved" in failed[0]["reason"]
    assert committed(checkpoints) == [160, 128, 96, 32]
    for images in committed(checkpoints):
        verify(checkpoints / folder_name(images))
    assert list(checkpoints.glob(".tmp-*")) == []


def assert_same_end(run_dir: Path, quiet_dir: Path) -> None:
    (tensors, record), (expected, expected_record) = final_state(run_dir), final_state(quiet_dir)
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert record == expected_record
    assert status_lines(run_dir) == status_lines(quiet_dir)


@pytest.mark.two_process
@pytest.mark.parametrize(
    ("culprit", "which", "how"), [(0, "last", "enospc"), (1, "first", "eio"), (1, "last", "enospc")]
)
def test_a_failed_write_costs_one_checkpoint_and_nothing_else(
    digits: Path, tmp_path: Path, quiet: tuple[Path, list[int]], culprit: int, which: str, how: str
) -> None:
    writes = quiet[1][culprit]
    break_writes(digits, tmp_path, culprit, writes + (1 if which == "first" else writes), how)
    assert_same_end(tmp_path, quiet[0])


@pytest.mark.slow
@pytest.mark.two_process
@pytest.mark.parametrize("culprit", [0, 1])
def test_any_failed_write_costs_one_checkpoint_and_nothing_else(
    digits: Path, tmp_path: Path, quiet: tuple[Path, list[int]], culprit: int
) -> None:
    """One run whose every second save fails, each at another of its writes."""
    writes = quiet[1][culprit]
    good_before = [number * writes + number * (number + 1) // 2 for number in range(writes)]  # visits, of cut saves too
    text = ";".join(
        f"{('enospc', 'eio')[number % 2]}@checkpoint.write:{before + number + 1},rank={culprit}"
        for number, before in enumerate(good_before)
    )
    length = f"total_images={2 * writes * BATCH_IMAGES}"
    settings = ("checkpoint={every_images: 16, keep_last: 3}", length)
    limit = {"hang_limit_s": 1800.0}
    assert run_ranks(2, enter_with_fault, toy_overrides(digits, tmp_path / "q", *settings), "", **limit) == [0, 0]
    assert run_ranks(2, enter_with_fault, toy_overrides(digits, tmp_path / "r", *settings), text, **limit) == [0, 0]
    # On a busy machine a run this long may name a straggler too.
    alarms = [event for event in events(tmp_path / "r", "alarm") if "failed_saves" in event]
    assert [event["failed_saves"] for event in alarms] == [1] * writes
    assert [event["images_seen"] for event in events(tmp_path / "r", "checkpoint")] == [
        number * 2 * BATCH_IMAGES for number in range(1, writes + 1)
    ]
    assert_same_end(tmp_path / "r", tmp_path / "q")


@pytest.mark.two_process
def test_three_failed_saves_in_a_row_end_the_run_with_status_10(digits: Path, tmp_path: Path) -> None:
    overrides = toy_overrides(digits, tmp_path, EVERY_SECOND_STEP)
    # The first visit of each of three saves: of a rank that stops there, and starts the next save anew.
    text = ";".join(f"enospc@checkpoint.write:{number},rank=1" for number in range(1, 1 + MAX_FAILED_SAVES))
    assert run_ranks(2, enter_with_fault, overrides, text) == [10, 10]
    status = as_json(tmp_path / "status.json")
    assert status["exit_status"] == 10
    assert "3 saves in a row failed, the last one so: the checkpoint after 96 images was not saved" in status["state"]
    assert [event["failed_saves"] for event in events(tmp_path, "alarm")] == [1, 2, 3]
    assert committed(tmp_path / "checkpoints") == []


@pytest.mark.two_process
def test_two_failed_saves_and_a_good_one_begin_the_count_anew(digits: Path, tmp_path: Path) -> None:
    overrides = toy_overrides(digits, tmp_path, EVERY_SECOND_STEP)
    assert run_ranks(2, enter_with_fault, overrides, "eio@checkpoint.write:1,rank=1;eio@checkpoint.write:2") == [0, 0]
    assert [event["failed_saves"] for event in events(tmp_path, "alarm")] == [1, 2]
    assert committed(tmp_path / "checkpoints") == [160, 128, 96]


@pytest.mark.two_process
def test_a_flipped_bit_in_the_newest_checkpoint_sends_all_ranks_to_the_one_before(
    digits: Path, tmp_path: Path, quiet: tuple[Path, list[int]]
) -> None:
    overrides = toy_overrides(digits, tmp_path, EVERY_STEP)
    flip = f"flip@checkpoint.write:{4 * quiet[1][1] + 7},rank=1"  # of the fifth save, silently
    assert run_ranks(2, enter_with_fault, [*overrides, "total_images=80"], flip) == [0, 0]
    assert committed(tmp_path / "checkpoints")[0] == 80
    assert run_ranks(2, enter_with_fault, overrides, "") == [0, 0]
    assert (tmp_path / "checkpoints" / ".bad-000000000080").is_dir()
    assert [event["images_seen"] for event in events(tmp_path, "resumed")] == [64]
    assert_same_end(tmp_path, quiet[0])


@pytest.mark.two_process
@pytest.mark.parametrize(
    "fault", ["kill@checkpoint.write:30,rank=1", "kill@checkpoint.fsync:4,rank=0", "kill@checkpoint.rename:2,rank=0"]
)
def test_a_rank_killed_while_it_saves_beside_the_steps_costs_nothing_in_the_end(
    digits: Path, tmp_path: Path, quiet: tuple[Path, list[int]], fault: str
) -> None:
    overrides = toy_overrides(digits, tmp_path, EVERY_SECOND_STEP)
    outcomes = start_ranks(2, enter_with_fault, overrides, fault).outcomes()
    assert -signal.SIGKILL in [outcome.exit_status for outcome in outcomes]
    assert all(outcome.exit_status is not None for outcome in outcomes), "a rank hung"
    assert run_ranks(2, enter_with_fault, overrides, "") == [0, 0]
    assert_same_end(tmp_path, quiet[0])
    assert list((tmp_path / "checkpoints").glob(".tmp-*")) == []


def stop_while_saving(ranks: Ranks, overrides: list[str]) -> int:
    """Train; rank 1 gets TERM as soon as its first save has begun, and again while that is written."""
    faults_text = "slow@checkpoint.fsync:1"
    from bigtrain.engine.checkpoints.checkpoint import Checkpoints

    begin = Checkpoints.begin

    def begin_and_be_told(checkpoints: Checkpoints, *arguments: Any, **named: Any) -> None:
        begin(checkpoints, *arguments, **named)
        if ranks.rank == 1:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)

    Checkpoints.begin = begin_and_be_told  # type: ignore[method-assign]
    return enter_with_fault(ranks, overrides, faults_text)


@pytest.mark.two_process
def test_a_polite_stop_waits_for_the_save_in_flight(
    digits: Path, tmp_path: Path, quiet: tuple[Path, list[int]]
) -> None:
    overrides = toy_overrides(digits, tmp_path, "checkpoint.every_images=64")
    assert run_ranks(2, stop_while_saving, overrides) == [75, 75]
    assert as_json(tmp_path / "status.json")["step"] == 4
    assert committed(tmp_path / "checkpoints") == [64]
    assert run_ranks(2, enter_with_fault, overrides, "") == [0, 0]
    assert_same_end(tmp_path, quiet[0])


def spoil_a_weight(ranks: Ranks, overrides: list[str]) -> int:
    """Train; after the third step a weight becomes infinite on all ranks, and is put back after the fourth."""
    from bigtrain.training import run as module

    inner, kept = module.Run.end_step, {}

    def end_step(run: module.Run) -> None:
        inner(run)
        weight = run.averages.state()["ema-3000/generator/linear.weight"].view(-1)
        if run.progress.steps == 3 and not kept:
            kept["value"] = weight[0].item()
            weight[0] = float("inf")
        elif run.progress.steps == 4 and "restored" not in kept:
            weight[0] = kept["restored"] = kept["value"]

    module.Run.end_step = end_step  # type: ignore[method-assign]
    return enter_with_fault(ranks, overrides, "")


@pytest.mark.two_process
def test_a_state_that_is_not_finite_is_not_committed_and_the_run_goes_back(digits: Path, tmp_path: Path) -> None:
    assert run_ranks(2, spoil_a_weight, toy_overrides(digits, tmp_path, EVERY_STEP)) == [0, 0]
    (rollback,) = events(tmp_path, "rollback")
    assert "average/ema-3000/generator/linear.weight holds 1 of" in rollback["reason"]
    assert rollback["images_seen"] == 32


@pytest.mark.two_process
def test_a_disk_that_is_really_full_costs_checkpoints_until_there_is_room(digits: Path, tmp_path: Path) -> None:
    """A file system in memory with room for the log and for about one checkpoint, not for two."""
    size = 3 * sum(path.stat().st_size for path in checkpoint_files(digits, tmp_path)) // 2 + 2**17
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"mounting a small file system needs to be root: {mount.stderr.decode().strip()}")
    try:
        overrides = toy_overrides(digits, disk / "run", EVERY_SECOND_STEP)
        assert run_ranks(2, enter_with_fault, overrides, "") == [10, 10]
        assert committed(disk / "run" / "checkpoints") == [32]
        verify(disk / "run" / "checkpoints" / folder_name(32))
        alarms = [event["reason"] for event in events(disk / "run", "alarm")]
        assert len(alarms) == 3
        assert all("No space left on device" in reason for reason in alarms)
        subprocess.run(["mount", "-o", f"remount,size={20 * size}", disk], check=True)
        assert run_ranks(2, enter_with_fault, overrides, "") == [0, 0]
        assert events(disk / "run", "resumed")[0]["images_seen"] == 32
    finally:
        subprocess.run(["umount", disk], check=True)


def checkpoint_files(digits: Path, tmp_path: Path) -> list[Path]:
    """Return the files of one checkpoint of a toy run."""
    run_ranks(2, play, toy_overrides(digits, tmp_path / "one", "total_images=16"))
    return list((tmp_path / "one" / "checkpoints" / folder_name(16)).iterdir())
