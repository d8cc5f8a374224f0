"""The classifier as torch-fidelity wants its extractors: a module of its base class, made from a weight file.

This file alone imports torch-fidelity when it is imported; import it late.

Axes: N images, C channels, H height, W width, D features, K classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from bigtrain.metrics.extractors.classifier import network_from_bytes
from bigtrain.recipe.errors import WeightsError

FEATURES = "features"
LOGITS = "logits"


class FidelityClassifier(FeatureExtractorBase):  # type: ignore[misc]
    """Extractor "bigtrain-classifier" of torch-fidelity, with the layers "features" and "logits"."""

    def __init__(
        self, name: str, features_list: Sequence[str], feature_extractor_weights_path: str | None = None, **kwargs: Any
    ) -> None:
        """Load the network.

        Raises:
            WeightsError: no weight file is named, or it is no trained classifier.
        """
        super().__init__(name, features_list)
        if feature_extractor_weights_path is None or not Path(feature_extractor_weights_path).is_file():
            raise WeightsError(
                f"'{name}' needs the file of a trained classifier, got {feature_extractor_weights_path}; pass the path "
                "that ClassifierSettings.cache_path names as feature_extractor_weights_path"
            )
        try:
            self.classifier = network_from_bytes(Path(feature_extractor_weights_path).read_bytes())
        except ValueError as error:
            raise WeightsError(
                f"{feature_extractor_weights_path} is no trained classifier: {error}; train it again"
            ) from error

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        """Map uint8 [N, C, H, W] to the requested layers, float32: features [N, D], logits [N, K]."""
        feature_ND, logit_NK = self.classifier(input)
        layers = {FEATURES: feature_ND, LOGITS: logit_NK}
        return tuple(layers[name] for name in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Name the layers."""
        return FEATURES, LOGITS

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """Name the layer that a metric reads: logits for the inception score, features for distances."""
        return LOGITS if metric == "isc" else FEATURES

    @staticmethod
    def can_be_compiled() -> bool:
        """Say yes: nothing in it depends on values."""
        return True

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        """Return one small RGB image."""
        return torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
