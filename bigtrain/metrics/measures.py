"""Measures: from what was kept of generated and of real images, in the features of one extractor, to named figures.

`MEASURES` has one entry for each. Beside a distance stand two of one smaller size against one smaller reference, to be
held against each other: `..._same_size` for generated images and `..._real_against_real` for real ones (see `real`).
"""

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from bigtrain.metrics.classes import distances_within
from bigtrain.metrics.collect import Collected, FeatureSet, Keep
from bigtrain.metrics.features import Extractor
from bigtrain.metrics.frechet import Law, frechet_distance, frechet_of_features
from bigtrain.metrics.infinity import extrapolated
from bigtrain.metrics.kernel import kernel_distance
from bigtrain.metrics.names import FRECHET, INFINITY, KERNEL, PER_CLASS, PRDC, SCORE
from bigtrain.metrics.prdc import prdc, radii
from bigtrain.metrics.real import RealStatistics
from bigtrain.metrics.settings import EvaluationSettings
from bigtrain.recipe.registry import Registry

Figures = dict[str, float]
PRDC_FIGURES = ("precision", "recall", "density", "coverage")
MEASURES = Registry("measure")


@dataclass(frozen=True)
class Subject:
    """All that a measure looks at."""

    generated: Collected
    law: Law | None
    """Mean and covariance that a file gives, and that distances are taken to; None: to the real images."""
    real: RealStatistics | None
    """None: nothing else is known of the real images."""
    extractor: Extractor
    settings: EvaluationSettings
    details: dict[str, Any] = field(default_factory=dict)
    """Where a measure leaves what is too long for figures, as JSON values."""

    @property
    def images(self) -> RealStatistics:
        """The real images, for measures that need them."""
        assert self.real is not None
        return self.real

    def distance_of(self, num_images: int) -> float:
        """Return the Frechet distance of the first generated images to all real ones."""
        divisor, some = self.settings.covariance_divisor, self.some(num_images)
        if self.law is not None:
            return frechet_distance(some.moments.law(divisor), self.law)
        return distance_between(some, self.images.whole, divisor)

    def some(self, num_images: int) -> FeatureSet:
        """Return the first generated images."""
        return FeatureSet(self.generated.first(num_images), self.generated.feature_ND[:num_images])


def distance_between(a: FeatureSet, b: FeatureSet, divisor: str) -> float:
    """Return the Frechet distance of two sets: by their features where all of them were kept and are fewer than
    dimensions, which takes a fraction of the time, else by their moments."""
    counts, dims = (a.moments.count, b.moments.count), a.feature_ND.shape[1]
    if (len(a.feature_ND), len(b.feature_ND)) == counts and max(counts) <= dims:
        return frechet_of_features(a.feature_ND, b.feature_ND, divisor)
    return frechet_distance(a.moments.law(divisor), b.moments.law(divisor))


class Measure(Protocol):
    """What MEASURES holds."""

    needs_images: bool
    """Whether more has to be known of the real images than mean and covariance."""

    def keep(self, settings: EvaluationSettings) -> Keep:
        """Return what is to be kept of the generated images and, but for logits, of the real ones."""
        ...

    def main_figure(self, extractor: Extractor) -> str:
        """Return the name of the first figure."""
        ...

    def real_against_real(self, real: RealStatistics, extractor: Extractor, settings: EvaluationSettings) -> Figures:
        """Return what does not depend on generated images; computed once and kept with the real statistics."""
        ...

    def figures(self, subject: Subject, own: Figures) -> Figures:
        """Return the figures of generated images, the main one first; `own` is what `real_against_real` returned."""
        ...


@MEASURES.add(FRECHET)
class FrechetMeasure:
    """Frechet distance."""

    needs_images = False

    def keep(self, settings: EvaluationSettings) -> Keep:
        """Moments."""
        return Keep(moments=True)

    def main_figure(self, extractor: Extractor) -> str:
        """Return its name in these features."""
        return extractor.figure_prefix

    def real_against_real(self, real: RealStatistics, extractor: Extractor, settings: EvaluationSettings) -> Figures:
        """Return the distance of the two parts."""
        distance = distance_between(real.sample, real.rest, settings.covariance_divisor)
        return {f"{extractor.figure_prefix}_real_against_real": distance}

    def figures(self, subject: Subject, own: Figures) -> Figures:
        """Return the distance to all real images, and that of as many as the sample has to the rest."""
        name, generated, real = subject.extractor.figure_prefix, subject.generated, subject.real
        figures = {name: subject.distance_of(generated.ends[-1])}
        if real is not None:
            same, divisor = subject.some(real.num_sample), subject.settings.covariance_divisor
            figures[f"{name}_same_size"] = distance_between(same, real.rest, divisor)
        return figures | own


