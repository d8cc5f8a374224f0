"""Three starts of a job in a row that come no further are enough."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bigtrain.cli import main
from bigtrain.engine.checkpoints.names import folder_name
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import DataError, NoProgressError
from bigtrain.training.starts import LEDGER, Start, Starts, after_crash, fruitless, is_crash, read_ledger, write_ledger
from tests.training.test_door import CHECKOUT, HANG_LIMIT_S, finish, start_training
from tests.training.toy_runs import RECIPE, as_json, final_state, toy_overrides

FAILED = Start(job="9", restart=0, images_seen=0, since="then", ended="failed: ValueError: x", exit_status=1)


def environment(restart: int = 0, job: str = "9") -> dict[str, str]:
    return {"SLURM_JOB_ID": job, **({"SLURM_RESTART_COUNT": str(restart)} if restart else {})}


def crashed(*restarts: int) -> list[Start]:
    return [replace(FAILED, restart=restart) for restart in restarts]


def with_checkpoint(folder: Path, images: int) -> None:
    (folder / "checkpoints" / folder_name(images)).mkdir(parents=True)


OWN = replace(FAILED, restart=3)


@pytest.mark.parametrize(
    ("ledger", "own", "count"),
    [
        ([], OWN, 0),
        (crashed(0, 1, 2), OWN, 3),
        (crashed(1, 2), OWN, 2),
        (crashed(0, 1, 2), replace(OWN, images_seen=64), 0),  # the last one left a checkpoint
        ([*crashed(0), replace(FAILED, restart=1, images_seen=64)], replace(OWN, images_seen=64), 1),
        ([replace(FAILED, restart=0, images_seen=64), *crashed(1)], OWN, 2),  # the one at 64 was damaged: no progress
        ([*crashed(0), replace(FAILED, job=None), *crashed(2)], OWN, 1),  # by hand in between
        (crashed(0, 1, 2), replace(OWN, job="10", restart=0), 0),  # submitted anew
        (crashed(0, 1, 2), replace(OWN, job=None, restart=0), 0),  # by hand
        (crashed(0, 0, 0), replace(OWN, restart=0), 0),  # by hand, in an interactive job
        ([*crashed(0, 1), replace(FAILED, restart=2, exit_status=0)], OWN, 0),
        ([replace(each, ended=None, exit_status=None) for each in crashed(0, 1, 2)], OWN, 3),  # killed
    ],
)
def test_which_starts_came_to_nothing(ledger: list[Start], own: Start, count: int) -> None:
    assert len(fruitless(ledger, own)) == count


def start(folder: Path, monkeypatch: pytest.MonkeyPatch, restart: int, error: BaseException | None = None) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
    with Starts(folder, Ranks.single()) as starts:
        if error is not None:
            raise error
        starts.end(75)


def test_the_ledger_tells_how_each_start_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(tmp_path, monkeypatch, 0)
    with_checkpoint(tmp_path, 64)
    for restart, error in enumerate((DataError("no shards"), ValueError("x"), KeyboardInterrupt()), 1):
        with pytest.raises(type(error)):
            start(tmp_path, monkeypatch, restart, error)
    ends = [(each.restart, each.images_seen, each.ended, each.exit_status) for each in read_ledger(tmp_path)]
    assert ends == [
        (0, 0, "was stopped and saved", 75),
        (1, 64, "failed: no shards", 6),
        (2, 64, "failed: ValueError: x", 1),
        (3, 64, "was interrupted", 130),
    ]
    assert not list(tmp_path.glob(".starts*"))


def test_the_fourth_start_is_refused_with_the_reason_of_the_third(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for restart in range(3):
        with pytest.raises(ValueError, match="nothing works"):
            start(tmp_path, monkeypatch, restart, ValueError(f"nothing works, {restart}"))
    with pytest.raises(NoProgressError, match="3 starts of job 9 .* at 0 images, .* ValueError: nothing works, 2"):
        start(tmp_path, monkeypatch, 3)
    assert len(read_ledger(tmp_path)) == 3
    with_checkpoint(tmp_path, 16)
    start(tmp_path, monkeypatch, 4)


def test_a_ledger_that_cannot_be_read_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("[", '[{"x": 1}]', "{}"):
        (tmp_path / LEDGER).write_text(text)
        start(tmp_path, monkeypatch, 0)
        assert len(read_ledger(tmp_path)) == 1


@pytest.mark.parametrize("status", [1, 9, 129, 137, 139, 143])
def test_a_crash_is_worth_another_start(tmp_path: Path, status: int) -> None:
    assert is_crash(status)
    write_ledger(tmp_path, [Start.now(tmp_path, environment())])
    assert after_crash(tmp_path, status, environment()) == 0


@pytest.mark.parametrize("status", [2, 3, 4, 5, 6, 7, 8, 10, 126, 127, 130])
def test_what_a_user_must_put_right_is_not(tmp_path: Path, status: int) -> None:
    assert after_crash(tmp_path, status, environment()) == status


NAN_FROM_STEP_3 = ";".join(f"nan@backward:{visit}" for visit in range(5, 60))  # two turns a step


@pytest.mark.parametrize(("status", "words"), [(5, "did not get past it"), (6, "damaged")])
def test_what_comes_again_in_every_start_ends_the_job_after_one(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    # A start has gone back to its checkpoint as often as it may, and read a shard that no other node holds otherwise.
    shards = tmp_path / "digits"
    shutil.copytree(digits, shards)
    overrides = toy_overrides(shards, tmp_path / "run", "checkpoint.every_images=16", "watchdog.most_rollbacks=1")
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    if status == 5:
        monkeypatch.setenv("BIGTRAIN_FAULT", NAN_FROM_STEP_3)
    else:
        for shard in shards.glob("*.tar"):
            content = bytearray(shard.read_bytes())
            content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
            shard.write_bytes(content)
    ended, _, err = finish(start_training(overrides))
    assert ended == status
    assert re.search(words, err)
    assert after_crash(tmp_path / "run", 1, environment()) == status  # launchers return 1 for any of them
    assert [start.exit_status for start in read_ledger(tmp_path / "run")] == [status]


def test_the_main_process_s_own_status_counts_before_that_of_a_killed_task(tmp_path: Path) -> None:
    write_ledger(tmp_path, [replace(FAILED, exit_status=5)])
    assert after_crash(tmp_path, 137, environment()) == 5
    write_ledger(tmp_path, [replace(FAILED, exit_status=75)])
    assert after_crash(tmp_path, 137, environment()) == 0


def test_the_batch_script_notes_what_training_could_not(tmp_path: Path) -> None:
    write_ledger(tmp_path, [Start.now(tmp_path, environment())])
    assert after_crash(tmp_path, 137, environment()) == 0
    assert after_crash(tmp_path, 1, environment(restart=1)) == 0  # torch could not be imported, say
    ends = [(each.restart, each.ended, each.exit_status) for each in read_ledger(tmp_path)]
    assert ends == [(0, "was killed (exit status 137)", 137), (1, "ended before training began", 1)]
    with pytest.raises(NoProgressError, match="ended before training began"):
        after_crash(tmp_path, 1, environment(restart=2))


def test_a_job_that_crashes_in_every_start_ends_after_three(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = toy_overrides(digits, tmp_path, "total_images=48")
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    before = [replace(FAILED, restart=restart, since=str(restart)) for restart in (0, 1)]
    write_ledger(tmp_path, before)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    monkeypatch.setenv("BIGTRAIN_FAULT", "exception@step:2")
    assert finish(start_training(overrides))[0] == 1
    command = [sys.executable, "-m", "bigtrain", "starts", str(RECIPE), *overrides, "--after", "1"]
    asked = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=HANG_LIMIT_S, check=False)
    assert asked.returncode == 7, asked.stdout + asked.stderr
    assert "InjectedFaultError" in asked.stderr
    (tmp_path / "status.json").unlink()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    monkeypatch.delenv("BIGTRAIN_FAULT")
    status, _, err = finish(start_training(overrides))
    assert status == 7
    assert err.count("\n") == 1
    written = as_json(tmp_path / "status.json")
    assert written["exit_status"] == 7
    assert "InjectedFaultError: injected" in written["state"]
    monkeypatch.delenv("SLURM_JOB_ID")
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    assert finish(start_training(overrides))[0] == 0  # by hand
    assert final_state(tmp_path)[1]["progress"]["images_seen"] == 48
    assert [each.exit_status for each in read_ledger(tmp_path)] == [1, 1, 1, 0]
    assert json.loads((tmp_path / LEDGER).read_text())[-1]["job"] is None


def test_outside_slurm_there_is_no_start_to_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    words = ["starts", "bigtrain:digits-mlp", f"run_dir={tmp_path / 'run'}"]
    assert main([*words, "--after", "1"]) == 2
    assert not (tmp_path / "run").exists()
    assert main(words) == 0
    assert "no starts yet" in capsys.readouterr().out
    assert main([*words[:2], "run_dir=/dev/null/x"]) == 2
