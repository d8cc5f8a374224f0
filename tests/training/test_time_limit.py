"""A run inside a SLURM job stops and saves before the job's limit, whether or not a signal announces it."""

from pathlib import Path

import pytest

from bigtrain.training.log import read_log
from tests.training.test_door import finish, start_training
from tests.training.toy_runs import as_json, final_state, toy_overrides


@pytest.mark.parametrize(("margin", "status"), [("5", 75), ("null", 0)])
def test_a_job_at_its_limit_stops_unless_told_not_to(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, margin: str, status: int
) -> None:
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text('#!/bin/sh\n[ "$*" = "--noheader --jobs 77_3 --format %L" ] && echo INVALID\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(squeue.parent), prepend=":")
    for name, value in {"JOB_ID": "78", "ARRAY_JOB_ID": "77", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    # The slow step lets the answer arrive before the run is over.
    monkeypatch.setenv("BIGTRAIN_FAULT", "slow@step:2")
    run_dir = tmp_path / "run"
    overrides = ("total_images=48", f"checkpoint.before_time_limit_minutes={margin}")
    found, _, err = finish(start_training(toy_overrides(digits, run_dir, *overrides)))
    assert found == status, err
    assert as_json(run_dir / "status.json")["exit_status"] == status
    assert (final_state(run_dir)[1]["progress"]["images_seen"] == 48) == (status == 0)
    assert [event["event"] for event in read_log(run_dir / "log.jsonl")].count("preempted") == (status == 75)
