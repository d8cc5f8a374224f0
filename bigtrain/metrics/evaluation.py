"""One evaluation: generated images against the real ones, by any number of metrics, over all ranks.

Every rank generates and extracts whole batches of one shape, image i from its number alone. All extractors see an image
in the same pass; what metrics need of it is kept in constant memory, and reduced over ranks once at the end.

Axes: N images, C channels, H height, W width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigtrain.metrics.cache import from_bytes, key_of, read_cached, to_bytes, write_cached
from bigtrain.metrics.collect import Collected, Keep, Segment, SetCollector
from bigtrain.metrics.exchange import ONE_PROCESS, Ranks
from bigtrain.metrics.features import Extractor, RealImages
from bigtrain.metrics.measures import MEASURES, Figures, Measure, Subject
from bigtrain.metrics.names import Metric
from bigtrain.metrics.real import own_batches, real_statistics, sample_size
from bigtrain.metrics.settings import EvaluationSettings
from bigtrain.metrics.weights import WeightStore

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


class Evaluator:
    """Extractors and the real statistics in their features, ready to judge generators."""

    def __init__(
        self,
        settings: EvaluationSettings,
        real: RealImages,
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
        """
        self.settings, self.extractors, self.ranks = settings, extractors, ranks
        self.num_real, self.content_hash = real.num_images, real.content_hash
        self.num_same_size = sample_size(settings, real.num_images)
        self._keep = {name: self._kept_of(name) for name in extractors}
        wanted = {name: (extractor, replace(self._keep[name], score=None)) for name, extractor in extractors.items()}
        self.statistics = real_statistics(real, wanted, settings, cache, ranks)
        self._own = ranks.together(lambda: self._real_against_real(cache) if ranks.rank == 0 else {})

    def evaluate(self, generate: Generate, sampling: Mapping[str, Any] | None = None) -> Evaluation:
        """Generate `num_images` images and compare them with the real ones; all ranks together get the same figures.

        Args:
            generate: makes images; it is called with `batch_images` numbers each time.
            sampling: facts of sampling that belong to the protocol (label law, truncation, average), as JSON values.

        Raises:
            DivergenceError: as `generate` does.
        """
        generated = self._generated(generate)
        figures = self.ranks.together(lambda: self._figures(generated))
        figures = self.ranks.broadcast_object(figures)
        protocol = self.protocol(sampling or {})
        name = self.protocol_name(protocol)
        versions = {package: version(package) for package in ("torch", "torch-fidelity", "numpy")}
        return Evaluation(figures, {**protocol, "versions": versions}, name)

    def _kept_of(self, name: str) -> Keep:
        """Return what all metrics together want kept of an extractor's features."""
        keep = Keep()
        for metric in self.settings.measured:
            if metric.extractor == name:
                keep |= _measure(metric).keep(self.settings)
        # Features cost little where they are extracted anyway: so most metrics share one file of real statistics.
        most = max(self.settings.kernel.max_images, self.settings.prdc.max_images)
        return replace(keep, features=most) if keep.features or keep.moments else keep

    def _real_against_real(self, cache: Path) -> dict[Metric, Figures]:
        return {metric: self._cached_figures(metric, cache) for metric in self.settings.measured}

    def _cached_figures(self, metric: Metric, cache: Path) -> Figures:
        """Return the figures of a metric that are about real images alone."""
        extractor, settings = self.extractors[metric.extractor], self.settings
        facts = {
            "measure": metric.measure,
            "figures": [extractor.figure_prefix, extractor.kernel_prefix],
            "real": self._real_facts(extractor),
            "settings": settings.model_dump(mode="json", include={"seed", "kernel", "prdc", "batch_images"}),
            "num_same_size": self.num_same_size,
        }
        path = cache / "real-against-real" / f"{key_of(facts)}.safetensors"
        data = read_cached(path)
        if data is None:
            real = self.statistics[metric.extractor]
            assert real is not None
            data = to_bytes({}, {**facts, "found": _measure(metric).real_against_real(real, extractor, settings)})
            write_cached(path, data)
        found: Figures = from_bytes(data)[1]["found"]
        return found

    def _generated(self, generate: Generate) -> dict[str, Collected]:
        """Return what is kept of the generated images, in the features of every extractor."""
        size, num_images = self.settings.batch_images, self.settings.num_images
        collectors = {name: self._collector(name) for name in self.extractors}
        device = next(iter(self.extractors.values())).device

        def extract() -> None:
            for index_N in own_batches(num_images, size, self.ranks):
                first = int(index_N[0])
                image_NCHW = generate(torch.arange(first, first + size, device=device))
                for name, extractor in self.extractors.items():
                    collectors[name].add(index_N, extractor.layers(image_NCHW)[: len(index_N)])

        self.ranks.together(extract)
        return {name: collector.collect(self.ranks) for name, collector in collectors.items()}

    def _collector(self, name: str) -> SetCollector:
        keep = self._keep[name]
        ends = sorted({self.num_same_size, self.settings.num_images, *keep.cuts})
        starts = [0, *ends[:-1]]
        segments = [Segment(end, max(0, keep.features - start)) for start, end in zip(starts, ends, strict=True)]
        return SetCollector(self.extractors[name], keep, segments)

    def _figures(self, generated: dict[str, Collected]) -> Figures:
        """Return the figures on rank 0, which holds the real statistics, and none elsewhere."""
        figures: Figures = {}
        for metric in self.settings.measured:
            name, real = metric.extractor, self.statistics[metric.extractor]
            if real is not None:
                subject = Subject(generated[name], real, self.extractors[name], self.settings)
                figures |= _measure(metric).figures(subject, self._own[metric])
        return figures

    def _real_facts(self, extractor: Extractor) -> dict[str, Any]:
        return {
            "content": self.content_hash,
            "num_real": self.num_real,
            "extractor": extractor.name,
            "extractor_sha256": extractor.fingerprint,
        }

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
            "real_content": self.content_hash,
            "num_generated": settings.num_images,
            "num_real": self.num_real,
            "num_same_size": self.num_same_size,
            "num_real_rest": self.num_real - self.num_same_size,
            "batch_images": settings.batch_images,
            "standing_batches": settings.standing_batches,
            "standing_images": settings.standing_images,
            "kernel": settings.kernel.model_dump(mode="json"),
            "seed": settings.seed,
            "precision": "float32 features, float64 moments, covariance divisor N - 1",
            "sampling": dict(sampling),
        }
        if settings.metrics:
            protocol["metrics"] = list(settings.metrics)
            protocol["further_extractors"] = [_described(extractor) for extractor in others]
            protocol |= settings.model_dump(mode="json", include={"score", "prdc"})
        return protocol


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
    real: RealImages,
    cache: Path,
    device: torch.device,
    ranks: Ranks = ONE_PROCESS,
    weights: WeightStore | None = None,
) -> Evaluator:
    """Return a ready evaluator: everything that can fail about weights and real images fails here, before training.

    Args:
        settings: what and how much to compare.
        real: the training part of the shards.
        cache: folder for trained extractors and real statistics; several runs may share it.
        device: where to extract.
        ranks: the processes of the run, all of which call this together.
        weights: where published weights are looked for; None: where the environment says.

    Raises:
        WeightsError: a weight file is missing or damaged.
        RecipeError: the extractor cannot read such images.
        DataError: there are too few real images, or one cannot be read.
    """
    extractors = {
        name: each.build(real, cache, device, ranks, weights) for name, each in settings.extractor_settings.items()
    }
    return Evaluator(settings, real, extractors, cache, ranks)
