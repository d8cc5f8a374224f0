"""Layers that keep slowly moving statistics of the batches they see: what they run over, and when they are updated.

A network knows no ranks and no turns. A policy is handed in from outside (`BatchStatistics`), and with update="later" a
forward only adds to what is pending, until `commit_running_statistics` folds the mean over micro-batches and ranks in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class BatchStatistics:
    """What the statistics of a train-mode forward run over, and what becomes of them.

    Args:
        group_images: images that share statistics. Fewer than the local batch: it is cut into contiguous groups, each
            treated alone. More: `ranks` local batches make one group. None: the whole local batch (times `ranks`).
        ranks: how many ranks share one group.
        reduce: differentiable sum of a tensor over those ranks; None if ranks is 1.
        update: "now" folds the statistics into the running ones at once, "later" keeps them until
            `commit_running_statistics`, "never" drops them.
    """

    group_images: int | None = None
    ranks: int = 1
    reduce: Callable[[Tensor], Tensor] | None = None
    update: Literal["now", "later", "never"] = "now"

    def __post_init__(self) -> None:
        assert (self.ranks > 1) == (self.reduce is not None), f"{self.ranks} ranks, but reduce is {self.reduce}"

    def __deepcopy__(self, memo: dict[int, object]) -> "BatchStatistics":
        return self  # immutable, and `reduce` may hold a process group, which cannot be copied

    def groups(self, local_images: int) -> int:
        """Return into how many groups a local batch is cut; 1 when it is one group or one rank's share of one."""
        if self.group_images is None or self.group_images == local_images * self.ranks:
            return 1
        fits = self.ranks == 1 and local_images % self.group_images == 0
        assert fits, f"{local_images} images on each of {self.ranks} ranks do not make groups of {self.group_images}"
        return local_images // self.group_images


class RunningStatistics(nn.Module):
    """A layer with running statistics of some shape S.

    Buffers that no state dict holds: `pending` [S], the sum of statistics that wait for `commit_running_statistics`,
    and `pending_count` [], how many they are.

    Args:
        shape: S.
        momentum: weight of the newest statistics in the running ones.
    """

    pending: Tensor
    pending_count: Tensor

    def __init__(self, shape: tuple[int, ...], momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.policy = BatchStatistics()
        self.register_buffer("pending", torch.zeros(shape), persistent=False)
        self.register_buffer("pending_count", torch.zeros(()), persistent=False)

    def running(self) -> Tensor:
        """Return the running statistics, [S]."""
        raise NotImplementedError

    def fold(self, statistics: Tensor, weight: float | Tensor) -> None:
        """Move the running statistics towards new ones [S] by `weight`."""
        raise NotImplementedError

    @torch.no_grad()
    def keep(self, statistics: Tensor) -> None:
        """Do with a forward's statistics [S] what the policy says."""
        if self.policy.update == "now":
            self.fold(statistics, self.momentum)
        elif self.policy.update == "later":
            self.pending.add_(statistics)
            self.pending_count.add_(1)
