"""One evaluation: generated images against the real ones, in the features of one extractor, over all ranks.

Every rank generates and extracts whole batches of one shape, image i from its number alone; moments are summed in
float64 and reduced once. Beside the main figure stand two of one smaller size against one smaller reference, to be held
against each other: `..._same_size` for generated images and `..._real_against_real` for real ones (see `real`).

Axes: N images, C channels, H height, W width, D features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigtrain.metrics.cache import key_of
from bigtrain.metrics.exchange import ONE_PROCESS, Ranks
from bigtrain.metrics.features import Extractor, RealImages
from bigtrain.metrics.frechet import frechet_distance
from bigtrain.metrics.kernel import kernel_distance
from bigtrain.metrics.real import (
    FeatureCollector,
    FeatureSet,
    RealStatistics,
    own_batches,
    real_statistics,
    sample_size,
)
from bigtrain.metrics.settings import EvaluationSettings

Generate = Callable[[Tensor], Tensor]
"""Image numbers, int64 [N] on the extractor's device -> uint8 [N, C, H, W]; image i depends on its number alone."""


@dataclass(frozen=True)
class Evaluation:
    """The figures of one evaluation and the protocol under which they were taken."""

    figures: dict[str, float]
    """Named after the extractor: `fd_classifier`, `kd_classifier`, `fd_classifier_real_against_real`, ..."""
    protocol: dict[str, Any]
    """Everything that figures must share to be comparable, as JSON values; and the versions at work."""
    protocol_name: str
    """Short and fit for a file name, such as `fd_classifier-10000-3f2a9c01`: equal for equal protocols."""


class Evaluator:
    """An extractor and the real statistics in its features, ready to judge generators."""

    def __init__(
        self, settings: EvaluationSettings, real: RealImages, extractor: Extractor, cache: Path, ranks: Ranks
    ) -> None:
        """Compute or load the real statistics; all ranks together."""
        self.settings, self.extractor, self.ranks = settings, extractor, ranks
        self.num_real, self.content_hash = real.num_images, real.content_hash
        self.num_same_size = sample_size(settings, real.num_images)
        self.statistics = real_statistics(real, extractor, settings, cache, ranks)

    def evaluate(self, generate: Generate, sampling: Mapping[str, Any] | None = None) -> Evaluation:
        """Generate `num_images` images and compare them with the real ones; all ranks together get the same figures.

        Args:
            generate: makes images; it is called with `batch_images` numbers each time.
            sampling: facts of sampling that belong to the protocol (label law, truncation, average), as JSON values.

        Raises:
            DivergenceError: as `generate` does.
        """
        same, more = self._generated(generate)
        figures = self.ranks.together(lambda: self._figures(same, more))
        protocol = self.protocol(sampling or {})
        name = self.protocol_name(protocol)
        versions = {package: version(package) for package in ("torch", "torch-fidelity", "numpy")}
        return Evaluation(self.ranks.broadcast_object(figures), {**protocol, "versions": versions}, name)

    def _generated(self, generate: Generate) -> tuple[FeatureSet, FeatureSet]:
        """Return the first `num_same_size` generated images and all further ones."""
        size, num_same = self.settings.batch_images, self.num_same_size
        max_kept = self.settings.kernel.max_images
        same = FeatureCollector(self.extractor, max_kept)
        more = FeatureCollector(self.extractor, max_kept - num_same)

        def extract() -> None:
            for index_N in own_batches(self.settings.num_images, size, self.ranks):
                first = int(index_N[0])
                whole_N = torch.arange(first, first + size, device=self.extractor.device)
                feature_ND = self.extractor(generate(whole_N))[: len(index_N)]
                num_first = max(0, min(num_same - first, len(index_N)))
                same.add(index_N[:num_first], feature_ND[:num_first])
                more.add(index_N[num_first:] - num_same, feature_ND[num_first:])

        self.ranks.together(extract)
        return same.collect(self.ranks), more.collect(self.ranks)

    def _figures(self, same: FeatureSet, more: FeatureSet) -> dict[str, float]:
        """Return the figures on rank 0, which holds the real statistics, and none elsewhere."""
        if self.statistics is None:
            return {}
        real: RealStatistics = self.statistics
        frechet, kernel = self.extractor.figure_prefix, self.extractor.kernel_prefix
        whole = real.whole
        distance = kernel_distance(
            torch.cat([same.feature_ND, more.feature_ND]), whole.feature_ND, self.settings.kernel
        )
        return {
            frechet: frechet_distance(same.moments.merge(more.moments), whole.moments),
            f"{frechet}_same_size": frechet_distance(same.moments, real.rest.moments),
            f"{frechet}_real_against_real": real.frechet,
            kernel: distance.mean,
            f"{kernel}_std": distance.std,
            f"{kernel}_real_against_real": real.kernel.mean,
        }

    def protocol_name(self, protocol: Mapping[str, Any]) -> str:
        """Return the short name of what `protocol` returned."""
        return f"{self.extractor.figure_prefix}-{self.settings.num_images}-{key_of(protocol)[:8]}"

    def protocol(self, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """Return what figures with these facts of sampling must share to be comparable, without versions."""
        settings = self.settings
        return {
            "extractor": self.extractor.name,
            "extractor_sha256": self.extractor.fingerprint,
            "extractor_facts": dict(self.extractor.facts),
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


def build_evaluator(
    settings: EvaluationSettings, real: RealImages, cache: Path, device: torch.device, ranks: Ranks = ONE_PROCESS
) -> Evaluator:
    """Return a ready evaluator: everything that can fail about weights and real images fails here, before training.

    Args:
        settings: what and how much to compare.
        real: the training part of the shards.
        cache: folder for trained extractors and real statistics; several runs may share it.
        device: where to extract.
        ranks: the processes of the run, all of which call this together.

    Raises:
        WeightsError: a weight file is missing or damaged.
        RecipeError: the extractor cannot read such images.
        DataError: there are too few real images, or one cannot be read.
    """
    extractor = settings.extractor.build(real, cache, device, ranks)
    return Evaluator(settings, real, extractor, cache, ranks)
