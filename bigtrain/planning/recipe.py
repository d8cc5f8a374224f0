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

    @property
    def name(self) -> str:
        """Of the run."""
        ...

    @property
    def seed(self) -> int:
        """Of every draw."""
        ...

    @property
    def total_images(self) -> int:
        """Images of the run."""
        ...

    @property
    def batch_images(self) -> int:
        """Images of a step, over all processes."""
        ...

    @property
    def batchnorm_images(self) -> int | None:
        """Images that BatchNorm's statistics run over; None: the networks have none."""
        ...

    @property
    def minibatch_std_images(self) -> int | None:
        """Images that a minibatch standard deviation compares; None: the networks have none."""
        ...

    @property
    def precision(self) -> str:
        """fp32, bf16 or fp16."""
        ...

    @property
    def tf32(self) -> bool:
        """Whether float32 products may round to tf32."""
        ...

    @property
    def compile(self) -> str:
        """How loss functions are compiled."""
        ...

    @property
    def engine(self) -> str:
        """plain, ddp, zero1 or zero2."""
        ...

    @property
    def image(self) -> Any:
        """What the images are."""
        ...

    @property
    def game(self) -> Any:
        """The method's settings."""
        ...

    @property
    def ema(self) -> Sequence[Any]:
        """Moving averages."""
        ...

    @property
    def data(self) -> Any:
        """What is trained on."""
        ...

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
