"""Looks at streams of images with everything at once: features, the class a classifier sees, the discriminator's logit.

Images are let go after each batch; what is kept of N images is N * (D + 3) numbers.

Axes: N images, D features, L images that have a logit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bigtrain.data.batch import Batch
from bigtrain.evaluation.audit.discriminator import Discriminator
from bigtrain.metrics.features import Extractor

BATCH_IMAGES = 64  # at least; a multiple of the discriminator's groups


@dataclass(frozen=True)
class Looks:
    """What was seen of some images."""

    feature_ND: Tensor
    """float32, on the extractor's device."""
    mirrored_ND: Tensor | None
    """Of the same images, mirrored; None where mirrors do not matter."""
    label_N: Tensor
    """int64; -1 where there are no classes."""
    seen_N: Tensor | None
    """int64, the class that the classifier sees; None without a classifier."""
    logit_L: Tensor | None
    """float32; None without a discriminator."""

    def __len__(self) -> int:
        return len(self.feature_ND)


@dataclass(frozen=True)
class Looker:
    """What images are looked at with."""

    extractor: Extractor
    classifier: Extractor | None
    """An extractor with logits of the run's own classes."""
    discriminator: Discriminator | None
    mirror: bool

    @property
    def batch_images(self) -> int:
        """Images of a batch: whole groups of the discriminator."""
        group = 1 if self.discriminator is None else self.discriminator.group_images
        return -(-BATCH_IMAGES // group) * group

    def features(self, batch: Batch) -> Tensor:
        """Return features [N, D] alone."""
        return self.extractor.padded(batch.image_NCHW, self.batch_images)

    def look(self, batches: Iterator[Batch]) -> Looks:
        """Look at all images of a stream; there is at least one."""
        rows = [self._look(batch) for batch in batches]
        features, mirrored, labels, seen, logits = zip(*rows, strict=True)
        return Looks(
            feature_ND=torch.cat(features),
            mirrored_ND=torch.cat(mirrored) if self.mirror else None,
            label_N=torch.cat(labels),
            seen_N=None if self.classifier is None else torch.cat(seen),
            logit_L=None if self.discriminator is None else torch.cat(logits),
        )

    def _look(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor | None]:
        mirrored = Batch(batch.image_NCHW.flip(3), batch.label_N, batch.sample_N)
        return (
            self.features(batch),
            self.features(mirrored) if self.mirror else None,
            batch.label_N.cpu(),
            None if self.classifier is None else self._seen(self.classifier, batch),
            None if self.discriminator is None else self.discriminator(batch),
        )

    def _seen(self, classifier: Extractor, batch: Batch) -> Tensor:
        logit_NK = classifier.padded_layers(batch.image_NCHW, self.batch_images).logit_NK
        assert logit_NK is not None, f"{classifier.name} tells no classes apart"
        return logit_NK.argmax(1).cpu()
