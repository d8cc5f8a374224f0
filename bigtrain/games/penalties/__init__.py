"""Penalties of the noise-to-image game: one family a file, and here the list that a recipe chooses from."""

from collections.abc import Iterator

from bigtrain.games.penalties.base import Cast, Penalty
from bigtrain.games.penalties.gradients import GradientPenaltySettings, R1Settings, R2Settings
from bigtrain.games.penalties.logits import ConsistencySettings, LeCamSettings
from bigtrain.games.penalties.orthogonal import OrthogonalSettings
from bigtrain.games.penalties.path_length import PathLengthSettings
from bigtrain.recipe.settings import Settings

__all__ = ["Cast", "PenaltiesSettings", "Penalty"]


class PenaltiesSettings(Settings):
    """What the players pay besides their objective; None: not at all."""

    r1: R1Settings | None = None
    """Squared gradient at real images."""
    r2: R2Settings | None = None
    """Squared gradient at generated images."""
    gradient_penalty: GradientPenaltySettings | None = None
    """Gradient norm of 1 between real and generated images (WGAN-GP)."""
    lecam: LeCamSettings | None = None
    """Logits drawn to the other side's mean."""
    consistency: ConsistencySettings | None = None
    """Logits unchanged by augmentation (bCR)."""
    path_length: PathLengthSettings | None = None
    """Equal steps in style space change images equally (StyleGAN2)."""
    orthogonal: OrthogonalSettings | None = None
    """Orthogonal rows of the generator's weights (BigGAN)."""

    def build(self, cast: Cast) -> Iterator[Penalty]:
        """Yield the penalties that are wanted.

        Raises:
            RecipeError: one does not fit the networks.
        """
        for name in type(self).model_fields:
            settings = getattr(self, name)
            if settings is not None:
                yield settings.build(cast)
