"""Statistics of the real images: computed once by all ranks together, kept by the content of the shards.

The real images are divided at random (seeded) in two parts that share no image: a sample of n images, where n is the
number of generated images but at most half of the real ones, and the rest. All real images are the reference of the
main figure. Sample against rest is real against real: what n images of a perfect generator would get against the rest.

Axes: N images, D features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigtrain.draws import seed_of
from bigtrain.metrics.cache import from_bytes, key_of, read_cached, to_bytes, write_cached
from bigtrain.metrics.classes import ClassFeatures
from bigtrain.metrics.collect import Collected, FeatureSet, Keep, Segment, SetCollector
from bigtrain.metrics.exchange import Ranks
from bigtrain.metrics.features import Extractor, RealImages
from bigtrain.metrics.moments import Moments
from bigtrain.metrics.settings import FEWEST_IMAGES, EvaluationSettings
from bigtrain.recipe.errors import DataError

VERSION = 3  # raise when the content of a cached file changes its meaning
PARTS = ("sample", "rest")


@dataclass(frozen=True)
class RealStatistics:
    """The two parts of the real images, in the features of one extractor; on rank 0."""

    sample: FeatureSet
    rest: FeatureSet
    num_sample: int
    num_real: int
    classes: ClassFeatures | None = None
    """Features of the first images of every class, where they are wanted."""
    memo: dict[str, Any] = field(default_factory=dict)
    """What measures have computed of the real images and will want again."""

    @property
    def whole(self) -> FeatureSet:
        """All real images together."""
        return self.sample.merge(self.rest)

    def of_each_part(self, num_images: int) -> Tensor:
        """Return the features of so many images of the sample, and of as many of the rest."""
        return torch.cat([part.feature_ND[:num_images] for part in (self.sample, self.rest)])

    def first(self, num_images: int) -> Tensor:
        """Return the features of so many images, picked at random: those of the sample and then those of the rest."""
        return self.of_each_part(num_images)[:num_images]


def sample_size(settings: EvaluationSettings, num_real: int) -> int:
    """Return the size of the real sample: that of the generated set, at most half of the real images."""
    return min(settings.num_images, num_real // 2)


def own_batches(num_images: int, batch_images: int, ranks: Ranks) -> Iterator[Tensor]:
    """Yield the image numbers, int64, of the batches of this rank: batch b belongs to rank b mod world."""
    for first in range(ranks.rank * batch_images, num_images, ranks.world * batch_images):
        yield torch.arange(first, min(first + batch_images, num_images))


def real_statistics(
    real: RealImages,
    extractors: Mapping[str, tuple[Extractor, Keep]],
    settings: EvaluationSettings,
    cache: Path,
    ranks: Ranks,
) -> dict[str, RealStatistics | None]:
    """Return the statistics in the features of every extractor on rank 0, and None in their place on the others.

    They are taken from `cache` where it has them; all others are computed in one pass over the images, and kept.

    Args:
        real: the images.
        extractors: by name, each with what is to be kept of its features.
        settings: of the evaluation.
        cache: several runs may share it.
        ranks: all call this together.

    Raises:
        DataError: there are too few real images, or one cannot be read.
    """
    if real.num_images < FEWEST_IMAGES:
        raise DataError(
            f"evaluate: the shards have {real.num_images} images for training and an evaluation needs {FEWEST_IMAGES}; "
            "write more, or leave the key `evaluate` out"
        )
    facts = {name: _facts(real, *wanted, settings) for name, wanted in extractors.items()}
    paths = {name: cache / "real-statistics" / f"{key_of(facts[name])}.safetensors" for name in extractors}
    kept = paths if ranks.rank == 0 else {}
    found = ranks.together(lambda: {name: read_cached(path) for name, path in kept.items()})
    missing = ranks.broadcast_object([name for name in extractors if found.get(name) is None])
    if missing:
        collected = _extract(real, {name: extractors[name] for name in missing}, settings, ranks)

        def store() -> None:
            if ranks.rank == 0:
                for name, one in collected.items():
                    data = found[name] = _to_bytes(one, facts[name])
                    write_cached(paths[name], data)

        ranks.together(store)
    num_sample = sample_size(settings, real.num_images)
    return {name: None if ranks.rank else _restore(found[name], num_sample, real.num_images) for name in extractors}


def _facts(real: RealImages, extractor: Extractor, keep: Keep, settings: EvaluationSettings) -> dict[str, Any]:
    return {
        "version": VERSION,
        "content": real.content_hash,
        "num_real": real.num_images,
        "extractor": extractor.name,
        "extractor_sha256": extractor.fingerprint,
        "num_sample": sample_size(settings, real.num_images),
        "seed": settings.seed,
        "batch_images": settings.batch_images,
        "moments": keep.moments,
        "features": keep.features,
        **({"class_images": keep.class_images} if keep.class_images else {}),
    }


def _extract(
    real: RealImages, extractors: Mapping[str, tuple[Extractor, Keep]], settings: EvaluationSettings, ranks: Ranks
) -> dict[str, Collected]:
    """Extract all real images, in the order of the shards, into the sample and the rest."""
    num_sample = sample_size(settings, real.num_images)
    generator = torch.Generator().manual_seed(seed_of(settings.seed, "real sample"))
    classes = real.image.num_classes
    place_of = torch.randperm(real.num_images, generator=generator)
    collectors = {
        name: SetCollector(
            extractor, keep, [Segment(num_sample, keep.features), Segment(real.num_images, keep.features)], classes
        )
        for name, (extractor, keep) in extractors.items()
    }

    def extract() -> None:
        for number_N in own_batches(real.num_images, settings.batch_images, ranks):
            image_NCHW, label_N = real.load(number_N.tolist())
            for name, (extractor, _) in extractors.items():
                layers = extractor.padded_layers(image_NCHW, settings.batch_images)
                collectors[name].add(place_of[number_N], layers, label_N)

    ranks.together(extract)
    return {name: collector.collect(ranks) for name, collector in collectors.items()}


def _to_bytes(collected: Collected, facts: dict[str, Any]) -> bytes:
    tensors: dict[str, Tensor] = {}
    for name, part in zip(PARTS, collected.segments, strict=True):
        moments = part.moments
        tensors |= {f"{name}.num": moments.num, f"{name}.sum": moments.sum_D, f"{name}.outer": moments.outer_DD}
        tensors[f"{name}.features"] = part.feature_ND
    if collected.classes is not None:
        tensors |= {"classes.labels": collected.classes.label_M, "classes.features": collected.classes.feature_MD}
    return to_bytes(tensors, facts)


def _restore(data: bytes | None, num_sample: int, num_real: int) -> RealStatistics:
    assert data is not None
    tensors, _ = from_bytes(data)
    sample, rest = (
        FeatureSet(
            Moments(tensors[f"{name}.num"], tensors[f"{name}.sum"], tensors[f"{name}.outer"]),
            tensors[f"{name}.features"],
        )
        for name in PARTS
    )
    classes = None
    if "classes.labels" in tensors:
        classes = ClassFeatures(tensors["classes.labels"], tensors["classes.features"])
    return RealStatistics(sample, rest, num_sample, num_real, classes)
