"""The names that metrics have in recipes and on command lines: a measure in the features of an extractor.

`METRICS` has `fd_NAME` (Frechet distance), `kd_NAME` (kernel distance), `prdc_NAME` (precision, recall, density,
coverage), `fd_NAME_per_class` and `fd_NAME_infinity` for every extractor, and `is_NAME` (inception score) for those
that tell classes apart. Inception's are called
`fid`, `kid` and `is`.
"""

from dataclasses import dataclass

from bigtrain.metrics.extractors.classifier import ClassifierSettings
from bigtrain.metrics.extractors.dinov2 import Dinov2Settings
from bigtrain.metrics.extractors.inception import InceptionSettings
from bigtrain.metrics.extractors.random_features import RandomSettings
from bigtrain.metrics.extractors.vgg16 import Vgg16Settings
from bigtrain.metrics.features import EXTRACTORS
from bigtrain.recipe.registry import Registry

FRECHET, KERNEL, SCORE, PRDC, PER_CLASS, INFINITY = "frechet", "kernel", "score", "prdc", "per_class", "infinity"
ALL = (
    ClassifierSettings,
    Dinov2Settings,
    InceptionSettings,
    RandomSettings,
    Vgg16Settings,
)  # importing them fills the table
WITH_LOGITS = (ClassifierSettings, InceptionSettings)
OWN_NAMES = {"fd_inception": "fid", "kd_inception": "kid", "is_inception": "is"}
PREFIXES = {FRECHET: "fd", KERNEL: "kd", SCORE: "is", PRDC: "prdc"}
ENDINGS = {PER_CLASS: "per_class", INFINITY: "infinity"}  # of the name of the Frechet distance


@dataclass(frozen=True)
class Metric:
    """One entry of `METRICS`."""

    measure: str
    """What is measured."""
    extractor: str
    """In whose features: a name of `EXTRACTORS`."""


METRICS = Registry("metric")


def metric_name(measure: str, extractor: str) -> str:
    """Return the name of a measure in the features of an extractor: `fid`, `fd_classifier`."""
    if measure in ENDINGS:
        return f"{metric_name(FRECHET, extractor)}_{ENDINGS[measure]}"
    name = f"{PREFIXES[measure]}_{extractor}"
    return OWN_NAMES.get(name, name)


def _fill() -> None:
    for extractor in EXTRACTORS:
        for measure in (*PREFIXES, *ENDINGS):
            if measure != SCORE or EXTRACTORS.get(extractor) in WITH_LOGITS:
                METRICS.add(metric_name(measure, extractor))(Metric(measure, extractor))


_fill()
