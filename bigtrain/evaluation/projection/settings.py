"""Settings of a projection; the defaults for styles are those of Karras et al. 2020 (arXiv:1912.04958, appendix D)."""

from typing import Literal

from pydantic import Field

from bigtrain.recipe.settings import BatchCount, Count, PositiveCount, Settings, Share

Space = Literal["w", "w+", "z"]


class ProjectionSettings(Settings):
    """How codes are looked for."""

    space: Space | None = None
    """One style for all layers, one for each layer, or a latent; None: w for generators with styles, z for others."""
    steps: PositiveCount = 1000
    """Steps of Adam."""
    learning_rate: float = Field(0.1, gt=0)
    """Adam's, at its highest."""
    rise: Share = 0.05
    """Share of the steps in which the learning rate rises from 0, by a straight line."""
    fall: Share = 0.25
    """Share of the steps in which it falls to 0 at the end, by a cosine."""
    wander: float = Field(0.05, ge=0)
    """Noise that is added to codes at first, in standard deviations of codes; it falls to 0 as a square."""
    wander_share: Share = 0.75
    """Share of the steps in which there is such noise."""
    average_samples: PositiveCount = 10_000
    """Latents whose styles' mean is where styles start, and whose standard deviation is theirs."""
    noise_maps: bool = True
    """Look for the noise of a generator with styles too, instead of keeping its constant one."""
    noise_weight: float = Field(1e5, ge=0)
    """Weight of the noise maps' autocorrelation."""
    pixel_weight: float = Field(1.0, ge=0)
    """Weight of the mean squared difference of pixels, which are -1..1, beside the distance of features."""
    length_weight: float = Field(0.01, ge=0)
    """Of latents: weight of (mean square - 1)^2, which keeps them about as long as those of training."""
    start_images: PositiveCount = 320
    """Of latents: images among which starts are chosen, at least 4 of each class."""
    starts: PositiveCount = 4
    """Of latents: searches for each image, from the best image of as many classes; the best result counts."""
    batch_images: BatchCount = 16
    """Codes that are looked for at once."""
    resize: Literal["lanczos", "bicubic", "box"] = "lanczos"
    """Filter for images of another size."""
    seed: Count = 0
