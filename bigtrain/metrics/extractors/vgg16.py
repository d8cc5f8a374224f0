"""VGG16 features (Simonyan and Zisserman 2015, arXiv:1409.1556), those of improved precision and recall
(Kynkaanniemi et al. 2019, arXiv:1904.06991).

The network is torchvision's in torch-fidelity's form: the second fully connected layer after its ReLU, of images
brought to 224 px as TensorFlow 1 does. The weights are torchvision's file.

Axes: N images, C channels, H height, W width, D features.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from bigtrain.metrics.exchange import Ranks, from_main
from bigtrain.metrics.extractors.plain import fidelity_module
from bigtrain.metrics.features import EXTRACTORS, Extractor, RealSet, require_gray_or_rgb, with_channels
from bigtrain.metrics.weights import VGG16, WeightStore
from bigtrain.recipe.settings import Settings

FIDELITY_NAME = "vgg16"
LAYER = "fc2_relu"


@EXTRACTORS.add("vgg16")
class Vgg16Settings(Settings):
    """VGG16 features, in which papers state precision and recall: `prdc_vgg16`."""

    kind: Literal["vgg16"] = "vgg16"
    """Which extractor."""
    weights: str | None = None
    """Path of the weight file, or of a folder that holds it; None: torchvision's own, from BIGTRAIN_WEIGHTS or torch's
    cache, downloaded where it is not there and there is a network."""

    def build(
        self, real: RealSet, cache: Path, device: torch.device, ranks: Ranks, weights: WeightStore | None = None
    ) -> Extractor:
        """Return the extractor; `cache` is not used.

        Raises:
            WeightsError: the file is missing and cannot be had, damaged, or holds another network.
            RecipeError: images with an alpha channel.
        """
        require_gray_or_rgb(real.image, "vgg16")
        found = from_main(ranks, lambda: (weights or WeightStore()).get(VGG16, self.weights))
        module = fidelity_module(FIDELITY_NAME, [LAYER], VGG16, found)
        return Extractor(
            network=_Gray(module).to(device).eval(),
            name=FIDELITY_NAME,
            figure_prefix="fd_vgg16",
            kernel_prefix="kd_vgg16",
            dims=_width(module),
            fingerprint=found.sha256,
            facts={"layer": LAYER, "resize": "bilinear as TensorFlow 1 has it, to 224 px", **found.facts},
            device=device,
        )


def _width(module: nn.Module) -> int:
    """Return how many features the last layer has."""
    *_, last = (layer for layer in module.modules() if isinstance(layer, nn.Linear))
    return last.out_features


class _Gray(nn.Module):
    """torch-fidelity's module with one tensor out, for gray images too."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image_NCHW: Tensor) -> Tensor:
        """Map uint8 [N, 1 or 3, H, W] to float32 [N, D]."""
        (feature_ND,) = self.module(with_channels(image_NCHW, 3))
        return feature_ND  # type: ignore[no-any-return]
