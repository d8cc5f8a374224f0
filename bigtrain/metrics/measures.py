"""Measures: from what was kept of generated and of real images, in the features of one extractor, to named figures.

`MEASURES` has one entry for each. Beside a distance stand two of one smaller size against one smaller reference, to be
held against each other: `..._same_size` for generated images and `..._real_against_real` for real ones (see `real`).
"""

from dataclasses import dataclass
from typing import Protocol

from bigtrain.metrics.collect import Collected, Keep
from bigtrain.metrics.features import Extractor
from bigtrain.metrics.frechet import frechet_distance
from bigtrain.metrics.kernel import kernel_distance
from bigtrain.metrics.names import FRECHET, KERNEL, PRDC, SCORE
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
    real: RealStatistics
    extractor: Extractor
    settings: EvaluationSettings


class Measure(Protocol):
    """What MEASURES holds."""

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

    def keep(self, settings: EvaluationSettings) -> Keep:
        """Moments."""
        return Keep(moments=True)

    def main_figure(self, extractor: Extractor) -> str:
        """Return its name in these features."""
        return extractor.figure_prefix

    def real_against_real(self, real: RealStatistics, extractor: Extractor, settings: EvaluationSettings) -> Figures:
        """Return the distance of the two parts."""
        distance = frechet_distance(real.sample.moments, real.rest.moments)
        return {f"{extractor.figure_prefix}_real_against_real": distance}

    def figures(self, subject: Subject, own: Figures) -> Figures:
        """Return the distance to all real images, and that of as many as the sample has to the rest."""
        name, generated, real = subject.extractor.figure_prefix, subject.generated, subject.real
        return {
            name: frechet_distance(generated.first(generated.ends[-1]), real.whole.moments),
            f"{name}_same_size": frechet_distance(generated.first(real.num_sample), real.rest.moments),
            **own,
        }


@MEASURES.add(KERNEL)
class KernelMeasure:
    """Kernel distance."""

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
        real_ND = subject.real.of_each_part(settings.max_images)
        distance = kernel_distance(subject.generated.feature_ND[: settings.max_images], real_ND, settings)
        return {name: distance.mean, f"{name}_std": distance.std, **own}


@MEASURES.add(SCORE)
class ScoreMeasure:
    """Inception score."""

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
        real_ND = subject.real.first(settings.max_images).to(device)
        generated_ND = subject.generated.feature_ND[: settings.max_images].to(device)
        known = subject.real.memo
        if PRDC not in known:
            known[PRDC] = radii(real_ND, (settings.neighbours, settings.density_neighbours))
        found = prdc(generated_ND, real_ND, settings, known[PRDC])
        return {name: getattr(found, name) for name in PRDC_FIGURES}
