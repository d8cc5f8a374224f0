"""One Accelerator a process, whichever way the processes were started, and the check that the launcher fits the
recipe."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

from bigtrain.engine import faults
from bigtrain.engine.ranks import Ranks
from bigtrain.engine.slurm import join_step
from bigtrain.recipe.errors import UsageError


@dataclass(frozen=True)
class Launch:
    """What a process knows of its run's processes: the Accelerator, the ranks, the device."""

    accelerator: Accelerator
    ranks: Ranks

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        device: torch.device = self.accelerator.device
        return device


def start(engine: str, timeout_minutes: float) -> Launch:
    """Join the processes that the launcher, or srun, started, under the recipe's engine.

    Raises:
        UsageError: the launcher started something else than the recipe's `engine`, BIGTRAIN_FAULT names no fault, or
            SLURM does not say where its tasks meet.
    """
    join_step()
    _check_launcher(engine)
    accelerator = Accelerator(
        mixed_precision="no",  # autocast is entered per turn, so that penalty turns may stay in float32
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[
            # A penalty's turn does not use every parameter; buffers are kept equal by the engine, not by rank 0's
            # broadcast.
            DistributedDataParallelKwargs(
                find_unused_parameters=True, broadcast_buffers=False, gradient_as_bucket_view=True
            ),
            InitProcessGroupKwargs(timeout=timedelta(minutes=timeout_minutes)),
        ],
    )
    world = accelerator.num_processes
    if engine == "plain" and world > 1:
        raise UsageError(f"engine: plain runs in one process, but the launcher started {world}; set engine=ddp")
    ranks = Ranks.single() if world == 1 else Ranks.from_torch_distributed(timeout_minutes * 60)
    faults.arm(os.environ.get(faults.VARIABLE, ""), ranks.rank)
    return Launch(accelerator, ranks)


def has_launcher_here() -> bool:
    """Tell whether a launcher on this machine started this process: one that leaves its workers behind when it is
    killed.

    A run that a shell started outlives its shell, and under SLURM the job step sees to its processes.
    """
    started = any(name in os.environ for name in ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"))
    return started and "SLURM_JOB_ID" not in os.environ


def _check_launcher(engine: str) -> None:
    asks_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    asks_fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asks_deepspeed or asks_fsdp:
        started = "DeepSpeed" if asks_deepspeed else "FSDP"
        raise UsageError(
            f"accelerate launch was told to use {started}, but the recipe says engine: {engine}; "
            "start it without that flag (the engine is the recipe's)"
        )
