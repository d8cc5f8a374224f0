"""What the processes of one run say to each other; the rest of the package asks a `Ranks`, never torch.distributed.

Words, flags and barriers travel over gloo also where gradients travel over NCCL: they are small, and a group of their
own keeps them from waiting behind a reduction of gradients on the GPU's stream, and from meeting one by mistake where a
rank has left a word out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bigtrain.engine.heartbeat.whereabouts import waiting
from bigtrain.recipe.errors import EXIT_BUG, EXIT_DONE, BigtrainError

Result = TypeVar("Result")
Word = TypeVar("Word")


class FailedElsewhere(BigtrainError):
    """An action that all ranks do together failed on another rank, which raises the error itself; same exit status."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class _SumOverRanks(torch.autograd.Function):
    """Sum over a process group. Its gradient is the same sum of the ranks' gradients, so it can be taken twice."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, process_group: dist.ProcessGroup) -> Tensor:
        ctx.process_group = process_group
        total = value.detach().clone(memory_format=torch.contiguous_format)
        with waiting():
            dist.all_reduce(total, group=process_group)
        return total

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return _SumOverRanks.apply(slope, ctx.process_group), None


@dataclass(frozen=True)
class RankGroup:
    """`ranks` neighbours that share statistics; group `index` starts at rank index * ranks."""

    ranks: int
    index: int
    process_group: dist.ProcessGroup | None = None

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of `value` over the group's ranks, twice differentiable.

        Every rank of the group calls it, in the same order, and takes its backward in the same order.
        """
        if self.process_group is None:
            return value
        total: Tensor = _SumOverRanks.apply(value, self.process_group)
        return total


def _new_words(timeout: timedelta | None) -> dist.ProcessGroup:
    """Return a group of all ranks over gloo; all of them call it together."""
    made = dist.new_group(backend="gloo", timeout=timeout)
    assert isinstance(made, dist.ProcessGroup), f"all ranks are of this group, got {made}"
    return made


