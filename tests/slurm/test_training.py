"""The shipped batch scripts on a real SLURM: what stops, is killed, preempted or cancelled, and what becomes of the
run."""

from pathlib import Path

import pytest
import torch

from bigtrain.training.starts import read_ledger
from tests.rank_pool import run_ranks
from tests.slurm.cluster import Cluster, events, toy_run
from tests.training.toy_runs import as_json, final_state, play, status_lines, toy_overrides

TWO_NODES = ["--nodes=2"]
NO_TRACE_S = 10.0  # after its end a job has no process left
# Time to hit a run in the middle: the pause is in its 4th step of 10, after the first status line.
SLOW = "slow@step:4"


@pytest.fixture(scope="module")
def quiet_run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run as the jobs', which nobody disturbs."""
    run_dir = tmp_path_factory.mktemp("quiet") / "run"
    run_ranks(2, play, toy_overrides(digits, run_dir))
    return run_dir


def assert_same_run(ours: Path, theirs: Path) -> None:
    (tensors, record), (expected, expected_record) = final_state(ours), final_state(theirs)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert record == expected_record
    assert status_lines(ours) == status_lines(theirs)
    assert len(status_lines(ours)) == 4


def test_a_job_signalled_in_the_middle_is_requeued_and_ends_as_the_quiet_run(
    cluster: Cluster, digits: Path, tmp_path: Path, quiet_run: Path
) -> None:
    job = cluster.submit("train.sbatch", TWO_NODES, toy_run(digits, tmp_path), BIGTRAIN_FAULT=SLOW)
    job.wait_for(lambda: events(tmp_path, "status"))
    job.cancel("--signal=USR2")
    job.start_again()
    stopped = as_json(tmp_path / "status.json")
    assert (stopped["exit_status"], stopped["images_seen"] < 160) == (75, True)
    assert job.wait_for_end() == "0 COMPLETED", job.story()
    assert "2 process(es) x 8 images" in job.output
    assert [(start.job, start.restart, start.exit_status) for start in read_ledger(tmp_path)] == [
        (job.number, 0, 75),
        (job.number, 1, 0),
    ]
    assert_same_run(tmp_path, quiet_run)
