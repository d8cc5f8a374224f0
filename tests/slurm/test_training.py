"""The shipped batch scripts on a real SLURM: what stops, is killed, preempted or cancelled, and what becomes of the
run."""

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bigtrain.cli import main as command_line
from bigtrain.training.starts import read_ledger
from tests.rank_pool import run_ranks
from tests.slurm.cluster import Cluster, Job, events, toy_run, wait_until
from tests.training.toy_runs import RECIPE, as_json, final_state, play, status_lines, toy_overrides

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


@pytest.mark.slow
def test_an_evaluation_is_shared_by_the_tasks_of_a_job(
    cluster: Cluster, digits: Path, tmp_path: Path, quiet_run: Path
) -> None:
    cheap = [
        "--metrics",
        "fd_random,kd_random",
        "--num",
        "40",
        "--standing",
        "1x32",
        "--cache",
        str(tmp_path / "cache"),
    ]
    words = ["evaluate", str(quiet_run), *cheap]
    job = cluster.submit("evaluate.sbatch", TWO_NODES, [*words, "--json", str(tmp_path / "job.json")])
    assert job.wait_for_end() == "0 COMPLETED", job.story()
    assert job.output.count("fd_random ") == 1, job.output  # one of the two tasks speaks
    assert command_line([*words, "--json", str(tmp_path / "here.json")]) == 0
    ours, theirs = (as_json(tmp_path / f"{name}.json") for name in ("job", "here"))
    assert ours["figures"] == pytest.approx(theirs["figures"], rel=1e-6)


@pytest.mark.slow
def test_the_digits_recipe_trains_on_two_nodes(cluster: Cluster, digits: Path, tmp_path: Path) -> None:
    small = ("total_images=512", "checkpoint.every_images=256", "log.every_images=256", "evaluate=null")
    words = [str(RECIPE), "engine=ddp", f"data.shards={digits}", f"run_dir={tmp_path}", *small]
    job = cluster.submit("train.sbatch", TWO_NODES, words)
    images = tmp_path / "images.npz"
    read = ["sample", str(tmp_path), "--count", "10", "--standing", "2x32", "--npz", str(images)]
    reader = cluster.submit("evaluate.sbatch", [f"--dependency=afterok:{job.number}"], read)
    assert job.wait_for_end() == "0 COMPLETED", job.story()
    assert reader.wait_for_end() == "0 COMPLETED", reader.story()
    assert images.exists()
    assert reader.fact("StartTime") >= job.fact("EndTime")
    assert "2 process(es)" in job.output
    assert [line["images_seen"] for line in status_lines(tmp_path)] == [256, 512]


def preempt(job: Job) -> None:
    """Send a job of higher priority, which takes the nodes, and wait until it has left them."""
    other = job.cluster.ask("sbatch", "--parsable", "--nodes=2", "--partition=urgent", "--wrap=true")
    assert Job(job.cluster, other).wait_for_end() == "0 COMPLETED"


@pytest.mark.slow
@pytest.mark.parametrize("stop", [lambda job: job.scontrol("requeue"), preempt], ids=["requeued", "preempted"])
def test_a_job_that_slurm_takes_back_goes_on_as_the_quiet_run(
    cluster: Cluster, digits: Path, tmp_path: Path, quiet_run: Path, stop: Callable[[Job], None]
) -> None:
    job = cluster.submit("train.sbatch", TWO_NODES, toy_run(digits, tmp_path), BIGTRAIN_FAULT=SLOW)
    job.wait_for(lambda: events(tmp_path, "status"))
    stop(job)
    job.start_again()
    assert job.wait_for_end() == "0 COMPLETED", job.story()
    assert job.fact("Restarts") == "1"
    assert_same_run(tmp_path, quiet_run)


