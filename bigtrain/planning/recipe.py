"""What planning reads of a recipe, which belongs to training, a room of the same floor, and is handed in."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol


class Dealing(Protocol):
    """How a batch may be dealt to processes."""

    def layouts(self) -> Iterator[tuple[int, int]]:
        """Yield every (processes, micro-batch) that fits."""
        ...


class Planned(Protocol):
    """A `bigtrain.training.schema.Recipe`, as far as it is read here."""

    name: str
    seed: int
    total_images: int
    batch_images: int
    batchnorm_images: int | None
    minibatch_std_images: int | None
    precision: str
    tf32: bool
    compile: str
    engine: str
    image: Any
    game: Any
    ema: Sequence[Any]
    data: Any

    @property
    def run_folder(self) -> Path:
        """Where the run writes."""
        ...

    @property
    def dealing(self) -> Dealing:
        """What the batch has to be dealt by."""
        ...

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the game."""
        ...
