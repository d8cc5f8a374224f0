"""A run that is stopped and started again is the run that was not stopped, bit for bit."""

import shutil
from pathlib import Path

import pytest
import torch

from bigtrain.engine.checkpoints.checkpoint import Checkpoints, read_checkpoint
from bigtrain.engine.checkpoints.files import newest_complete
from bigtrain.engine.ranks import Ranks
from tests.rank_pool import RankFailed, run_ranks
from tests.training.toy_runs import final_state, play, status_lines, toy_overrides


def assert_same_run(ours: Path, theirs: Path, but: tuple[str, ...] = ()) -> None:
    (tensors, record), (expected, expected_record) = final_state(ours), final_state(theirs)
    for key in but:
        record.pop(key), expected_record.pop(key)
    assert tensors.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(tensors[name], expected[name])]
    assert not different, different
    assert record == expected_record
    assert status_lines(ours) == status_lines(theirs)
    assert status_lines(ours)


@pytest.fixture(scope="module")
def quiet_runs(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A run of one process and one of two that nobody disturbs."""
    runs = {}
    for world in (1, 2):
        runs[world] = tmp_path_factory.mktemp("quiet") / "run"
        run_ranks(world, play, toy_overrides(digits, runs[world]))
    return runs


# Steps of 16 images: 1 is the first; 3 ends a period of the log, 4 is a checkpoint's own; 5 lies in the middle of both.
@pytest.mark.parametrize(("world", "stops"), [(1, (1,)), (1, (3, 5)), (1, (4,)), (2, (5,))])
def test_a_stopped_run_equals_an_uninterrupted_one(
    digits: Path, tmp_path: Path, quiet_runs: dict[int, Path], world: int, stops: tuple[int, ...]
) -> None:
    overrides = toy_overrides(digits, tmp_path)
    for stop in stops:
        assert {progress.steps for progress in run_ranks(world, play, overrides, stop)} == {stop}
    assert {progress.steps for progress in run_ranks(world, play, overrides)} == {10}
    assert_same_run(tmp_path, quiet_runs[world])


def test_one_process_and_two_read_the_same_samples(quiet_runs: dict[int, Path]) -> None:
    (_, one), (_, two) = final_state(quiet_runs[1]), final_state(quiet_runs[2])
    assert one["progress"] == two["progress"]
    first, second = status_lines(quiet_runs[1])[0], status_lines(quiet_runs[2])[0]
    assert first["loss_discriminator"] == pytest.approx(second["loss_discriminator"], rel=1e-3)


def test_two_ranks_go_on_where_one_stopped(digits: Path, tmp_path: Path, quiet_runs: dict[int, Path]) -> None:
    run_ranks(1, play, toy_overrides(digits, tmp_path), 5)
    before = final_state(tmp_path)[0]
    run_ranks(2, play, toy_overrides(digits, tmp_path, "total_images=80"))  # nothing left to do: only loads and saves
    after = final_state(tmp_path)[0]
    assert all(torch.equal(before[name], after[name]) for name in before)
    (progress, _) = run_ranks(2, play, toy_overrides(digits, tmp_path))
    assert progress.steps == 10
    assert final_state(tmp_path)[1]["progress"] == final_state(quiet_runs[1])[1]["progress"]


def test_a_resume_with_another_recipe_is_refused_with_every_differing_key(digits: Path, tmp_path: Path) -> None:
    run_ranks(1, play, toy_overrides(digits, tmp_path), 1)
    changed = ("batchnorm_images=16", "optimizers.generator.learning_rate=1e-3", "total_images=320")
    with pytest.raises(RankFailed) as refusal:
        run_ranks(1, play, toy_overrides(digits, tmp_path, *changed))
    words = str(refusal.value)
    assert "batchnorm_images: 16 differs from 8" in words
    assert "optimizers.generator.learning_rate.constant: 0.001 differs" in words
    assert "total_images" not in words.split("RecipeError", 1)[1]


def test_a_listed_change_is_allowed(digits: Path, tmp_path: Path) -> None:
    run_ranks(1, play, toy_overrides(digits, tmp_path), 1)
    overrides = toy_overrides(
        digits, tmp_path, "batchnorm_images=16", "allow_change=[batchnorm_images]", "total_images=48"
    )
    assert run_ranks(1, play, overrides)[0].steps == 3


def test_a_checkpoint_from_before_the_watchdog_goes_on(digits: Path, tmp_path: Path) -> None:
    run_ranks(1, play, toy_overrides(digits, tmp_path), 5)
    folder = tmp_path / "checkpoints"
    checkpoint = read_checkpoint(newest_complete(folder))
    record = {key: value for key, value in checkpoint.record.items() if key != "watch"}
    shutil.rmtree(folder)
    Checkpoints(folder, Ranks.single()).save(checkpoint.images, checkpoint.tensors, {**record, "skipped_in_a_row": {}})
    assert run_ranks(1, play, toy_overrides(digits, tmp_path))[0].steps == 10
