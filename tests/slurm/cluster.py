"""What tests do with the private SLURM: submit the shipped batch scripts, watch jobs, look for what they leave
behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bigtrain.training.log import read_log
from tests.training.toy_runs import RECIPE, toy_overrides

CHECKOUT = Path(__file__).parents[2]
HANG_LIMIT_S = 300.0  # a start of two ranks takes about 15 s on a quiet machine
POLL_S = 0.2
COMMAND_LIMIT_S = 60.0
SETTLE_S = 2.0


def toy_run(shards: Path, run_dir: Path, *more: str) -> list[str]:
    """Return the words of a batch script that trains a toy run on several ranks."""
    return [str(RECIPE), *toy_overrides(shards, run_dir, "engine=ddp", *more)]


def wait_until(condition: Callable[[], object], why: Callable[[], str], limit_s: float = HANG_LIMIT_S) -> None:
    """Wait for something to be true; fail with `why()` after a limit."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, why()
        time.sleep(POLL_S)


def events(run_dir: Path, kind: str) -> int:
    """Return how many events of a kind a run's log holds; 0 before there is a log."""
    log = run_dir / "log.jsonl"
    return sum(event["event"] == kind for event in read_log(log)) if log.exists() else 0


@dataclass(frozen=True)
class Cluster:
    """The private SLURM in `folder`."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a shell that uses it has: its configuration, this Python first in PATH, the checkout to import."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "BIGTRAIN_"))}
        return {
            **mine,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{mine['PATH']}:/usr/sbin:/sbin",
            "PYTHONPATH": str(CHECKOUT),
            "OMP_NUM_THREADS": "1",
        }

    def ask(self, *command: str, may_fail: bool = False, **variables: str) -> str:
        """Return what one of SLURM's commands prints."""
        done = subprocess.run(
            command,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
            cwd=self.folder,
        )
        assert may_fail or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, script: str, options: list[str], words: list[str], **variables: str) -> "Job":
        """Submit one of the shipped batch scripts from the cluster's folder."""
        options = [f"--output={self.folder}/%j.out", "--time=10", *options]
        number = self.ask("sbatch", "--parsable", *options, str(CHECKOUT / "slurm" / script), *words, **variables)
        return Job(self, number)

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon and the tasks that it started; its slurmstepd is left to tell, as none would after a
        power cut."""
        daemon = int((self.folder / f"slurmd-{node}.pid").read_text())
        os.kill(daemon, signal.SIGKILL)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_of_node = f"SLURMD_NODENAME={node}" in (process / "environ").read_text(errors="replace").split("\0")
                is_of_us = str(self.folder) in (process / "environ").read_text(errors="replace")
            except OSError:  # it has ended meanwhile
                continue
            if is_of_node and is_of_us:
                os.kill(int(process.name), signal.SIGKILL)

    def revive(self) -> None:
        """Start what does not run."""
        environment = {**os.environ, "BIGTRAIN_SLURM_DIR": str(self.folder)}
        subprocess.run(
            ["bash", str(CHECKOUT / "tools" / "local_slurm.sh"), "up"],
            env=environment, stdout=subprocess.DEVNULL, check=True, timeout=HANG_LIMIT_S,
        )  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A job, or with number ARRAYJOB_TASK a task of an array."""

    cluster: Cluster
    number: str

    @property
    def output(self) -> str:
        """What it printed so far, in all its starts."""
        path = self.cluster.folder / f"{self.fact('JobId')}.out"
        return path.read_text() if path.exists() else ""

    def fact(self, name: str) -> str:
        """Return a field of `scontrol show job`, such as JobState."""
        shown = self.cluster.ask("scontrol", "--oneliner", "show", "job", self.number)
        found = re.search(rf"(?:^|\s){name}=(\S*)", shown)
        assert found, f"{name} is not in: {shown}"
        return found[1]

    def scontrol(self, verb: str) -> None:
        """Do something to it."""
        self.cluster.ask("scontrol", verb, self.number)

    def cancel(self, *options: str) -> None:
        """Cancel it, or with --signal=NAME send that to its tasks."""
        self.cluster.ask("scancel", *options, self.number)

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait for something that the job does; fail with its output if it ends or a limit passes before that."""

        def has_come() -> bool:
            if condition():
                return True
            assert self.fact("JobState") in ("PENDING", "RUNNING", "COMPLETING"), self.story() + f" {condition()}"
            return False

        wait_until(has_come, self.story)

    def start_again(self, restart: int = 1) -> None:
        """Wait until it is requeued for the `restart`-th time, and spare it the two minutes for which SLURM lets
        requeued jobs wait."""
        self.wait_for(lambda: int(self.fact("Restarts")) == restart and self.fact("JobState") != "COMPLETING")
        # Within the same second a node takes the new start's credential for the old one's, and refuses it as revoked.
        time.sleep(SETTLE_S)
        if self.fact("JobState") == "PENDING":  # after a node's failure it does not wait
            self.cluster.ask("scontrol", "update", f"JobId={self.number}", "StartTime=now")

    def wait_for_end(self) -> str:
        """Return the exit status of its batch script and the state it ended in, as "0 COMPLETED"."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
        wait_until(lambda: self.fact("JobState") in over, self.story)
        return f"{self.fact('ExitCode').partition(':')[0]} {self.fact('JobState')}"

    @property
    def is_queued(self) -> bool:
        """Whether the queue still holds it."""
        return bool(self.cluster.ask("squeue", "--noheader", "--jobs", self.number, may_fail=True))

    def processes(self) -> list[str]:
        """Return the processes of this machine that were started inside it and still run."""
        marks = {f"SLURM_JOB_ID={self.fact('JobId')}", f"SLURM_CONF={self.cluster.folder / 'slurm.conf'}"}
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                variables = set((process / "environ").read_text(errors="replace").split("\0"))
                words = (process / "cmdline").read_text(errors="replace").replace("\0", " ")
            except OSError:  # it has ended meanwhile
                continue
            if marks <= variables and words:  # a zombie has no words
                found.append(f"{process.name} {words}")
        return found

    def story(self) -> str:
        """Return all there is to say about it, for the message of a failed test."""
        controller = (self.cluster.folder / "slurmctld.log").read_text().splitlines()[-40:]
        shown = self.cluster.ask("scontrol", "show", "job", self.number, may_fail=True)
        return "\n".join([shown, *controller, self.output])
