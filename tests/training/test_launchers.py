"""Real launchers: what `accelerate launch` starts is the run that forked ranks play; its end reaches the workers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.rank_pool import run_ranks
from tests.training.toy_runs import RECIPE, as_json, final_state, play, status_lines, toy_overrides

CHECKOUT = Path(__file__).parents[2]
HANG_LIMIT_S = 400  # two launched ranks need about 15 s on a quiet machine


def launch(options: list[str], overrides: list[str], **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_machines", "1", *options]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "bigtrain.train", str(RECIPE), *overrides]
    known = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, cwd=CHECKOUT, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.two_process
def test_two_launched_processes_equal_two_forked_ones(digits: Path, tmp_path: Path) -> None:
    launched, forked = tmp_path / "launched", tmp_path / "forked"
    overrides = toy_overrides(digits, launched, "engine=ddp", "total_images=64")
    process = launch(["--multi_gpu", "--num_processes", "2"], overrides, ACCELERATE_USE_CPU="true")
    out, err = process.communicate(timeout=HANG_LIMIT_S)
    assert process.returncode == 0, out + err
    run_ranks(2, play, toy_overrides(digits, forked, "total_images=64"))
    (ours, _), (theirs, _) = final_state(launched), final_state(forked)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert status_lines(launched) == status_lines(forked)


@pytest.mark.two_process
def test_two_processes_under_a_plain_recipe_are_refused(digits: Path, tmp_path: Path) -> None:
    process = launch(
        ["--multi_gpu", "--num_processes", "2"], toy_overrides(digits, tmp_path), ACCELERATE_USE_CPU="true"
    )
    _, err = process.communicate(timeout=HANG_LIMIT_S)
    assert process.returncode != 0
    assert "engine: plain runs in one process, but the launcher started 2" in err


def test_the_end_of_a_launcher_saves_the_run(digits: Path, tmp_path: Path) -> None:
    overrides = toy_overrides(
        digits, tmp_path, "total_images=100k", "log.every_images=16", "checkpoint.every_images=100k"
    )
    process = launch(["--cpu", "--num_processes", "1"], overrides)
    started_s = time.monotonic()
    while not status_lines_so_far(tmp_path):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - started_s < HANG_LIMIT_S
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # accelerate's launcher of one process dies of it and passes nothing on
    process.communicate(timeout=HANG_LIMIT_S)
    while not (tmp_path / "status.json").exists():
        assert time.monotonic() - started_s < HANG_LIMIT_S
        time.sleep(0.05)
    assert as_json(tmp_path / "status.json")["exit_status"] == 75
    assert final_state(tmp_path)[1]["progress"]["steps"] > 0


def status_lines_so_far(run_dir: Path) -> list[dict[str, object]]:
    """Return the status lines of a log that may not be there yet."""
    return status_lines(run_dir) if (run_dir / "log.jsonl").exists() else []
