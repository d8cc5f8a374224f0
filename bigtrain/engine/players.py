"""A player owns one optimizer's networks, and its forward pass plays a whole micro-batch of a turn.

The turn is what gets wrapped by a data-parallel engine, not the network: penalties may then differentiate through the
raw networks, and every turn is one wrapped forward pass and one backward pass.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from bigtrain.data.batch import Batch
from bigtrain.draws import Draws
from bigtrain.engine.precision import autocast
from bigtrain.games.base import Game, Turn
from bigtrain.recipe.progress import Progress


class Player(nn.Module):
    """Owns networks; sees the other players' without registering them, so that no wrapper touches their parameters."""

    game: Game
    others: Mapping[str, nn.Module]

    def __init__(self, name: str, game: Game, precision: str = "fp32") -> None:
        """Own a player's networks.

        Args:
            name: of the player.
            game: has its networks and losses.
            precision: number format of its forward passes, but for turns of full precision.
        """
        super().__init__()
        self.name, self.precision = name, precision
        self.own = nn.ModuleDict({network: game.networks[network] for network in game.players[name]})
        others = {network: module for network, module in game.networks.items() if network not in self.own}
        # Past nn.Module, which would register the other networks as parts of this one.
        object.__setattr__(self, "game", game)
        object.__setattr__(self, "others", others)

    def forward(
        self, turn: Turn, batch: Batch | None, draws: Draws, progress: Progress
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the game's loss of this turn on the raw networks, as a tuple: wrappers look for tensors in it.

        Autocast is entered here, because a wrapper may leave one that was entered around it (DeepSpeed does).
        """
        networks: Mapping[str, nn.Module] = {**dict(self.own.named_children()), **self.others}
        # A gradient through a bf16 forward is percents off, and its gradient more.
        precision = "fp32" if turn.full_precision else self.precision
        with autocast(precision, next(self.parameters()).device):
            loss = self.game.loss(turn, networks, batch, draws, progress)
        return loss.value, loss.stats

    def take_the_floor(self) -> None:
        """Let gradients reach this player's networks and no others."""
        for network in self.own.values():
            network.requires_grad_(True)
        for network in self.others.values():
            network.requires_grad_(False)
