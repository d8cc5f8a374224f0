"""Modified orthogonal regularisation (Brock et al. 2019, BigGAN, arXiv:1809.11096, eq. 3) of a player's weights."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from bigtrain.games.base import Loss
from bigtrain.games.penalties.base import Cast, Penalty
from bigtrain.games.scene import Drawn, Scene
from bigtrain.losses.orthogonal import orthogonal_penalty
from bigtrain.networks.layers.equalised import EqualisedEmbedding
from bigtrain.recipe.settings import Settings


class OrthogonalSettings(Settings):
    """Modified orthogonal regularisation: rows of the generator's weights are drawn to be orthogonal."""

    weight: float = Field(1e-4, gt=0)
    """Beta of the paper; the released PyTorch code's strength s is a weight of s / 2."""

    def build(self, cast: Cast) -> "Orthogonal":
        """Return the penalty."""
        return Orthogonal(self)


class Orthogonal(Penalty):
    """weight times the squared inner products of different rows, over all weights but those of embeddings."""

    name: ClassVar[str] = "orthogonal"
    player: ClassVar[str] = "generator"
    reads: ClassVar[Literal["same", "none"]] = "none"

    def __init__(self, settings: OrthogonalSettings) -> None:
        super().__init__()
        self.settings = settings

    def term(self, scene: Scene, drawn: Drawn) -> Loss:
        """Return the penalty."""
        value = orthogonal_penalty(regularised_weights(scene.networks["generator"]))
        return Loss(self.settings.weight * value, {self.name: value.detach()})


def regularised_weights(network: nn.Module) -> list[Tensor]:
    """Return the weights of layers, without those of embeddings and without learned constants."""
    layers = [module for module in network.modules() if not isinstance(module, (nn.Embedding, EqualisedEmbedding))]
    weights = [getattr(layer, "weight", None) for layer in layers]
    return [weight for weight in weights if isinstance(weight, nn.Parameter) and weight.dim() >= 2]
