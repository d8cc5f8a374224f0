"""The door of training as a user meets it: what bad input gets, polite stops, a second start."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bigtrain.training.log import read_log
from tests.rank_pool import run_ranks
from tests.training.toy_runs import RECIPE, enter, final_state, status_lines, toy_overrides

CHECKOUT = Path(__file__).parents[2]
HANG_LIMIT_S = 300  # a start takes about 6 s on a quiet machine


def start_training(overrides: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bigtrain.train", str(RECIPE), *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=HANG_LIMIT_S)
    return process.returncode, out, err


def test_a_user_s_mistakes_are_one_message_without_a_traceback(digits: Path, tmp_path: Path) -> None:
    mistakes = ["game.generator.widht=8", "batch_images=20", "precision=fp8", "total_images=-1"]
    status, _, err = finish(start_training([*toy_overrides(digits, tmp_path / "run"), *mistakes]))
    assert status == 2
    assert "Traceback" not in err
    for words in ("did you mean 'width'", "precision", "total_images"):
        assert words in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "status", "words"),
    [
        ("data.shards=/nowhere", 6, "/nowhere"),
        ("image.channels=3", 6, r"image.channels: 3 in the recipe, but the shards .* hold 1"),
        ("image.num_classes=7", 6, r"image.num_classes: 7 in the recipe, but the shards .* hold 10"),
        ("batchnorm_images=null", 2, "batchnorm_images: is missing"),
        ("optimizers.critic={kind: adam}", 2, "not the players"),
        ("game.generator.latent_dim=17", 2, "latent_dim 17 is not a multiple"),
        ("evaluate={every_images: 32, extractor: {kind: inception, weights: /nowhere.pth}}", 2, "/nowhere.pth"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(
    digits: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], override: str, status: int, words: str
) -> None:
    (found,) = run_ranks(1, refused, [*toy_overrides(digits, tmp_path / "run"), override])
    assert found[0] == status, found
    assert re.search(words, found[1]), found
    assert "Traceback" not in found[1]
    assert not read_events(tmp_path / "run")


def refused(ranks: object, overrides: list[str]) -> tuple[int, str]:
    """Enter the door and return its status with what it wrote to stderr."""
    import contextlib
    import io

    words = io.StringIO()
    with contextlib.redirect_stderr(words):
        status = enter(ranks, overrides)  # type: ignore[arg-type]
    return status, words.getvalue()


def read_events(run_dir: Path) -> list[str]:
    path = run_dir / "log.jsonl"
    return [event["event"] for event in read_log(path)] if path.exists() else []


def wait_for_step(run_dir: Path, process: "subprocess.Popen[str]") -> None:
    started_s = time.monotonic()
    while "status" not in read_events(run_dir):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - started_s < HANG_LIMIT_S
        time.sleep(0.05)


def test_a_signal_saves_and_asks_for_a_requeue_and_the_same_command_finishes(digits: Path, tmp_path: Path) -> None:
    overrides = toy_overrides(digits, tmp_path, "total_images=4000", "checkpoint.every_images=100k")
    process = start_training(overrides)
    wait_for_step(tmp_path, process)
    process.send_signal(signal.SIGUSR2)
    status, _, err = finish(process)
    assert status == 75, err
    assert json.loads((tmp_path / "status.json").read_text())["exit_status"] == 75
    stopped = final_state(tmp_path)[1]["progress"]
    assert 0 < stopped["steps"] < 250
    assert read_events(tmp_path)[-2:] == ["preempted", "checkpoint"]
    reached = stopped["images_seen"] + 96
    status, out, err = finish(start_training([*overrides, f"total_images={reached}"]))
    assert status == 0, err
    assert f"from {stopped['images_seen']:,} images" in out
    seen = [line["images_seen"] for line in status_lines(tmp_path)]
    assert seen == sorted(set(seen))
    status, out, _ = finish(start_training([*overrides, f"total_images={reached}"]))
    assert (status, "is complete" in out) == (0, True)


def test_a_killed_run_goes_on_from_its_last_checkpoint(digits: Path, tmp_path: Path) -> None:
    overrides = toy_overrides(
        digits, tmp_path, "total_images=100k", "checkpoint.every_images=64", "log.every_images=16"
    )
    process = start_training(overrides)
    started_s = time.monotonic()
    while "checkpoint" not in read_events(tmp_path):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - started_s < HANG_LIMIT_S
        time.sleep(0.02)
    process.kill()
    process.communicate()
    kept = final_state(tmp_path)[1]["progress"]["images_seen"]
    status, out, err = finish(start_training([*overrides, f"total_images={kept + 16}"]))
    assert status == 0, err
    assert f"from {kept:,} images" in out
    seen = [line["images_seen"] for line in status_lines(tmp_path)]
    assert seen == list(range(16, kept + 17, 16))


def test_a_launcher_of_another_engine_is_refused(digits: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "ACCELERATE_USE_DEEPSPEED": "true"}
    command = [sys.executable, "-m", "bigtrain.train", str(RECIPE), *toy_overrides(digits, tmp_path)]
    found = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=HANG_LIMIT_S)
    assert found.returncode == 2
    assert "DeepSpeed" in found.stderr
    assert "Traceback" not in found.stderr
