"""What the metrics of an evaluation demand of the real images, checked before any image is made."""

from collections.abc import Mapping

from bigtrain.metrics.features import Extractor, RealImages
from bigtrain.metrics.measures import MEASURES
from bigtrain.metrics.names import PER_CLASS, metric_name
from bigtrain.metrics.reference import RealMoments
from bigtrain.metrics.settings import EvaluationSettings
from bigtrain.recipe.errors import DataError, UsageError


def require(real: RealImages | RealMoments, settings: EvaluationSettings, extractors: Mapping[str, Extractor]) -> None:
    """Refuse what cannot be measured.

    Raises:
        UsageError: a metric needs more than is known of the real images.
        DataError: moments are of another number of features.
    """
    for metric in settings.measured:
        name = metric_name(metric.measure, metric.extractor)
        if isinstance(real, RealMoments):
            if MEASURES.get(metric.measure).needs_images:
                raise UsageError(
                    f"evaluate: {name} needs the real images, and of these only mean and covariance are known; name "
                    "the images themselves, or ask for fid alone"
                )
            extractor = extractors[metric.extractor]
            if extractor.dims != len(real.mean_D):
                raise DataError(
                    f"evaluate: the real statistics have {len(real.mean_D)} dimensions and {extractor.name} has "
                    f"{extractor.dims} features; name statistics in these features"
                )
        elif metric.measure == PER_CLASS and real.image.num_classes < 1:
            raise UsageError(f"evaluate: {name} compares classes, and the real images have no labels; leave it out")
