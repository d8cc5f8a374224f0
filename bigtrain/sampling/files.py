"""Images as files: PNG (lossless), folders of PNGs, and `.npz`, each written aside and renamed, so never half there.

Axes: N images, C channels, H height, W width.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bigtrain.recipe.errors import UsageError

_SUPPORTED_CHANNELS = (1, 3, 4)  # gray, RGB, RGBA


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """Give a stream beside `path`; on leaving it is flushed to disk and renamed to `path`, on an error it is removed.

    Folders are made as needed. A reader sees the old file or the whole new one.

    Raises:
        OSError: the folder cannot be written or the disk is full; `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside-{os.getpid()}")
    try:
        with aside.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Make sure on entering that `path` can be written, before work is spent, and tell a user if it fails inside.

    Folders are made as needed.

    Raises:
        UsageError: it is a folder, it or what is written beside it cannot be written, or the disk is full.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file, in it or elsewhere")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.aside-{os.getpid()}")
        aside.touch()
        aside.unlink()
        yield
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}); make room, or name another place") from error


def save_png(path: Path, image_CHW: Tensor) -> Path:
    """Write one image as PNG, pixel for pixel: gray for one channel, RGB for three, RGBA for four.

    Args:
        path: where to; an existing file is replaced whole.
        image_CHW: uint8, on any device.
    Returns:
        The path.
    Raises:
        OSError: see `written_aside`.
    """
    _assert_pixels(image_CHW)
    image_HWC = image_CHW.permute(1, 2, 0).contiguous().cpu().numpy()
    with written_aside(path) as stream:
        Image.fromarray(image_HWC[:, :, 0] if image_HWC.shape[2] == 1 else image_HWC).save(stream, format="PNG")
    return path


def save_folder(folder: Path, image_NCHW: Tensor, names: Sequence[str]) -> list[Path]:
    """Write image i as `folder/names[i].png` and return the paths.

    Raises:
        OSError: see `written_aside`; images before the failing one are there.
    """
    assert len(names) == len(image_NCHW), f"{len(image_NCHW)} images but {len(names)} names"
    return [save_png(folder / f"{name}.png", image_CHW) for name, image_CHW in zip(names, image_NCHW, strict=True)]


def save_npz(path: Path, image_NCHW: Tensor, label_N: Tensor | None = None) -> Path:
    """Write images as `arr_0`, uint8 [N, H, W, C], and labels as `arr_1`, int64 [N], the layout evaluation suites read.

    Raises:
        OSError: see `written_aside`.
    """
    _assert_pixels(image_NCHW[0] if len(image_NCHW) else image_NCHW.new_empty(1, 1, 1))
    arrays = [image_NCHW.permute(0, 2, 3, 1).contiguous().cpu().numpy()]
    if label_N is not None:
        assert len(label_N) == len(image_NCHW), f"{len(image_NCHW)} images but {len(label_N)} labels"
        arrays.append(label_N.cpu().numpy().astype(np.int64))
    with written_aside(path) as stream:
        np.savez(stream, *arrays)
    return path


def _assert_pixels(image_CHW: Tensor) -> None:
    assert image_CHW.dtype == torch.uint8, f"image files hold uint8 pixels, got {image_CHW.dtype}"
    assert image_CHW.ndim == 3, f"an image has shape [C, H, W], got {tuple(image_CHW.shape)}"
    assert image_CHW.shape[0] in _SUPPORTED_CHANNELS, f"an image has 1, 3 or 4 channels, got {image_CHW.shape[0]}"
