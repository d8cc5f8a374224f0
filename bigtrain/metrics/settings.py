"""Settings of an evaluation."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from bigtrain.metrics.classes import PerClassSettings
from bigtrain.metrics.extractors.classifier import ClassifierSettings
from bigtrain.metrics.features import EXTRACTORS
from bigtrain.metrics.infinity import InfinitySettings
from bigtrain.metrics.kernel import KernelSettings
from bigtrain.metrics.names import FRECHET, KERNEL, METRICS, PRDC, Metric, metric_name
from bigtrain.metrics.prdc import PrdcSettings
from bigtrain.metrics.score import ScoreSettings
from bigtrain.recipe.errors import RecipeError
from bigtrain.recipe.settings import BatchCount, PositiveCount, Settings

FEWEST_IMAGES = 4  # a covariance needs 2, and the real images are judged as two parts


def _known(name: str) -> str:
    """Return the name of a metric.

    Raises:
        ValueError: there is none of this name; the sentence names the nearest one.
    """
    try:
        METRICS.get(name)
    except RecipeError as error:
        raise ValueError(str(error)) from None
    return name


MetricName = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": METRICS.names()})]


class EvaluationSettings(Settings):
    """When generated images are compared with the real ones, and how."""

    every_images: PositiveCount
    """Images seen between two evaluations."""
    extractor: EXTRACTORS.union() = ClassifierSettings()  # type: ignore[valid-type]
    """In whose features images are compared."""
    metrics: tuple[MetricName, ...] = ()
    """What is measured, such as [fid, kid, is, prdc_inception], the main figure first; empty: the Frechet and the
    kernel distance in the features of `extractor`."""
    extractors: tuple[EXTRACTORS.union(), ...] = ()  # type: ignore[valid-type]
    """Settings of further extractors that `metrics` read; those that are not named here have their defaults."""
    num_images: PositiveCount = Field(default=50_000, ge=FEWEST_IMAGES)
    """Generated images; all real ones of the training part are compared with them."""
    batch_images: BatchCount = 64
    """Images of every batch that is generated or extracted: one shape for all, the last one is filled up."""
    standing_batches: PositiveCount = 16
    """Batches that BatchNorm's statistics are recomputed from before generating."""
    standing_images: BatchCount = 256
    """Images of each of these batches."""
    kernel: KernelSettings = KernelSettings()
    """Subsets of the kernel distance."""
    score: ScoreSettings = ScoreSettings()
    """Splits of the inception score."""
    prdc: PrdcSettings = PrdcSettings()
    """Neighbourhoods of precision, recall, density and coverage."""
    per_class: PerClassSettings = PerClassSettings()
    """Images that Frechet distances within classes are taken over."""
    infinity: InfinitySettings = InfinitySettings()
    """Numbers of images from which the Frechet distance of infinitely many is extrapolated."""
    covariance_divisor: Literal["n-1", "n"] = "n-1"
    """What covariances are divided by: the number of images less one, as numpy.cov and most tools have it, or their
    number, as StyleGAN's code has it."""
    seed: int = 0
    """Seed of the generated images and of the division of the real ones in two parts."""

    @property
    def measured(self) -> tuple[Metric, ...]:
        """The metrics, the main one first."""
        kind: str = self.extractor.kind
        names = self.metrics or (metric_name(FRECHET, kind), metric_name(KERNEL, kind))
        return tuple(METRICS.get(name) for name in names)

    @property
    def extractor_settings(self) -> dict[str, Any]:
        """Settings of the extractors that are read, by kind, in the order of the metrics."""
        given = {each.kind: each for each in (*self.extractors, self.extractor)}
        kinds = dict.fromkeys(metric.extractor for metric in self.measured)
        return {kind: given.get(kind) or EXTRACTORS.get(kind)() for kind in kinds}

    @model_validator(mode="after")
    def _check(self) -> "EvaluationSettings":
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        if len(set(self.metrics)) < len(self.metrics):
            yield f"metrics: {list(self.metrics)} names one twice; leave it out"
        kinds = [each.kind for each in (self.extractor, *self.extractors)]
        for kind in sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            yield f"extractors: {kind} has settings twice; leave one of them out"
        if sum(metric.measure == PRDC for metric in self.measured) > 1:
            yield (
                f"metrics: {list(self.metrics)} measures precision and recall in the features of two extractors, and "
                "their figures have one name; choose one"
            )
