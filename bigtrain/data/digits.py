"""The 1,797 handwritten digits that scikit-learn ships, as gray 32 px PNG shards.

The digits are the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI Machine
Learning Repository, doi:10.24432/C50P49, licence CC BY 4.0), as `sklearn.datasets.load_digits` gives them: 8x8 pixels
of 0..16, each the count of set pixels in a 4x4 block of a 32x32 bitmap that was thrown away.

Departs from plain interpolation: the 32x32 image is smooth, and the sum of each of its 4x4 blocks is exactly 255
times the original value, so that averaging it to 8x8 and scaling by 16/255 gives the original digit back without
error.
Axes: N digits, B height and width in blocks (8), S pixels inside a block (16), H height, W width.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bigtrain.data.index import FolderIndex
from bigtrain.data.pixels import encode
from bigtrain.data.shuffle import permutation
from bigtrain.data.writer import Encoded, commit, write_shard, writing

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

BLOCK = 4  # pixels of the image per pixel of the original, both ways
DIGIT_MAX = 16  # largest value of an original pixel
WHITE = 255
NUM_SHARDS = 4
ROUNDS = 16  # smoothing and correction alternate; by eye nothing changes after about 10
CORRECTIONS = 3  # of the block means between two smoothings; the last projection is exact anyway
BISECTIONS = 40  # 510 / 2**40: far under a rounding error
SOURCE = (
    "UCI Optical Recognition of Handwritten Digits (doi:10.24432/C50P49, CC BY 4.0), test part, "
    "through sklearn.datasets.load_digits"
)


def write_digits(folder: Path, seed: int = 0) -> FolderIndex:
    """Write the digits as shards into `folder`, replacing the shards there.

    Raises:
        DataError: another process writes there.
    """
    from sklearn.datasets import load_digits  # heavy, and needed for this data set alone

    value_NBB, label_N = load_digits(return_X_y=True)
    pixels_NHW = enlarge(value_NBB.reshape(-1, 8, 8))
    order = permutation(len(pixels_NHW), "digits", seed)
    index = FolderIndex(
        resolution=(pixels_NHW.shape[1], pixels_NHW.shape[2]),
        channels=1,
        image_format="png",
        classes=tuple(str(digit) for digit in range(10)),
        resize={"filter": "block_exact"},
        seed=seed,
        source=SOURCE,
        shards=(),
    )
    with writing(folder):
        written, first_key = [], 0
        for number, part in enumerate(np.array_split(order, NUM_SHARDS)):
            samples = (Encoded(encode(pixels_NHW[at], "png"), int(label_N[at])) for at in part)
            written.append(write_shard(folder, number, first_key, "png", samples))
            first_key += len(part)
        return commit(folder, index, written)


def enlarge(value_NBB: Floats) -> Pixels:
    """Enlarge digits four times so that they look like strokes and average back exactly.

    Args:
        value_NBB: whole numbers 0..16.

    Returns:
        uint8 [N, 4B, 4B]; the sum of each 4x4 block is 255 times its value.
    """
    mean_NBB = value_NBB * (WHITE / DIGIT_MAX)
    pixels_NHW = np.repeat(np.repeat(mean_NBB, BLOCK, axis=1), BLOCK, axis=2)
    for _ in range(ROUNDS):
        pixels_NHW = _correct(_smooth(pixels_NHW), mean_NBB)
    return _round_blocks(_project(pixels_NHW, mean_NBB), value_NBB)


def _smooth(pixels_NHW: Floats) -> Floats:
    """Blur by the binomial filter [1, 2, 1] / 4 in both directions, edges repeated."""
    for axis in (1, 2):
        padded = np.pad(pixels_NHW, [(1, 1) if at == axis else (0, 0) for at in range(3)], mode="edge")
        before, here, after = (
            np.take(padded, range(shift, shift + pixels_NHW.shape[axis]), axis=axis) for shift in range(3)
        )
        pixels_NHW = (before + 2 * here + after) / 4
    return pixels_NHW


def _correct(pixels_NHW: Floats, mean_NBB: Floats) -> Floats:
    """Move each block towards its mean inside 0..255."""
    block_NBBS = _to_blocks(pixels_NHW)
    for _ in range(CORRECTIONS):
        block_NBBS = np.clip(block_NBBS + (mean_NBB - block_NBBS.mean(-1))[..., None], 0, WHITE)
    return _from_blocks(block_NBBS)


def _project(pixels_NHW: Floats, mean_NBB: Floats) -> Floats:
    """Return the nearest image inside 0..255 with the given block means: one shift a block, clipped, by bisection."""
    block_NBBS = _to_blocks(pixels_NHW)
    low, high = np.full(mean_NBB.shape, -float(WHITE)), np.full(mean_NBB.shape, float(WHITE))
    for _ in range(BISECTIONS):
        shift = (low + high) / 2
        too_dark = np.clip(block_NBBS + shift[..., None], 0, WHITE).mean(-1) < mean_NBB
        low, high = np.where(too_dark, shift, low), np.where(too_dark, high, shift)
    return _from_blocks(np.clip(block_NBBS + high[..., None], 0, WHITE))


def _round_blocks(pixels_NHW: Floats, value_NBB: Floats) -> Pixels:
    """Round to uint8 with block sums of exactly 255 times the value: the largest fractions of a block go
    up."""
    block_NBBS = _to_blocks(pixels_NHW)
    floor_NBBS = np.floor(block_NBBS)
    missing_NBB = value_NBB * WHITE - floor_NBBS.sum(-1)
    rank_NBBS = np.argsort(np.argsort(floor_NBBS - block_NBBS, axis=-1, kind="stable"), axis=-1)
    whole_NBBS = floor_NBBS + (rank_NBBS < missing_NBB[..., None])
    return _from_blocks(whole_NBBS).astype(np.uint8)


def _to_blocks(pixels_NHW: Floats) -> Floats:
    count, height, width = pixels_NHW.shape
    split = pixels_NHW.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return split.transpose(0, 1, 3, 2, 4).reshape(count, height // BLOCK, width // BLOCK, BLOCK * BLOCK)


def _from_blocks(block_NBBS: Floats) -> Floats:
    count, rows, columns, _ = block_NBBS.shape
    split = block_NBBS.reshape(count, rows, columns, BLOCK, BLOCK).transpose(0, 1, 3, 2, 4)
    return split.reshape(count, rows * BLOCK, columns * BLOCK)
