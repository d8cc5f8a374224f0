"""What is kept of a set of images while they pass by once: moments, the first features, sums of logits.

A set is cut in segments by the places of its images, and every segment has moments of its own. Memory does not grow
with the set: moments are three sums, and of features only as many are kept as are asked for.

Axes: N images, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bigtrain.metrics.classes import ClassCollector, ClassFeatures
from bigtrain.metrics.exchange import Ranks
from bigtrain.metrics.features import Extractor, Layers
from bigtrain.metrics.moments import Moments, MomentSums
from bigtrain.metrics.score import Score, ScoreSettings, ScoreSums


@dataclass(frozen=True)
class Keep:
    """What is kept of one set in the features of one extractor."""

    moments: bool = False
    features: int = 0
    """Features of the first so many images are kept."""
    score: ScoreSettings | None = None
    """How logits are summed up; None: not at all."""
    cuts: frozenset[int] = frozenset()
    """Numbers of images; moments of the first so many are wanted too."""
    class_images: int = 0
    """Features of so many images are kept, equally many a class."""

    def __or__(self, other: "Keep") -> "Keep":
        """Return what serves both."""
        return Keep(
            moments=self.moments or other.moments,
            features=max(self.features, other.features),
            score=self.score or other.score,
            cuts=self.cuts | other.cuts,
            class_images=max(self.class_images, other.class_images),
        )


@dataclass(frozen=True)
class Segment:
    """The images of a set from the end of the segment before it to `end`."""

    end: int
    features: int
    """Features of its first so many images are kept."""


@dataclass(frozen=True)
class FeatureSet:
    """Moments of a set of features, and the features of its first images."""

    moments: Moments
    """Of nothing where they were not asked for."""
    feature_ND: Tensor
    """float32, on the CPU."""

    def merge(self, other: "FeatureSet") -> "FeatureSet":
        """Return both sets together."""
        return FeatureSet(self.moments.merge(other.moments), torch.cat([self.feature_ND, other.feature_ND]))


@dataclass(frozen=True)
class Collected:
    """A whole set over all ranks."""

    segments: tuple[FeatureSet, ...]
    ends: tuple[int, ...]
    score: Score | None
    classes: ClassFeatures | None

    def first(self, num_images: int) -> Moments:
        """Return the moments of the first images; `num_images` is the end of a segment."""
        number = self.ends.index(num_images) + 1
        moments = self.segments[0].moments
        for segment in self.segments[1:number]:
            moments = moments.merge(segment.moments)
        return moments

    @property
    def feature_ND(self) -> Tensor:  # noqa: N802 (axis)
        """The kept features of all segments."""
        return torch.cat([segment.feature_ND for segment in self.segments])


class SetCollector:
    """Moments, first features and sums of logits of one set of images, on one rank."""

    def __init__(self, extractor: Extractor, keep: Keep, segments: Sequence[Segment], num_classes: int = 0) -> None:
        """Keep nothing yet."""
        self._keep, self._segments = keep, tuple(segments)
        self._dims = extractor.dims if keep.moments else 0
        self._sums = MomentSums(self._dims, extractor.device, len(self._segments))
        self._kept: list[list[tuple[Tensor, Tensor]]] = [[_nothing(extractor.dims)] for _ in segments]
        self._score = None
        if keep.score is not None:
            assert extractor.num_logits > 0, f"{extractor.name} has no logits to score"
            self._score = ScoreSums(keep.score, self._segments[-1].end, extractor.num_logits, extractor.device)

        self._classes = None
        if keep.class_images:
            assert num_classes > 0, "there are no classes to tell apart"
            self._classes = ClassCollector(num_classes, extractor.dims, keep.class_images)

    def add(self, place_N: Tensor, layers: Layers, label_N: Tensor | None = None) -> None:
        """Add what an extractor says of the images that stand at `place_N`, int64 on the CPU, in their set."""
        start = 0
        for number, segment in enumerate(self._segments):
            inside_N = (place_N >= start) & (place_N < segment.end)
            feature_ND = layers.feature_ND[inside_N.to(layers.feature_ND.device)]
            if self._keep.moments and len(feature_ND):
                self._sums.update(feature_ND, number)
            inner_N = place_N[inside_N] - start
            is_kept_N = inner_N < segment.features
            if is_kept_N.any():
                self._kept[number].append((inner_N[is_kept_N], feature_ND[is_kept_N.to(feature_ND.device)].cpu()))
            start = segment.end
        if self._score is not None:
            assert layers.logit_NK is not None
            self._score.update(place_N, layers.logit_NK)
        if self._classes is not None:
            assert label_N is not None
            self._classes.add(place_N, label_N.cpu(), layers.feature_ND)

    def collect(self, ranks: Ranks) -> Collected:
        """Return the set over all ranks, features in the order of places, whoever computed them; on the CPU.

        Rank 0 alone, which reckons the figures, gets all features: many ranks of a node would hold them many times.
        """
        moments = self._sums.totals(ranks.sum_tensor)
        kept = [tuple(torch.cat(parts) for parts in zip(*segment, strict=True)) for segment in self._kept]
        gathered = (any(segment.features for segment in self._segments) and ranks.gather_to_main(kept)) or [kept]
        sets = [
            FeatureSet(of_segment.to("cpu"), _in_order([from_rank[number] for from_rank in gathered]))
            for number, of_segment in enumerate(moments)
        ]
        score = None if self._score is None else self._score.score(ranks.sum_tensor)
        classes = None if self._classes is None else self._classes.collect(ranks)
        return Collected(tuple(sets), tuple(segment.end for segment in self._segments), score, classes)


def _nothing(dims: int) -> tuple[Tensor, Tensor]:
    return torch.empty(0, dtype=torch.int64), torch.empty(0, dims)


def _in_order(parts: Sequence[tuple[Tensor, ...]]) -> Tensor:
    place_N, feature_ND = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return feature_ND[place_N.argsort()]
