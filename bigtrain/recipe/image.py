"""What images of a run are: the one fact that data, networks and metrics share."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Self

SampleKind = Literal["image", "pair", "unpaired"]
"""What a sample of training is: an image, two images that belong together, or one image of each of two sets."""
SAMPLES: dict[SampleKind, str] = {
    "image": "single images",
    "pair": "pairs of images",
    "unpaired": "two sets of images",
}


@dataclass(frozen=True)
class ImageSpec:
    """8-bit images: height `side` in pixels, `channels` 1, 3 or 4, labels 0..num_classes-1 (num_classes 0: no labels),
    `width` in pixels (None: square)."""

    side: int
    channels: int
    num_classes: int
    width: int | None = None

    @classmethod
    @lru_cache  # the feed asks for it with every image
    def of_size(cls, size: tuple[int, int], channels: int, num_classes: int) -> Self:
        """Return the spec of images of a height and a width in pixels: one form for one size, so that they compare."""
        height, width = size
        return cls(height, channels, num_classes, None if width == height else width)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.side, self.side if self.width is None else self.width

    @property
    def is_square(self) -> bool:
        """Whether height and width are equal."""
        return self.width in (None, self.side)
