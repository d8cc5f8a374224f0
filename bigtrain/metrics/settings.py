"""Settings of the periodic evaluation; importing this file fills the table of extractors."""

from pydantic import Field

from bigtrain.metrics.extractors.classifier import ClassifierSettings
from bigtrain.metrics.extractors.inception import InceptionSettings
from bigtrain.metrics.extractors.random_features import RandomSettings
from bigtrain.metrics.features import EXTRACTORS
from bigtrain.metrics.kernel import KernelSettings
from bigtrain.recipe.settings import PositiveCount, Settings

__all__ = ["ClassifierSettings", "EvaluationSettings", "InceptionSettings", "RandomSettings"]

FEWEST_IMAGES = 4  # a covariance needs 2, and the real images are judged as two parts


class EvaluationSettings(Settings):
    """When generated images are compared with the real ones, and how."""

    every_images: PositiveCount
    """Images seen between two evaluations."""
    extractor: EXTRACTORS.union() = ClassifierSettings()  # type: ignore[valid-type]
    """In whose features images are compared."""
    num_images: PositiveCount = Field(default=50_000, ge=FEWEST_IMAGES)
    """Generated images; all real ones of the training part are compared with them."""
    batch_images: PositiveCount = 64
    """Images of every batch that is generated or extracted: one shape for all, the last one is filled up."""
    standing_batches: PositiveCount = 16
    """Batches that BatchNorm's statistics are recomputed from before generating."""
    standing_images: PositiveCount = 256
    """Images of each of these batches."""
    kernel: KernelSettings = KernelSettings()
    """Subsets of the kernel distance."""
    seed: int = 0
    """Seed of the generated images and of the division of the real ones in two parts."""
