"""What a penalty is to a game: whose turn it belongs to, how often it is due, what it draws and what it adds."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from bigtrain.draws import Draws
from bigtrain.games.base import DataFacts, Loss
from bigtrain.games.scene import Drawn, Scene
from bigtrain.recipe.settings import Settings


class LazySettings(Settings):
    """What all penalties share that need not be paid in every step."""

    every: int = Field(1, ge=1)
    """Steps from one time to the next. 1: a term of every main turn. More: a turn of its own, with the penalty times
    this number, and the player's Adam corrected for the additional steps (lazy regularisation: Karras et al. 2020,
    arXiv:1912.04958, appendix B)."""


@dataclass(frozen=True)
class Cast:
    """Who plays: what a penalty may look at when it is built, to say what it cannot work with."""

    generator: nn.Module
    discriminator: nn.Module
    facts: DataFacts


class Penalty(nn.Module):
    """Something a player pays besides its objective. Buffers survive a restart; only `observe` changes them."""

    name: ClassVar[str]
    player: ClassVar[str]
    reads: ClassVar[Literal["same", "none"]]
    """What a turn of its own reads: this step's last real batch, or nothing."""

    def __init__(self, every: int = 1) -> None:
        super().__init__()
        self.every = every

    @property
    def differentiates_twice(self) -> bool:
        """Whether the penalty holds a gradient."""
        return False

    @property
    def full_precision(self) -> bool:
        """Whether the penalty measures slopes, which a forward pass in fewer bits gets wrong."""
        return self.differentiates_twice

    def draw(self, draws: Draws) -> Drawn:
        """Return what is random about the penalty for the images of a micro-batch."""
        return {}

    @abstractmethod
    def term(self, scene: Scene, drawn: Drawn) -> Loss:
        """Return the weighted penalty of a micro-batch and its figures."""

    def observe(self, stats: Mapping[str, Tensor]) -> None:
        """See the statistics of a turn of this penalty's player in which it was due."""
