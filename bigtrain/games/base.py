"""What a game is: networks, players, turns and losses. Pure maths: no ranks, no files, no clocks, no logging."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn

from bigtrain.data.batch import Batch
from bigtrain.draws import Draws
from bigtrain.recipe.image import ImageSpec, SampleKind
from bigtrain.recipe.progress import Progress
from bigtrain.recipe.registry import Registry
from bigtrain.recipe.settings import Settings
from bigtrain.sampling.truncation import Truncation

GAMES = Registry("game")


class GameSettings(Settings):
    """The settings of a game, which say what it can be trained on."""

    takes: ClassVar[SampleKind] = "image"
    """What a sample is; a run on others ends before its networks are built."""
    takes_unlabelled: ClassVar[bool] = False
    """Whether the game learns from images without a label (-1) among labelled ones; others are not given such data."""


@dataclass(frozen=True)
class Turn:
    """One optimizer step of one player.

    `loss` names which of the game's losses it minimises; `reads` says whether it takes the next real batch, reuses this
    step's last one, or needs none. A turn that `differentiates_twice` (its loss holds a gradient) is not compiled; one
    of `full_precision` (its loss measures slopes) is played in float32 whatever the precision of the run.
    """

    player: str
    loss: str = "main"
    reads: Literal["next", "same", "none"] = "none"
    differentiates_twice: bool = False
    full_precision: bool = False

    @property
    def name(self) -> str:
        """The kind of turn, as counters and the log name it."""
        return f"{self.player}/{self.loss}"


@dataclass(frozen=True)
class Loss:
    """One scalar to minimise and named detached scalars to report."""

    value: Tensor
    stats: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class DataFacts:
    """What a game may know of the data and of its use: the image shape, how many images of each class an epoch of
    training has (None: no labels), and how many images a turn has over all ranks."""

    image: ImageSpec
    label_counts: tuple[int, ...] | None = None
    batch_images: int = 1


@dataclass(frozen=True)
class SampleSettings:
    """How to draw samples: a truncation and, for conditional networks, int64 labels [N] (None: the game's own label
    law)."""

    truncation: Truncation
    label_N: Tensor | None = None


LossFunction = Callable[..., tuple[Tensor, dict[str, Tensor]]]
"""What may be compiled: tensors and networks in, a scalar and named scalars out, everything random drawn before."""


class Game(Protocol):
    """The seam between the trainer and a method; the number of networks never reaches the trainer."""

    networks: dict[str, nn.Module]
    players: dict[str, tuple[str, ...]]
    averaged: tuple[str, ...]
    state: nn.Module
    main_shares: Mapping[str, float]
    """Player -> which part of its turns has the loss `main`; below 1 with lazy penalties, whose turns come on top."""

    def turns(self, progress: Progress) -> tuple[Turn, ...]:
        """Return the turns of this step, in order."""
        ...

    def loss(
        self, turn: Turn, networks: Mapping[str, nn.Module], batch: Batch | None, draws: Draws, progress: Progress
    ) -> Loss:
        """Return the loss of a turn over one micro-batch."""
        ...

    def after_turn(self, turn: Turn, stats: Mapping[str, Tensor]) -> None:
        """Update `state` from statistics averaged over micro-batches and ranks; the only place where it changes.

        Statistics are scalars on the device, and nothing may be asked of the host. What a skipped turn changed here is
        put back by the engine.
        """
        ...

    def compile(self, compiler: Callable[[LossFunction], LossFunction]) -> None:
        """Replace the loss functions of turns that do not differentiate twice by what `compiler` makes of them."""
        ...

    def judge(self, networks: Mapping[str, nn.Module], batch: Batch) -> Tensor:
        """Return the discriminator's logits [N, ...] for real images, for audits of overfitting."""
        ...

    def sample(self, networks: Mapping[str, nn.Module], draws: Draws, settings: SampleSettings) -> Tensor:
        """Return images [N, C, H, W], float32 in [-1, 1]."""
        ...
