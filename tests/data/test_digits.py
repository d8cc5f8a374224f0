"""The digits: the originals, exactly, behind a smooth picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bigtrain.data.digits import enlarge, write_digits
from bigtrain.data.shards import ShardSet


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    return ShardSet.open(folder)


def test_the_1797_digits_average_back_to_the_originals_without_error(digits):
    batch = digits.load(digits.numbers())
    box_NBB = batch.image_NCHW[:, 0].numpy().reshape(-1, 8, 4, 8, 4).astype(np.int64).sum((2, 4))
    value_NBB, label_N = load_digits(return_X_y=True)
    stored = sorted(
        (label, tuple(box.ravel().tolist())) for label, box in zip(batch.label_N.tolist(), box_NBB, strict=True)
    )
    original = sorted(
        (int(label), tuple((255 * value).astype(int).tolist())) for label, value in zip(label_N, value_NBB, strict=True)
    )
    assert stored == original


def test_it_is_a_gray_32_pixel_set_of_ten_mixed_classes_in_four_shards(digits):
    assert (digits.spec.side, digits.spec.channels, digits.spec.num_classes) == (32, 1, 10)
    assert digits.class_names == tuple("0123456789")
    assert len(digits.index.shards) == 4
    assert digits.label_counts.sum() == digits.num_samples == 1797
    assert all(len(entry.class_histogram) == 10 for entry in digits.index.shards)
    assert "optdigits" in digits.index.source.lower() or "Optical Recognition" in digits.index.source


def test_strokes_are_smooth_not_blocks():
    value_NBB = load_digits().images[:200]
    blocks_NHW = np.kron(value_NBB, np.ones((1, 4, 4))) * 255 / 16
    pixels_NHW = enlarge(value_NBB).astype(float)
    roughness = [np.square(np.diff(image_NHW, axis=2)).mean() for image_NHW in (pixels_NHW, blocks_NHW)]
    assert roughness[0] < 0.6 * roughness[1]


def test_writing_them_again_gives_the_same_bytes(digits, tmp_path):
    again = write_digits(tmp_path)
    assert again == digits.index
    for entry in again.shards:
        assert (tmp_path / entry.name).read_bytes() == (Path(digits.where) / entry.name).read_bytes()
    assert torch.equal(ShardSet.open(tmp_path).load([3]).image_NCHW, digits.load([3]).image_NCHW)
