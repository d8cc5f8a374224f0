"""One evaluation: generated images against the real ones, by any number of metrics, over all ranks.

Every rank generates and extracts whole batches of one shape, image i from its number alone. All extractors see an image
in the same pass; what metrics need of it is kept in constant memory, and reduced over ranks once at the end.

Axes: N images, C channels, H height, W width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigtrain.metrics.cache import from_bytes, key_of, read_cached, to_bytes, write_cached
from bigtrain.metrics.collect import Collected, Keep, Segment, SetCollector
from bigtrain.metrics.demands import require
from bigtrain.metrics.exchange import ONE_PROCESS, Ranks
from bigtrain.metrics.features import Extractor, RealImages
from bigtrain.metrics.frechet import Law
from bigtrain.metrics.measures import MEASURES, Figures, Measure, Subject
from bigtrain.metrics.names import INFINITY, PER_CLASS, PRDC, SCORE, Metric
from bigtrain.metrics.real import RealStatistics, own_batches, real_statistics, sample_size
from bigtrain.metrics.reference import RealMoments
from bigtrain.metrics.settings import EvaluationSettings
from bigtrain.metrics.weights import WeightStore
from bigtrain.recipe.errors import UsageError

PRECISION = "float32 features, exact sums, covariance divisor"
DIVISORS = {"n-1": "N - 1", "n": "N"}
Labels = Callable[[Tensor], Tensor]
"""Image numbers, int64 [N] on the extractor's device -> int64 [N], the classes of these images."""
Generate = Callable[[Tensor], Tensor]
"""Image numbers, int64 [N] on the extractor's device -> uint8 [N, C, H, W]; image i depends on its number alone."""


@dataclass(frozen=True)
class Evaluation:
    """The figures of one evaluation and the protocol under which they were taken."""

    figures: dict[str, float]
    """The main one first: `fd_classifier`, `fd_classifier_same_size`, `fd_classifier_real_against_real`, ..."""
    protocol: dict[str, Any]
    """Everything that figures must share to be comparable, as JSON values; and the versions at work."""
    protocol_name: str
    """Short and fit for a file name, such as `fd_classifier-10000-3f2a9c01`: equal for equal protocols."""
    details: dict[str, Any] = field(default_factory=dict)
    """By figure, what is too long for figures, as JSON values: distances by class, or by number of images."""


