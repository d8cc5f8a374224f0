"""What metrics ask of the processes of a run, handed in from outside: this room knows no process group."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from torch import Tensor

Result = TypeVar("Result")


class Ranks(Protocol):
    """The processes of a run; every method is called by all of them, in the same order."""

    @property
    def rank(self) -> int:
        """This process, from 0."""
        ...

    @property
    def world(self) -> int:
        """How many processes there are."""
        ...

    def sum_tensor(self, value: Tensor, /) -> Tensor:
        """Return the sum over all ranks."""
        ...

    def gather_objects(self, value: Any, /) -> list[Any]:
        """Return every rank's value, in the order of ranks, on all ranks."""
        ...

    def gather_to_main(self, value: Any, /) -> list[Any]:
        """Return every rank's value, in the order of ranks, on rank 0, and nothing on the others."""
        ...

    def broadcast_object(self, value: Any, /) -> Any:
        """Return rank 0's value on all ranks."""
        ...

    def together(self, action: Callable[[], Any], /) -> Any:
        """Do `action` on every rank; return its result, or raise on every rank when it failed on any."""
        ...


class OneProcess:
    """A run of one process."""

    rank = 0
    world = 1

    def sum_tensor(self, value: Tensor, /) -> Tensor:
        """Return the value."""
        return value

    def gather_objects(self, value: Any, /) -> list[Any]:
        """Return the value, alone."""
        return [value]

    def gather_to_main(self, value: Any, /) -> list[Any]:
        """Return the value, alone."""
        return [value]

    def broadcast_object(self, value: Any, /) -> Any:
        """Return the value."""
        return value

    def together(self, action: Callable[[], Any], /) -> Any:
        """Do `action`."""
        return action()


ONE_PROCESS = OneProcess()


def from_main(ranks: Ranks, action: Callable[[], Result]) -> Result:
    """Do `action` on rank 0 alone; return its result on every rank, or raise on every rank."""
    result = ranks.together(lambda: action() if ranks.rank == 0 else None)
    return cast(Result, ranks.broadcast_object(result))