@pytest.mark.slow
def test_a_job_at_its_limit_goes_on_as_the_quiet_run(
    cluster: Cluster, digits: Path, tmp_path: Path, quiet_run: Path
) -> None:
    # No signal announces the end. Of 60 s that SLURM lets it run, at most 15 are kept back; each pause takes 3 s.
    pauses = ";".join(f"slow@step:{number}" for number in range(4, 31))
    more = ("total_images=480", "checkpoint.every_images=100k")
    words = toy_run(digits, tmp_path, *more)
    job = cluster.submit("train.sbatch", [*TWO_NODES, "--time=1", "--signal=USR2@0"], words, BIGTRAIN_FAULT=pauses)
    job.wait_for(lambda: events(tmp_path, "checkpoint"))
    job.start_again()
    stopped = as_json(tmp_path / "status.json")
    assert (stopped["exit_status"], 48 < stopped["images_seen"] < 480) == (75, True)
    assert "DUE TO TIME LIMIT" not in job.output
    job.cancel()


@pytest.mark.slow
def test_a_cancelled_job_saves_and_does_not_come_back(cluster: Cluster, digits: Path, tmp_path: Path) -> None:
    words = toy_run(digits, tmp_path, "total_images=16k", "data.num_workers=1")
    job = cluster.submit("train.sbatch", TWO_NODES, words)
    job.wait_for(lambda: events(tmp_path, "status"))
    assert len(job.processes()) >= 4  # two ranks and their workers, at least
    job.cancel()
    wait_until(lambda: not job.is_queued, job.story)
    assert job.fact("JobState") == "CANCELLED"
    wait_until(lambda: not job.processes(), lambda: f"{job.processes()}\n{job.story()}", NO_TRACE_S)
    time.sleep(2.0)
    assert (job.fact("JobState"), job.fact("Restarts")) == ("CANCELLED", "0"), job.story()


@pytest.mark.slow
def test_a_job_that_always_crashes_ends_after_three_starts(cluster: Cluster, digits: Path, tmp_path: Path) -> None:
    words = toy_run(digits, tmp_path)
    job = cluster.submit("train.sbatch", TWO_NODES, words, BIGTRAIN_FAULT="exception@step:3")
    job.start_again(1)
    job.start_again(2)
    assert job.wait_for_end() == "7 FAILED", job.story()
    assert not job.is_queued
    assert [start.restart for start in read_ledger(tmp_path)] == [0, 1, 2]
    said = as_json(tmp_path / "status.json")
    assert said["exit_status"] == 7
    assert "3 starts of job" in said["state"]


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_start_and_not_the_job(
    cluster: Cluster, digits: Path, tmp_path: Path, quiet_run: Path
) -> None:
    # The first start dies in its 7th step and has left a checkpoint after its 4th; the second has 6 steps left.
    job = cluster.submit("train.sbatch", TWO_NODES, toy_run(digits, tmp_path), BIGTRAIN_FAULT="kill@step:7,rank=1")
    job.start_again()
    assert job.wait_for_end() == "0 COMPLETED", job.story()
    assert [start.images_seen for start in read_ledger(tmp_path)] == [0, 64]
    assert_same_run(tmp_path, quiet_run)


@pytest.mark.slow
def test_a_node_that_dies_costs_the_start_and_not_the_run(
    cluster: Cluster, digits: Path, tmp_path: Path, quiet_run: Path
) -> None:
    job = cluster.submit("train.sbatch", TWO_NODES, toy_run(digits, tmp_path), BIGTRAIN_FAULT=SLOW)
    job.wait_for(lambda: events(tmp_path, "status"))
    cluster.kill_node("n2")
    wait_until(lambda: "down" in cluster.ask("sinfo", "--noheader", "--nodes=n2", "--format=%T"), job.story)
    cluster.revive()
    job.start_again()
    assert job.wait_for_end() == "0 COMPLETED", job.story()
    assert_same_run(tmp_path, quiet_run)