class Ranks:
    """The processes of one run. Every method except the plain attributes is called by all ranks, in the same order."""

    def __init__(
        self, rank: int, world: int, words: dist.ProcessGroup | None = None, timeout: timedelta | None = None
    ) -> None:
        assert 0 <= rank < world, f"rank {rank} of {world}"
        self.rank = rank
        self.world = world
        self._words = words
        self._timeout = timeout
        self._groups: dict[int, RankGroup] = {}

    @classmethod
    def single(cls) -> "Ranks":
        """Return the only rank of a run of one process; it never touches torch.distributed."""
        return cls(0, 1)

    @classmethod
    def from_torch_distributed(cls, timeout_s: float | None = None) -> "Ranks":
        """Return this process's place in the initialised default group, or `single()` where none is initialised.

        Args:
            timeout_s: how long the groups made here may take for one word or reduction; None: torch's default.
        """
        if not (dist.is_available() and dist.is_initialized()):
            return cls.single()
        words = dist.group.WORLD
        timeout = None if timeout_s is None else timedelta(seconds=timeout_s)
        if dist.get_world_size() > 1:
            words = _new_words(timeout)
        return cls(dist.get_rank(), dist.get_world_size(), words, timeout)

    def for_another_thread(self) -> "Ranks":
        """Return the same ranks over a process group of their own, so that one other thread of each may speak to the
        others' meanwhile: what one group says must come from one thread, in one order. All ranks call it together.
        """
        if self.world == 1:
            return Ranks.single()
        return Ranks(self.rank, self.world, _new_words(self._timeout), self._timeout)

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the one that writes logs and commits checkpoints."""
        return self.rank == 0

    def barrier(self) -> None:
        """Return once every rank has come here."""
        self.any_true(False)

    def gather_objects(self, value: Word) -> list[Word]:
        """Return every rank's `value`, in the order of ranks, on all ranks (pickled between processes of this run)."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        with waiting():
            dist.all_gather_object(values, value, group=self._words)
        return values

    def gather_to_main(self, value: Word) -> list[Word]:
        """Return every rank's `value`, in the order of ranks, on rank 0, and an empty list on the others: large values
        stand once in the memory of a node, not once for each of its ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] | None = [None] * self.world if self.is_main else None
        with waiting():
            dist.gather_object(value, values, dst=0, group=self._words)
        return values or []

    def broadcast_object(self, value: Word, source: int = 0) -> Word:
        """Return rank `source`'s `value` on all ranks."""
        if self.world == 1:
            return value
        box = [value if self.rank == source else None]
        with waiting():
            dist.broadcast_object_list(box, src=source, group=self._words)
        return box[0]  # type: ignore[return-value]

    def gather_problems(self, problem: str | None) -> list[str]:
        """Return on all ranks what went wrong on any: "rank 1: no space left on device"; empty where nothing did."""
        problems = self.gather_objects(problem)
        return [f"rank {rank}: {problem}" for rank, problem in enumerate(problems) if problem is not None]

    def any_true(self, flag: bool) -> bool:
        """Tell all ranks whether the flag is true on at least one of them."""
        return self._reduced_flag(flag, dist.ReduceOp.MAX)

    def all_true(self, flag: bool) -> bool:
        """Tell all ranks whether the flag is true on every one of them."""
        return self._reduced_flag(flag, dist.ReduceOp.MIN)

    def sum_tensor(self, value: Tensor) -> Tensor:
        """Return the sum of `value` over all ranks: a new tensor, same shape, dtype and device, without gradient."""
        total = value.detach().clone(memory_format=torch.contiguous_format)
        if self.world > 1:
            with waiting():
                dist.all_reduce(total, group=None if total.is_cuda else self._words)
        return total

    def mean_tensor(self, value: Tensor) -> Tensor:
        """Return the mean of a float `value` over all ranks: a new tensor, without gradient."""
        return self.sum_tensor(value) / self.world

    def group(self, ranks_per_group: int) -> RankGroup:
        """Return this rank's group of `ranks_per_group` neighbouring ranks; equal sizes share one group.

        Raises:
            AssertionError: the size does not divide the world.
        """
        assert self.world % ranks_per_group == 0, f"{self.world} ranks do not split into groups of {ranks_per_group}"
        if ranks_per_group not in self._groups:
            self._groups[ranks_per_group] = self._new_group(ranks_per_group)
        return self._groups[ranks_per_group]

    def together(self, action: Callable[[], Result]) -> Result:
        """Do `action` on every rank; return its result or raise on every rank, so that nobody waits for one that left.

        Raises:
            FailedElsewhere: it worked here and failed on a rank that the message names; that rank raises its own error.
        """
        failure: Exception | None = None
        try:
            result = action()
        except Exception as error:
            failure = error
        reasons = self.gather_problems(None if failure is None else f"{type(failure).__name__}: {failure}")
        statuses = self.gather_objects(getattr(failure, "exit_status", EXIT_BUG) if failure is not None else EXIT_DONE)
        if failure is not None:
            raise failure
        if reasons:
            raise FailedElsewhere("; ".join(reasons), max(statuses))
        return result

    def on_main(self, action: Callable[[], object]) -> None:
        """Do `action` on rank 0 alone, while the others wait; raise on every rank if it raises there."""
        self.together(lambda: action() if self.is_main else None)

    def _reduced_flag(self, flag: bool, operation: Any) -> bool:
        if self.world == 1:
            return bool(flag)
        box = torch.tensor(int(flag), dtype=torch.int32)
        with waiting():
            dist.all_reduce(box, op=operation, group=self._words)
        return bool(box.item())

    def _new_group(self, size: int) -> RankGroup:
        own = self.rank // size
        if size == 1:
            return RankGroup(1, own)
        members = [list(range(start, start + size)) for start in range(0, self.world, size)]
        # torch wants every rank to take part in the making of every group, also of those it is not in.
        process_groups: list[Any] = [
            dist.group.WORLD if size == self.world else dist.new_group(ranks, timeout=self._timeout)
            for ranks in members
        ]
        return RankGroup(size, own, process_groups[own])
