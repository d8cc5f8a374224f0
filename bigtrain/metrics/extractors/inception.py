"""Inception v3 features, those of the Frechet Inception distance (Heusel et al. 2017, arXiv:1706.08500).

The network is torch-fidelity's port of the TensorFlow graph of 2015-12-05 (its resizing included), its 2,048 pooled
features. The weights are a file: one named in the recipe, or the one that torch-fidelity downloads, looked for and kept
at the place where torch-fidelity keeps it. Everything is checked before training starts, and nothing waits for a
network that is not there.

torch-fidelity unpickles the file in a way that can run code, so a file is accepted only when it is the published one,
by its sha256, or when torch reads it as plain tensors.

Axes: N images, C channels, H height, W width, D features.
"""

import hashlib
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from torch import Tensor, nn

from bigtrain.metrics.exchange import Ranks, from_main
from bigtrain.metrics.extractors.clean_resize import CleanResized
from bigtrain.metrics.features import EXTRACTORS, Extractor, RealImages, with_channels
from bigtrain.recipe.errors import RecipeError, WeightsError
from bigtrain.recipe.settings import Settings

FIDELITY_NAME = "inception-v3-compat"
CLEAN_NAME = "inception-v3-compat-clean"  # unknown to torch-fidelity
RESIZES = {"tensorflow": "bilinear as TensorFlow 1 has it", "clean": "bicubic with antialiasing as clean-fid has it"}
LAYER = "2048"
LOGITS_LAYER = "logits_unbiased"  # what the inception score reads, as in the code of its authors
DIMS = 2048
NUM_LOGITS = 1008
WEIGHTS_FILE = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS_FILE}"
WEIGHTS_SHA256_START = "6726825d"  # carried in the file's name
DOWNLOAD_TIMEOUT_S = 20.0  # without a byte
DOWNLOAD_CHUNK_BYTES = 1 << 20


@EXTRACTORS.add("inception")
class InceptionSettings(Settings):
    """Inception v3 pool features: `fid` and `kid`."""

    kind: Literal["inception"] = "inception"
    """Which extractor."""
    weights: str | None = None
    """Path of the weight file; None: torch-fidelity's own, downloaded where it is not there and there is a network."""
    resize: Literal["tensorflow", "clean"] = "tensorflow"
    """How images come to 299 pixels: bilinear as in TensorFlow 1, or bicubic with antialiasing as in clean-fid."""

    def build(self, real: RealImages, cache: Path, device: torch.device, ranks: Ranks) -> Extractor:
        """Return the extractor; `cache` is not used.

        Raises:
            WeightsError: the file is missing and cannot be had, damaged, or holds another network.
            RecipeError: images with an alpha channel.
        """
        if real.image.channels not in (1, 3):
            raise RecipeError(
                f"evaluate.extractor.kind: inception reads gray or RGB images, and the shards have "
                f"{real.image.channels} channels; use the classifier extractor"
            )
        path = from_main(ranks, lambda: find_weights(self.weights))
        return load_inception(path, device, self.resize)


def default_weights_path() -> Path:
    """Return where torch-fidelity looks for its Inception weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE


def find_weights(given: str | None) -> Path:
    """Return the path of a weight file that exists, downloading torch-fidelity's when none is given and none is there.

    Raises:
        WeightsError: there is none; the sentence names the file and the places for it.
    """
    if given is not None:
        if not Path(given).is_file():
            raise WeightsError(
                f"Inception weights '{given}' (evaluate.extractor.weights) are no file; put {WEIGHTS_FILE} there, or "
                f"leave the key out and put it at {default_weights_path()}"
            )
        return Path(given)
    path = default_weights_path()
    if path.is_file():
        return path
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise _missing(path, "HF_HUB_OFFLINE forbids a download")
    try:
        _download(path)
    except OSError as error:
        raise _missing(path, f"the download failed ({error})") from error
    return path


def _missing(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"Inception weights are not at {path}, and {reason}; fetch {WEIGHTS_URL} on a machine with internet and put it "
        "there, or name its path in evaluate.extractor.weights, or use the classifier extractor"
    )


def _download(path: Path) -> None:
    """Fetch the published file, check its sha256 and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside-{os.getpid()}")
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(WEIGHTS_URL, timeout=DOWNLOAD_TIMEOUT_S) as source, aside.open("wb") as stream:
            while chunk := source.read(DOWNLOAD_CHUNK_BYTES):
                digest.update(chunk)
                stream.write(chunk)
        if not digest.hexdigest().startswith(WEIGHTS_SHA256_START):
            raise OSError(f"sha256 {digest.hexdigest()} does not start with {WEIGHTS_SHA256_START}")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def load_inception(path: Path, device: torch.device, resize: str = "tensorflow") -> Extractor:
    """Return the extractor with the weights in `path`.

    Raises:
        WeightsError: the file is damaged, is no file of plain tensors, or holds another network.
    """
    # Imported late: it draws in torchvision, and a recipe is checked without either.
    from torch_fidelity.utils import create_feature_extractor

    with path.open("rb") as stream:
        fingerprint = hashlib.file_digest(stream, "sha256").hexdigest()
    if not fingerprint.startswith(WEIGHTS_SHA256_START):
        with _explained(path, fingerprint):
            torch.load(path, map_location="cpu", weights_only=True)
    with _explained(path, fingerprint):
        module = create_feature_extractor(
            FIDELITY_NAME, [LAYER, LOGITS_LAYER], cuda=False, verbose=False, feature_extractor_weights_path=str(path)
        )
    is_clean = resize == "clean"
    return Extractor(
        network=_Pooled(CleanResized(module) if is_clean else module).to(device).eval(),
        name=CLEAN_NAME if is_clean else FIDELITY_NAME,
        figure_prefix="fid",
        kernel_prefix="kid",
        dims=DIMS,
        fingerprint=fingerprint,
        facts={"layer": LAYER, "resize": f"{RESIZES[resize]}, to 299 px"},
        device=device,
        num_logits=NUM_LOGITS,
        score_prefix="inception_score",
    )


@contextmanager
def _explained(path: Path, fingerprint: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, UnpicklingError, EOFError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"Inception weights {path} (sha256 {fingerprint[:16]}) cannot be read: {reason}; the file that "
            f"torch-fidelity publishes is {WEIGHTS_FILE}, its sha256 starts with {WEIGHTS_SHA256_START}: fetch it again"
        ) from error


class _Pooled(nn.Module):
    """torch-fidelity's module, for gray images too."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 [N, 1 or 3, H, W] to features, float32 [N, 2048], and logits, float32 [N, 1008]."""
        feature_ND, logit_NK = self.module(with_channels(image_NCHW, 3))
        return feature_ND, logit_NK
