"""Images of any size become the model's, by a stated filter; what cannot be read is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigtrain.evaluation.projection.targets import read_targets
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.image import ImageSpec


def write(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def test_an_image_of_the_models_size_is_read_pixel_for_pixel(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    targets = read_targets([write(tmp_path / "a.png", pixels)], ImageSpec(16, 3, 0), "lanczos")
    assert torch.equal(targets.image_NCHW[0], torch.from_numpy(pixels.astype(np.uint8)).permute(2, 0, 1))
    assert targets.names == ("a",)


@pytest.mark.parametrize("resize", ["lanczos", "bicubic", "box"])
def test_other_sizes_keep_the_middle_and_the_proportions(tmp_path: Path, resize: str):
    pixels = np.zeros((40, 120, 3))
    pixels[:, 40:80] = 200  # the middle square of 40 px
    pixels[:, 40:60, 0] = 100
    targets = read_targets([write(tmp_path / "a.png", pixels)], ImageSpec(16, 3, 0), resize)
    assert targets.image_NCHW.shape == (1, 3, 16, 16)
    assert (targets.image_NCHW[0, 1] == 200).all()
    assert (targets.image_NCHW[0, 0, :, :6] == 100).all()
    assert (targets.image_NCHW[0, 0, :, -6:] == 200).all()


def test_images_that_are_not_square_and_small_ones_fit(tmp_path: Path):
    path = write(tmp_path / "a.png", np.full((3, 5), 90))
    targets = read_targets([path, path], ImageSpec(16, 1, 0, width=8), "bicubic")
    assert targets.image_NCHW.shape == (2, 1, 16, 8)
    assert (targets.image_NCHW == 90).all()
    assert targets.names == ("a", "a-2")


def test_what_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "text.png").write_text("no image")
    whole = write(tmp_path / "whole.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3)))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:2000])
    for name in ("text.png", "cut.png", "missing.png"):
        with pytest.raises(DataError, match=rf"{name}.*name a JPEG"):
            read_targets([tmp_path / name], ImageSpec(16, 3, 0), "box")
