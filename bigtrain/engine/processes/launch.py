"""One Accelerator a process, whichever way the processes were started, and the check that the launcher fits the
recipe."""

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

from bigtrain.engine import faults
from bigtrain.engine.heartbeat.roll_call import Limits
from bigtrain.engine.processes.slurm import join_step
from bigtrain.engine.ranks import Ranks
from bigtrain.recipe.errors import RankLostError, UsageError

ZERO_STAGES = {"zero1": 1, "zero2": 2}
"""Engines that DeepSpeed runs, where there is more than one process."""

JOINED_LIMIT_MINUTES = 60.0  # for one word: while rank 0 trains a classifier or compares features, the others wait


@dataclass(frozen=True)
class Launch:
    """What a process knows of its run's processes: the Accelerator, the ranks, the device."""

    accelerator: Accelerator
    ranks: Ranks
    zero_stage: int = 0
    """Which stage of ZeRO the players run under; 0: none."""

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        device: torch.device = self.accelerator.device
        return device

    def leave(self) -> None:
        """End the process groups, when all ranks' work is done and nothing is under way.

        A thread of gloo's that still lets go of the last word while the interpreter ends would abort the process.
        """
        self.accelerator.end_training()


def start(engine: str, timeout_minutes: float, players: Sequence[str] = ()) -> Launch:
    """Join the processes that the launcher, or srun, started, under the recipe's engine.

    Args:
        engine: plain, ddp, zero1 or zero2; one process alone is the same under all of them.
        timeout_minutes: the recipe's; the groups wait as long as a start may take, since the heartbeat keeps the time
            and says who is missing.
        players: names of the players, each of which becomes a DeepSpeed engine under ZeRO.

    Raises:
        RankLostError: not all of the launcher's processes have come.
        UsageError: the launcher started something else than the recipe's `engine`, DeepSpeed is not installed,
            BIGTRAIN_FAULT names no fault, or SLURM does not say where its tasks meet.
    """
    join_step()
    _check_launcher(engine)
    zero_stage = ZERO_STAGES.get(engine, 0) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else 0
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true" if zero_stage else "false"
    timeout = timedelta(seconds=Limits.of(timeout_minutes).start_s)
    try:
        accelerator = _deepspeed(zero_stage, timeout, players) if zero_stage else _replicated(timeout)
    except dist.DistError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankLostError(
            f"not all {os.environ.get('WORLD_SIZE')} processes of this run have met at {where} within {timeout} "
            f"({error}); see what the others said"
        ) from error
    world = accelerator.num_processes
    if engine == "plain" and world > 1:
        raise UsageError(f"engine: plain runs in one process, but the launcher started {world}; set engine=ddp")
    ranks = Ranks.single() if world == 1 else Ranks.from_torch_distributed(timeout.total_seconds())
    faults.arm(os.environ.get(faults.VARIABLE, ""), ranks.rank)
    return Launch(accelerator, ranks, zero_stage)


def join() -> Launch:
    """Join the processes that the launcher, or srun, started for work without an engine, such as an evaluation.

    Such work gives the same result for any number of them. It has no heartbeat: gloo notices a rank that dies, and one
    that hangs is given up after the limit of a start of JOINED_LIMIT_MINUTES.

    Raises:
        RankLostError: not all of the launcher's processes have come.
        UsageError: the launcher was told to start DeepSpeed or FSDP, or SLURM does not say where its tasks meet.
    """
    return start("ddp", JOINED_LIMIT_MINUTES)


def _replicated(timeout: timedelta) -> Accelerator:
    # Accelerate advises a setting that would still have DDP broadcast buffers.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    accelerator = Accelerator(
        mixed_precision="no",  # autocast is entered per turn, so that penalty turns may stay in float32
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[
            # A penalty's turn does not use every parameter; buffers are kept equal by the engine, not by rank 0's
            # broadcast.
            DistributedDataParallelKwargs(
                find_unused_parameters=True, broadcast_buffers=False, gradient_as_bucket_view=True
            ),
            InitProcessGroupKwargs(timeout=timeout),
        ],
    )
    if accelerator.num_processes > 1:
        _use_up_warning(accelerator.device)
    return accelerator


def _use_up_warning(device: torch.device) -> None:
    """Have DDP say here, unheard, what it says once a process: that the parameters of a forward pass were all used.

    Of a game's turns some use all and some do not, so looking for unused ones is right. The words come from C++, past
    Python's filters; a forward pass of one weight uses them up.
    """
    with _without_line(b"find_unused_parameters=True was specified in DDP constructor"):
        module = torch.nn.Linear(1, 1, bias=False, device=device)
        ddp = torch.nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)
        ddp(torch.ones(1, 1, device=device))


@contextmanager
def _without_line(words: bytes) -> Iterator[None]:
    """Hold back what is written to stderr inside, by any language, and let go of all but lines with some words."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            aside.seek(0)
            os.write(2, b"".join(line for line in aside if words not in line))


def _deepspeed(stage: int, timeout: timedelta, players: Sequence[str]) -> Accelerator:
    """Return an Accelerator with a DeepSpeed plugin for each player."""
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
        os.environ["ACCELERATE_USE_CPU"] = "false"  # Accelerate knows DeepSpeed on accelerators only
    try:
        from bigtrain.engine.deepspeed_config import plugin
    except ImportError as error:
        raise UsageError(
            f"engine: zero{stage} needs DeepSpeed, which cannot be imported ({error}); "
            "pip install 'bigtrain[deepspeed]'"
        ) from error
    return Accelerator(
        mixed_precision="no",
        deepspeed_plugins={player: plugin(stage) for player in players},
        kwargs_handlers=[InitProcessGroupKwargs(backend="nccl" if on_gpu else "gloo", timeout=timeout)],
    )


def has_launcher_here() -> bool:
    """Tell whether a launcher on this machine started this process: one that leaves its workers behind when it is
    killed.

    A run that a shell started outlives its shell, and under SLURM the job step sees to its processes.
    """
    started = any(name in os.environ for name in ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"))
    return started and "SLURM_JOB_ID" not in os.environ


def _check_launcher(engine: str) -> None:
    started = {name for name in ("DEEPSPEED", "FSDP") if _is_set(f"ACCELERATE_USE_{name}")}
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "")
    if "DEEPSPEED" in started and stage and stage == str(ZERO_STAGES.get(engine)):
        started.remove("DEEPSPEED")
    if started:
        what = f"DeepSpeed (ZeRO stage {stage})" if "DEEPSPEED" in started else "FSDP"
        raise UsageError(
            f"accelerate launch was told to use {what}, but the recipe says engine: {engine}; "
            "start it without that flag (the engine is the recipe's)"
        )


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() == "true"
