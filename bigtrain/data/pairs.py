"""Samples of two images that belong together: how they are stored, and how they are decoded.

By members: `KEY.a.png` and `KEY.b.png`. By halves: one image, whose left half is the first one (a) and whose right
half is the second (b), as the data sets of pix2pix (Isola et al. 2017, arXiv:1611.07004) come. Both images of a pair
have one size.

Axes: H height, W width, C channels.
"""

from collections.abc import Callable, Sequence

import numpy as np

from bigtrain.data.decode import Pixels, decode_into
from bigtrain.data.index import FolderIndex, Pairing
from bigtrain.data.reader import Sample

IMAGES_EACH: dict[Pairing, int] = {"none": 1, "members": 2, "halves": 2}
SIDES = ("a", "b")


def decode_sample(sample: Sample, index: FolderIndex, images: Sequence[Pixels], max_pixels: int) -> None:
    """Decode a sample into its places in a batch.

    Args:
        sample: as read.
        index: says what its images are.
        images: uint8, C-contiguous, shape [height, width, channels], as many as a sample has images; overwritten.
        max_pixels: of one stored image; what claims more is refused before anything is decompressed.

    Raises:
        ValueError: says why an image is refused (a phrase that continues "the image ...").
    """
    _DECODERS[index.pairing](sample, index, images, max_pixels)


def _single(sample: Sample, index: FolderIndex, images: Sequence[Pixels], max_pixels: int) -> None:
    decode_into(sample.data, index.spec, images[0], max_pixels)


def _members(sample: Sample, index: FolderIndex, images: Sequence[Pixels], max_pixels: int) -> None:
    assert sample.data_b is not None, sample.place
    for side, data, out_HWC in zip(SIDES, (sample.data, sample.data_b), images, strict=True):
        try:
            decode_into(data, index.spec, out_HWC, max_pixels)
        except ValueError as error:
            raise ValueError(f"{side} {error}") from error


def _halves(sample: Sample, index: FolderIndex, images: Sequence[Pixels], max_pixels: int) -> None:
    stored = index.stored_spec
    whole_HWC = np.empty((*stored.size, stored.channels), dtype=np.uint8)
    decode_into(sample.data, stored, whole_HWC, max_pixels)
    for out_HWC, half_HWC in zip(images, np.split(whole_HWC, 2, axis=1), strict=True):
        out_HWC[:] = half_HWC


_DECODERS: dict[Pairing, Callable[[Sample, FolderIndex, Sequence[Pixels], int], None]] = {
    "none": _single,
    "members": _members,
    "halves": _halves,
}
