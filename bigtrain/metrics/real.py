"""Statistics of the real images: computed once by all ranks together, kept by the content of the shards.

The real images are divided at random (seeded) in two parts that share no image: a sample of n images, where n is the
number of generated images but at most half of the real ones, and the rest. All real images are the reference of the
main figure. Sample against rest is real against real: what n images of a perfect generator would get against the rest.

Axes: N images, D features.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigtrain.draws import seed_of
from bigtrain.metrics.cache import from_bytes, key_of, read_cached, to_bytes, write_cached
from bigtrain.metrics.exchange import Ranks
from bigtrain.metrics.features import Extractor, RealImages
from bigtrain.metrics.frechet import frechet_distance
from bigtrain.metrics.kernel import KernelDistance, kernel_distance
from bigtrain.metrics.moments import Moments
from bigtrain.metrics.settings import FEWEST_IMAGES, EvaluationSettings
from bigtrain.recipe.errors import DataError

VERSION = 1  # raise when the content of a cached file changes its meaning


@dataclass(frozen=True)
class FeatureSet:
    """Moments of a set of features, and the features of its first images for the kernel distance."""

    moments: Moments
    feature_ND: Tensor
    """float32, on the CPU."""


@dataclass(frozen=True)
class RealStatistics:
    """The two parts of the real images and the distances between them."""

    sample: FeatureSet
    rest: FeatureSet
    frechet: float
    """Frechet distance of sample and rest."""
    kernel: KernelDistance
    """Kernel distance of sample and rest."""

    @property
    def whole(self) -> FeatureSet:
        """All real images together."""
        return FeatureSet(
            self.sample.moments.merge(self.rest.moments), torch.cat([self.sample.feature_ND, self.rest.feature_ND])
        )


class FeatureCollector:
    """Moments and first features of one set of images, on one rank."""

    def __init__(self, extractor: Extractor, max_kept: int) -> None:
        self.moments = Moments.zeros(extractor.dims, extractor.device)
        self.max_kept = max_kept
        self._kept: list[tuple[Tensor, Tensor]] = []

    def add(self, place_N: Tensor, feature_ND: Tensor) -> None:
        """Add features of the images that stand at `place_N` in their set."""
        self.moments.update(feature_ND)
        is_kept_N = place_N < self.max_kept
        self._kept.append((place_N[is_kept_N], feature_ND[is_kept_N.to(feature_ND.device)].cpu()))

    def collect(self, ranks: Ranks) -> FeatureSet:
        """Return the set over all ranks, features in the order of places, whoever computed them; on the CPU."""
        moments = self.moments.reduce(ranks.sum_tensor).to("cpu")
        dims = self.moments.sum_D.numel()
        place_N = torch.cat([torch.empty(0, dtype=torch.int64), *(place for place, _ in self._kept)])
        feature_ND = torch.cat([torch.empty(0, dims), *(feature for _, feature in self._kept)])
        gathered = ranks.gather_objects((place_N, feature_ND))
        order = torch.cat([place for place, _ in gathered]).argsort()
        return FeatureSet(moments, torch.cat([feature for _, feature in gathered])[order])


def sample_size(settings: EvaluationSettings, num_real: int) -> int:
    """Return the size of the real sample: that of the generated set, at most half of the real images."""
    return min(settings.num_images, num_real // 2)


def own_batches(num_images: int, batch_images: int, ranks: Ranks) -> Iterator[Tensor]:
    """Yield the image numbers, int64, of the batches of this rank: batch b belongs to rank b mod world."""
    for first in range(ranks.rank * batch_images, num_images, ranks.world * batch_images):
        yield torch.arange(first, min(first + batch_images, num_images))


def real_statistics(
    real: RealImages, extractor: Extractor, settings: EvaluationSettings, cache: Path, ranks: Ranks
) -> RealStatistics | None:
    """Return the statistics on rank 0 and None on the others; from `cache` where it has them, else computed and kept.

    Raises:
        DataError: there are too few real images, or one cannot be read.
    """
    if real.num_images < FEWEST_IMAGES:
        raise DataError(
            f"evaluate: the shards have {real.num_images} images for training and an evaluation needs {FEWEST_IMAGES}; "
            "write more, or leave the key `evaluate` out"
        )
    facts = _facts(real, extractor, settings)
    path = cache / "real-statistics" / f"{key_of(facts)}.safetensors"
    data = read_cached(path) if ranks.rank == 0 else None
    if not ranks.broadcast_object(data is not None):
        sample, rest = _two_parts(real, extractor, settings, ranks)
        data = ranks.together(lambda: _store(path, sample, rest, settings, facts) if ranks.rank == 0 else None)
    return None if data is None else _restore(data)


def _facts(real: RealImages, extractor: Extractor, settings: EvaluationSettings) -> dict[str, Any]:
    return {
        "version": VERSION,
        "content": real.content_hash,
        "num_real": real.num_images,
        "extractor": extractor.name,
        "extractor_sha256": extractor.fingerprint,
        "num_sample": sample_size(settings, real.num_images),
        "seed": settings.seed,
        "batch_images": settings.batch_images,
        "kernel": settings.kernel.model_dump(mode="json"),
    }


def _two_parts(
    real: RealImages, extractor: Extractor, settings: EvaluationSettings, ranks: Ranks
) -> tuple[FeatureSet, FeatureSet]:
    """Extract all real images, in the order of the shards, into the sample and the rest."""
    num_sample = sample_size(settings, real.num_images)
    generator = torch.Generator().manual_seed(seed_of(settings.seed, "real sample"))
    place_of = torch.randperm(real.num_images, generator=generator)
    sample, rest = (FeatureCollector(extractor, settings.kernel.max_images) for _ in range(2))

    def extract() -> None:
        for number_N in own_batches(real.num_images, settings.batch_images, ranks):
            feature_ND = extractor.padded(real.load(number_N.tolist())[0], settings.batch_images)
            place_N = place_of[number_N]
            in_sample_N = place_N < num_sample
            on_device_N = in_sample_N.to(feature_ND.device)
            sample.add(place_N[in_sample_N], feature_ND[on_device_N])
            rest.add(place_N[~in_sample_N] - num_sample, feature_ND[~on_device_N])

    ranks.together(extract)
    return sample.collect(ranks), rest.collect(ranks)


def _store(
    path: Path, sample: FeatureSet, rest: FeatureSet, settings: EvaluationSettings, facts: dict[str, Any]
) -> bytes:
    kernel = kernel_distance(sample.feature_ND, rest.feature_ND, settings.kernel)
    distances = {
        "frechet": frechet_distance(sample.moments, rest.moments),
        "kernel": [kernel.mean, kernel.std, kernel.subset_size],
    }
    tensors: dict[str, Tensor] = {}
    for name, part in (("sample", sample), ("rest", rest)):
        moments = part.moments
        tensors |= {f"{name}.num": moments.num, f"{name}.sum": moments.sum_D, f"{name}.outer": moments.outer_DD}
        tensors[f"{name}.features"] = part.feature_ND
    data = to_bytes(tensors, {**facts, "distances": distances})
    write_cached(path, data)
    return data


def _restore(data: bytes) -> RealStatistics:
    tensors, facts = from_bytes(data)
    parts = {
        name: FeatureSet(
            Moments(tensors[f"{name}.num"], tensors[f"{name}.sum"], tensors[f"{name}.outer"]),
            tensors[f"{name}.features"],
        )
        for name in ("sample", "rest")
    }
    distances = facts["distances"]
    return RealStatistics(**parts, frechet=distances["frechet"], kernel=KernelDistance(*distances["kernel"]))
