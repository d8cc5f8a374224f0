"""Mean and covariance of real features in an `.npz`: `mu` [D] and `sigma` [D, D], as pytorch-fid, ADM's evaluator and
others write and read them.

Such a file says nothing of the images themselves, so only Frechet distances can be taken to it. That its features are
those of the extractor, weights and resize included, is for the user to know. ADM's files hold further arrays (`mu_s`,
`sigma_s`, images): they are left alone.

Axes: D features.
"""

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bigtrain.metrics.frechet import Law
from bigtrain.recipe.errors import DataError
from bigtrain.recipe.image import ImageSpec

MEAN, COVARIANCE = "mu", "sigma"


@dataclass(frozen=True)
class RealMoments:
    """What is known of real images whose mean and covariance alone are there."""

    image: ImageSpec
    """What generated images are."""
    mean_D: Tensor
    """float64."""
    covariance_DD: Tensor
    """float64, symmetric, by whatever divisor the file's tool has."""
    content_hash: str
    """sha256 of both."""


def holds_moments(path: Path) -> bool:
    """Tell whether a file is an `.npz` with a mean and a covariance."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {f"{MEAN}.npy", f"{COVARIANCE}.npy"} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def read_moments(path: Path, image: ImageSpec) -> RealMoments:
    """Return the mean and covariance in an `.npz`.

    Args:
        path: the file.
        image: what the images are that are to be compared with it.

    Raises:
        DataError: it holds none, or they do not fit each other.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mean_D, covariance_DD = (np.asarray(arrays[name], dtype=np.float64) for name in (MEAN, COVARIANCE))
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read as statistics ({error}); name an .npz with '{MEAN}' [D] and '{COVARIANCE}' [D, D]"
        ) from error
    dims = mean_D.size
    if mean_D.shape != (dims,) or covariance_DD.shape != (dims, dims) or dims == 0:
        raise DataError(
            f"{path} has '{MEAN}' {list(mean_D.shape)} and '{COVARIANCE}' {list(covariance_DD.shape)}; these are [D] "
            "and [D, D] in files that can be used"
        )
    if not (np.isfinite(mean_D).all() and np.isfinite(covariance_DD).all()):
        raise DataError(f"{path} holds numbers that are not finite; write it again")
    digest = hashlib.sha256(mean_D.tobytes() + covariance_DD.tobytes()).hexdigest()
    covariance = torch.from_numpy((covariance_DD + covariance_DD.T) / 2)
    return RealMoments(image, torch.from_numpy(mean_D), covariance, digest)


def write_moments(path: Path, law: Law) -> None:
    """Write a mean and covariance as such a file, aside and renamed.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside-{os.getpid()}")
    try:
        with aside.open("wb") as stream:
            np.savez(stream, mu=law.mean_D.numpy(), sigma=law.covariance_DD.numpy())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
