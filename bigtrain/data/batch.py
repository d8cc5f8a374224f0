"""A batch of real images, as read and as the networks take it.

Axes: N images, C channels, H height, W width.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from bigtrain.recipe.errors import DataError

HALF_RANGE = 127.5  # 0..255 -> -1..1


@dataclass(frozen=True)
class BadSample:
    """A damaged sample, where it lies, and the number of the one that is given in its place."""

    number: int
    shard: str
    key: str
    offset: int
    reason: str
    stand_in: int


@dataclass(frozen=True)
class Batch:
    """Images with their labels and their numbers in the data set.

    `image_NCHW`: uint8 in channels_last memory as read, float32 in -1..1 after `on_device`; `label_N`: int64, -1
    where a sample has none; `sample_N`: int64, the sample's number in the data set; `image_b_NCHW`: the second
    images of pairs, in the form of `image_NCHW`, and None where samples are single images. Of two sets that are not
    paired, `image_b_NCHW`, `label_b_N` and `sample_b_N` are those of set b; otherwise the last two are None.
    """

    image_NCHW: Tensor
    label_N: Tensor
    sample_N: Tensor
    bad: tuple[BadSample, ...] = ()
    """Damaged samples that were asked for; the batch holds their stand-ins (micro-batches of a feed may be told of
    their neighbours')."""
    image_b_NCHW: Tensor | None = None
    label_b_N: Tensor | None = None
    sample_b_N: Tensor | None = None

    def __len__(self) -> int:
        return self.image_NCHW.shape[0]

    def part(self, cut: slice) -> Self:
        """Return some of the samples, without word of damage."""
        return replace(self._each(lambda tensor: tensor[cut]), bad=())

    def beside(self, other: Self) -> Self:
        """Return the batch with another one of as many samples as its images b."""
        return replace(
            self,
            bad=self.bad + other.bad,
            image_b_NCHW=other.image_NCHW,
            label_b_N=other.label_N,
            sample_b_N=other.sample_N,
        )

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the batch with all its tensors changed."""
        changed: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **changed)

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory (called by the DataLoader)."""
        return self._each(Tensor.pin_memory)

    def on_device(self, device: torch.device, flip_N: Tensor | None = None) -> Self:
        """Move to a device and map the pixels to the range the networks use.

        Args:
            device: where the networks are.
            flip_N: bool, shape [N]; images to mirror left-right, with their images b alike. None mirrors none.

        Returns:
            float32 images, -1..1; 0 -> -1 and 255 -> 1 exactly; channels_last.

        Raises:
            DataError: images are not uint8 (float images would be scaled twice).
        """
        flip_N = None if flip_N is None else flip_N.to(device)
        there = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        second = there.image_b_NCHW
        return replace(
            there,
            image_NCHW=_ready(there.image_NCHW, flip_N),
            image_b_NCHW=None if second is None else _ready(second, flip_N),
        )


def _ready(image_NCHW: Tensor, flip_N: Tensor | None) -> Tensor:
    image_NCHW = to_unit_range(image_NCHW)
    if flip_N is not None:
        image_NCHW = mirror(image_NCHW, flip_N)
    return image_NCHW.contiguous(memory_format=torch.channels_last)


def to_unit_range(image_NCHW: Tensor) -> Tensor:
    """Map uint8 0..255 to float32 -1..1; 0 -> -1 and 255 -> 1 exactly.

    Raises:
        DataError: dtype is not uint8.
    """
    if image_NCHW.dtype != torch.uint8:
        raise DataError(
            f"images are {image_NCHW.dtype}, not uint8, and would be scaled twice; hand over the batch as it was read"
        )
    return image_NCHW.float().sub_(HALF_RANGE).div_(HALF_RANGE)


def mirror(image_NCHW: Tensor, flip_N: Tensor) -> Tensor:
    """Mirror left-right the images whose `flip_N` is true."""
    assert flip_N.shape == image_NCHW.shape[:1], (
        f"one flip an image, got {tuple(flip_N.shape)} for {tuple(image_NCHW.shape)}"
    )
    return torch.where(flip_N.bool()[:, None, None, None], image_NCHW.flip(3), image_NCHW)