@MEASURES.add(KERNEL)
class KernelMeasure:
    """Kernel distance."""

    needs_images = True

    def keep(self, settings: EvaluationSettings) -> Keep:
        """Features of as many images as subsets are drawn from."""
        return Keep(features=settings.kernel.max_images)

    def main_figure(self, extractor: Extractor) -> str:
        """Return its name in these features."""
        return extractor.kernel_prefix

    def real_against_real(self, real: RealStatistics, extractor: Extractor, settings: EvaluationSettings) -> Figures:
        """Return the distance of the two parts."""
        most = settings.kernel.max_images
        distance = kernel_distance(real.sample.feature_ND[:most], real.rest.feature_ND[:most], settings.kernel)
        return {f"{extractor.kernel_prefix}_real_against_real": distance.mean}

    def figures(self, subject: Subject, own: Figures) -> Figures:
        """Return mean and standard deviation over the subsets."""
        name, settings = subject.extractor.kernel_prefix, subject.settings.kernel
        real_ND = subject.images.of_each_part(settings.max_images)
        distance = kernel_distance(subject.generated.feature_ND[: settings.max_images], real_ND, settings)
        return {name: distance.mean, f"{name}_std": distance.std, **own}


@MEASURES.add(SCORE)
class ScoreMeasure:
    """Inception score."""

    needs_images = False

    def keep(self, settings: EvaluationSettings) -> Keep:
        """Sums of logits."""
        return Keep(score=settings.score)

    def main_figure(self, extractor: Extractor) -> str:
        """Return its name in these features."""
        return extractor.score_prefix

    def real_against_real(self, real: RealStatistics, extractor: Extractor, settings: EvaluationSettings) -> Figures:
        """Return nothing: the score looks at generated images alone."""
        return {}

    def figures(self, subject: Subject, own: Figures) -> Figures:
        """Return mean and standard deviation over the splits."""
        name, score = subject.extractor.score_prefix, subject.generated.score
        assert score is not None
        return {name: score.mean, f"{name}_std": score.std}


@MEASURES.add(PRDC)
class PrdcMeasure:
    """Precision, recall, density and coverage."""

    needs_images = True

    def keep(self, settings: EvaluationSettings) -> Keep:
        """Features of the first images."""
        return Keep(features=settings.prdc.max_images)

    def main_figure(self, extractor: Extractor) -> str:
        """Return its name in these features."""
        return PRDC_FIGURES[0]

    def real_against_real(self, real: RealStatistics, extractor: Extractor, settings: EvaluationSettings) -> Figures:
        """Return nothing: balls of real images around themselves say little."""
        return {}

    def figures(self, subject: Subject, own: Figures) -> Figures:
        """Return the four figures, computed where the extractor is."""
        settings, device = subject.settings.prdc, subject.extractor.device
        real_ND = subject.images.first(settings.max_images).to(device)
        generated_ND = subject.generated.feature_ND[: settings.max_images].to(device)
        known = subject.images.memo
        if PRDC not in known:
            known[PRDC] = radii(real_ND, (settings.neighbours, settings.density_neighbours))
        found = prdc(generated_ND, real_ND, settings, known[PRDC])
        return {name: getattr(found, name) for name in PRDC_FIGURES}


@MEASURES.add(PER_CLASS)
class PerClassMeasure:
    """Frechet distance within every class."""

    needs_images = True

    def keep(self, settings: EvaluationSettings) -> Keep:
        """Features of the first images of every class."""
        return Keep(class_images=settings.per_class.max_images)

    def main_figure(self, extractor: Extractor) -> str:
        """Return its name in these features."""
        return f"{extractor.figure_prefix}_{PER_CLASS}"

    def real_against_real(self, real: RealStatistics, extractor: Extractor, settings: EvaluationSettings) -> Figures:
        """Return nothing."""
        return {}

    def figures(self, subject: Subject, own: Figures) -> Figures:
        """Return mean and maximum over classes; the distance of each, and how many images it had, are details."""
        name, generated, real = self.main_figure(subject.extractor), subject.generated.classes, subject.images.classes
        assert generated is not None
        assert real is not None
        distances = distances_within(generated, real, subject.settings.covariance_divisor)
        subject.details[name] = {
            str(label): {
                "distance": distance, "num_generated": len(generated.of(label)), "num_real": len(real.of(label))
            }
            for label, distance in distances.items()
        }  # fmt: skip
        values = list(distances.values()) or [math.nan]
        return {name: sum(values) / len(values), f"{name}_worst": max(values)}


@MEASURES.add(INFINITY)
class InfinityMeasure:
    """Frechet distance of infinitely many generated images."""

    needs_images = False

    def keep(self, settings: EvaluationSettings) -> Keep:
        """Moments of growing numbers of images."""
        return Keep(moments=True, cuts=frozenset(settings.infinity.cuts(settings.num_images)))

    def main_figure(self, extractor: Extractor) -> str:
        """Return its name in these features."""
        return f"{extractor.figure_prefix}_{INFINITY}"

    def real_against_real(self, real: RealStatistics, extractor: Extractor, settings: EvaluationSettings) -> Figures:
        """Return nothing."""
        return {}

    def figures(self, subject: Subject, own: Figures) -> Figures:
        """Return the extrapolated distance; the distance by number of images is a detail."""
        name, settings = self.main_figure(subject.extractor), subject.settings
        cuts = settings.infinity.cuts(settings.num_images)
        distances = [subject.distance_of(cut) for cut in cuts]
        subject.details[name] = [list(pair) for pair in zip(cuts, distances, strict=True)]
        return {name: extrapolated(cuts, distances)}
