"""What a process learns from SLURM: who the ranks of its job step are and where they meet, which job it belongs to, how
long that may still run.

Inside SLURM a rank is one srun task, with no launcher in between: launchers of one machine die of the signals with
which SLURM announces the end, and leave their workers behind. `SLURM_STEP_*` describe the srun step, and only its tasks
have them; the batch shell has the job's own variables, which say nothing about who runs beside it.
"""

import os
import re
import socket
import subprocess
from collections.abc import Callable, Mapping, MutableMapping

from bigtrain.recipe.errors import UsageError

# Ports below Linux's ephemeral ones (32768 and up), which outgoing connections take, srun's own among them.
FIRST_PORT, NUM_PORTS = 15_000, 16_384
PORTS_A_RESTART, PORTS_A_STEP = 4_099, 257  # primes, so that jobs, restarts and steps meet late
ANSWER_LIMIT_S = 30.0  # a busy controller is not worth more

TIME_LEFT = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")
NODE_TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?")  # of SLURM_STEP_TASKS_PER_NODE, such as 4(x3),2


def join_step(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what Accelerate and torch read to form a group of the tasks of an srun step; do nothing elsewhere.

    Raises:
        UsageError: the first node's address cannot be found out.
    """
    environment.update(rank_environment(environment, first_address))


def rank_environment(environment: Mapping[str, str], address_of: Callable[[str], str]) -> dict[str, str]:
    """Return the variables to set in a task of an srun step of several tasks; none where a launcher has set RANK.

    Args:
        environment: the process's.
        address_of: what maps the step's list of nodes to the address of the first; asked only if MASTER_ADDR is unset.
    """
    world = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if "RANK" in environment or "SLURM_PROCID" not in environment or world == 1:
        return {}
    local_rank = int(environment["SLURM_LOCALID"])
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(_device_number(local_rank, environment)),
        "LOCAL_WORLD_SIZE": str(_tasks_here(environment)),
        # Kept where the batch script has set them, as it must where tasks run in containers without SLURM's commands.
        "MASTER_ADDR": environment.get("MASTER_ADDR") or address_of(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": environment.get("MASTER_PORT") or str(master_port(environment)),
    }


def master_port(environment: Mapping[str, str]) -> int:
    """Return the port where the ranks of a step meet: the same for all of them, and another one for every other job,
    array task and step on the node, and for the next start of the same job, whose dead may still hold theirs."""
    job = int(environment["SLURM_JOB_ID"])  # every array task has one of its own
    restart, step = int(environment.get("SLURM_RESTART_COUNT", "0")), int(environment["SLURM_STEP_ID"])
    return FIRST_PORT + (job + restart * PORTS_A_RESTART + step * PORTS_A_STEP) % NUM_PORTS


def _device_number(local_rank: int, environment: Mapping[str, str]) -> int:
    """Number of this task's GPU among those it sees: with --gpus-per-task each task sees its own as number 0."""
    visible = [device for device in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if device]
    return local_rank % len(visible) if visible else local_rank


def _tasks_here(environment: Mapping[str, str]) -> int:
    """Number of tasks that the step has on this node."""
    counts: list[int] = []
    for tasks, nodes in NODE_TASKS.findall(environment["SLURM_STEP_TASKS_PER_NODE"]):
        counts += [int(tasks)] * int(nodes or 1)
    return counts[int(environment["SLURM_NODEID"])]


def first_address(nodes: str) -> str:
    """Return the address of the first of SLURM's nodes, given as `n[1-4],m7`: its name if that can be looked up, else
    where SLURM itself reaches it.

    Raises:
        UsageError: SLURM's command does not answer.
    """
    answer = _ask("scontrol", "show", "hostnames", nodes)
    if not answer:
        raise UsageError(
            f"the address of the first of the nodes {nodes} is unknown: `scontrol show hostnames` does not answer here "
            "(in a container?); set MASTER_ADDR in the batch script, before srun"
        )
    name = answer.split()[0]
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        found = re.search(r"\bNodeAddr=(\S+)", _ask("scontrol", "--oneliner", "show", "node", name) or "")
        return found[1] if found else name
    return name


def job_key(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the job that this process belongs to, as SLURM's commands take it; None outside SLURM.

    Of an array: ARRAYJOB_TASK, because the array's last task has the array's own number as SLURM_JOB_ID, and a command
    given that one means all tasks.
    """
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")


def seconds_left(job: str) -> float | None:
    """Return how long SLURM lets a job still run; None without a limit, and when SLURM does not say."""
    return parse_time_left(_ask("squeue", "--noheader", "--jobs", job, "--format", "%L") or "")


def parse_time_left(text: str) -> float | None:
    """Return the seconds in squeue's TIME_LEFT, [[D-]HH:]MM:SS; 0 for INVALID, which a job past its limit has; None for
    UNLIMITED, NOT_SET and whatever else is no time."""
    if text.strip() == "INVALID":
        return 0.0
    found = TIME_LEFT.fullmatch(text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _ask(*command: str) -> str | None:
    """Return what a SLURM command prints, None if it fails, is not there or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
