"""Ranks, ports and times from what SLURM says; the variables below are those that its tasks were seen to have."""

import subprocess

import pytest

from bigtrain.engine.processes import slurm
from bigtrain.engine.processes.slurm import first_address, job_key, master_port, parse_time_left, rank_environment
from bigtrain.recipe.errors import UsageError

TASK = {  # task 5 of 7 on nodes of 2, 2, 2 and 1 tasks
    "SLURM_JOB_ID": "1234",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
    "SLURM_STEP_NODELIST": "n[1-4]",
}
BATCH_SHELL = {"SLURM_JOB_ID": "1234", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "7"}


def address(nodes):
    assert nodes == "n[1-4]"
    return "10.0.0.1"


def nobody_asks(nodes):
    raise AssertionError(nodes)


def test_a_task_becomes_the_rank_of_its_number():
    found = rank_environment(TASK, address)
    port = found.pop("MASTER_PORT")
    assert found == {
        "RANK": "5",
        "WORLD_SIZE": "7",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "10.0.0.1",
    }
    assert port == str(master_port(TASK))


def test_the_last_node_has_one_task():
    last = {**TASK, "SLURM_PROCID": "6", "SLURM_LOCALID": "0", "SLURM_NODEID": "3"}
    found = rank_environment(last, address)
    assert (found["RANK"], found["LOCAL_RANK"], found["LOCAL_WORLD_SIZE"]) == ("6", "0", "1")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        BATCH_SHELL,
        {**TASK, "RANK": "0"},
        {**TASK, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    ],
    ids=["outside SLURM", "batch shell", "a launcher's worker", "one task"],
)
def test_everybody_else_is_left_alone(environment):
    assert rank_environment(environment, nobody_asks) == {}


def test_a_meeting_place_that_the_batch_script_sets_is_kept():
    found = rank_environment({**TASK, "MASTER_ADDR": "head", "MASTER_PORT": "29500"}, nobody_asks)
    assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == ("head", "29500")


@pytest.mark.parametrize(
    ("visible", "number"), [("0,1,2,3", "1"), ("2", "0"), ("", "1")], ids=["all of the node", "its own", "no GPU"]
)
def test_a_task_takes_its_gpu_among_those_it_sees(visible, number):
    assert rank_environment({**TASK, "CUDA_VISIBLE_DEVICES": visible}, address)["LOCAL_RANK"] == number


def test_nobody_meets_at_another_s_port():
    def ports(job):  # array tasks are jobs with numbers in a row
        for restart in range(3):
            for step in range(3):
                names = {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": restart, "SLURM_STEP_ID": step}
                yield master_port({name: str(value) for name, value in names.items()})

    assert len(set(ports(1234))) == 9
    first = [next(ports(job)) for job in range(123_456, 124_456)]
    assert len(set(first)) == 1000
    assert all(1024 < port < 32_768 for job in range(0, 10**6, 997) for port in ports(job))


def test_no_restart_is_the_start_before_any():
    assert master_port(TASK) == master_port({**TASK, "SLURM_RESTART_COUNT": "0"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1-02:03:04", 93_784.0),
        ("10:00:00", 36_000.0),
        ("59:30", 3_570.0),
        ("0:07\n", 7.0),
        ("INVALID", 0.0),  # what squeue says of a job past its limit
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("", None),
        ("5:00\n6:00", None),
    ],
)
def test_time_left(text, seconds):
    assert parse_time_left(text) == seconds


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "77"}, "77"),
        ({"SLURM_JOB_ID": "77", "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "3"}, "77_3"),
    ],
)
def test_the_key_of_a_job(environment, key):
    assert job_key(environment) == key


def test_commands_that_are_not_there_end_in_a_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert slurm.seconds_left("1") is None
    with pytest.raises(UsageError, match=r"n\[1-4\] is unknown.*set MASTER_ADDR in the batch script"):
        first_address("n[1-4]")


@pytest.mark.parametrize(("name", "found"), [("localhost", "localhost"), ("no-such-node.invalid", "10.1.2.3")])
def test_a_name_that_cannot_be_looked_up_is_replaced_by_slurm_s_address(monkeypatch, name, found):
    answers = {"hostnames": f"{name}\nn2\n", "node": f"NodeName={name} NodeAddr=10.1.2.3 NodeHostName={name}"}

    def run(command, **_):
        return subprocess.CompletedProcess(command, 0, stdout=answers[command[-2]])

    monkeypatch.setattr(slurm.subprocess, "run", run)
    assert first_address("n[1-2]") == found