@pytest.mark.slow
def test_array_tasks_are_runs_of_their_own(cluster: Cluster, digits: Path, tmp_path: Path) -> None:
    named, unnamed = tmp_path / "named", f"{tmp_path}/not-used"
    lines = [toy_run(digits, named, "total_images=48"), toy_run(digits, Path(unnamed), "total_images=64")]
    lines[1] = [word for word in lines[1] if not word.startswith("run_dir=")]
    sweep = tmp_path / "sweep.txt"
    sweep.write_text("".join(f"{shlex.join(line)}\n" for line in lines))
    job = cluster.submit("array.sbatch", ["--array=0-1", "--ntasks=1", f"--chdir={tmp_path}"], [str(sweep)])
    tasks = [Job(cluster, f"{job.number}_{index}") for index in (0, 1)]
    assert [task.wait_for_end() for task in tasks] == ["0 COMPLETED"] * 2, tasks[0].story() + tasks[1].story()
    assert final_state(named)[1]["progress"]["images_seen"] == 48
    own = tmp_path / "runs" / f"digits-biggan-{job.number}_1"
    assert final_state(own)[1]["progress"]["images_seen"] == 64
    assert [start.job for folder in (named, own) for start in read_ledger(folder)] == [task.number for task in tasks]


RECEIVER = """
import os, pathlib, signal, sys, time
rank, caught = os.environ["SLURM_PROCID"], []
for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):
    signal.signal(getattr(signal, name), lambda number, _: caught.append(signal.Signals(number).name))
folder = pathlib.Path(os.environ["RECEIVED_IN"])
(folder / f"ready-{rank}").touch()
end_s = time.monotonic() + 120
while not caught and time.monotonic() < end_s:
    time.sleep(0.01)
for name in ("SIGTERM", "SIGUSR1", "SIGUSR2"):  # as training does: the first to leave has the other sent TERM
    signal.signal(getattr(signal, name), signal.SIG_IGN)
(folder / f"got-{rank}").write_text(caught[0] if caught else "nothing")
sys.exit(75)
"""


def submit_receivers(cluster: Cluster, tmp_path: Path, *options: str) -> Job:
    """Submit the training script with tasks that only wait for a signal, note it, and leave with status 75."""
    (tmp_path / "receiver.py").write_text(RECEIVER)
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} {tmp_path}/receiver.py "$@"\n')
    (tmp_path / "python").chmod(0o755)
    path = f"{tmp_path}:{cluster.environment['PATH']}"
    job = cluster.submit("train.sbatch", [*TWO_NODES, *options], ["x.yaml"], PATH=path, RECEIVED_IN=str(tmp_path))
    job.wait_for(lambda: len(list(tmp_path.glob("ready-*"))) == 2)
    return job


def assert_requeued_after(job: Job, tmp_path: Path, signal_name: str) -> None:
    """Check that both tasks were signalled, that the job is in the queue again, and that nothing of it is left."""
    job.wait_for(lambda: job.fact("Reason") == "BeginTime")
    assert [(tmp_path / f"got-{rank}").read_text() for rank in (0, 1)] == [f"SIG{signal_name}"] * 2
    wait_until(lambda: not job.processes(), lambda: str(job.processes()), NO_TRACE_S)
    assert job.fact("Restarts") == "1"
    job.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("signal_name", ["USR2", "USR1", "TERM"])
def test_every_rank_gets_the_signal(cluster: Cluster, tmp_path: Path, signal_name: str) -> None:
    job = submit_receivers(cluster, tmp_path)
    job.cancel(f"--signal={signal_name}")
    assert_requeued_after(job, tmp_path, signal_name)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "signal_name"), [((), "USR2"), (("--signal=USR2@0",), "TERM")])
def test_the_limit_is_announced_to_every_rank_and_outlived(
    cluster: Cluster, tmp_path: Path, options: tuple[str, ...], signal_name: str
) -> None:
    # The script's own option says 300 s before the limit, so it comes soon; without it SLURM's TERM comes at the limit,
    # when the job is over for SLURM, and can be requeued all the same.
    assert_requeued_after(submit_receivers(cluster, tmp_path, "--time=1", *options), tmp_path, signal_name)
