"""What images of a run are: the one fact that data, networks and metrics share."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageSpec:
    """Square 8-bit images: `side` in pixels, `channels` 1, 3 or 4, labels 0..num_classes-1 (num_classes 0: no
    labels)."""

    side: int
    channels: int
    num_classes: int