class Evaluator:
    """Extractors and what is known of the real images in their features, ready to judge generators."""

    def __init__(
        self,
        settings: EvaluationSettings,
        real: RealImages | RealMoments,
        extractors: Mapping[str, Extractor],
        cache: Path,
        ranks: Ranks,
    ) -> None:
        """Compute or load the real statistics; all ranks together.

        Args:
            settings: what and how much to compare.
            real: what generated images are compared with.
            extractors: by the name that `settings.measured` has for them.
            cache: folder for real statistics.
            ranks: the processes.

        Raises:
            UsageError: a metric needs more than is known of the real images.
            DataError: there are too few real images, or one cannot be read; or moments of another extractor.
        """
        self.settings, self.extractors, self.ranks, self.real = settings, extractors, ranks, real
        self._keep = {name: self._kept_of(name) for name in extractors}
        self.statistics: Mapping[str, RealStatistics | None] = {}
        self._own: Mapping[Metric, Figures] = {}
        require(real, settings, extractors)
        if isinstance(real, RealMoments):
            return
        of_real = {name: replace(keep, score=None, cuts=frozenset()) for name, keep in self._keep.items()}
        wanted = {name: (extractors[name], keep) for name, keep in of_real.items() if keep != Keep()}
        self.statistics = real_statistics(real, wanted, settings, cache, ranks)
        self._own = ranks.together(lambda: self._real_against_real(real, cache) if ranks.rank == 0 else {})

    @property
    def num_same_size(self) -> int | None:
        """Images of the smaller figures, and of the sample of the real ones; None: nothing is known of these."""
        return None if isinstance(self.real, RealMoments) else sample_size(self.settings, self.real.num_images)

    @property
    def tells_classes(self) -> bool:
        """Whether `evaluate` needs labels."""
        return any(keep.class_images > 0 for keep in self._keep.values())

    def reference(self, name: str) -> Law | None:
        """Return mean and covariance of all real features of an extractor; None: not on this rank, or not needed."""
        known = self._known(name)
        if known is not None:
            return known
        statistics = self.statistics.get(name)
        if statistics is None or not self._keep[name].moments:
            return None
        law: Law = statistics.whole.moments.law(self.settings.covariance_divisor)
        return law

    def _known(self, name: str) -> RealMoments | None:
        """Return the moments that were given for an extractor's features, where they were."""
        if isinstance(self.real, RealMoments):
            return self.real
        known = self.real.known
        return known if known is not None and len(known.mean_D) == self.extractors[name].dims else None

    def evaluate(
        self, generate: Generate, sampling: Mapping[str, Any] | None = None, labels: Labels | None = None
    ) -> Evaluation:
        """Generate `num_images` images and compare them with the real ones; all ranks together get the same figures.

        Args:
            generate: makes images; it is called with `batch_images` numbers each time.
            sampling: facts of sampling that belong to the protocol (label law, truncation, average), as JSON values.
            labels: tells the classes of the same images; needed where classes are told apart.

        Raises:
            DivergenceError: as `generate` does.
            UsageError: classes are told apart, and `labels` is missing.
        """
        if labels is None and self.tells_classes:
            raise UsageError(
                "evaluate: distances within classes are asked for, and nothing tells the classes of the generated "
                "images; leave out the metrics that end in _per_class"
            )
        generated = self._generated(generate, labels)
        found = self.ranks.together(lambda: self._figures(generated))
        figures, details = self.ranks.broadcast_object(found)
        protocol = self.protocol(sampling or {})
        versions = {package: version(package) for package in ("torch", "torch-fidelity", "numpy")}
        return Evaluation(figures, {**protocol, "versions": versions}, self.protocol_name(protocol), details)

    def _kept_of(self, name: str) -> Keep:
        """Return what all metrics together want kept of an extractor's features."""
        keep = Keep()
        for metric in self.settings.measured:
            if metric.extractor == name:
                keep |= _measure(metric).keep(self.settings)
        # Features cost little where they are extracted anyway: so most metrics share one file of real statistics.
        most = max(self.settings.kernel.max_images, self.settings.prdc.max_images)
        return replace(keep, features=most) if keep.features or keep.moments else keep

    def _real_against_real(self, real: RealImages, cache: Path) -> dict[Metric, Figures]:
        """Return the figures of every metric that are about real images alone, from the cache where it has them."""
        return {
            metric: self._cached_figures(metric, statistics, real, cache)
            for metric in self.settings.measured
            if (statistics := self.statistics.get(metric.extractor)) is not None
        }

    def _cached_figures(self, metric: Metric, statistics: RealStatistics, real: RealImages, cache: Path) -> Figures:
        extractor, settings = self.extractors[metric.extractor], self.settings
        included = {"seed", "kernel", "batch_images", "covariance_divisor"}
        facts = {
            "measure": metric.measure,
            "figures": [extractor.figure_prefix, extractor.kernel_prefix],
            "extractor": [extractor.name, extractor.fingerprint],
            "real": [real.content_hash, real.num_images, self.num_same_size],
            "settings": settings.model_dump(mode="json", include=included),
        }
        path = cache / "real-against-real" / f"{key_of(facts)}.safetensors"
        data = read_cached(path)
        if data is None:
            made = _measure(metric).real_against_real(statistics, extractor, settings)
            data = to_bytes({}, {**facts, "found": made})
            write_cached(path, data)
        found: Figures = from_bytes(data)[1]["found"]
        return found

    def _generated(self, generate: Generate, labels: Labels | None) -> dict[str, Collected]:
        """Return what is kept of the generated images, in the features of every extractor."""
        size, num_images = self.settings.batch_images, self.settings.num_images
        collectors = {name: self._collector(name) for name in self.extractors}
        device = next(iter(self.extractors.values())).device

        def extract() -> None:
            for index_N in own_batches(num_images, size, self.ranks):
                first = int(index_N[0])
                image_NCHW = generate(torch.arange(first, first + size, device=device))
                label_N = None if labels is None else labels(index_N.to(device))
                for name, extractor in self.extractors.items():
                    collectors[name].add(index_N, extractor.layers(image_NCHW)[: len(index_N)], label_N)

        self.ranks.together(extract)
        return {name: collector.collect(self.ranks) for name, collector in collectors.items()}

    def _collector(self, name: str) -> SetCollector:
        keep = self._keep[name]
        ends = sorted({self.num_same_size or self.settings.num_images, self.settings.num_images, *keep.cuts})
        starts = [0, *ends[:-1]]
        segments = [Segment(end, max(0, keep.features - start)) for start, end in zip(starts, ends, strict=True)]
        return SetCollector(self.extractors[name], keep, segments, self.real.image.num_classes)

    def _figures(self, generated: dict[str, Collected]) -> tuple[Figures, dict[str, Any]]:
        """Return figures and details on rank 0, which holds the real statistics, and none elsewhere."""
        figures: Figures = {}
        details: dict[str, Any] = {}
        for metric in self.settings.measured if self.ranks.rank == 0 else ():
            name = metric.extractor
            subject = Subject(
                generated[name], self._known(name), self.statistics.get(name), self.extractors[name], self.settings,
                details,
            )  # fmt: skip
            figures |= _measure(metric).figures(subject, self._own.get(metric, {}))
        return figures, details

    def protocol_name(self, protocol: Mapping[str, Any]) -> str:
        """Return the short name of what `protocol` returned."""
        return f"{self.main_figure}-{self.settings.num_images}-{key_of(protocol)[:8]}"

    @property
    def main_figure(self) -> str:
        """The name of the first figure."""
        main = self.settings.measured[0]
        return _measure(main).main_figure(self.extractors[main.extractor])

    def protocol(self, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """Return what figures with these facts of sampling must share to be comparable, without versions."""
        settings = self.settings
        main, *others = self.extractors.values()
        protocol: dict[str, Any] = {
            **_described(main),
            "real_content": self.real.content_hash,
            "num_generated": settings.num_images,
            **self._numbers(),
            "batch_images": settings.batch_images,
            "standing_batches": settings.standing_batches,
            "standing_images": settings.standing_images,
            "kernel": settings.kernel.model_dump(mode="json"),
            "seed": settings.seed,
            "precision": f"{PRECISION} {DIVISORS[settings.covariance_divisor]}",
            "sampling": dict(sampling),
        }
        if settings.metrics:
            protocol["metrics"] = list(settings.metrics)
            protocol["further_extractors"] = [_described(extractor) for extractor in others]
            read = {metric.measure for metric in settings.measured} & {SCORE, PRDC, PER_CLASS, INFINITY}
            protocol |= settings.model_dump(mode="json", include=read)
        return protocol

    def _numbers(self) -> dict[str, Any]:
        """Return how many real images there are, as a protocol says it."""
        if isinstance(self.real, RealMoments):
            return {"real_known": "mean and covariance, by the divisor of the tool that wrote them"}
        num_real, num_same = self.real.num_images, sample_size(self.settings, self.real.num_images)
        numbers = {"num_real": num_real, "num_same_size": num_same, "num_real_rest": num_real - num_same}
        known = {name: found.content_hash for name in self.extractors if (found := self._known(name)) is not None}
        return numbers | ({"real_moments": known} if known else {})


def _measure(metric: Metric) -> Measure:
    measure: Measure = MEASURES.get(metric.measure)()
    return measure


def _described(extractor: Extractor) -> dict[str, Any]:
    return {
        "extractor": extractor.name,
        "extractor_sha256": extractor.fingerprint,
        "extractor_facts": dict(extractor.facts),
    }


def build_evaluator(
    settings: EvaluationSettings,
    real: RealImages | RealMoments,
    cache: Path,
    device: torch.device,
    ranks: Ranks = ONE_PROCESS,
    weights: WeightStore | None = None,
) -> Evaluator:
    """Return a ready evaluator: everything that can fail about weights and real images fails here, before training.

    Args:
        settings: what and how much to compare.
        real: the training part of the shards; or what a file of another tool says of real images.
        cache: folder for trained extractors and real statistics; several runs may share it.
        device: where to extract.
        ranks: the processes of the run, all of which call this together.
        weights: where published weights are looked for; None: where the environment says.

    Raises:
        WeightsError: a weight file is missing or damaged.
        RecipeError: the extractor cannot read such images.
        UsageError: a metric needs more than is known of the real images.
        DataError: there are too few real images, or one cannot be read; or moments of another extractor.
    """
    extractors = {
        name: each.build(real, cache, device, ranks, weights) for name, each in settings.extractor_settings.items()
    }
    return Evaluator(settings, real, extractors, cache, ranks)
