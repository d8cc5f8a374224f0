"""Inception v3 features, those of the Frechet Inception distance (Heusel et al. 2017, arXiv:1706.08500).

The network is torch-fidelity's port of the TensorFlow graph of 2015-12-05, its 2,048 pooled features and its logits
without bias (which the inception score reads). Everything about the weight file is checked before training starts, and
nothing waits for a network that is not there (see `weights`).

Axes: N images, C channels, H height, W width, D features, K classes.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from bigtrain.metrics.exchange import Ranks, from_main
from bigtrain.metrics.extractors.clean_resize import CleanResized
from bigtrain.metrics.extractors.plain import fidelity_module
from bigtrain.metrics.features import EXTRACTORS, Extractor, RealSet, require_gray_or_rgb, with_channels
from bigtrain.metrics.weights import INCEPTION, Found, WeightStore
from bigtrain.recipe.settings import Settings

FIDELITY_NAME = "inception-v3-compat"
CLEAN_NAME = "inception-v3-compat-clean"  # unknown to torch-fidelity
RESIZES = {"tensorflow": "bilinear as TensorFlow 1 has it", "clean": "bicubic with antialiasing as clean-fid has it"}
LAYERS = ("2048", "logits_unbiased")
DIMS = 2048
NUM_LOGITS = 1008


@EXTRACTORS.add("inception")
class InceptionSettings(Settings):
    """Inception v3 pool features: `fid`, `kid`, `is`."""

    kind: Literal["inception"] = "inception"
    """Which extractor."""
    weights: str | None = None
    """Path of the weight file, or of a folder that holds it; None: torch-fidelity's own, from BIGTRAIN_WEIGHTS or
    torch's cache, downloaded where it is not there and there is a network."""
    resize: Literal["tensorflow", "clean"] = "tensorflow"
    """How images come to 299 pixels: bilinear as in TensorFlow 1, or bicubic with antialiasing as in clean-fid."""

    def build(
        self, real: RealSet, cache: Path, device: torch.device, ranks: Ranks, weights: WeightStore | None = None
    ) -> Extractor:
        """Return the extractor; `cache` is not used.

        Raises:
            WeightsError: the file is missing and cannot be had, damaged, or holds another network.
            RecipeError: images with an alpha channel.
        """
        require_gray_or_rgb(real.image, "inception")
        found = from_main(ranks, lambda: (weights or WeightStore()).get(INCEPTION, self.weights))
        return load_inception(found, device, self.resize)


def load_inception(found: Found, device: torch.device, resize: str = "tensorflow") -> Extractor:
    """Return the extractor with the weights of a file.

    Raises:
        WeightsError: the file is damaged, is no file of plain tensors, or holds another network.
    """
    module = fidelity_module(FIDELITY_NAME, LAYERS, INCEPTION, found)
    is_clean = resize == "clean"
    return Extractor(
        network=_Pooled(CleanResized(module) if is_clean else module).to(device).eval(),
        name=CLEAN_NAME if is_clean else FIDELITY_NAME,
        figure_prefix="fid",
        kernel_prefix="kid",
        dims=DIMS,
        fingerprint=found.sha256,
        facts={"layer": LAYERS[0], "logits": LAYERS[1], "resize": f"{RESIZES[resize]}, to 299 px", **found.facts},
        device=device,
        num_logits=NUM_LOGITS,
        score_prefix="inception_score",
    )


class _Pooled(nn.Module):
    """torch-fidelity's module, for gray images too."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 [N, 1 or 3, H, W] to features, float32 [N, 2048], and logits, float32 [N, 1008]."""
        feature_ND, logit_NK = self.module(with_channels(image_NCHW, 3))
        return feature_ND, logit_NK
