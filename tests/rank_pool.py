"""Ranks for tests: processes forked from a clean one that has torch imported, joined over gloo.

How a test uses it. Put what a rank does into a function at module level (it is sent by name) whose first argument is a
`Ranks`; the others, and what it returns, may be anything that pickles, tensors included:

    from tests.rank_pool import run_ranks

    def sum_of_ranks(ranks, factor):
        return ranks.sum_tensor(torch.tensor(factor * (ranks.rank + 1.0))).item()

    def test_sum():
        assert run_ranks(2, sum_of_ranks, 10.0) == [30.0, 30.0]       # one result a rank

`run_ranks` raises `RankFailed` with the traceback of every rank that failed, and after 60 s with the stack of every
rank that hangs. Tests that kill or signal ranks take `start_ranks(...)` instead and read `.outcomes()`:

    group = start_ranks(2, train_forever, folder)
    group.wait_for(folder / "first-step")
    group.signal(1, signal.SIGUSR1)
    first, second = group.outcomes()     # .exit_status (-9 after SIGKILL), .value, .error (traceback text or None)

In a rank torch.distributed is initialised over gloo (file store in a temporary folder), and RANK, LOCAL_RANK,
WORLD_SIZE and ACCELERATE_USE_CPU are set, so `Accelerator(cpu=True)` finds its place too. One rank alone has no process
group and none of these. Torch runs one thread. pytest never forks itself: its own process may hold torch threads by
then, and forking a process with threads can deadlock.
"""

import contextlib
import faulthandler
import functools
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

HANG_LIMIT_S = 60.0
STACK_LEAD_S = 2.0  # a hanging rank writes its stack this long before it is killed
POLL_S = 0.005
# What tests, and the test module that a rank imports to find its function, would import in every rank: torch._dynamo
# alone, which an optimizer or DDP asks for at first use, is 4 s there.
PRELOAD = [
    *(
        "torch",
        "torch._dynamo",
        "torch.distributed",
        "accelerate",
        "safetensors.torch",
        "torchvision",
        "torch_fidelity",
        "deepspeed",
    ),
    *("numpy", "PIL.Image", "webdataset", "pydantic", "yaml", "pytest", "hypothesis", "hypothesis.strategies"),
]


class RankFailed(AssertionError):
    """A rank raised, died or hung; the message holds what each of them had to say."""


@dataclass(frozen=True)
class Outcome:
    """How one rank ended."""

    exit_status: int | None
    """Status of the process, negative for a signal; None: it hung and was killed by the pool."""
    value: Any
    error: str | None
    """Traceback, or what the rank wrote to stderr before it died; None when the function returned."""


class RankProcesses:
    """Running ranks; made by `start_ranks`."""

    def __init__(self, processes: list[Any], folder: Path, deadline_s: float) -> None:
        self.processes = processes
        self.folder = folder
        self._deadline_s = deadline_s

    @property
    def pids(self) -> list[int]:
        """Process numbers, in the order of ranks."""
        return [process.pid for process in self.processes]

    def signal(self, rank: int, signum: int) -> None:
        """Send a signal to one rank."""
        os.kill(self.pids[rank], signum)

    def wait_for(self, path: Path) -> None:
        """Return once `path` exists.

        Raises:
            RankFailed: it does not within the hang limit, or all ranks have ended without making it.
        """
        while not path.exists():
            alive = any(process.is_alive() for process in self.processes)
            if not path.exists() and (not alive or time.monotonic() > self._deadline_s):
                raise RankFailed(f"no rank made {path}\n" + _report(self.outcomes()))
            time.sleep(POLL_S)

    def outcomes(self) -> list[Outcome]:
        """Return how each rank ended; waits for all of them, and at the hang limit kills those that still run."""
        outcomes = [self._outcome(rank, process) for rank, process in enumerate(self.processes)]
        shutil.rmtree(self.folder, ignore_errors=True)
        return outcomes

    def results(self) -> list[Any]:
        """Return what the function returned on each rank.

        Raises:
            RankFailed: a rank raised, died or hung.
        """
        outcomes = self.outcomes()
        if any(outcome.error is not None for outcome in outcomes):
            raise RankFailed(_report(outcomes))
        return [outcome.value for outcome in outcomes]

    def _outcome(self, rank: int, process: Any) -> Outcome:
        process.join(max(0.0, self._deadline_s - time.monotonic()))
        hung = process.is_alive()
        if hung:
            process.kill()
            process.join()
        answer = self.folder / f"answer-{rank}"
        if answer.exists():
            value, error = pickle.loads(answer.read_bytes())
            return Outcome(0 if error is None else 1, value, error)
        reason = "hung and was killed" if hung else f"died with status {process.exitcode}"
        stderr = self.folder / f"stderr-{rank}"
        words = stderr.read_text(errors="replace") if stderr.exists() else ""
        return Outcome(None if hung else process.exitcode, None, f"{reason}; its stderr:\n{words}")


