"""Features of every class: kept while images pass by, and the Frechet distance within each class.

Of every class the first images are kept, as many as share the settings' bound; a distance within a class is that of
two sets of features (`frechet_of_features`), so few images of many dimensions cost little.

Axes: N images, M images kept, D features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from bigtrain.metrics.exchange import Ranks
from bigtrain.metrics.frechet import frechet_of_features
from bigtrain.recipe.settings import PositiveCount, Settings

FEWEST_IMAGES = 2  # of a class: a covariance needs 2


class PerClassSettings(Settings):
    """How many images distances within classes are taken over."""

    max_images: PositiveCount = Field(default=100_000, ge=FEWEST_IMAGES)
    """Images of each set whose features are kept, equally many a class, in the order of their numbers (real ones:
    picked at random, seeded)."""


@dataclass(frozen=True)
class ClassFeatures:
    """Features of the first images of every class."""

    label_M: Tensor
    """int64, ascending."""
    feature_MD: Tensor
    """float32."""

    def of(self, label: int) -> Tensor:
        """Return the features of a class."""
        return self.feature_MD[self.label_M == label]


class ClassCollector:
    """Features by class, on one rank."""

    def __init__(self, num_classes: int, dims: int, max_images: int) -> None:
        self.quota = max(FEWEST_IMAGES, max_images // num_classes)
        self._most = 2 * self.quota * num_classes
        self._parts = [(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0, dims))]
        self._num_kept = 0

    def add(self, place_N: Tensor, label_N: Tensor, feature_ND: Tensor) -> None:
        """Add features of the images that stand at `place_N` in their set; those of no class (-1) are left out."""
        has_class_N = label_N >= 0
        self._parts.append((label_N[has_class_N], place_N[has_class_N], feature_ND.cpu()[has_class_N]))
        self._num_kept += int(has_class_N.sum())
        if self._num_kept > self._most:  # rarely, so that an image is copied a few times, whatever their number
            self._parts = [self._first()]
            self._num_kept = len(self._parts[0][0])

    def collect(self, ranks: Ranks) -> ClassFeatures | None:
        """Return the first images of every class over all ranks, on rank 0; None on the others."""
        self._parts = ranks.gather_to_main(self._first())
        if ranks.rank:
            return None
        label_M, _, feature_MD = self._first()
        return ClassFeatures(label_M, feature_MD)

    def _first(self) -> tuple[Tensor, Tensor, Tensor]:
        return _first(tuple(torch.cat(some) for some in zip(*self._parts, strict=True)), self.quota)


def _first(kept: Sequence[Tensor], quota: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return those with the `quota` smallest places of every label, by label and place."""
    label_N, place_N, feature_ND = kept
    order = place_N.argsort()
    order = order[label_N[order].argsort(stable=True)]
    label_N = label_N[order]
    starts = torch.searchsorted(label_N, label_N)  # of every image's class
    chosen = order[torch.arange(len(order)) - starts < quota]
    return kept[0][chosen], place_N[chosen], feature_ND[chosen]


def distances_within(generated: ClassFeatures, real: ClassFeatures, divisor: str = "n-1") -> Mapping[int, float]:
    """Return the Frechet distance of every class that has enough images in both sets, covariances by this divisor."""
    found: dict[int, float] = {}
    for label in sorted(set(real.label_M.tolist())):
        pair = generated.of(label), real.of(label)
        if min(map(len, pair)) >= FEWEST_IMAGES:
            found[label] = frechet_of_features(*pair, divisor)
    return found