def start_ranks(
    world: int, function: Callable[..., Any], *arguments: Any, hang_limit_s: float = HANG_LIMIT_S
) -> RankProcesses:
    """Fork `world` ranks that run `function(ranks, *arguments)` and return at once.

    Args:
        world: number of ranks.
        function: a function at module level.
        *arguments: anything that pickles, the same for every rank.
        hang_limit_s: after this long a rank writes its stack and is killed.
    """
    folder = Path(tempfile.mkdtemp(prefix="ranks-"))
    call = pickle.dumps((function, arguments))
    context = _server()
    deadline_s = time.monotonic() + hang_limit_s
    common = (world, str(folder), call, hang_limit_s)
    processes = [context.Process(target=_rank_main, args=(rank, *common), daemon=False) for rank in range(world)]
    for process in processes:
        process.start()
    return RankProcesses(processes, folder, deadline_s)


def run_ranks(
    world: int, function: Callable[..., Any], *arguments: Any, hang_limit_s: float = HANG_LIMIT_S
) -> list[Any]:
    """Return what `function(ranks, *arguments)` returns on each of `world` ranks.

    Raises:
        RankFailed: a rank raised, died or hung; with its traceback.
    """
    return start_ranks(world, function, *arguments, hang_limit_s=hang_limit_s).results()


@functools.cache
def _server() -> Any:
    """Return the context whose processes are forked from a server that pytest starts once and that ends with it.

    Its imports take seconds, on a busy machine a minute: a first process waits for them here, outside any hang limit.
    """
    os.environ["DS_ACCELERATOR"] = "cpu"  # else DeepSpeed looks for one while it is imported
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    first = context.Process(target=os.getpid)
    first.start()
    first.join()
    return context


def _rank_main(rank: int, world: int, folder: str, call: bytes, hang_limit_s: float) -> None:
    words = open(os.path.join(folder, f"stderr-{rank}"), "w", buffering=1)  # noqa: SIM115 (open until the process ends)
    os.dup2(words.fileno(), 2)
    faulthandler.enable(words)
    faulthandler.dump_traceback_later(max(0.1, hang_limit_s - STACK_LEAD_S), file=words)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C at the terminal ends ranks with pytest
    value, error = None, None
    try:
        ranks = _join(rank, world, folder, hang_limit_s)
        function, arguments = pickle.loads(call)
        value = function(ranks, *arguments)
        pickle.dumps(value)
    except Exception:
        error = traceback.format_exc()
    _answer(folder, rank, value, error)
    if error is None and world > 1:
        with contextlib.suppress(Exception):  # a rank that leaves early looks dead to one that still listens to it
            ranks.barrier()
    sys.stdout.flush()
    os._exit(0 if error is None else 1)  # no clean-up of process groups: it would wait for peers that a test has killed


def _join(rank: int, world: int, folder: str, hang_limit_s: float) -> Any:
    """Set what launchers set and join the other ranks over gloo."""
    import torch
    import torch.distributed as dist

    from bigtrain.engine.ranks import Ranks

    torch.set_num_threads(1)
    if world == 1:
        return Ranks.single()
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
    os.environ.update(ACCELERATE_USE_CPU="true", GLOO_SOCKET_IFNAME="lo")
    # Read by accelerate, used by nobody: the group exists already.
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    limit = timedelta(seconds=hang_limit_s)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world, timeout=limit)
    return Ranks.from_torch_distributed()


def _answer(folder: str, rank: int, value: Any, error: str | None) -> None:
    """Leave the answer for the test, whole or not at all."""
    aside = os.path.join(folder, f"answer-{rank}.tmp")
    with open(aside, "wb") as file:
        file.write(pickle.dumps((value if error is None else None, error)))
    os.rename(aside, os.path.join(folder, f"answer-{rank}"))


def _report(outcomes: list[Outcome]) -> str:
    return "\n".join(f"--- rank {rank}: {outcome.error or 'returned'}" for rank, outcome in enumerate(outcomes))
